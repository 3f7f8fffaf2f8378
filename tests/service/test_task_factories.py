"""The task factory of the program's loop has no say in the server's and the client's own tasks."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import walsvc
from tests.service.wire import placed
from walsvc import Truncated

GATHERED = {"Session.call", "Log.close"}  # asyncio.gather makes a task of each, and keeps it
OURS = str(Path(walsvc.__file__).parent)


@contextmanager
def factory(make: Any) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    loop.set_task_factory(make)
    try:
        yield
    finally:
        loop.set_task_factory(None)


async def use() -> None:
    async def two() -> AsyncIterator[bytes]:
        yield b"five"
        yield b"six"

    async with placed() as place, walsvc.open(place.wire.url) as log:
        topic = log.topic("t")
        for number in range(4):
            await topic.append(b"%d" % number)
        await topic.append_batch(two())
        async with await topic.consumer("c") as consumer:
            assert (await consumer.next()).lsn == 1
        assert len([record async for record in log.read()]) == 6
        follower = log.follow(1)
        assert (await anext(follower)).lsn == 1
        await follower.aclose()
        await log.truncate_before(3)
        consumer = await topic.consumer("c")  # it was overtaken: its first answer is that it is open
        with pytest.raises(Truncated):
            await consumer.next()
        await consumer.close()


async def test_no_task_factory_is_asked() -> None:
    made: list[str] = []

    def spy(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        if work.cr_code.co_filename.startswith(OURS) and work.__qualname__ not in GATHERED:
            made.append(work.__qualname__)
        return asyncio.Task(work, loop=loop, **options)

    with factory(spy):
        await use()
    assert not made


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with CPython 3.12")
async def test_eager_tasks_change_nothing() -> None:
    loop, taken = asyncio.get_running_loop(), inspect.signature(asyncio.eager_task_factory).parameters
    if (
        type(loop).__module__.startswith("uvloop")
        and sys.version_info >= (3, 13)
        and not any(each.kind is each.VAR_KEYWORD for each in taken.values())
    ):
        pytest.skip("this CPython's eager factory does not take what uvloop gives one from 3.13 on: eager_start")
    with factory(asyncio.eager_task_factory):
        await use()
