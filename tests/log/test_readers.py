"""Ways of reading: lazily, through memory maps, without a trace in the page cache."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import walsvc
from tests.disks import REAL_DISKS
from tests.log.replay import GROUPS, SMALL_ROWS, Clock, One, damage, expected, fill, open_sim
from tests.log.test_filters import KEYS, WANTED
from tests.log.test_real_disk import resident_bytes
from walsvc import BadOption, Corruption, ReadStats, Record, Truncated, UnsupportedFormat, WalConfig
from walsvc.disk import mapped
from walsvc.disk.sim import SimDevice, SimDisk, run_sim
from walsvc.log.read.reader import Cursor
from walsvc.opening import open_on

MIB = 1 << 20


# ---- lazily


@pytest.mark.parametrize("keys", [None, KEYS], ids=["plain", "encrypted"])
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(groups=GROUPS, wishes=st.lists(WANTED, min_size=1, max_size=4), backwards=st.booleans())
def test_lazy_records_are_the_records(keys, groups, wishes, backwards):
    async def main(_: int) -> None:
        log = await open_sim(SimDevice(3), keys=keys)
        await fill(log, Clock(), groups)
        everything = [record async for record in log.read()]
        for wanted in wishes:
            found, stop = [], None
            try:
                async for lazy in log.read_lazy(**wanted):
                    found.append(lazy)
            except UnsupportedFormat as error:
                stop = error.lsn
            records, expected_stop = expected(everything, wanted)
            assert stop == expected_stop
            assert [(r.lsn, r.type, r.topic, r.timestamp_ns, r.length) for r in found] == [
                (r.lsn, r.type, r.topic, r.timestamp_ns, len(r.payload)) for r in records
            ]
            pairs = list(zip(found, records, strict=True))
            for lazy, record in reversed(pairs) if backwards else pairs:
                assert await lazy.payload() == record.payload
                assert await lazy.attributes() == record.attributes
        await log.close()

    with SMALL_ROWS:
        run_sim(main, 1)


async def large_log(log):
    """20 groups of 10 records of 40,000 bytes."""
    for number in range(20):
        await log.append_batch([bytes([number]) * 40_000] * 10)


async def test_payloads_are_read_when_they_are_asked_for():
    log = await open_sim(SimDevice(5), segment_bytes=16 * MIB, max_group_bytes=MIB)
    await large_log(log)
    stats = ReadStats()
    records = [record async for record in log.read_lazy(stats=stats)]
    assert [record.lsn for record in records] == list(range(1, 201))
    assert {record.length for record in records} == {40_000}
    assert stats.bytes_read < 2.5 * MIB
    assert "length=40000" in repr(records[0])
    before = stats.bytes_read
    assert await records[105].payload() == bytes([10]) * 40_000
    one = stats.bytes_read - before
    assert 400_000 < one < MIB
    assert [(await records[n].record()).lsn for n in range(100, 110)] == list(range(101, 111))
    assert stats.bytes_read - before == one, "the group is read once"
    assert await records[199].payload() == bytes([19]) * 40_000
    await log.close()


async def test_a_payload_that_was_dropped_meanwhile_is_truncated():
    log = await open_sim(SimDevice(5), segment_bytes=MIB, max_group_bytes=MIB)
    await large_log(log)
    records = [record async for record in log.read_lazy()]
    await log.truncate_before(150)
    with pytest.raises(Truncated):
        await records[0].payload()
    assert await records[170].payload() == bytes([17]) * 40_000
    await log.close()


async def test_a_payload_that_was_purged_and_compacted_away_is_truncated_and_others_are_found_again():
    log = await open_sim(SimDevice(5), segment_bytes=MIB, max_group_bytes=MIB)
    clock = Clock()
    for _ in range(6):
        await fill(log, clock, [(1, [One(0, None, {"tenant": n % 2}, 40_000) for n in range(10)])])
    records = [record async for record in log.read_lazy(types={0})]
    assert any(not isinstance(record._source, Record) for record in records)
    await log.purge({"tenant": 1})
    await log.compact()
    attributes = {}
    for record in records[:20]:
        try:
            attributes[record.lsn] = (await record.attributes())["tenant"]
        except Truncated as error:
            attributes[error.lsn] = None
    assert set(attributes.values()) <= {0, 1, None}
    assert all(attributes[lsn] == 0 for lsn in range(1, 20, 2))
    assert [record.lsn async for record in log.read_lazy()] == [record.lsn async for record in log.read()]
    await log.close()


async def test_a_damaged_payload_is_found_when_it_is_fetched(tmp_path):
    async with walsvc.open(tmp_path / "log", segment_bytes=16 * MIB) as log:
        result = [await log.append_batch([bytes([number]) * 60_000] * 15) for number in range(4)][2]
        records = [record async for record in log.read_lazy()]
        name = f"{result[7].segment_id:016x}.wal"
        damage(tmp_path / "log" / name, result[7].offset + 100)
        assert [record.lsn async for record in log.read_lazy()] == [record.lsn for record in records]
        again = [record async for record in log.read_lazy()]
        with pytest.raises(Corruption) as caught:
            await again[37].payload()
        assert caught.value.lsn == result[0].lsn
        assert await again[1].payload() == bytes(60_000)


# ---- through memory maps


@pytest.mark.parametrize("disk", REAL_DISKS)
@pytest.mark.parametrize("direct", [None, False])
async def test_mapped_reading_gives_the_same(tmp_path, disk, direct):
    async with walsvc.open(tmp_path / "log", disk=disk, direct=direct, segment_bytes=2 * MIB) as log:
        for number in range(30):
            await asyncio.gather(*(log.append(bytes([number]) * size) for size in (0, 1, 5000, 200_000)))
        everything = [record async for record in log.read()]
        async with walsvc.open(tmp_path / "log", read_only=True, reading="mapped", direct=direct) as reader:
            assert reader.stats().reading == "mapped"
            assert [record async for record in reader.read()] == everything
            await log.append(b"while it is mapped")
            assert [record.payload async for record in reader.read(everything[-1].lsn + 1)] == [b"while it is mapped"]
    async with walsvc.open(tmp_path / "log", disk=disk, direct=direct, reading="mapped") as log:
        assert [record async for record in log.read(stop=everything[-1].lsn + 1)] == everything
    with pytest.raises(BadOption):
        walsvc.open(tmp_path / "log", reading="sideways")


TRUNCATING = """
import asyncio, os, sys
import walsvc
from walsvc.disk import mapped

