"""`python -m bench.bare ASKED`: what an HTTP front can reach: a bare aiohttp handler, which may append to an embedded log; see bench.fronts."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import walsvc
from bench.asking import KEY
from bench.environment import Argument, loop_factory

ANSWER = b'{"lsn": 1, "durable": true}'


@dataclass(frozen=True, slots=True)
class Asked(Argument):
    """The server to run.

    Attributes:
        port: on loopback.
        log: directory of the log to which each body is appended; None: the body is only read.
        loop: the event loop's module.
    """

    port: int
    log: str | None
    loop: str


async def serve(asked: Asked) -> None:
    """Answer until SIGTERM."""
    from aiohttp import web

    async with AsyncExitStack() as stack:
        topic: Any = None
        if asked.log is not None:
            topic = (await stack.enter_async_context(walsvc.open(asked.log))).topic(KEY)

        async def answer(request: web.Request) -> web.Response:
            body = await request.read()
            if topic is not None:
                await topic.append(body)
            return web.Response(status=201, body=ANSWER, content_type="application/json")

        app = web.Application()
        app.router.add_post("/v1/topics/{topic}", answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", asked.port).start()
        ended = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
        await ended.wait()


if __name__ == "__main__":
    todo = Asked.given()
    with asyncio.Runner(loop_factory=loop_factory(todo.loop)) as runner:
        runner.run(serve(todo))
