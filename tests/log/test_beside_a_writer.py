"""Looking at a log while its writer goes on, at the very moments that matter: nothing that is only being written looks
damaged, and what is damaged is told all the same."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from walsvc.config import WalConfig
from walsvc.disk.sim import SimDevice, SimDisk
from walsvc.errors import Corruption
from walsvc.format.segment import parse_name
from walsvc.log.offline.backup import copy_log
from walsvc.log.offline.inspect import walk
from walsvc.log.offline.repair import look_at
from walsvc.log.offline.verify import verify
from walsvc.log.recover.looking import find
from walsvc.opening import open_on

Hook = Callable[[str, int], Awaitable[None]]


class Watched(SimDisk):
    """A reader's view: `hooks` are run in front of its operations, "listed" behind a listing, "was read" behind a reading."""

    def __init__(self, device: SimDevice, **hooks: Hook) -> None:
        super().__init__(device, latency=0.0, lock=False)
        self.hooks = hooks

    async def _met(self, operation: str, name: str = "", offset: int = 0) -> None:
        if operation in self.hooks:
            await self.hooks[operation](name, offset)

    async def list(self) -> dict[str, int]:
        listed = await super().list()
        await self._met("listed")
        return listed

    async def sync(self, name: str) -> None:
        await self._met("sync", name)
        await super().sync(name)

    async def read(self, name: str, offset: int, length: int) -> bytes:
        await self._met("read", name, offset)
        data = await super().read(name, offset, length)
        await self._met("was read", name, offset)
        return data

    async def read_into(self, name: str, offset: int, view: memoryview) -> int:
        data = await super().read(name, offset, len(view))  # groups are read in this way: no hook here
        view[: len(data)] = data
        return len(data)


async def written(device: SimDevice, segment_bytes: int = 65536) -> Any:
    """A log that is open for writing, with three records."""
    log = await open_on(SimDisk(device, latency=0.0), WalConfig(segment_bytes=segment_bytes))
    for _ in range(3):
        await log.append(bytes(1000))
    return log


def goes_on(log: Any, count: int = 2) -> Hook:
    """What a busy writer does between two looks: a commit, and others that say that it is durable."""

    async def append(name: str, offset: int) -> None:
        if offset or not name:  # not for the headers
            for _ in range(count):
                await log.append(bytes(1000))

    return append


async def segment_turns(log: Any) -> None:
    before = log.stats().rotations
    while log.stats().rotations == before:
        await log.append(bytes(5000))


async def test_group_written_between_the_end_and_the_look_ahead_is_no_damage():
    device = SimDevice(1)
    async with await written(device, segment_bytes=1 << 20) as log:
        disk = Watched(device, read=goes_on(log))
        reader = await open_on(disk, WalConfig(read_only=True))
        disk.hooks.clear()
        assert reader.next_lsn >= 6, "what had been claimed when it looked ahead"
        assert [record.lsn async for record in reader.read(stop=6)] == [1, 2, 3, 4, 5]
        await reader.close()


async def test_group_written_meanwhile_is_no_damage_for_whoever_walks_a_segment():
    device = SimDevice(2)
    async with await written(device) as log:
        disk = Watched(device, read=goes_on(log))
        ((name, length),) = [each for each in (await disk.list()).items() if parse_name(each[0], ".wal")]
        walked = await walk(disk, name, 1, length)
        assert walked is not None
        assert (walked.proof, walked.error) == (None, None)
        assert walked.next_lsn >= 6


async def test_damage_beside_a_busy_writer_is_told_with_its_place():
    device = SimDevice(3)
    async with await written(device, segment_bytes=1 << 20) as log:
        third = await log.append(b"the third")
        for _ in range(3):
            await log.append(b"and what shows that it was durable")
        device.flip(f"{third.segment_id:016x}.wal", third.offset, 0)
        with pytest.raises(Corruption) as caught:
            await find(Watched(device, read=goes_on(log, count=1)))
        assert (caught.value.segment, caught.value.lsn) == (third.segment_id, third.lsn)


async def test_segment_that_is_sealed_after_every_listing_does_not_keep_readers_out(monkeypatch, tmp_path):
    device = SimDevice(4)

    async def opened(*_: object, **__: object) -> SimDisk:
        return Watched(device, listed=turn)

    async def turn(*_: object) -> None:
        await segment_turns(log)

    async with await written(device) as log:
        disk = Watched(device, listed=turn)
        reader = await open_on(disk, WalConfig(read_only=True))
        disk.hooks.clear()
        last = log.durable_lsn
        assert [record.lsn async for record in reader.read(stop=last + 1)] == [*range(1, last + 1)]
        await reader.close()
        monkeypatch.setattr("walsvc.log.offline.inspect.open_disk", opened)
        copied = await copy_log("sim", str(tmp_path / "copy"), sparse=True)
    monkeypatch.undo()
    told = await verify(tmp_path / "copy")
    assert (told.errors, told.records, told.next_lsn) == ([], copied.next_lsn - 1, copied.next_lsn)


