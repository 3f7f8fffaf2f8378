"""Waiting, for commands that block: for so long at most, and for one of several things."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Iterable
from typing import Any


@contextlib.asynccontextmanager
async def at_most(milliseconds: int) -> AsyncIterator[None]:
    """End the block after so many milliseconds, as if it had come to its end; 0: never."""
    try:
        async with asyncio.timeout(milliseconds / 1000 or None) as limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise


async def one_of(waits: Iterable[Awaitable[Any]], until: float | None = None) -> bool:
    """Wait until one of the awaitables is over, and give the others up. Raises what it raises. False: it was `until`, in the loop's time, before."""
    seconds = None if until is None else until - asyncio.get_running_loop().time()
    tasks = [asyncio.ensure_future(each) for each in waits]
    try:
        done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        return bool(done)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
