"""Logs that end in a compacted segment, as a restored archive may: opening them begins a new segment. Power cuts and kills
at every operation of that opening."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from tests.crash.plan import reproducible
from walsvc import Corruption, KeyRing, NoSpace, WalConfig
from walsvc.disk.sim import SimDevice, SimDisk, SimLoop, run_sim
from walsvc.format.segment import REWRITTEN, parse_name, segment_name
from walsvc.log.offline.inspect import walk
from walsvc.log.read.stream import load_header
from walsvc.opening import open_on

PLAIN = WalConfig(segment_bytes=65536)
KEYS = KeyRing(current=("k", b"k" * 32))
PACKED = replace(PLAIN, layout="pack", double_write="buffered")
SECRET = replace(PLAIN, keys=KEYS)
STATES = 4  # crash images at each operation
Row = tuple[int, bytes]


def disk_on(device: SimDevice, **options: Any) -> SimDisk:
    return SimDisk(device, latency=0.0, **options)


async def rows(log: Any) -> list[Row]:
    return [(record.lsn, record.payload) async for record in log.read()]


async def ending_compacted(device: SimDevice, config: WalConfig, *, segments: int = 2, bare: bool = False) -> list[Row]:
    """Leave a log on the device of whose segments only so many were restored, the last one compacted and without its seal;
    `bare`: and without its records. Returns what is in it."""
    log = await open_on(disk_on(device), config)
    await rotate(log, segments + 2)
    await log.purge("k1")
    assert await log.compact() > 0
    ids, seen = list(log.writer.segments.ids()), await rows(log)
    await log.close()
    await restored_up_to(device, ids[segments - 1], bare=bare)
    return [row for row in seen if row[0] < ids[segments - bare]]


async def rotate(log: Any, segments: int) -> None:
    """Append until the log has so many segments."""
    while len(log.writer.segments.ids()) < segments:
        await log.topic("t").append(b"%d " % log.next_lsn * 500, attributes={"key": f"k{log.next_lsn % 3}"})


async def restored_up_to(device: SimDevice, last: int, *, bare: bool = False) -> None:
    """Leave of a log what a restored one has that ends with segment `last`, which was compacted."""
    disk = disk_on(device)
    for name in await disk.list():
        first = parse_name(name, ".wal")
        if first is None or first > last:
            await disk.remove(name)
    await disk.sync_directory()
    header, _ = await load_header(disk, segment_name(last), last)
    assert header.optional & REWRITTEN
    assert header.seal_at
    end = header.seal_at
    if bare:
        end = header.data_start + (await walked(disk, last, header.file_bytes))[0]
    data = await disk.read(segment_name(last), 0, header.file_bytes)
    await disk.write(segment_name(last), 0, data[:end].ljust(header.file_bytes, b"\0"))
    await disk.close()


async def walked(disk: SimDisk, first: int, length: int) -> list[int]:
    """Lengths of a segment's groups."""
    lengths: list[int] = []
    await walk(disk, segment_name(first), first, length, lambda header: lengths.append(header.group_bytes))
    return lengths


def content(device: SimDevice, name: str) -> bytes:
    return device.file(name).read(0, 1 << 20, lambda: True)


def last_of(device: SimDevice) -> str:
    return max(name for name in device.directory.names if name.endswith(".wal"))


@pytest.mark.parametrize("config", [PLAIN, SECRET, PACKED], ids=["plain", "encrypted", "packed"])
async def test_log_that_ends_in_a_compacted_segment_goes_on_in_a_new_one(config: WalConfig) -> None:
    device = SimDevice(1)
    expected = await ending_compacted(device, config)
    name = last_of(device)
    old = content(device, name)
    reader = await open_on(disk_on(device, lock=False), replace(config, read_only=True))
    assert await rows(reader) == expected
    log = await open_on(disk_on(device), config)
    end = log.next_lsn
    assert await rows(log) == expected
    assert log.writer.segments.ids()[-1] == end == (await log.append(b"on")).lsn
    assert await log.topic("t").count() == end - 1, "what was purged counts"
    assert content(device, name) == old, "nothing was written into the compacted one"
    while len(log.writer.segments.ids()) < 5:
        await log.append(bytes(3000))
    await log.close()
    assert await rows(reader) == [
        *expected,
        (end, b"on"),
        *((lsn, bytes(3000)) for lsn in range(end + 1, log.next_lsn)),
    ]
    await reader.close()
    log = await open_on(disk_on(device), config)
    assert (log.report.clean, log.writer.segments.ids().count(end)) == (True, 1), "once only"
    await log.close()


async def test_plain_log_that_is_opened_with_keys_goes_on_encrypted() -> None:
    device = SimDevice(2)
    expected = await ending_compacted(device, PLAIN)
    log = await open_on(disk_on(device), SECRET)
    assert await rows(log) == expected
    assert log.stats().key_id == "k"
    assert len(log.writer.segments.ids()) == 3
    await log.close()


async def test_truncation_that_the_compacted_segment_speaks_of_is_made_again() -> None:
    """It holds the intent of a truncate_after, and in a group that begins before some of what was dropped."""
    device = SimDevice(3)
    log = await open_on(disk_on(device), PLAIN)
    await asyncio.gather(*(log.append(b"%d" % n, attributes={"key": n}) for n in range(10)))
    await log.truncate_after(5)
    await rotate(log, 3)
    await log.purge(1)
    await log.compact()
    expected = [row for row in await rows(log) if row[0] <= 5]
    await log.close()
    await restored_up_to(device, 1)
    log = await open_on(disk_on(device), PLAIN)
    assert await rows(log) == expected
    assert (await log.append(b"on")).lsn == 6
    await log.close()


