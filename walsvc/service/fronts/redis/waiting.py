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


async def one_of(waits: Iterable[Awaitable[Any]]) -> None:
    """Wait until one of them is over, and give the others up. Raises what it raises."""
    tasks = [asyncio.ensure_future(each) for each in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
