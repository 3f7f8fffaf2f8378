"""The world of a simulated run: its wall clock and its chance, in the place of the system's, so that a run is the same each time."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from walsvc.disk.sim import SimLoop, simulate

T = TypeVar("T")

EPOCH = 1_800_000_000.0
"""The wall clock's time when a first run begins, in seconds since 1970."""


def begin(main: Callable[..., Awaitable[T]], *args: Any, chance: str, epoch: float = EPOCH) -> T:
    """Await `main(*args)` on a new simulated loop, in a world where `chance` decides and the clock begins at `epoch`."""
    __tracebackhide__ = True

    async def whole() -> T:
        __tracebackhide__ = True
        return await main(*args)

    with simulated(chance):
        return simulate(SimLoop(epoch), whole)


@contextmanager
def simulated(chance: str) -> Iterator[None]:
    """In this thread's simulated loops, time.time, time.time_ns and os.urandom (so uuid4, too) are simulated, and `random` is
    seeded. Outside of such a loop, as in other threads, the clock and os.urandom are the system's."""
    real_time, real_time_ns, real_urandom, state = time.time, time.time_ns, os.urandom, random.getstate()
    system = random.Random(chance)

    def wall() -> float:
        loop = running()
        return real_time() if loop is None else loop.epoch + loop.time()

    def wall_ns() -> int:
        loop = running()
        return real_time_ns() if loop is None else int((loop.epoch + loop.time()) * 1e9)

    def urandom(size: int, /) -> bytes:
        return real_urandom(size) if running() is None else system.randbytes(size)

    time.time, time.time_ns, os.urandom = wall, wall_ns, urandom
    random.seed(chance)
    try:
        yield
    finally:
        time.time, time.time_ns, os.urandom = real_time, real_time_ns, real_urandom
        random.setstate(state)


def running() -> SimLoop | None:
    """The simulated loop that runs in this thread."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return None
    return loop if isinstance(loop, SimLoop) else None
