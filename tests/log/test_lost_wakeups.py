"""asyncio loses a wake-up of a task of the log's own, as where sys.exit in a signal handler comes out of the middle of call_soon."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import walsvc
from tests.crash.grid import PatientLoop
from walsvc.config import WalConfig
from walsvc.disk import threads
from walsvc.disk.sim import SimDevice, SimDisk
from walsvc.disk.threads import ThreadsDisk
from walsvc.log.commit.ack import all_done
from walsvc.opening import open_on

SMALL = WalConfig(segment_bytes=65536, max_group_bytes=16384)
MET_MIN = 20


class LosingLoop(PatientLoop):
    """Loses the nth wake-up of the work that a log does in the background; its first steps are none."""

    def __init__(self, nth: int) -> None:
        super().__init__()
        self.nth = nth
        self.met = 0

    def call_soon(self, callback: Callable[..., Any], *arguments: Any, context: Any = None) -> asyncio.Handle:
        task = getattr(callback, "__self__", None)
        if isinstance(task, asyncio.Task) and arguments and task.get_name().endswith(": work"):
            self.met += 1
            if self.met == self.nth:
                return asyncio.Handle(callback, arguments, self)
        return super().call_soon(callback, *arguments, context=context)


async def program(device: SimDevice) -> list[int]:
    """Append, and end in the middle, as a program does on its way out; the LSNs that were answered."""
    log = await open_on(SimDisk(device, latency=100e-6), SMALL)
    answered = []

    async def one() -> None:
        while True:
            answered.append((await log.append(bytes(9000))).lsn)

    tasks = [asyncio.create_task(one()) for _ in range(4)]
    await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()
    await all_done(tasks)
    await log.close()
    return answered


async def found(device: SimDevice) -> list[int]:
    async with await open_on(SimDisk(device), SMALL) as log:
        assert log.report.clean
        return [record.lsn async for record in log.read()]


def closed_without(nth: int) -> int:
    """Run the program without its nth wake-up; how many it had."""
    loop, device = LosingLoop(nth), SimDevice(1)
    try:
        answered = loop.run_until_complete(program(device))
        lsns = loop.run_until_complete(found(device))
        assert lsns == list(range(1, len(lsns) + 1))
        assert set(answered) <= set(lsns)
    except BaseException as broken:
        broken.add_note(f"without wake-up {nth}")
        raise
    finally:
        loop.close()
    return loop.met


def test_closing_ends_in_order_though_any_wake_up_of_the_logs_own_work_was_lost() -> None:
    count = closed_without(0)
    assert count > MET_MIN
    for nth in range(1, count + 1):
        closed_without(nth)


@pytest.mark.parametrize("nth", [1, 2, 3])
async def test_completion_whose_callback_a_signal_handler_cuts_off_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    """On the disk of a thread, whose wake-up comes but once."""
    complete, calls = ThreadsDisk._complete, 0

    def cut_off(disk: ThreadsDisk) -> None:
        nonlocal calls
        calls += 1
        if calls == nth:
            raise LookupError("a handler's own")
        complete(disk)

    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    async with asyncio.timeout(60), walsvc.open(tmp_path, disk="threads") as log:
        monkeypatch.setattr(ThreadsDisk, "_complete", cut_off)
        monkeypatch.setattr(threads, "LOST_SECONDS", 0.01)
        for lsn in (1, 2):
            assert (await log.append(b"x")).lsn == lsn
    assert calls >= nth