async def test_spare_that_is_taken_into_use_after_every_listing_does_not_keep_readers_out():
    device, met = SimDevice(5), 0

    async def turn(name: str, _: int) -> None:
        nonlocal met
        if name.endswith(".spare"):
            met += 1
            await segment_turns(log)
            await next_one_is_prepared()  # the next look meets a spare, too

    async def next_one_is_prepared() -> None:
        await log.append(bytes(30000))
        while not log.stats().spares:
            await log.append(b"")

    async with await written(device) as log:
        await next_one_is_prepared()
        found = await find(Watched(device, sync=turn))
        assert met == 1
        assert found.active.metadata.successor is None


async def test_segments_dropped_in_front_of_a_verification_are_not_missed(monkeypatch):
    device = SimDevice(6)

    async def opened(*_: object, **__: object) -> SimDisk:
        return Watched(device, read=drop)

    async def drop(name: str, offset: int) -> None:
        ids = log.writer.segments.ids()
        if offset == 0 and name == f"{ids[1]:016x}.wal":  # the first one has been read
            for _ in range(3):
                await segment_turns(log)
            await log.truncate_before(ids[3])

    async with await written(device) as log:
        for _ in range(6):
            await segment_turns(log)
        monkeypatch.setattr("walsvc.log.offline.inspect.open_disk", opened)
        told = await verify("sim")
        assert told.errors == []
        assert told.segments > 0


async def test_what_a_writer_is_just_writing_is_no_finding(tmp_path):
    device = SimDevice(7)

    async def opened(*_: object, **__: object) -> SimDisk:
        return SimDisk(device, latency=0.0, lock=False)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("walsvc.log.offline.inspect.open_disk", opened)
        async with await written(device) as log:
            last = await log.append(b"the last")
            place = f"{last.segment_id:016x}.wal", last.offset
            device.flip(*place, 0)  # stands for one on its way
            told = await verify("sim", holder=lambda: 4711)
            assert (told.findings, told.errors, told.writer, told.next_lsn) == ([], [], 4711, last.lsn)
            (torn,) = (await verify("sim")).findings
            assert (torn.kind, torn.lsn, "dropped" in torn.message) == ("torn_tail", last.lsn, False)
            device.flip(*place, 0)


LOOKS = {
    "open": lambda disk: open_on(disk, WalConfig(read_only=True)),
    "find": find,
    "verify": lambda _: verify("sim"),
    "repair": look_at,
    "backup": lambda _: copy_log("sim", "copy", sparse=True),
}


@pytest.mark.parametrize("how", LOOKS)
async def test_segment_that_a_cut_exchanges_under_several_looks_is_no_damage(how, monkeypatch, tmp_path):
    device, times = SimDevice(8), 0

    async def opened(*_: object, **__: object) -> SimDisk:
        return Watched(device, **{"was read": exchange})

    async def exchange(name: str, offset: int) -> None:
        nonlocal times
        if (
            times < 5 and offset == 0 and name == f"{1:016x}.wal"
        ):  # the groups are read behind the header of another file
            times += 1
            await log.truncate_after(0)
            await log.append(b"%d" % times)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("walsvc.log.offline.inspect.open_disk", opened)
    async with await written(device) as log:
        looked = await LOOKS[how](await opened())
        assert times == 5
        assert not getattr(looked, "errors", ())
        assert not getattr(looked, "reasons", ())


async def test_backup_whose_earlier_segment_a_cut_exchanges_begins_again(monkeypatch, tmp_path):
    device, heads = SimDevice(9), 0

    async def opened(*_: object, **__: object) -> SimDisk:
        return Watched(device, **{"was read": exchange})

    async def exchange(name: str, offset: int) -> None:
        nonlocal heads
        heads += offset == 0 and name == newest
        if heads == 2:  # once when the log was found, now before the head of the segment in front of it is read
            heads += 1
            await log.truncate_after(0)
            await log.append(b"anew")

    monkeypatch.setattr("walsvc.log.offline.inspect.open_disk", opened)
    async with await written(device) as log:
        await segment_turns(log)
        newest = f"{log.writer.segments.ids()[-1]:016x}.wal"
        assert (await copy_log("sim", str(tmp_path / "copy"), sparse=True)).next_lsn == 2
        assert heads == 3
