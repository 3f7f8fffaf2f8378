"""Parts of a request: the token, labels and numbers in headers and query, and the body, which comes within a deadline and is counted."""

from __future__ import annotations

import asyncio
import base64
import datetime
import json
import math
import re
import zlib
from collections.abc import Collection, Mapping
from typing import Any, NoReturn

from aiohttp import hdrs, web
from multidict import MultiMapping

from walsvc.errors import BadOption, RecordTooLarge
from walsvc.service.fronts.access import Room
from walsvc.service.fronts.http.problems import HttpError

BODY_RATE = 64 * 1024  # bytes a second that a body must come at, besides the time that a client may be silent
GZIP = 31  # zlib's wbits: the largest window, and gzip's header and checksum
TYPE_MAX = 65_535
LSN_MAX = (1 << 63) - 1
INFINITIES = (math.inf, -math.inf)
LABEL = "label."  # in front of a label's name in the query
QUOTED = re.compile(r'\s*"(\d{1,19})"\s*')


def token_of(request: web.BaseRequest) -> str:
    """The token in a request's headers, as a bearer's (RFC 6750) or as a password (RFC 7617); empty where there is none."""
    told = request.headers.get(hdrs.AUTHORIZATION)
    if told is None:
        return ""
    scheme, _, rest = told.partition(" ")
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
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is not None and origin.partition("://")[2] != request.host:
        raise HttpError(403, "a page of another site asks, and CORS is off", "ask from a program, not from a page")


# ---- query and headers


def check_query(request: web.BaseRequest, known: Collection[str]) -> None:
    """Raise BadOption for an unknown parameter: a misspelt one must not be ignored."""
    if not request.rel_url.raw_query_string:
        return
    for name in request.query:
        if name not in known and not (LABEL in known and name.startswith(LABEL)):
            hint = "known: " + (", ".join(sorted(known)) or "none")
            raise BadOption(f"there is no parameter {name[:64]!r} here", hint=hint)


def header(request: web.BaseRequest, name: str) -> str | None:
    """The value of a header; None: it is not there. Raises BadOption where it stands twice, since one of the two would be ignored."""
    told = request.headers.getall(name, ())
    if len(told) > 1:
        raise BadOption(f"the header {name[:64]} stands there {len(told)} times", hint="send it once")
    return told[0] if told else None


def number(request: web.BaseRequest, name: str, default: int | None, low: int, high: int) -> int | None:
    """A whole number of the query, checked against its bounds."""
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
    """Parse a time."""
    try:
        found = datetime.datetime.fromisoformat(text.replace(" ", "+"))  # a plus sign that was not escaped
    except ValueError:
        raise BadOption(f"{name}={text[:64]!r} is no time", hint="ISO 8601, such as 2026-07-01T12:00:00Z") from None
    return found if found.tzinfo is not None else found.replace(tzinfo=datetime.UTC)


def refuse_constant(name: str) -> NoReturn:
    """Raise ValueError: JSON has no NaN and no infinities, though Python's parser takes them."""
    raise ValueError(f"{name} is no JSON")


DECODER = json.JSONDecoder(parse_constant=refuse_constant)


def json_of(text: str | bytes) -> Any:
    """Parse JSON. Raises ValueError where the text is no JSON, or is nested too deep."""
    try:
        return DECODER.decode(text if isinstance(text, str) else text.decode("utf-8-sig"))
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except ValueError as error:
        if "max_str_digits" in str(error):
            raise ValueError("a number has too many digits") from None
        raise


def value_of(text: str) -> Any:
    """A label's value: a JSON number, true or false, or a quoted text are that; anything else is text as it stands."""
    try:
        value = json_of(text)
    except ValueError:
        return text
    return text if isinstance(value, (dict, list, type(None))) or value in INFINITIES else value


def values_of(query: MultiMapping[str]) -> dict[str, Any]:
    """The labels in `label.NAME=VALUE` of the query, each with one value. BadOption."""
    found = {}
    for name in dict.fromkeys(query):
        if name.startswith(LABEL):
            if len(values := query.getall(name)) > 1:
                raise BadOption(f"{name} is there {len(values)} times", hint="a record has one value of each label")
            found[name.removeprefix(LABEL)] = value_of(values[0])
    return found


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
    if not all(re.fullmatch(r"\d{1,5}", each) and int(each) <= TYPE_MAX for each in found):
        raise BadOption(f"type= is no number from 0 to {TYPE_MAX}")
    return [int(each) for each in found] or None


def expected_of(request: web.BaseRequest) -> int | None:
    """The condition of an append: `If-Match: "17"` is the LSN that the topic must end with, `If-None-Match: *` that it is empty."""
    match, none = header(request, hdrs.IF_MATCH), header(request, hdrs.IF_NONE_MATCH)
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
    if found is None or int(found[1]) > LSN_MAX:
        raise BadOption(f"If-Match: {match[:64]} is no LSN in quotes", hint='If-Match: "17"')
    return int(found[1])