async def test_segment_restored_without_a_record_gives_way_to_a_new_file() -> None:
    device = SimDevice(4)
    expected = await ending_compacted(device, PLAIN, bare=True)
    log = await open_on(disk_on(device), PLAIN)
    assert await rows(log) == expected
    assert len(log.writer.segments.ids()) == 2
    assert (await log.append(b"on")).lsn == log.writer.segments.ids()[-1]
    await log.close()


async def test_full_device_is_told_and_nothing_is_changed() -> None:
    device = SimDevice(5)
    expected = await ending_compacted(device, PLAIN)
    before = {name: content(device, name) for name in device.directory.names}
    device.capacity = sum(map(len, before.values())) + 4096
    with pytest.raises(NoSpace, match="Nothing was changed"):
        await open_on(disk_on(device), PLAIN)
    assert {name: content(device, name) for name in device.directory.names} == before
    device.capacity = None
    log = await open_on(disk_on(device), PLAIN)
    assert await rows(log) == expected
    await log.close()


async def test_large_snapshot_finds_room_behind_a_small_compacted_segment() -> None:
    device = SimDevice(6)
    log = await open_on(disk_on(device), PLAIN)
    for start in range(0, 1500, 100):
        names = (f"{number} {'x' * 80}" for number in range(start, start + 100))
        await asyncio.gather(*(log.topic(name).append(b"", attributes={"key": "k1"}) for name in names))
    await rotate(log, len(log.writer.segments.ids()) + 2)
    await log.purge("k1")
    await log.compact()
    last, topics = log.writer.segments.ids()[-2], log.topics()
    expected = [row for row in await rows(log) if row[0] < log.writer.segments.ids()[-1]]
    await log.close()
    await restored_up_to(device, last)
    log = await open_on(disk_on(device), PLAIN)
    assert await rows(log) == expected
    assert log.topics() == topics
    assert log.writer.core.catalog.replacements == 0, "the new segment's file is large enough at once"
    await log.close()
    log = await open_on(disk_on(device), PLAIN)
    assert (await log.append(b"on")).lsn == log.next_lsn - 1
    await log.close()


async def test_place_of_a_former_seal_is_no_proof_that_the_segment_is_whole() -> None:
    """The header of a compacted segment tells where its seal stands. Restored in part, it has none there."""
    device = SimDevice(7)
    log = await open_on(disk_on(device), PLAIN)
    await rotate(log, 4)
    await log.purge("k1")
    await log.compact()
    ids = list(log.writer.segments.ids())
    await log.close()
    disk = disk_on(device)
    lengths = await walked(disk, ids[2], device.file(segment_name(ids[2])).visible_size)
    header, _ = await load_header(disk, segment_name(ids[2]), ids[2])
    data = await disk.read(segment_name(ids[2]), 0, header.file_bytes)
    end = header.data_start + sum(lengths[:-2])
    await disk.write(segment_name(ids[2]), 0, data[:end].ljust(header.file_bytes, b"\0"))
    await disk.close()
    with pytest.raises(Corruption, match="before its successor begins"):
        await open_on(disk_on(device), PLAIN)


def explore(seed: int, config: WalConfig, *, bare: bool) -> int:
    """Cut the power, or kill, at every operation of opening and of a first append; returns how many images were looked at."""
    device, points = SimDevice(seed, loose=seed % 2 > 0), list[tuple[str, SimDevice, int]]()
    known: list[list[Row]] = []
    looks: dict[str, list[Row]] = {}  # equal images are recovered once
    loop, images = SimLoop(), 0
    acked = 0

    async def look(image: SimDevice) -> list[Row]:
        log = await open_on(disk_on(image), config)
        assert not any(finding.fatal for finding in log.report.findings)
        found = await rows(log)
        end = (await log.append(b"more")).lsn
        await log.close()
        log = await open_on(disk_on(image), config)
        assert await rows(log) == [*found, (end, b"more")]
        await log.close()
        return found

    async def main(_: int) -> None:
        nonlocal acked
        known.append(await ending_compacted(device, config, bare=bare))
        device.on_operation = lambda number, what: points.append((f"{number} ({what})", device.fork(), acked))
        log = await open_on(disk_on(device), config)
        await log.append(b"on")
        acked = 1
        await log.close()
        device.on_operation = None

    with reproducible(seed):
        run_sim(main, seed)
        for where, fork, acknowledged in points:
            killed = fork.fork()
            killed.kill()
            for image in (*fork.crash_states(STATES), killed):
                images += 1
                key = where if image is killed else image.fingerprint()  # whose page cache is there, too
                try:
                    if key not in looks:
                        looks[key] = loop.run_until_complete(look(image))
                    found = looks[key]
                    assert [row for row in found if row[1] != b"on"] == known[0]
                    assert len(found) - len(known[0]) in range(acknowledged, 2)
                except BaseException as error:
                    error.add_note(f"seed {seed}, operation {where}")
                    raise
    loop.close()
    return images


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("seed", "config", "bare"),
    [(0, PLAIN, False), (1, PLAIN, True), (2, SECRET, False), (3, PACKED, False), (5, PACKED, True)],
    ids=["plain", "bare", "encrypted", "packed", "packed and bare"],
)
def test_power_cuts_and_kills_while_a_log_that_ends_compacted_is_opened(
    seed: int, config: WalConfig, bare: bool
) -> None:
    assert explore(seed, config, bare=bare) > 50
