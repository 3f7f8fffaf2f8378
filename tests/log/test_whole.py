"""An exception between two lines of what is not an append: a streamed batch, both truncations, a flush, closing.

Each is interrupted at a sample of the lines of the file that does it, one line a run. Afterwards the call is whole, or taken back, or the log
has failed; nobody waits for ever, the log can be closed, and opened again. tests/crash/interruptions.py does the same to all files
of the log at once, and takes its time.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import walsvc
from tests.crash.sampling import leap
from tests.disks import REAL_DISKS
from walsvc import DurabilityLost, WalConfig, WalError
from walsvc.disk.base import Write
from walsvc.disk.choose import open_disk
from walsvc.disk.sim import SimDevice, SimDisk, run_sim
from walsvc.log.commit.extent import Extent
from walsvc.log.commit.health import Health
from walsvc.log.commit.placement import Placement
from walsvc.log.commit.whole import whole
from walsvc.opening import open_on

SMALL = WalConfig(segment_bytes=65536, max_group_bytes=16384, max_pending_bytes=65536)
CODE = str(Path(walsvc.__file__).parent / "log")


class Alarm(Exception):
    """What the handler raises."""


class Interruption:
    """Raises at the nth line of the named files of the log."""

    def __init__(self, files: tuple[str, ...], nth: int) -> None:
        self.left = nth
        self._files = files

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        name = frame.f_code.co_filename
        if not name.startswith(CODE) or not name.endswith(self._files):
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                raise Alarm
        return self


async def stream(parts: int) -> Any:
    for number in range(parts):
        yield b"%d" % number + bytes(9000)
        await asyncio.sleep(0)


async def given_up(log: walsvc.Log) -> None:
    batch = log.append_batch(stream(20))
    await asyncio.sleep(0.001)
    batch.cancel()
    with suppress(asyncio.CancelledError):
        await batch


CALLS: dict[str, tuple[tuple[str, ...], Callable[[walsvc.Log], Awaitable[Any]]]] = {
    "batch": (("/batch.py", "/batches.py", "/batch_source.py"), lambda log: log.append_batch(stream(3))),
    "batch that is given up": (("/batch.py", "/tail.py"), given_up),
    "turns": (("/extent.py",), lambda log: asyncio.gather(log.truncate_before(10), log.truncate_after(20))),
    "truncate_before": (("/reclaim.py", "/dropping.py", "/steps.py"), lambda log: log.truncate_before(16)),
    "truncate_after": (("/clearing.py", "/cutting.py", "/steps.py"), lambda log: log.truncate_after(16)),
    "flush": (("/ending.py", "/waits.py", "/ack.py"), lambda log: log.flush()),
    "rotation": (
        ("/rotation.py", "/spares.py"),
        lambda log: asyncio.gather(*(log.append(bytes(9000)) for _ in range(9))),
    ),
    "close": (("/ending.py",), lambda log: log.close()),
}


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")  # cut short before its first line
@pytest.mark.parametrize("call", CALLS)
def test_exception_at_any_line_hangs_nothing_and_loses_nothing(call: str) -> None:
    files, perform = CALLS[call]
    left: list[int] = []

    async def main(nth: int) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        device = SimDevice(nth)
        log = await open_on(SimDisk(device, latency=0), SMALL)
        kept = {(await log.append(b"%d" % number + bytes(4000))).lsn: b"%d" % number for number in range(24)}
        beside = asyncio.ensure_future(log.append(b"beside"))
        interruption = Interruption(files, nth)
        before = sys.gettrace()
        sys.settrace(interruption)
        try:
            with suppress(Alarm, WalError):
                await perform(log)
        finally:
            sys.settrace(before)
        left.append(interruption.left)
        await asyncio.gather(beside, return_exceptions=True)
        with suppress(WalError):
            await log.append(b"after")
        for _ in range(2):
            with suppress(Alarm, WalError):
                await log.close()
        async with await open_on(SimDisk(device), SMALL) as log:
            there = {record.lsn: record.payload async for record in log.read()}
            cut = 16 if call in {"truncate_after", "turns"} else 24
            for lsn, payload in kept.items():
                if log.first_lsn <= lsn <= cut:
                    assert there[lsn].rstrip(b"\0") == payload.rstrip(b"\0")
            assert log.first_lsn <= 16
            assert sorted(there) == list(range(log.first_lsn, log.next_lsn))

    nth = 0
    while not left or left[-1] <= 0:
        nth += leap(2 if nth < 60 else 30)
        run_sim(main, nth)
    assert nth > 10, "the call has fewer lines than that?"


def test_exception_between_a_batch_s_new_segment_and_its_first_record_hangs_nothing(monkeypatch) -> None:
    begun: list[int] = []
    place = Placement.place

    def placed_and_ended(self: Placement, *arguments: Any, **options: Any) -> bool:
        segment, fits = self.group.segment, place(self, *arguments, **options)
        if fits and self.group.segment is not segment:
            begun.append(self.group.segment.id)
            monkeypatch.undo()
            raise Alarm
        return fits

    async def main(seed: int) -> None:
        device = SimDevice(seed)
        log = await open_on(SimDisk(device), SMALL)
        await log.append(b"kept")
        monkeypatch.setattr(Placement, "place", placed_and_ended)
        with pytest.raises((Alarm, DurabilityLost)):
            await log.append_batch(stream(20))
        after = 0
        with suppress(WalError):
            for _ in range(30):
                after = (await log.append(bytes(9000))).lsn
        with suppress(WalError):
            await log.close()
        async with await open_on(SimDisk(device), SMALL) as log:
            there = {record.lsn: record.payload async for record in log.read()}
            assert there.pop(1) == b"kept"
            assert set(range(2, after + 1)) <= there.keys()
            assert set(there.values()) <= {bytes(9000)}

    run_sim(main, 1)
    assert begun


class Part:
    """Has a step in two halves."""

    def __init__(self, health: Health) -> None:
        self._health = health

    @whole("a step")
    def step(self, error: BaseException) -> None:
        raise error


async def test_step_that_is_cut_short_fails_the_log_and_an_answer_does_not() -> None:
    health = Health("a", asyncio.get_running_loop(), lambda: (1, 0, 1))
    with pytest.raises(WalError):
        Part(health).step(DurabilityLost("an answer"))
    with pytest.raises(DurabilityLost), health.whole("some lines"):
        raise DurabilityLost("an answer")
    assert health.failure is None
    with pytest.raises(Alarm):
        Part(health).step(Alarm())
    assert health.failure is not None
    assert "a step was cut short (Alarm)" in health.failure.message


async def test_listeners_hear_of_a_failure_though_telling_them_was_cut_short() -> None:
    health, heard = Health("a", asyncio.get_running_loop(), lambda: (1, 0, 1)), []

    def first() -> None:
        heard.append(1)
        if len(heard) == 1:
            raise Alarm

    health.listen(first)
    health.listen(lambda: heard.append(2))
    with pytest.raises(Alarm):
        health.fail("it fails", OSError(5, "EIO"))
    assert heard == [1, 1, 2]


async def test_turn_ends_with_its_task_and_when_the_task_takes_another() -> None:
    loop = asyncio.get_running_loop()
    extent = Extent(SimDisk(SimDevice(1)), Health("a", loop, lambda: (1, 0, 1)))

    async def lost() -> None:
        await extent.__aenter__()  # and what ends it never runs

    async with asyncio.timeout(10):  # a planted bug waits for its end
        await asyncio.gather(lost())
        await lost()
    async with extent:
        other = asyncio.create_task(lost())
        await asyncio.wait([other], timeout=0)
        await asyncio.sleep(0)
        assert not other.done(), "the turn is ours"
    await other
    assert not extent.locked() or other.done()


@pytest.mark.parametrize("kind", REAL_DISKS)
async def test_write_is_told_again_where_telling_was_cut_short(tmp_path: Path, kind: str) -> None:
    loop = asyncio.get_running_loop()
    handled = []
    loop.set_exception_handler(lambda _, context: handled.append(context["exception"]))
    disk = await open_disk(tmp_path, config=WalConfig(disk=kind), loop=loop, exclusive=True)
    await disk.allocate("a", 65536)
    file = await disk.open_file("a")
    told: list[str] = []
    over = loop.create_future()

    def done(name: str) -> Any:
        def tell(write: Write, error: OSError | None) -> None:
            told.append(name)
            if len(told) == 1:
                raise Alarm
            if len(told) == 3:
                over.set_result(None)

        return tell

    for number, name in enumerate(("first", "second")):
        disk.submit(Write(file, number * 4096, disk.buffer(4096), done(name)))
    await over
    assert told[0] == told[1]
    assert sorted({*told}) == ["first", "second"]
    await disk.close()
    assert [type(each) for each in handled] == [Alarm]