def is_number(text: str) -> bool:
    """True if a part of a path, a parameter or a header is an LSN."""
    return text.isascii() and text.isdigit() and len(text) <= 19


# ---- bodies


class Body:
    """The body of a request, whose bytes are counted while an `async with` block needs it.

    Args:
        request: whose body it is.
        room: that counts.
        limit: bytes, at most, of what was sent and of what it is when it is unpacked.
        silence: seconds that the client may say nothing, besides the time that its bytes take.
    """

    __slots__ = ("_limit", "_request", "_room", "_silence", "_taken")

    def __init__(self, request: web.BaseRequest, room: Room, limit: int, silence: float) -> None:
        self._request = request
        self._room = room
        self._limit = limit
        self._silence = silence
        self._taken = 0

    async def __aenter__(self) -> bytes:
        """Read the body. Raises RecordTooLarge, Backpressure; HttpError: it did not come in time, or is packed in another way than gzip."""
        request = self._request
        if (request.content_length or 0) > self._limit:
            raise too_large(request.content_length or 0, self._limit)
        if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0
        try:
            if request.content.is_eof():  # all of it has come: most bodies do with their head
                body = self._count(request.content.read_nowait())
            else:
                body = await self._arriving()
            packed = request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower()
            return body if packed == "identity" else self._unpacked(body, packed)
        except BaseException:
            self._give()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._give()

    def _give(self) -> None:
        self._room.give(self._taken)
        self._taken = 0

    def _count(self, part: bytes) -> bytes:
        self._room.take(len(part))
        self._taken += len(part)
        if self._taken > self._limit:
            raise too_large(self._taken, self._limit)
        return part

    async def _arriving(self) -> bytes:
        """Yield the body in parts, as they arrive."""
        content, parts = self._request.content, list[bytes]()
        end = asyncio.get_running_loop().time() + self._silence
        while not content.at_eof():
            try:
                async with asyncio.timeout_at(end + self._taken / BODY_RATE):
                    parts.append(self._count(await content.readany()))
            except TimeoutError:
                words = f"the body did not come in time: {self._taken} bytes in {self._silence:g} s"
                raise HttpError(408, words, headers={"Connection": "close"}) from None
        return b"".join(parts)

    def _unpacked(self, body: bytes, packed: str) -> bytes:
        """Unpack the body. Memory never holds more of it than the limit."""
        if packed not in ("gzip", "x-gzip"):
            raise HttpError(415, f"Content-Encoding: {packed[:32]} is not known", headers={"Accept-Encoding": "gzip"})
        parts, size = list[bytes](), 0
        try:
            while body or not parts:  # RFC 1952: one stream behind the other is one, too
                unpacker = zlib.decompressobj(wbits=GZIP)
                parts.append(unpacker.decompress(body, self._limit + 1 - size))
                size += len(parts[-1])
                if size > self._limit:
                    raise too_large(size, self._limit)
                if not unpacker.eof:
                    raise HttpError(400, "the body is cut: its gzip stream has no end")
                body = unpacker.unused_data
        except zlib.error as error:
            raise HttpError(400, f"the body is not gzip: {error}") from None
        self._give()
        return self._count(b"".join(parts))


def too_large(size: int, limit: int) -> RecordTooLarge:
    """The error for a body that is too long."""
    return RecordTooLarge(f"the body has {size} bytes or more", expected=f"at most {limit}", hint="send less at a time")


def lines_of(body: bytes) -> list[bytes]:
    """The payloads in NDJSON: each line is one, as it stands. HttpError for a line that is not JSON."""
    found = []
    for place, row in enumerate(body.split(b"\n"), 1):
        line = row.removesuffix(b"\r")
        if not line.strip():
            continue
        try:
            json_of(line)
        except ValueError as error:
            raise HttpError(
                400, f"line {place} is not JSON: {error}", "nothing was appended; send one JSON value in each line"
            ) from None
        found.append(line)
    return found


def object_of(body: bytes, known: Mapping[str, tuple[type, ...]]) -> dict[str, Any]:
    """The body as a JSON object with these fields, all of which may be left out. HttpError."""
    try:
        found = json_of(body) if body.strip() else {}
    except ValueError as error:
        raise HttpError(400, f"the body is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise HttpError(400, "the body is no JSON object")
    for name, value in found.items():
        if name not in known:
            raise HttpError(400, f"there is no field {name[:64]!r} here", "known: " + ", ".join(known))
        if type(value) not in known[name]:
            raise HttpError(400, f"{name} cannot be {json.dumps(value)[:64]}")
    return found
