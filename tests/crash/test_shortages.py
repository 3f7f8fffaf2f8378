"""Descriptors, memory, threads and the like run out at the nth call: on the simulated disk, and on the real ones."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import mmap
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import walsvc
from tests.disks import REAL_DISKS
from walsvc.api import Log
from walsvc.config import KIB, WalConfig
from walsvc.disk.sim import SimDevice, SimDisk, run_sim
from walsvc.errors import Backpressure, DurabilityLost, NoSpace, PathError, WalError
from walsvc.keyring import KeyRing
from walsvc.log.commit.patience import PAUSES
from walsvc.opening import open_on

from .faults import FaultRun, Planted
from .grid import Ledger, Program
from .sampling import sampled
from .test_faults import plan_of, usual_counts

EMFILE, ENFILE, ENOMEM, EAGAIN, EFBIG = errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EFBIG
HANGS_SECONDS = 60.0  # far beyond what a program of this size takes on a busy machine
HARMLESS = {
    "allocate": (EMFILE, ENFILE, ENOMEM, EAGAIN, EFBIG),
    "allocate.write": (ENOMEM, EAGAIN, EFBIG),
    "open_file": (EMFILE, ENFILE, ENOMEM),
    "list": (EMFILE, ENFILE, ENOMEM),
}
"""Operations of the disk before data is given to them, and what may be short there."""
CALLS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "open": (os, (EMFILE, ENFILE, ENOMEM)),
    "scandir": (os, (EMFILE, ENOMEM)),
    "posix_fallocate": (os, (ENOMEM, EFBIG)),
    "pwrite": (os, (ENOMEM, EAGAIN, EFBIG)),
    "preadv": (os, (ENOMEM, EAGAIN)),
}
"""Likewise, what the real disks call in a thread of theirs."""


@pytest.mark.parametrize("operation", HARMLESS)
def test_shortage_that_endangers_no_data_ends_no_log(operation: str) -> None:
    plan = plan_of(7)
    count = usual_counts(plan)[operation]
    assert count > 0, "the scenario does not meet this operation"
    told: Counter[str] = Counter()
    for index, number in enumerate(HARMLESS[operation]):
        for nth in sampled(range(1 + index, count + 1, len(HARMLESS[operation])), 2):
            run = FaultRun(plan, Planted(operation, nth, number))
            try:
                run.run()
                assert "DurabilityLost" not in run.failures
            except BaseException as error:
                error.add_note(f"the {nth}th {operation} failed with {errno.errorcode[number]}, told: {run.failures}")
                raise
            told.update(run.failures or ["nobody"])
    print(f"{operation}: {count} calls; told: {dict(told)}")


class Shortage:
    """Replaces a function by one whose nth call, counted while `armed`, raises."""

    def __init__(self, patch: pytest.MonkeyPatch, owner: Any, name: str, nth: int, error: Exception) -> None:
        self.calls = 0
        self.armed = False
        original = getattr(owner, name)

        def call(*arguments: Any, **named: Any) -> Any:
            if self.armed:
                self.calls += 1
                if self.calls == nth:
                    raise error
            return original(*arguments, **named)

        patch.setattr(owner, name, call)

    def arm(self, armed: bool) -> None:
        """For Program.during."""
        self.armed = armed


def run(path: Path, disk: str, shortage: Shortage) -> Program:
    """The whole program on a real disk. Fails when it waits for ever."""

    async def opening() -> Log:
        return await walsvc.open(
            path, disk=disk, segment_bytes=64 * KIB, max_group_bytes=16 * KIB, max_pending_bytes=64 * KIB
        )

    async def main() -> Program:
        program = Program(opening, Ledger(), during=shortage.arm)
        async with asyncio.timeout(HANGS_SECONDS):
            await program.run()
        return program

    return asyncio.run(main())


def every(count: int, phase: int) -> Iterator[int]:
    """Some of the calls from 1 to `count`: at most six, others for each phase."""
    step = max(1, count // 5)
    yield from range(1 + phase % step, count + 1, step)


@pytest.mark.parametrize("disk", REAL_DISKS)
@pytest.mark.parametrize("name", CALLS)
def test_shortage_in_a_call_of_a_real_disk_ends_no_log(name: str, disk: str, tmp_path: Path) -> None:
    owner, numbers = CALLS[name]
    with pytest.MonkeyPatch.context() as patch:
        usual = Shortage(patch, owner, name, 0, OSError())
        assert run(tmp_path / "usual", disk, usual).told == []
    for phase, number in enumerate(numbers):
        for nth in sampled(every(usual.calls, phase), 2):
            with pytest.MonkeyPatch.context() as patch:
                short = Shortage(patch, owner, name, nth, OSError(number, os.strerror(number)))
                told = run(tmp_path / f"{number}-{nth}", disk, short).told
            lost = [error for error in told if isinstance(error, DurabilityLost)]
            assert lost == [], f"the {nth}th {name} failed with {errno.errorcode[number]}"


@pytest.mark.parametrize("disk", REAL_DISKS)
def test_no_memory_for_a_group_is_told_as_that(disk: str, tmp_path: Path) -> None:
    """Its records have LSNs by then, so the log ends; nothing acknowledged is missing."""
    with pytest.MonkeyPatch.context() as patch:
        usual = Shortage(patch, mmap, "mmap", 0, OSError())
        assert run(tmp_path / "usual", disk, usual).told == []
    assert usual.calls > 0
    for nth in range(1, usual.calls + 1):
        with pytest.MonkeyPatch.context() as patch:
            short = Shortage(patch, mmap, "mmap", nth, OSError(ENOMEM, os.strerror(ENOMEM)))
            told = run(tmp_path / f"{nth}", disk, short).told
        assert {error.errno for error in told if isinstance(error, DurabilityLost)} <= {ENOMEM}, f"the {nth}th"


SMALL = WalConfig(segment_bytes=64 * KIB, max_group_bytes=16 * KIB)
READS = (EMFILE, ENFILE, ENOMEM, EAGAIN, errno.EINTR)


def refuse(disk: SimDisk, error: BaseException) -> None:
    """Let every read fail, until `read` is deleted again."""

    async def read(name: str, offset: int, length: int) -> bytes:
        raise error

    disk.read = read  # type: ignore[method-assign]


async def filled(seed: int) -> SimDevice:
    """A device with a log of several segments, and a consumer whose records truncate_before looks for."""
    device = SimDevice(seed)
    async with await open_on(SimDisk(device), SMALL) as log:
        await log.topic("t").append(b"x")
        await (await log.topic("t").consumer("c")).close()
        for _ in range(40):
            await log.append(bytes(4000))
    return device


@pytest.mark.parametrize("number", READS, ids=errno.errorcode.get)
def test_refused_read_ends_no_rotation_and_no_truncation(number: int) -> None:
    async def main(seed: int) -> None:
        disk = SimDisk(await filled(seed))
        async with await open_on(disk, SMALL) as log:
            refuse(disk, OSError(number, os.strerror(number)))
            for change in (log.truncate_before(20), log.truncate_after(20), log.reclaim()):
                with pytest.raises(PathError) as refused:
                    await change
                assert refused.value.errno == number
                assert (log.first_lsn, log.next_lsn) == (1, 42)
            rotations = log.stats().rotations
            for _ in range(20):
                await log.append(bytes(4000))
            assert log.stats().rotations > rotations
            del disk.read
            await log.truncate_after(30)
            await log.truncate_before(20)
            assert [record.lsn async for record in log.read()] == list(range(20, 31))

    run_sim(main, 1)


def test_no_memory_for_a_read_ends_no_rotation() -> None:
    async def main(seed: int) -> None:
        disk = SimDisk(await filled(seed))
        async with await open_on(disk, SMALL) as log:
            refuse(disk, MemoryError())
            for _ in range(20):
                await log.append(bytes(4000))
            assert log.stats().rotations > 0

    run_sim(main, 1)


def test_no_memory_for_a_read_ends_no_truncation() -> None:
    async def main(seed: int) -> None:
        disk = SimDisk(await filled(seed))
        async with await open_on(disk, SMALL) as log:
            refuse(disk, MemoryError())
            for change in (log.truncate_before(20), log.truncate_after(20), log.reclaim()):
                with pytest.raises(PathError) as refused:
                    await change
                assert refused.value.errno == ENOMEM
                assert (log.first_lsn, log.next_lsn) == (1, 42)
            await log.append(b"goes on")
            del disk.read
            await log.truncate_before(20)
            assert log.first_lsn == 20

    run_sim(main, 1)


@pytest.mark.parametrize("number", [EMFILE, ENOMEM, errno.EACCES, errno.ENOSPC], ids=errno.errorcode.get)
def test_segment_that_cannot_be_removed_ends_no_log_and_goes_later(number: int) -> None:
    """A copy-on-write file system that is full needs room to remove a file; a directory may have lost its mode."""

    async def main(seed: int) -> None:
        device = SimDevice(seed)
        disk = SimDisk(device)
        log = await open_on(disk, SMALL)
        for _ in range(40):
            await log.append(bytes(4000))
        kept = log.stats().segments

        async def refused(*names: str) -> None:
            raise OSError(number, os.strerror(number))

        disk.remove = disk.rename = refused  # type: ignore[method-assign]
        for _ in range(2):
            with pytest.raises(NoSpace if number == errno.ENOSPC else PathError, match="cannot be removed yet") as told:
                await log.truncate_before(30)
            assert told.value.errno == number
        del disk.rename
        assert (log.first_lsn, log.stats().segments) == (30, kept)
        assert [record.lsn async for record in log.read()] == list(range(30, 41))
        await log.append(b"goes on")
        await log.close()
        disk = SimDisk(device)
        disk.remove = refused  # type: ignore[method-assign]
        log = await open_on(disk, SMALL)
        del disk.remove
        await log.truncate_before(30)
        assert (log.first_lsn, log.next_lsn) == (30, 42)
        assert log.stats().segments < kept
        await log.close()

    run_sim(main, 1)


class Refusing:
    """Lets calls of a disk fail, but for the first ones, until it is told to stop.

    Attributes:
        attempts: calls so far.
    """

    def __init__(self, disk: SimDisk, number: int, *calls: str, allowed: int = 0) -> None:
        self.attempts = 0
        self._disk = disk
        self._number = number
        self._calls = calls
        self._allowed = allowed
        for call in calls:
            setattr(disk, call, partial(self._call, getattr(disk, call)))

    async def _call(self, original: Callable[..., Awaitable[Any]], *arguments: Any, **named: Any) -> Any:
        self.attempts += 1
        if self.attempts > self._allowed:
            raise OSError(self._number, os.strerror(self._number))
        return await original(*arguments, **named)

    def stop(self) -> None:
        """There is room."""
        for call in self._calls:
            delattr(self._disk, call)


async def cut_without_room(device: SimDevice, number: int, allowed: int) -> tuple[Log, Refusing]:
    """A log of 40 records that truncate_after(10) could not end."""
    disk = SimDisk(device)
    log = await open_on(disk, SMALL)
    for _ in range(40):
        await log.append(bytes(4000))
    refusing = Refusing(disk, number, "remove", allowed=allowed)
    with pytest.raises(NoSpace if number == errno.ENOSPC else PathError, match="cannot be removed yet") as told:
        await log.truncate_after(10)
    assert told.value.errno == number
    assert "goes on by itself" in (told.value.hint or "")
    assert (log.next_lsn, log.durable_lsn) == (11, 10)
    assert [record.lsn async for record in log.read()] == list(range(1, 11))
    return log, refusing


@pytest.mark.parametrize("allowed", [0, 1], ids=["none", "one"])
@pytest.mark.parametrize("number", [EMFILE, errno.EACCES, errno.ENOSPC], ids=errno.errorcode.get)
def test_cut_whose_segments_cannot_be_removed_goes_on_by_itself_later(number: int, allowed: int) -> None:
    async def main(seed: int) -> None:
        device = SimDevice(seed)
        log, refusing = await cut_without_room(device, number, allowed)
        calls = (
            log.append(b"x"),
            log.append_batch([b"x", b"y"]),
            log.hold("copy", 3),
            log.truncate_before(3),
            log.truncate_after(4),
            log.seal(),
        )
        for error in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(error, (NoSpace, PathError)), error
            assert error.errno == number
        with pytest.raises(Backpressure):
            log.append_nowait(b"x")
        follower = asyncio.ensure_future(anext(log.follow(11)))
        refusing.stop()
        assert (await log.append(b"goes on")).lsn == 11
        assert (await follower).payload == b"goes on"
        await log.truncate_after(9)
        await log.close()
        log = await open_on(SimDisk(device), SMALL)
        assert [record.lsn async for record in log.read()] == list(range(1, 10))
        assert log.report.clean
        await log.close()

    run_sim(main, 3)


@pytest.mark.parametrize("ending", ["closed", "killed", "power cut"])
def test_cut_whose_segments_could_not_be_removed_is_ended_by_the_next_opening(ending: str) -> None:
    async def main(seed: int) -> None:
        device = SimDevice(seed)
        log, _ = await cut_without_room(device, errno.ENOSPC, 1)
        waiting = asyncio.ensure_future(log.append(b"never"))
        await asyncio.sleep(0)
        if ending == "closed":
            await log.close()
        else:
            device = device.fork()
            if ending == "killed":
                device.kill()
            else:
                device = device.crash()
        disk = SimDisk(device)
        refusing = Refusing(disk, errno.ENOSPC, "remove")
        with pytest.raises(NoSpace, match="cannot be removed yet"):
            await open_on(disk, SMALL)
        refusing.stop()
        log = await open_on(SimDisk(device), SMALL)
        assert [record.lsn async for record in log.read()] == list(range(1, 11))
        assert (await log.append(b"on")).lsn == 11
        await log.close()
        waiting.cancel()

    run_sim(main, 4)


def test_rewritten_segment_that_cannot_take_its_place_ends_no_log() -> None:
    async def main(seed: int) -> None:
        device = SimDevice(seed)
        disk = SimDisk(device)
        log = await open_on(disk, SMALL)
        for number in range(40):
            await log.append(bytes(4000), attributes={"key": "kept" if number % 2 else "purged"})
        await log.purge("purged")
        refusing = Refusing(disk, errno.ENOSPC, "rename")
        for _ in range(2):
            with pytest.raises(NoSpace, match="no room to exchange a segment"):
                await log.compact()
        refusing.stop()
        await log.append(b"goes on")
        assert await log.compact() > 0
        assert [record.lsn async for record in log.read()] == [*range(2, 41, 2), 41]
        await log.close()
        log = await open_on(SimDisk(device), SMALL)
        assert [record.lsn async for record in log.read()] == [*range(2, 41, 2), 41]
        await log.close()

    run_sim(main, 5)


async def kept_waiting(refusing: Refusing, *calls: asyncio.Future[Any]) -> None:
    """Some attempts later the calls still wait."""
    before = refusing.attempts
    while refusing.attempts < before + 3 * (1 + len(PAUSES)):
        await asyncio.sleep(0.1)
    assert not any(call.done() for call in calls)


async def left(log: Log, device: SimDevice, ending: str) -> SimDevice:
    """The device behind a log that is closed in trouble, or whose power is cut."""
    if ending == "power cut":
        return device.fork().crash()
    with contextlib.suppress(DurabilityLost):
        await log.close()
    return device


NAMELESS = pytest.mark.parametrize("number", [EMFILE, errno.EACCES, errno.ENOSPC], ids=errno.errorcode.get)
ENDINGS = pytest.mark.parametrize("ending", ["goes on", "closed", "power cut"])


@NAMELESS
@ENDINGS
def test_segment_that_cannot_take_its_name_ends_no_log(number: int, ending: str) -> None:
    """Records that were accepted wait, as for a device that stalls; callers that wait for room are told why."""

    async def main(seed: int) -> None:
        device = SimDevice(seed)
        disk = SimDisk(device)
        log = await open_on(disk, SMALL)
        acknowledged = 0
        for _ in range(12):
            acknowledged = (await log.append(bytes(4000))).lsn
        refusing = Refusing(disk, number, "rename")
        while not refusing.attempts:
            waiting = asyncio.create_task(log.append(bytes(4000)))
            await asyncio.wait([waiting], timeout=0.1)
            acknowledged += waiting.done()
        await kept_waiting(refusing, waiting)
        assert (log.durable_lsn, log.next_lsn) == (acknowledged, acknowledged + 2)
        assert [record.lsn async for record in log.read(stop=acknowledged + 1)] == list(range(1, acknowledged + 1))
        if ending == "goes on":
            crowd = [asyncio.create_task(log.append(bytes(4000))) for _ in range(40)]
            await kept_waiting(refusing, waiting)
            told = [each.exception() for each in crowd if each.done()]
            assert told, "more than a segment was accepted"
            for error in told:
                assert isinstance(error, (NoSpace, PathError)), error
                assert (error.errno, error.segment) == (number, acknowledged + 1)
            refusing.stop()
            assert (await waiting).lsn == acknowledged + 1
            await asyncio.wait(crowd)
            await log.append(b"goes on")
            await log.close()
        elif ending == "closed":
            with pytest.raises(DurabilityLost) as lost:
                await asyncio.gather(log.close(), waiting)
            assert lost.value.errno == number
            disk = SimDisk(device)
            Refusing(disk, number, "rename")
            with pytest.raises(NoSpace if number == errno.ENOSPC else PathError):
                await open_on(disk, SMALL)
        else:
            device = device.fork().crash()
        waiting.cancel()
        async with await open_on(SimDisk(device), SMALL) as log:
            lsns = [record.lsn async for record in log.read()]
            assert lsns == list(range(1, len(lsns) + 1))
            assert len(lsns) >= acknowledged

    run_sim(main, 6)


@NAMELESS
@ENDINGS
def test_cut_whose_segment_cannot_take_its_name_goes_on_by_itself_later(number: int, ending: str) -> None:
    async def main(seed: int) -> None:
        device = SimDevice(seed)
        disk = SimDisk(device)
        log = await open_on(disk, SMALL)
        for _ in range(40):
            await log.append(bytes(4000))
        refusing = Refusing(disk, number, "rename")
        with pytest.raises(NoSpace if number == errno.ENOSPC else PathError, match="cannot take its name yet") as told:
            await log.truncate_after(10)
        assert (told.value.errno, told.value.segment) == (number, 11)
        for call in (log.append(b"x"), log.truncate_before(3), log.truncate_after(4)):
            with pytest.raises((NoSpace, PathError)):
                await call
        assert [record.lsn async for record in log.read()][:10] == list(range(1, 11))
        if ending == "goes on":
            refusing.stop()
            assert (await log.append(b"goes on")).lsn == 11
            await log.close()
        else:
            device = await left(log, device, ending)
        log = await open_on(SimDisk(device), SMALL)
        assert [record.lsn async for record in log.read()][:10] == list(range(1, 11))
        assert log.next_lsn == (12 if ending == "goes on" else 11)
        assert (await log.append(b"on")).lsn == log.next_lsn - 1
        await log.close()

    run_sim(main, 7)


@NAMELESS
@ENDINGS
def test_segments_of_a_given_up_batch_that_cannot_be_removed_end_no_log(number: int, ending: str) -> None:
    async def main(seed: int) -> None:
        device = SimDevice(seed)
        disk = SimDisk(device)
        log = await open_on(disk, SMALL)
        await log.append(b"before")
        refusing = Refusing(disk, number, "remove")

        async def source() -> AsyncIterator[bytes]:
            for _ in range(40):
                yield bytes(4000)
            raise LookupError("the source has ended")

        with pytest.raises(LookupError):  # at once: its caller does not wait for room
            await log.append_batch(source())
        assert (log.next_lsn, log.durable_lsn) == (2, 1)
        calls = (log.append(b"x"), log.append_batch(source()), log.truncate_before(2), log.hold("copy", 1))
        for error in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(error, (NoSpace, PathError)), error
            assert error.errno == number
        follower = asyncio.ensure_future(anext(log.follow(2)))
        flushed = asyncio.ensure_future(log.flush())
        if ending == "goes on":
            refusing.stop()
            assert (await log.append(b"goes on")).lsn == 2
            assert (await follower).payload == b"goes on"
            await flushed
            await log.close()
        else:
            device = await left(log, device, ending)
        log = await open_on(SimDisk(device), SMALL)
        kept = [b"before", b"goes on"] if ending == "goes on" else [b"before"]
        assert [record.payload async for record in log.read()] == kept
        assert (await log.append(b"on")).lsn == len(kept) + 1
        await log.close()
        follower.cancel()
        flushed.cancel()

    run_sim(main, 8)


@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES], ids=errno.errorcode.get)
def test_opening_whose_segment_cannot_take_its_name_ends_with_the_reason(number: int, encrypted: bool) -> None:
    """XFS may need room to give a file another name. Who opens the log is the one who could make room."""

    async def main(seed: int) -> None:
        device = SimDevice(seed)
        told: list[WalError] = []
        async with await open_on(SimDisk(device), SMALL) as log:
            await log.append(b"x")
        for attempt in range(20):  # each begins and ends with a group, so that a segment gets full
            disk = SimDisk(device)
            refusing = Refusing(disk, number, "rename")
            ring = [(f"k{number}", bytes([number]) * 32) for number in range(attempt + 1)]
            keys = KeyRing(current=ring[-1], older=ring[:-1]) if encrypted else None
            config = replace(SMALL, keys=keys)
            try:
                async with asyncio.timeout(60):
                    log = await open_on(disk, config)
            except (NoSpace, PathError) as error:
                told.append(error)
                log = await open_on(SimDisk(device), config)
            else:
                refusing.stop()
            assert [record.payload async for record in log.read()] == [b"x"]
            await log.close()
        assert told
        assert all("open it again" in (error.hint or "") for error in told)
        assert {type(error) for error in told} == {NoSpace if number == errno.ENOSPC else PathError}

    run_sim(main, 9)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EBUSY, errno.EISDIR], ids=errno.errorcode.get)
def test_directory_that_takes_no_file_ends_no_log(number: int) -> None:
    """It has lost its mode, was made immutable, or has a directory under the name: the active segment takes what it has room for."""

    async def main(seed: int) -> None:
        device = SimDevice(seed)
        disk = SimDisk(device)
        log = await open_on(disk, SMALL)
        refusing = Refusing(disk, number, "rename", "remove", "allocate")
        with pytest.raises(NoSpace, match="cannot be made") as told:
            for _ in range(200):
                await log.append(bytes(4000))
        assert told.value.errno == number
        last = log.durable_lsn
        assert log.next_lsn == last + 1
        refusing.stop()
        assert (await log.append(b"goes on")).lsn == last + 1
        await log.close()

    run_sim(main, 9)
