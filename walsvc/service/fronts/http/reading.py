"""GET: records as a page of NDJSON, as server-sent events, or one payload as it is."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import Any

from aiohttp import web

from walsvc.errors import BadOption, Truncated, WalError
from walsvc.interface import Log, Topic
from walsvc.model import Record
from walsvc.plain import plain, record_row
from walsvc.service.fronts.access import Room
from walsvc.service.fronts.http.problems import HttpError, json_line, problem_of
from walsvc.service.fronts.http.request import (
    LABEL,
    LSN_MAX,
    check_query,
    header,
    is_number,
    moment,
    number,
    types,
    wanted_labels,
)

PARAMETERS = ("start", "limit", "type", "since", "until", LABEL)
FOLLOWING = ("start", "type", "since", LABEL)
LIMIT, LIMIT_MAX = 100, 10_000  # records of one page
PAGE_BYTES = 4 << 20  # a page ends behind the record that reaches it
PIECE_BYTES = 64 * 1024
ALIVE_SECONDS = 15.0  # without a record a comment goes out, so that proxies and the server know that somebody is there
EVENTS = "text/event-stream"
NDJSON = "application/x-ndjson"


def line_of(record: Record) -> bytes:
    """A record as a line of JSON, as `walsvc cat --json` prints it."""
    return json.dumps(record_row(record), ensure_ascii=False, separators=(",", ":")).encode()


async def topics(log: Log) -> web.Response:
    """The names of all topics."""
    await log.refresh()
    return web.json_response({"topics": log.topics()}, dumps=json_line)


async def page(request: web.BaseRequest, log: Log, topic: str | None, room: Room, silence: float) -> web.StreamResponse:
    """Answer with the next records, at most `limit` of them. The header Link names the next page."""
    check_query(request, PARAMETERS)
    start = number(request, "start", None, 1, LSN_MAX)
    limit = number(request, "limit", LIMIT, 1, LIMIT_MAX) or LIMIT
    chosen = {"since": moment(request, "since"), "until": moment(request, "until"), **filters(request)}
    lines, taken, last = [], 0, None
    try:
        async with aclosing(reader_of(log, topic).read(start, **chosen)) as records:
            async for record in records:
                line = line_of(record)
                room.take(len(line))
                taken += len(line)
                lines.append(line)
                last = record.lsn
                if len(lines) >= limit or taken >= PAGE_BYTES:
                    break
        headers = {}
        if last is not None:
            following = request.rel_url.update_query(start=str(last + 1))
            headers["Link"] = f'<{following.raw_path_qs}>; rel="next"'
        body = b"\n".join([*lines, b""]) if lines else b""
        return await given(request, body, {"Content-Type": NDJSON, **headers}, silence)
    finally:
        room.give(taken)


async def single(request: web.BaseRequest, log: Log, topic: str | None, lsn: int, silence: float) -> web.StreamResponse:
    """Answer with the payload of one record, as it is."""
    found = None
    refuse_dropped(log, lsn)
    if 1 <= lsn < await log.refresh():
        async with aclosing(reader_of(log, topic).read(lsn, lsn + 1)) as records:
            async for record in records:
                found = record
    if found is None:
        raise no_record(lsn)
    row = record_row(found)
    headers = {
        "Content-Type": "application/octet-stream",
        "ETag": f'"{lsn}"',
        "Walsvc-Type": str(found.type),
        "Walsvc-Timestamp": row["timestamp"],
        "Walsvc-Labels": json.dumps(plain(dict(found.attributes))),
    }
    return await given(request, found.payload, headers, silence)


def refuse_dropped(log: Log, lsn: int) -> None:
    """Raise Truncated for the LSN of a record that the log's beginning has passed."""
    if 1 <= lsn < log.first_lsn:
        raise Truncated(f"record {lsn} was dropped", path=log.path, lsn=lsn, expected=f"at least LSN {log.first_lsn}")


def no_record(lsn: int) -> HttpError:
    """The error for a record that does not exist."""
    return HttpError(404, f"there is no record {lsn} here", "it is another topic's, was purged, or has not come yet")


async def events(request: web.BaseRequest, log: Log, topic: str | None, silence: float) -> web.StreamResponse:
    """Records as they become durable, behind Last-Event-ID or from `start` on, until the client or the server ends it.

    A client that does not read what was sent for `silence` seconds is cut off.
    """
    check_query(request, FOLLOWING)
    start = start_of(request)
    chosen = {"since": moment(request, "since"), **filters(request)}
    response = web.StreamResponse(headers={"Content-Type": EVENTS, "X-Accel-Buffering": "no"})
    async with aclosing(reader_of(log, topic).follow(start, **chosen)) as records:
        coming: asyncio.Future[Record] = asyncio.ensure_future(anext(records))
        try:
            await asyncio.wait([coming], timeout=0.05)
            if coming.done() and (error := coming.exception()) is not None:
                raise error  # before anything was sent: it has a status of its own
            await response.prepare(request)
            while True:
                done, _ = await asyncio.wait([coming], timeout=ALIVE_SECONDS)
                if not done:
                    await sent(response, b": alive\n\n", silence)
                    continue
                record = coming.result()
                await sent(response, b"id: %d\ndata: %s\n\n" % (record.lsn, line_of(record)), silence)
                coming = asyncio.ensure_future(anext(records))
        except StopAsyncIteration:
            return response
        except WalError as error:
            if not response.prepared:
                raise
            body = problem_of(error, request.rel_url.raw_path).body
            await sent(
                response, b"event: problem\ndata: %s\n\n" % (body if isinstance(body, bytes) else b"{}"), silence
            )
            return response
        finally:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)


async def given(request: web.BaseRequest, body: bytes, headers: dict[str, str], silence: float) -> web.StreamResponse:
    """Send a body in pieces: a client that takes nothing of it for `silence` seconds is cut off, one that is only slow is not."""
    if len(body) <= PIECE_BYTES:
        return web.Response(body=body, headers=headers)
    response = web.StreamResponse(headers={**headers, "Content-Length": str(len(body))})
    await response.prepare(request)
    for place in range(0, len(body) if request.method != "HEAD" else 0, PIECE_BYTES):
        await sent(response, body[place : place + PIECE_BYTES], silence)
    return response


async def sent(response: web.StreamResponse, data: bytes, silence: float) -> None:
    """Send bytes; end the connection of a client that does not read them."""
    try:
        async with asyncio.timeout(silence):
            await response.write(data)
    except TimeoutError:
        raise ConnectionResetError("the client does not read what is sent to it") from None


def start_of(request: web.BaseRequest) -> int | None:
    """The LSN at which events begin: behind the last one that the client has had, else at `start`. Raises BadOption."""
    if last := header(request, "Last-Event-ID"):
        if not is_number(last):
            raise BadOption(
                f"Last-Event-ID: {last[:64]} is no LSN", hint="send the id of the last event, or leave the header out"
            )
        return min(int(last), LSN_MAX - 1) + 1
    return number(request, "start", None, 1, LSN_MAX)


def reader_of(log: Log, topic: str | None) -> Log | Topic:
    """The reader that the path names: a topic or the log."""
    return log if topic is None else log.topic(topic)


def filters(request: web.BaseRequest) -> dict[str, Any]:
    """The filter that the query asks for. Without types in it, all types are wanted: a browser need not know them."""
    return {"types": types(request), "where": wanted_labels(request)}
