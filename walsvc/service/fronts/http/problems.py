"""Errors of the HTTP front as problem+json (RFC 9457): each class of the log's errors has its status."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from walsvc import errors
from walsvc.visible import visible

# The first that fits counts, so subclasses stand before their bases.
STATUS: tuple[tuple[type[errors.WalError], int], ...] = (
    (errors.Conflict, 412),
    (errors.RecordTooLarge, 413),
    (errors.BadOption, 400),
    (errors.BadPayload, 400),
    (errors.Denied, 403),
    (errors.Truncated, 410),
    (errors.LeaseLost, 409),
    (errors.InUse, 409),
    (errors.Backpressure, 429),
    (errors.NoSpace, 507),
    (errors.WalTimeout, 504),
    (errors.ReplicaLost, 503),
    (errors.Closed, 503),
    (errors.Locked, 503),
    (errors.WalError, 500),
)
# The hints for errors whose own hint names calls of Python programs.
HINTS: dict[type[errors.WalError], str] = {
    errors.RecordTooLarge: "send less at a time, or start the server with larger limits: --set max_record_bytes=..., frame_bytes, max_batch_bytes",
    errors.LeaseLost: "lease again; a longer lease, or extend in time, keeps a record",
    errors.InUse: "end what has it open first, or leave the option out; nothing was changed",
    errors.Closed: "try again in a moment; a log that was sealed can only be read",
    errors.DurabilityLost: "see the server's log; send the request again with the same Idempotency-Key once the server works",
}
# The class of the log's errors that an error of the front itself counts as; HTTP alone has its other statuses.
COUNTS_AS: dict[int, type[errors.WalError]] = {
    400: errors.BadOption,
    403: errors.Denied,
    409: errors.InUse,
    429: errors.Backpressure,
}
RETRY = {429: "1", 503: "5"}  # Retry-After, in seconds


class HttpError(Exception):
    """An error of the front itself, which no log has raised.

    Args:
        status: of the answer.
        detail: what is wrong, in words.
        hint: what to do.
        headers: of the answer.
    """

    def __init__(
        self, status: int, detail: str, hint: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.hint = hint
        self.headers: dict[str, str] = dict(headers or {})


def problem_of(error: Exception, path: str) -> web.Response:
    """Turn an error into the answer to its request."""
    if isinstance(error, HttpError):
        kind = COUNTS_AS.get(error.status)
        named = {"type": "about:blank"} if kind is None else type_of(kind)
        told = {**named, "detail": visible(error.detail), "hint": error.hint}
        return problem(error.status, path, told, error.headers)
    assert isinstance(error, errors.WalError)
    status = next(status for kind, status in STATUS if isinstance(error, kind))
    document: dict[str, Any] = {
        **type_of(type(error)),
        "detail": visible(error.message),
        "hint": hint_of(error),
        "lsn": error.lsn,
        "segment": error.segment,
        "offset": error.offset,
        "expected": error.expected,
        "actual": error.actual,
    }
    headers = {"Retry-After": RETRY[status]} if status in RETRY else {}
    if isinstance(error, errors.Conflict):
        headers["ETag"] = f'"{error.actual}"'
    return problem(status, path, document, headers)


def type_of(kind: type[errors.WalError]) -> dict[str, str]:
    """The type of a problem, by the name of the error's class."""
    return {"type": f"urn:walsvc:{kind.__name__}", "title": kind.__name__}


def hint_of(error: errors.WalError) -> str | None:
    """The error's hint in the words of HTTP."""
    if isinstance(error, errors.Conflict):
        return f'read what was appended since, decide again, and send If-Match: "{error.actual}"'
    if isinstance(error, errors.Truncated):
        return "read from a later LSN, or without start=; a queue goes on by POST .../seek"
    return next((hint for kind, hint in HINTS.items() if isinstance(error, kind)), error.hint)


def problem(status: int, path: str, document: Mapping[str, Any], headers: Mapping[str, str]) -> web.Response:
    """An answer of type application/problem+json; what is None in the document is left out."""
    told = {
        "status": status,
        "instance": path,
        **{name: value for name, value in document.items() if value is not None},
    }
    return web.Response(
        status=status, body=json_line(told).encode(), content_type="application/problem+json", headers=headers
    )


def json_line(document: Any) -> str:
    """Encode a document as JSON with an end of line: the prompt of a terminal stands below it, not behind it."""
    return json.dumps(document, default=str) + "\n"
