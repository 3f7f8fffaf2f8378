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
RETRY = {429: "1", 503: "5"}  # Retry-After, in seconds


class HttpError(Exception):
    """An answer that is no log's error.

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
    """The answer to a request that met an error."""
    if isinstance(error, HttpError):
        blank = {"type": "about:blank", "detail": visible(error.detail), "hint": error.hint}
        return problem(error.status, path, blank, error.headers)
    assert isinstance(error, errors.WalError)
    status = next(status for kind, status in STATUS if isinstance(error, kind))
    name = type(error).__name__
    document: dict[str, Any] = {
        "type": f"urn:walsvc:{name}",
        "title": name,
        "detail": visible(error.message),
        "hint": error.hint,
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


def problem(status: int, path: str, document: Mapping[str, Any], headers: Mapping[str, str]) -> web.Response:
    """An answer of type application/problem+json; what is None in the document is left out."""
    told = {
        "status": status,
        "instance": path,
        **{name: value for name, value in document.items() if value is not None},
    }
    body = json.dumps(told, default=str).encode()
    return web.Response(status=status, body=body, content_type="application/problem+json", headers=headers)
