"""A webhook gateway: an aiohttp server that embeds the log and answers 200 only when the event is on stable storage.

    python server.py DIRECTORY [--port 8080]

POST /events stores the body as one record and answers {"lsn": ..., "append_us": ...}; GET /stats shows the log's counters.
Where the log cannot vouch for an event, the answer is an error status, and the sender keeps the event.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import time
from collections.abc import AsyncIterator

from aiohttp import web

import walsvc

try:
    from uvloop import new_event_loop
except ImportError:  # walsvc works on plain asyncio as well
    from asyncio import new_event_loop

BODY_BYTES_MAX = 1 << 20
CONNECTIONS_BACKLOG = 4096  # a restarted gateway is met by all its senders at once

directory_key = web.AppKey("directory", str)
wal_key = web.AppKey("wal", walsvc.Log)


async def receive(request: web.Request) -> web.Response:
    """Store the body, then answer: 200 means that a power cut cannot take the event back."""
    body = await request.read()
    began = time.perf_counter_ns()
    try:
        result = await request.app[wal_key].append(body, mode=walsvc.Strict)
    except (walsvc.NoSpace, walsvc.RecordTooLarge) as error:  # this event was not stored, the next one may be
        return web.json_response({"error": error.message}, status=507 if isinstance(error, walsvc.NoSpace) else 413)
    except (walsvc.DurabilityLost, walsvc.Closed) as error:  # nobody knows about this one: the sender has to ask again
        return web.json_response({"error": error.message}, status=503)
    append_us = (time.perf_counter_ns() - began) // 1000
    return web.Response(text=f'{{"lsn": {result.lsn}, "append_us": {append_us}}}', content_type="application/json")


async def stats(request: web.Request) -> web.Response:
    """The log's counters since it was opened."""
    return web.json_response(dataclasses.asdict(request.app[wal_key].stats()))


async def log_of_the_app(app: web.Application) -> AsyncIterator[None]:
    """Opens the log before the first request and closes it after the last one."""
    async with walsvc.open(app[directory_key]) as wal:
        app[wal_key] = wal
        report, counters = wal.report, wal.stats()
        print(json.dumps({"recovery": dataclasses.asdict(report), "stats": dataclasses.asdict(counters)}), flush=True)
        yield


def application(directory: str) -> web.Application:
    """The gateway over the log in `directory`."""
    app = web.Application(client_max_size=BODY_BYTES_MAX)
    app[directory_key] = directory
    app.cleanup_ctx.append(log_of_the_app)
    app.add_routes([web.post("/events", receive), web.get("/stats", stats)])
    return app


def main() -> None:
    parser = argparse.ArgumentParser(description="webhook gateway: 200 means stored durably")
    parser.add_argument("directory", help="directory of the log; created if missing")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    arguments = parser.parse_args()
    loop: asyncio.AbstractEventLoop = new_event_loop()
    web.run_app(
        application(arguments.directory),
        host=arguments.host,
        port=arguments.port,
        backlog=CONNECTIONS_BACKLOG,
        access_log=None,
        print=None,
        loop=loop,
    )


if __name__ == "__main__":
    main()
