"""Servers over simulated disks, in the test's own event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from walsvc.api import Log
from walsvc.config import WalConfig
from walsvc.disk.sim import SimDevice, SimDisk
from walsvc.disk.sim.loop import SimLoop
from walsvc.opening import open_on
from walsvc.service.server.server import Server, serve

SMALL = WalConfig(segment_bytes=65536, max_group_bytes=65536)


class Devices:
    """A simulated device for each namespace, which outlives the server."""

    def __init__(self, seed: int = 5) -> None:
        self._seed = seed
        self.devices: dict[str, SimDevice] = {}
        self.opened: list[str] = []

    def __getitem__(self, namespace: str) -> SimDevice:
        return self.devices.setdefault(namespace, SimDevice(self._seed))

    async def open(self, config: WalConfig) -> Log:
        """What a server opens a log with."""
        self.opened.append(config.namespace or "")
        log: Log = await open_on(SimDisk(self[config.namespace or ""]), config)
        return log


async def on_the_loop(call: Callable[..., Any], *args: Any) -> Any:
    """Do a thread's work in the next round of a simulated loop, which waits for no thread."""
    return await asyncio.get_running_loop().run_in_executor(None, call, *args)


@asynccontextmanager
async def serving(place: Path, devices: Devices | None = None, **options: Any) -> AsyncIterator[Server]:
    """A server on a Unix socket (or on what `options` say), with logs on simulated devices."""
    where = {} if "host" in options else {"unix": place / "s"}
    whole = {"config": SMALL, "opener": (devices or Devices()).open, **where, **options}
    with pytest.MonkeyPatch.context() as patch:
        if isinstance(asyncio.get_running_loop(), SimLoop):
            patch.setattr("walsvc.service.server.listeners.in_thread", on_the_loop)
        async with serve(place, **whole) as server:
            yield server
