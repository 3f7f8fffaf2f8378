"""Parts of a request: the token, labels and numbers in headers and query, and the body, which comes within a deadline and is counted."""

from __future__ import annotations

import asyncio
import base64
import datetime
import json
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from walsvc.errors import BadOption, RecordTooLarge
from walsvc.service.fronts.access import Room
from walsvc.service.fronts.http.problems import HttpError

BODY_RATE = 64 * 1024  # bytes a second that a body must come at, besides the time that a client may be silent
LABEL = "label."  # in front of a label's name in the query
QUOTED = re.compile(r'\s*"(\d{1,19})"\s*')


def token_of(request: web.BaseRequest) -> str:
    """The token in a request's headers, as a bearer's (RFC 6750) or as a password (RFC 7617); empty where there is none."""
    scheme, _, rest = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(rest, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""


def check_origin(request: web.BaseRequest) -> None:
    """Refuse what a page of another site makes a browser ask: CORS is off, and a simple POST would need no permission."""
    origin = request.headers.get("Origin")
    if origin is not None and origin.partition("://")[2] != request.host:
        raise HttpError(403, "a page of another site asks, and CORS is off", "ask from a program, not from a page")


# ---- query and headers


def check_query(request: web.BaseRequest, known: Iterable[str]) -> None:
    """BadOption for a parameter that there is not: a misspelt one must not be ignored."""
    names = sorted(known)
    for name in request.query:
        if name not in names and not (LABEL in names and name.startswith(LABEL)):
            raise BadOption(f"there is no parameter {name[:64]!r} here", hint="known: " + (", ".join(names) or "none"))


def number(request: web.BaseRequest, name: str, default: int | None, low: int, high: int) -> int | None:
    """A whole number of the query within its bounds."""
    text = request.query.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"\d{1,19}", text) or not low <= int(text) <= high:
        raise BadOption(f"{name}={text[:64]!r} is no whole number from {low} to {high}")
    return int(text)


def moment(request: web.BaseRequest, name: str) -> datetime.datetime | None:
    """A time of the query, ISO 8601; UTC if it names no zone."""
    text = request.query.get(name)
    return None if text is None else time_of(name, text)


def time_of(name: str, text: str) -> datetime.datetime:
    """A time in text."""
    try:
        found = datetime.datetime.fromisoformat(text.replace(" ", "+"))  # a plus sign that was not escaped
    except ValueError:
        raise BadOption(f"{name}={text[:64]!r} is no time", hint="ISO 8601, such as 2026-07-01T12:00:00Z") from None
    return found if found.tzinfo is not None else found.replace(tzinfo=datetime.UTC)


def value_of(text: str) -> Any:
    """A label's value: a JSON number, true or false, or a quoted text are that; anything else is text as it stands."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, (bool, int, float, str)) else text


def wanted_labels(request: web.BaseRequest) -> dict[str, Any] | None:
    """The labels that records must have, by `label.NAME=VALUE`; several values of one name: one is enough."""
    found: dict[str, Any] = {}
    for name in dict.fromkeys(request.query):
        if name.startswith(LABEL):
            values = [value_of(text) for text in request.query.getall(name)]
            found[name.removeprefix(LABEL)] = values[0] if len(values) == 1 else values
    return found or None


def types(request: web.BaseRequest) -> list[int] | None:
    """The record types of the query."""
    found = request.query.getall("type", [])
    if not all(re.fullmatch(r"\d{1,5}", each) for each in found):
        raise BadOption("type= is no number from 0 to 65535")
    return [int(each) for each in found] or None


def expected_of(request: web.BaseRequest) -> int | None:
    """The condition of an append: `If-Match: "17"` is the LSN that the topic must end with, `If-None-Match: *` that it is empty."""
    match, none = request.headers.get("If-Match"), request.headers.get("If-None-Match")
    if match is not None and none is not None:
        raise BadOption("If-Match and If-None-Match are two conditions", hint="send one of them")
    if none is not None:
        if none.strip() != "*":
            raise BadOption(
                f"If-None-Match: {none[:64]} is no condition of an append", hint="If-None-Match: *, for an empty topic"
            )
        return 0
    if match is None:
        return None
    found = QUOTED.fullmatch(match)
    if found is None:
        raise BadOption(f"If-Match: {match[:64]} is no LSN in quotes", hint='If-Match: "17"')
    return int(found[1])


# ---- bodies


@asynccontextmanager
async def body_of(request: web.BaseRequest, room: Room, limit: int, silence: float) -> AsyncIterator[bytes]:
    """The body, whose bytes are counted while the block needs it.

    Args:
        room: that counts.
        limit: bytes, at most.
        silence: seconds that the client may say nothing, besides the time that its bytes take.

    Raises:
        RecordTooLarge, Backpressure; HttpError: it did not come in time.
    """
    announced = request.content_length or 0
    if announced > limit:
        raise too_large(announced, limit)
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    taken, parts = 0, []
    loop = asyncio.get_running_loop()
    end = loop.time() + silence
    try:
        while not request.content.at_eof():
            try:
                if request.content.is_eof():  # all of it has come: most bodies do with their head
                    part = request.content.read_nowait()
                else:
                    async with asyncio.timeout_at(end + taken / BODY_RATE):
                        part = await request.content.readany()
            except TimeoutError:
                raise HttpError(
                    408,
                    f"the body did not come in time: {taken} bytes in {silence:g} s",
                    headers={"Connection": "close"},
                ) from None
            room.take(len(part))
            taken += len(part)
            if taken > limit:
                raise too_large(taken, limit)
            parts.append(part)
        yield parts[0] if len(parts) == 1 else b"".join(parts)
    finally:
        room.give(taken)


def too_large(size: int, limit: int) -> RecordTooLarge:
    """The error of a body that is too long."""
    return RecordTooLarge(f"the body has {size} bytes or more", expected=f"at most {limit}", hint="send less at a time")


def lines_of(body: bytes) -> list[bytes]:
    """The payloads in NDJSON: each line is one, as it stands. HttpError for a line that is not JSON."""
    found = []
    for place, row in enumerate(body.split(b"\n"), 1):
        line = row.removesuffix(b"\r")
        if not line.strip():
            continue
        try:
            json.loads(line)
        except ValueError as error:
            raise HttpError(
                400, f"line {place} is not JSON: {error}", "nothing was appended; send one JSON value in each line"
            ) from None
        found.append(line)
    return found


def object_of(body: bytes, known: Mapping[str, tuple[type, ...]]) -> dict[str, Any]:
    """The body as a JSON object with these fields, all of which may be left out. HttpError."""
    try:
        found = json.loads(body) if body.strip() else {}
    except ValueError as error:
        raise HttpError(400, f"the body is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise HttpError(400, "the body is no JSON object")
    for name, value in found.items():
        if name not in known:
            raise HttpError(400, f"there is no field {name[:64]!r} here", "known: " + ", ".join(known))
        if type(value) not in known[name]:
            raise HttpError(400, f"{name} cannot be {type(value).__name__}")
    return found
