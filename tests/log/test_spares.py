"""The file of the next segment: written zeros, or behind large groups reserved room; and its name, which no other file has."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

import walsvc
from tests.disks import REAL_DISKS
from walsvc import KeyRing
from walsvc.config import WalConfig
from walsvc.disk.sim import SimDevice, SimDisk, run_sim
from walsvc.errors import Backpressure, NoSpace
from walsvc.opening import open_on

SEGMENT_BYTES = 4 << 20
CONFIG = WalConfig(segment_bytes=SEGMENT_BYTES)


class Noting(SimDisk):
    """A disk that notes how each file was made."""

    def __init__(self, device: SimDevice) -> None:
        super().__init__(device)
        self.made: list[bool] = []

    async def allocate(self, name: str, length: int, *, reserved: bool = False) -> None:
        if length == SEGMENT_BYTES:
            self.made.append(reserved)
        await super().allocate(name, length, reserved=reserved)


def made_by(payload_bytes: int, then_bytes: int = 0) -> list[bool]:
    """How the segments of a log were made that was filled with appends of one size, and then of another; read back, too."""

    async def main(seed: int) -> None:
        disk = Noting(SimDevice(seed))
        made.append(disk.made)
        async with await open_on(disk, CONFIG) as log:
            for size in (payload_bytes, then_bytes):
                for _ in range(3 * SEGMENT_BYTES // size if size else 0):
                    await log.append(bytes(size))
            sizes = [len(record.payload) async for record in log.read()]
        assert sizes == [size for size in (payload_bytes, then_bytes) if size for _ in range(3 * SEGMENT_BYTES // size)]

    made: list[list[bool]] = []
    run_sim(main, 1)
    return made[0]


def test_small_groups_get_written_zeros() -> None:
    assert set(made_by(60_000)) == {False}


def test_behind_large_groups_room_is_only_reserved_until_they_are_small_again() -> None:
    made = made_by(900_000, then_bytes=60_000)
    assert made[1:3] == [True, True]
    assert made[-1] is False


FIRST = ("first", bytes(32))
RING = KeyRing(current=("second", b"2" * 32), older=[FIRST])


@pytest.mark.parametrize("seed", range(6))
def test_file_of_a_segment_that_is_being_begun_is_not_taken_for_the_next_spare(seed: int) -> None:
    """A segment that replaces one without records has, until it has its name, the one that the next spare gets."""
    pytest.importorskip("cryptography", reason="encryption needs walsvc[crypto]")

    async def main(seed: int) -> None:
        device = SimDevice(seed)
        log = await open_on(SimDisk(device), WalConfig(segment_bytes=65536, keys=KeyRing(current=FIRST)))
        appending = asyncio.ensure_future(log.append(bytes(200_000)))
        await asyncio.sleep(seed % 3 * 0.0001)
        await log.use_keys(RING)
        assert (await appending).lsn == 1
        assert [len(record.payload) async for record in log.read()] == [200_000]
        await log.close()
        async with await open_on(SimDisk(device), WalConfig(segment_bytes=65536, keys=RING)) as log:
            assert [len(record.payload) async for record in log.read()] == [200_000]

    run_sim(main, seed)


@pytest.mark.parametrize("operation", ["rename", "open_file", "remove"])
def test_prepared_file_is_as_long_as_it_is_said_to_be_whatever_was_refused_before(operation: str) -> None:
    """The file that the reserve lends takes the name that an old segment has already got."""

    async def main(seed: int) -> None:
        device = SimDevice(seed)
        async with await open_on(SimDisk(device), WalConfig(segment_bytes=65536)) as log:
            for _ in range(40):
                await log.append(bytes(9000))
            await log.truncate_before(30)
            spares, header = log.writer.core.tail.spares, log.writer.core.tail.segment.header
            await spares.put_back()
            assert spares.recyclable
            for nth in range(1, 4):
                device.fail(operation, nth=nth, errno=errno.EMFILE, times=2)
                for metadata in (True, False) * 4:
                    spares.prepare(header.ordinal + 1, header.file_bytes, metadata=metadata)
                    await spares.settle()
                    if (spare := spares.fitting(metadata=True)) is not None:
                        assert device.file(spare.name).visible_size == spare.file_bytes
                        assert (
                            spare.name not in spares.recyclable
                        )  # it would be counted twice, and removed while it waits
                await spares.put_back()
            there = await log.writer.core.disk.list()
            files = {**spares.recyclable, **spares.reserve.files}
            assert {name: there.get(name) for name in files} == files

    run_sim(main, seed=1)


@pytest.mark.parametrize("disk", REAL_DISKS)
async def test_prepared_file_may_be_removed_at_any_time(tmp_path: Path, disk: str) -> None:
    """As somebody does who wants room: no record is in it, so another one is prepared."""
    async with walsvc.open(tmp_path, disk=disk, segment_bytes=65536) as log:
        for number in range(80):
            for name in [each for each in os.listdir(tmp_path) if each.endswith(".spare")]:
                os.unlink(tmp_path / name)
            await log.append(bytes(3000))
            if number % 20 == 7:
                await log.hold("h", log.next_lsn)
    async with walsvc.open(tmp_path, disk=disk) as log:
        assert [record.lsn async for record in log.read()] == list(range(1, 81))


def test_prepared_file_that_somebody_removes_is_no_failure_whoever_wants_it() -> None:
    async def main(seed: int) -> None:
        device = SimDevice(seed)

        def remove(*prefixes: str) -> None:
            for name in [each for each in device.directory.names if each.endswith(".spare")]:
                if name.startswith(prefixes):
                    device.directory.change({name: None})

        async with await open_on(SimDisk(device), WalConfig(segment_bytes=65536)) as log:
            for number in range(40):
                await log.append(bytes(9000))
                remove("0")
                if number == 20:
                    await log.truncate_before(15)
                    remove("0")
                    await log.truncate_after(18)
                    remove("0", "4")
                    await log.compact()
            spares, header = log.writer.core.tail.spares, log.writer.core.tail.segment.header
            spares.prepare(header.ordinal + 1, header.file_bytes)
            await spares.settle()
            assert spares.fitting() is not None
            remove("0", "4")
            assert spares.fitting() is None
            await spares.put_back()
            assert not spares.recyclable
            await log.append_batch([bytes(60_000)] * 4)
        async with await open_on(SimDisk(device), CONFIG) as log:
            assert len([record async for record in log.read()]) == 4 + 18 - 14 + 19

    run_sim(main, seed=1)


def test_append_that_waits_for_pending_bytes_hears_of_no_shortage() -> None:
    """The next segment cannot be prepared now, and the active one has room for all of them."""

    async def main(seed: int) -> None:
        device = SimDevice(seed)
        config = WalConfig(segment_bytes=1 << 20, max_pending_bytes=16_384)
        async with await open_on(SimDisk(device), config) as log:
            device.fail("allocate", errno=errno.ENOSPC, times=1000)
            while (error := log.writer.core.tail.spares.error) is None:
                await log.append(bytes(3000))
            assert error.errno == errno.ENOSPC
            appends = [log.append(bytes(3000)) for _ in range(60)]
            with pytest.raises(Backpressure):
                log.append_nowait(bytes(3000))
            held = log.hold("h", 1)
            await asyncio.gather(*appends, held)
            with pytest.raises(NoSpace):
                await log.append(bytes(1 << 20))

    run_sim(main, seed=1)