async def main(path, how):
    async with walsvc.open(path, segment_bytes=8 << 20) as log:
        for number in range(8):
            await log.append_batch([bytes([number]) * 10_000] * 10)
        assert len(log.writer.segments.ids()) == 1
    name = min(name for name in os.listdir(path) if name.endswith(".wal"))
    async with walsvc.open(path, read_only=True, reading=how) as log:
        copy, cuts = mapped.copy_out, 0

        def cut_then_copy(source, target, length):
            nonlocal cuts
            if length > 8192 and not cuts:
                cuts = 1
                os.truncate(os.path.join(path, name), 8192)
            if sys.argv[3] == "naively":
                import ctypes
                ctypes.memmove(target, source, length)
                return length
            return copy(source, target, length)

        mapped.copy_out = cut_then_copy
        count = 0
        try:
            async for record in log.read():
                count += 1
        except walsvc.Corruption as error:
            print("Corruption", error.offset <= 8192, count, cuts)

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


def cut_under_the_reader(path: Path, how: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", TRUNCATING, str(path), "mapped", how]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.skipif(bool(mapped.why_not()), reason=mapped.why_not() or "it is there")
def test_a_file_cut_under_a_mapped_reader_is_corruption_and_no_signal(tmp_path):
    naive = cut_under_the_reader(tmp_path / "naive", "naively")
    assert naive.returncode == -signal.SIGBUS, "the test really cuts the file under the map"
    ended = cut_under_the_reader(tmp_path / "log", "as it is")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == ["Corruption", "True", "0", "1"]


async def test_where_the_kernel_forbids_it_reading_falls_back_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("walsvc.disk.directory.why_not", lambda: "process_vm_readv: Operation not permitted")
    async with walsvc.open(tmp_path / "log", reading="mapped") as log:
        await log.append(b"x")
        assert [record.payload async for record in log.read()] == [b"x"]
        told = log.stats().reading
    assert told.startswith(("direct;", "through the page cache;"))
    assert "not permitted" in told


def test_probe_tells_why_maps_cannot_be_read(monkeypatch):
    def refusing(*_: int) -> int:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(mapped, "copy_out", refusing)
    assert "not permitted" in mapped.why_not.__wrapped__()
    monkeypatch.setattr(mapped, "copy_out", lambda *_: 0)
    assert "copies nothing" in mapped.why_not.__wrapped__()
    monkeypatch.undo()
    assert mapped.why_not.__wrapped__() == mapped.why_not()


def test_copying_from_an_address_that_is_not_there_gives_nothing():
    if mapped.why_not():
        pytest.skip(mapped.why_not())
    target = ctypes.create_string_buffer(64)
    assert mapped.copy_out(8, ctypes.addressof(target), 64) == 0


# ---- without a trace in the page cache


@pytest.mark.parametrize(
    "options", [{}, {"direct": False}, {"reading": "mapped"}, {"reading": "mapped", "direct": False}], ids=str
)
async def test_replay_leaves_the_page_cache_as_it_was(tmp_path, options):
    path = tmp_path / "log"
    async with walsvc.open(path, segment_bytes=4 * MIB) as log:
        for number in range(16):
            await log.append_batch([bytes([number]) * 100_000] * 10)
    files = sorted(path.glob("*.wal"))
    for file in files:
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
            os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if any(map(resident_bytes, files)):
        pytest.skip("the file system keeps its files in memory")
    with files[1].open("rb") as handle:
        os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        assert len(os.pread(handle.fileno(), MIB, MIB)) == MIB
    before = {file: resident_bytes(file) for file in files}
    assert before[files[1]] >= MIB
    async with walsvc.open(path, read_only=True, **options) as log:
        opened = {file: resident_bytes(file) for file in files}
        for _ in range(2):
            assert len([record async for record in log.read()]) == 160
            assert len([record async for record in log.read_lazy(types={0})]) == 160
        after = {file: resident_bytes(file) for file in files}
    for file in files[:-1]:  # recovery syncs the last one and drops its pages, so that it sees what the device has
        # A large folio is dropped as a whole, or not, and a busy kernel takes single pages
        for then in (opened, after):
            assert abs(then[file] - before[file]) <= 256 << 10


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_iteration_that_was_cut_short_goes_on_where_it_was(monkeypatch, error):
    """By a signal handler, or for want of memory, behind the read: no record is passed over."""
    take = Cursor._take

    async def main(_):
        async with await open_on(SimDisk(SimDevice(1)), WalConfig(max_group_records=2)) as log:
            await asyncio.gather(*(log.append(b"%d" % number) for number in range(8)))
            for records in (log.read(), log.follow(), log.read_batches()):
                due = 1

                async def cut_short(cursor, limit):
                    nonlocal due
                    found = await take(cursor, limit)
                    due -= 1
                    if not due:
                        raise error
                    return found

                monkeypatch.setattr(Cursor, "_take", cut_short)
                seen = []
                while len(seen) < 8:
                    try:
                        item = await anext(records)
                    except error:
                        assert due == 0
                        continue
                    seen += [each.lsn for each in (item if isinstance(item, list) else [item])]
                    due = due or (2 if len(seen) == 3 else 0)
                assert seen == list(range(1, 9))
                await records.aclose()

    run_sim(main, 1)
