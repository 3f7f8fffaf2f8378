"""Finding a place in the log, by LSN or by time, without reading what lies before it."""

from __future__ import annotations

import asyncio
import datetime
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import walsvc
from tests.log.replay import GROUPS, SMALL_ROWS, START_NS, Clock, One, fill, moment, open_sim
from tests.waiting import until
from walsvc import ReadStats
from walsvc.disk.sim import SimDevice, run_sim
from walsvc.format import index
from walsvc.format.group import BadGroup, GroupHeader
from walsvc.format.index import ROW_BYTES, ROWS_MAX, SegmentIndex, index_bytes_max, spacing
from walsvc.log.commit import framing

MIB = 1 << 20
SECONDS = st.integers(-20, 70)


def header(number: int, **fields: int) -> GroupHeader:
    base = GroupHeader(
        flags=0,
        log_id=1,
        generation=3,
        segment=1,
        offset=4096 + number * 600_000,
        first_lsn=1 + number * 10,
        durable_lsn=0,
        batch_lsn=0,
        timestamp_ns=1000 + number,
        records=10,
        payload_bytes=0,
        index_bytes=0,
        meta_bytes=0,
        group_bytes=4096,
        previous_crc=number,
    )
    return base._replace(**fields)


def test_index_has_a_row_for_about_every_mib():
    built = SegmentIndex(64 * MIB)
    for number in range(50):
        built.note(header(number))
        built.note(header(number, records=0, offset=header(number).offset + 300_000, timestamp_ns=1))
    assert [row.offset for row in built] == [4096 + number * 600_000 for number in range(0, 50, 2)]
    assert built[1] == (4096 + 1_200_000, 21, 3, 0, 1002, 1003, 2)
    assert len(built) * ROW_BYTES == len(built.encode()) <= index_bytes_max(64 * MIB)
    decoded = SegmentIndex.decode(built.encode())
    assert list(decoded) == list(built)
    assert decoded.newest == 1049
    with pytest.raises(BadGroup):
        SegmentIndex.decode(built.encode()[:-1])


def test_index_finds_the_row_of_an_lsn_and_forgets_what_was_cut():
    built = SegmentIndex(64 * MIB)
    assert built.at(5) is None
    assert built.newest == 0
    for number in range(10):
        built.note(header(number))
    assert [built.at(lsn) for lsn in (1, 20, 21, 40, 41, 1000)] == [0, 0, 1, 1, 2, 4]
    assert built.begins(21)
    assert not built.begins(22)
    built.rewind(header(4).offset)
    assert len(built) == 2
    built.rewind(0)
    assert len(built) == 0
    assert list(built) == []


def test_index_is_bounded_however_large_the_segment():
    for size in (65_536, MIB, 64 * MIB, 1 << 36):
        assert index_bytes_max(size) <= ROW_BYTES * (ROWS_MAX + 1) + 16
        assert spacing(size) >= MIB
    built = SegmentIndex(1 << 36)
    for number in range(20_000):
        built.note(header(number))
    assert len(built) < 1000


