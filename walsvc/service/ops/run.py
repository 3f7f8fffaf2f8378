"""A server as a process: signals, the service manager, the HTTP side, the end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from walsvc.extras import need
from walsvc.service.fronts.redis.listening import listen
from walsvc.service.ops import collecting
from walsvc.service.ops.doors import ServerAccess
from walsvc.service.ops.notify import Notifier
from walsvc.service.ops.reload import Reloader
from walsvc.service.ops.settings import Settings
from walsvc.service.ops.space import SpaceWatch
from walsvc.service.server import descriptors
from walsvc.service.server.server import Server
from walsvc.targets import host_and_port

if TYPE_CHECKING:
    from walsvc.service.ops.http import HttpSide

logger: logging.Logger = logging.getLogger("walsvc.service")
SIGNALS = (signal.SIGTERM, signal.SIGINT)


async def run(settings: Settings, listening: Callable[[tuple[str, ...]], None]) -> None:
    """Serve until SIGTERM or SIGINT, then end in order within `stop_seconds`; a second signal kills. SIGHUP reloads.

    The service manager hears READY=1 when clients can connect, STOPPING=1, and WATCHDOG=1 as long as the loop turns and no
    log has failed: one that has is found out about by opening it again, and a restart does that.

    Args:
        settings: what to serve.
        listening: called with the addresses once clients can connect.

    Raises:
        What opening the log, listening and closing raise; else, after an orderly end, why a part of the server had failed.
    """
    loop = asyncio.get_running_loop()
    notifier = Notifier()
    wanted = asyncio.Event()

    def asked() -> None:
        wanted.set()
        for number in SIGNALS:
            loop.remove_signal_handler(number)

    for number in SIGNALS:
        loop.add_signal_handler(number, asked)
    hung_up = asyncio.Event()
    loop.add_signal_handler(signal.SIGHUP, hung_up.set)
    descriptors.raise_limit(descriptors.wanted(settings.limits.connections, settings.limits.open_namespaces))
    server = settings.server()
    space = SpaceWatch(lambda: server.logs, settings.main.free_alarm_bytes)
    async with http_side(settings, server, space) as http:
        if not await started(server, wanted):
            return
        if settings.main.redis != "off":
            try:
                await listen(server, settings.main.redis)
            except BaseException:
                await server.stop(settings.main.stop_seconds)
                raise
        collecting.begin()
        notifier.say("READY=1", f"STATUS=listening on {', '.join(server.addresses)}")
        listening(server.addresses)
        reloader = Reloader(settings, server, http)
        background = [
            loop.create_task(watchdog(notifier, server)),
            loop.create_task(space.watch()),
            loop.create_task(collecting.watch(lambda: server.shared.opened)),
            loop.create_task(reloader.watch()),
            loop.create_task(reload_when(hung_up, reloader, notifier)),
        ]
        await wanted.wait()
        for task in background:
            task.cancel()
        notifier.say("STOPPING=1", "STATUS=stopping")
        seconds, began = settings.main.stop_seconds, loop.time()
        if http is not None:
            await http.end_front(seconds / 4)
        await server.stop(max(seconds - (loop.time() - began), 0.1))
    if server.failures:
        raise server.failures[0]


async def started(server: Server, wanted: asyncio.Event) -> bool:
    """Start the server; False where a signal came first: opening a long log takes a while."""
    starting = asyncio.ensure_future(server.start())
    waiting = asyncio.ensure_future(wanted.wait())
    await asyncio.wait([starting, waiting], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if not starting.done():
        starting.cancel()
        await asyncio.wait([starting])
        return False
    await starting
    return True


async def reload_when(hung_up: asyncio.Event, reloader: Reloader, notifier: Notifier) -> None:
    """Reload certificates and tokens at each SIGHUP. While the server starts or stops, SIGHUP is ignored."""
    while True:
        await hung_up.wait()
        hung_up.clear()
        notifier.say("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        await reloader.reload()
        notifier.say("READY=1")


async def watchdog(notifier: Notifier, server: Server) -> None:
    """Send WATCHDOG=1 to the service manager as long as no log has failed."""
    while notifier.watchdog_seconds:
        if server.status().live:
            notifier.say("WATCHDOG=1")
        await asyncio.sleep(notifier.watchdog_seconds)


@contextlib.asynccontextmanager
async def http_side(settings: Settings, server: Server, space: SpaceWatch) -> AsyncIterator[HttpSide | None]:
    """Run the HTTP side from before the log is opened until after it is closed; do nothing where it is off."""
    main = settings.main
    if main.http == "off":
        yield None
        return
    for module in ("aiohttp", "prometheus_client"):
        need(module, "the HTTP side (which --http off leaves out)")
    from walsvc.service.fronts.http.routes import HttpFront
    from walsvc.service.ops.http import HttpSide, may_look

    host, port = host_and_port(main.http)
    permits = None if settings.tokens is None else may_look(server.shared)
    tls = settings.load_http_tls()
    access = ServerAccess(server)
    side = HttpSide(
        server,
        host,
        port,
        tls=tls,
        permits=permits,
        front=HttpFront(access, settings.limits) if main.http_api else None,
        connections=settings.limits.connections if main.http_api else None,
        space=space,
        insecure=main.insecure,
    )
    async with side:
        server.troubles.watch(side.troubles)
        logger.info("status page on %s", side.url)
        yield side