@settings(max_examples=24, deadline=None, suppress_health_check=list(HealthCheck))
@given(groups=GROUPS, cut=st.integers(0, 48), times=st.lists(SECONDS, min_size=1, max_size=12), crash=st.booleans())
def test_seeking_equals_a_linear_scan(groups, cut, times, crash):
    async def main(_: int) -> None:
        device, clock = SimDevice(3), Clock()
        log = await open_sim(device)
        await fill(log, clock, groups[: len(groups) // 2])
        if crash:
            await log.writer.core.pipeline.rotation.ended()
            await log.writer.core.tail.spares.settle()
            device = device.crash()
        else:
            await log.close()
        log = await open_sim(device)
        await log.append_batch([bytes(30_000)] * 9)  # over several groups and segments
        await fill(log, clock, groups[len(groups) // 2 :])
        await log.truncate_before(min(log.next_lsn, 1 + cut // 3))
        await log.truncate_after(max(log.first_lsn - 1, log.next_lsn - 1 - cut % 7))
        await fill(log, clock, groups[:2])
        reader = await open_sim(device, read_only=True)
        for each in (log, reader):
            everything = [record async for record in each.read()]
            for seconds in times:
                later = [record.lsn for record in everything if record.timestamp_ns >= START_NS + seconds * 10**9]
                assert await each.seek_time(moment(seconds)) == (later[0] if later else log.next_lsn)
            for start in range(log.first_lsn, log.next_lsn + 1):
                assert [record async for record in each.read(start, start + 2)] == [
                    record for record in everything if start <= record.lsn < start + 2
                ]
        await reader.close()
        await log.close()

    with SMALL_ROWS:
        run_sim(main, 1)


async def test_reading_from_the_middle_of_a_large_segment_does_not_read_its_head(tmp_path):
    async with walsvc.open(tmp_path / "log", segment_bytes=64 * MIB) as log:
        for _ in range(96):
            await log.append_batch([bytes(9_990)] * 100)
        assert len(log.writer.segments.ids()) == 4
    async with walsvc.open(tmp_path / "log", segment_bytes=64 * MIB) as log:
        await log.append(b"more")
        for start in (5000, 9000, 9600, 9601):
            stats = ReadStats()
            records = [record async for record in log.read(start, start + 1, stats=stats)]
            assert [record.lsn for record in records] == [start]
            assert stats.bytes_read < 5 * MIB
    async with walsvc.open(tmp_path / "log", read_only=True) as log:
        stats = ReadStats()
        assert [record.lsn async for record in log.read(7000, 7001, stats=stats)] == [7000]
        assert stats.bytes_read < 5 * MIB


async def test_reading_from_the_middle_of_a_batch_over_several_segments():
    with SMALL_ROWS:
        log = await open_sim(SimDevice(5))
        await log.append(b"before")
        await log.append_batch(bytes([number]) * 30_000 for number in range(60))
        await log.append(b"after")
        everything = [record async for record in log.read()]
        assert len(log.writer.segments.ids()) > 5
        for start in range(1, 63):
            stats = ReadStats()
            assert [record async for record in log.read(start, start + 1, stats=stats)] == everything[start - 1 : start]
            assert stats.bytes_read < 400_000
        await log.close()


async def test_a_log_without_indexes_is_sought_through(monkeypatch):
    encode = framing.encode_map

    def bare(content):
        return encode({key: value for key, value in content.items() if key not in {"index", "newest"}})

    monkeypatch.setattr(framing, "encode_map", bare)
    log = await open_sim(SimDevice(5))
    clock = Clock()
    for _ in range(40):
        await fill(log, clock, [(10, [One(0, None, None, 30_000)])])
    for seconds in range(-5, 420, 37):
        wanted = next((n for n in range(1, 41) if n * 10 >= seconds), 41)
        assert await log.seek_time(moment(seconds)) == wanted
        assert [r.lsn async for r in log.read(since=moment(seconds))] == list(range(wanted, 41))
    monkeypatch.undo()
    for _ in range(40):
        await fill(log, clock, [(10, [One(0, None, None, 30_000)])])
    assert await log.seek_time(moment(555)) == 56
    await log.close()


async def test_a_wrong_index_is_not_believed(monkeypatch):
    decode = SegmentIndex.decode

    def shifted(data: bytes) -> SegmentIndex:
        found = decode(data)
        for place in range(len(found)):
            found._columns[0][place] += 4096
        return found

    with SMALL_ROWS:
        log = await open_sim(SimDevice(5))
        for number in range(40):
            await log.append(bytes([number]) * 20_000)
        everything = [record async for record in log.read()]
        first, second = log.writer.segments.ids()[:2]
        assert second - first > 3
        monkeypatch.setattr(SegmentIndex, "decode", shifted)
        for start in range(first, second):
            assert [record async for record in log.read(start, start + 1)] == everything[start - 1 : start]
        await log.close()


async def test_index_survives_a_crash_and_a_batch_that_is_given_up():
    with SMALL_ROWS:
        device = SimDevice(5)
        log = await open_sim(device)
        for number in range(5):
            await log.append(bytes([number]) * 20_000)

        async def endless():
            for _ in range(30):
                yield bytes(20_000)
            await asyncio.Event().wait()

        giving_up = asyncio.ensure_future(log.append_batch(endless()))
        await until(lambda: len(log.writer.core.catalog.view.ids) >= 2, 0)
        giving_up.cancel()
        await asyncio.gather(giving_up, return_exceptions=True)
        await log.append(b"x" * 20_000)
        rows = list(log.writer.segments.index_of(log.writer.segments.ids()[-1]))
        assert [row.lsn for row in rows] == [1, 2, 3, 4, 5, 6]
        await log.writer.core.tail.spares.settle()
        device = device.crash()
        log = await open_sim(device)
        assert list(log.writer.segments.index_of(log.writer.segments.ids()[-1])) == rows
        assert [record.lsn async for record in log.read(6)] == [6]
        await log.close()


async def test_seeking_by_time_reads_a_few_seals_only():
    log = await open_sim(SimDevice(5), segment_bytes=65_536)
    clock = Clock()
    for _ in range(150):
        await fill(log, clock, [(1, [One(0, None, None, 50_000)])])
    assert len(log.writer.segments.ids()) > 130
    reader = await open_sim(log.writer.segments.disk.device, read_only=True)
    stats = ReadStats()
    assert await reader.seek_time(moment(100), stats=stats) == 100
    assert stats.bytes_read < 10 * (2 * 4096) + 3 * 65_536 + 4 * 4096
    assert await reader.seek_time(moment(1000)) == 151
    assert await reader.seek_time(moment(-1000)) == 1
    assert await reader.seek_time(datetime.datetime(1901, 1, 1, tzinfo=datetime.UTC)) == 1
    await reader.close()
    await log.close()


async def test_seal_of_a_full_segment_keeps_its_index_and_its_topics():
    with SMALL_ROWS:
        log = await open_sim(SimDevice(5), segment_bytes=65_536)
        for number in range(600):
            await log.topic(f"topic {number % 97}").append(bytes(3000))
        ids = log.writer.segments.ids()
        assert len(ids) > 20
        for segment, successor in pairwise(ids):
            seal = await log.writer.segments.summaries.seal(segment, successor)
            assert seal is not None
            assert seal.summary is not None
            assert seal.index is not None
            assert len(seal.index) >= 5
        await log.close()


def test_small_rows_are_small():
    with SMALL_ROWS:
        assert index.spacing(65_536) == 8192
