"""Filtered reading gives what a filtered full scan gives, stops where it must, and reads less."""

from __future__ import annotations

import asyncio
import datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import walsvc
from tests.log.replay import (
    GROUPS,
    SECOND,
    SMALL_ROWS,
    TOPICS,
    TYPES,
    VALUES,
    Clock,
    One,
    damage,
    expected,
    fill,
    moment,
    open_sim,
)
from walsvc import BadOption, Corruption, ReadStats, UnsupportedFormat
from walsvc.disk.sim import SimDevice, run_sim
from walsvc.format.group import Flag, decode_meta
from walsvc.format.labels import LABELS_MAX, VALUES_MAX, collect, may_have
from walsvc.format.meta import decode_map
from walsvc.log.commit.payload import pack_attributes
from walsvc.log.read.stream import GroupStream, open_stream

WANTED = st.fixed_dictionaries(
    {},
    optional={
        "topic": st.sampled_from([*TOPICS, "none such"]),
        "types": st.sets(st.sampled_from(TYPES)),
        "where": st.dictionaries(
            st.sampled_from(["tenant", "shard", "other"]), VALUES | st.lists(VALUES, max_size=3), max_size=2
        ),
        "since": st.integers(-5, 30).map(moment),
        "until": st.integers(-5, 30).map(moment),
    },
)
KEYS = walsvc.KeyRing(current=("k", bytes(range(32))))


async def filtered(log: Any, wanted: dict[str, Any], stats: ReadStats | None = None) -> tuple[list[Any], int | None]:
    found: list[Any] = []
    try:
        async for record in log.read(stats=stats, **wanted):
            found.append(record)
    except UnsupportedFormat as error:
        return found, error.lsn
    return found, None


@pytest.mark.parametrize("keys", [None, KEYS], ids=["plain", "encrypted"])
@settings(max_examples=24, deadline=None, suppress_health_check=list(HealthCheck))
@given(groups=GROUPS, wishes=st.lists(WANTED, min_size=1, max_size=6))
def test_filtered_reading_equals_the_filtered_full_scan(keys, groups, wishes):
    async def main(_: int) -> None:
        device, clock = SimDevice(3), Clock()
        log = await open_sim(device, keys=keys)
        await fill(log, clock, groups[: len(groups) // 2])
        await log.close()
        log = await open_sim(device, keys=keys)
        await fill(log, clock, groups[len(groups) // 2 :])
        everything = [record async for record in log.read()]
        assert len(everything) == sum(len(ones) for _, ones in groups)
        for wanted in wishes:
            whole, stats = ReadStats(), ReadStats()
            _ = [record async for record in log.read(stats=whole)]
            assert await filtered(log, wanted, stats) == expected(everything, wanted)
            small = 3 * len(log.writer.segments.ids()) * 4096 + (stats.groups_passed + stats.groups_read + 1) * 65_536
            assert stats.bytes_read <= whole.bytes_read + small
        await log.close()
        reader = await open_sim(device, read_only=True, keys=keys)
        for wanted in wishes:
            assert await filtered(reader, wanted) == expected(everything, wanted)
        await reader.close()

    with SMALL_ROWS:
        run_sim(main, 1)


async def large_log(log: Any) -> None:
    """40 groups of 30 records of 10,000 bytes, one tenant and hour each."""
    clock = Clock()
    for number in range(40):
        ones = [One(number % 4, None, {"tenant": number, "of": "many"}, 10_000)] * 30
        await fill(log, clock, [(3600, ones)])


@pytest.mark.parametrize(
    ("wanted", "share"),
    [
        ({"where": {"tenant": 17}}, 0.35),
        ({"where": {"tenant": [3, 30]}}, 0.35),
        ({"where": {"nobody": 1}}, 0.3),
        ({"topic": "none"}, 0.1),
        ({"since": moment(3600 * 20), "until": moment(3600 * 21)}, 0.2),
        ({"since": moment(3600 * 1000)}, 0.1),
    ],
)
async def test_what_is_not_wanted_is_not_read(wanted, share):
    device = SimDevice(5)
    log = await open_sim(device, segment_bytes=4 << 20, max_group_bytes=1 << 20)
    await log.topic("none").consumer("makes the topic")
    await large_log(log)
    whole, stats = ReadStats(), ReadStats()
    everything = [record async for record in log.read(stats=whole)]
    assert whole.bytes_read > sum(len(record.payload) for record in everything)
    assert await filtered(log, wanted, stats) == expected(everything, wanted)
    assert stats.bytes_read < share * whole.bytes_read
    await log.close()


async def test_bytes_read_are_what_the_disk_was_asked_for(monkeypatch):
    log = await open_sim(SimDevice(5), segment_bytes=1 << 20, max_group_bytes=1 << 20)
    await large_log(log)
    disk, asked = log.writer.segments.disk, 0
    read = disk.read

    async def counting(name: str, offset: int, length: int) -> bytes:
        nonlocal asked
        data: bytes = await read(name, offset, length)
        asked += len(data)
        return data

    monkeypatch.setattr(disk, "read", counting)
    for wanted in ({"where": {"tenant": 5}}, {"types": {1}}, {"since": moment(3600 * 30)}, {}):
        asked, stats = 0, ReadStats()
        async for _ in log.read(stats=stats, **wanted):
            pass
        assert stats.bytes_read == asked > 0
    await log.close()


async def test_unknown_required_type_stops_and_is_named():
    log = await open_sim(SimDevice(5))
    await log.append(b"1", type=5)
    await log.append(b"2", type=9)
    await log.topic("other").append(b"3", type=0x8002)
    await asyncio.gather(log.append(b"4"), log.append(b"5", type=0x8003), log.append(b"6"))
    assert [record.lsn async for record in log.read()] == [1, 2, 3, 4, 5, 6]
    assert await filtered(log, {"types": {5, 0x8002}}) == (
        [record async for record in log.read() if record.lsn in {1, 3}],
        5,
    )
    with pytest.raises(UnsupportedFormat, match="0x8003") as caught:
        async for _ in log.read(4, types={0, 5}):
            pass
    assert caught.value.lsn == 5
    assert "types" in str(caught.value)
    with pytest.raises(UnsupportedFormat):
        async for _ in log.topic("other").read(types={0}):
            pass
    kinds = [record.type async for record in log.read(types={0, 0x8002, 0x8003})]
    assert kinds == [0x8002, 0, 0x8003, 0]
    stream = log.follow(types={0}, start=4)
    assert (await anext(stream)).lsn == 4
    with pytest.raises(UnsupportedFormat):
        await anext(stream)
    await log.close()


async def test_reading_with_nothing_that_matches_the_required_type_goes_on():
    log = await open_sim(SimDevice(5))
    await log.append(b"1", type=0x8002, attributes={"tenant": 1})
    await log.append(b"2", type=3, attributes={"tenant": 2})
    assert [record.lsn async for record in log.read(types={3}, where={"tenant": 2})] == [2]
    await log.close()


@pytest.mark.parametrize(
    "wanted",
    [
        {"types": 7},
        {"types": "7"},
        {"types": [70_000]},
        {"types": [-1]},
        {"types": ["7"]},
        {"where": ["tenant"]},
        {"where": {1: 2}},
        {"since": datetime.datetime(2024, 1, 1)},
        {"until": 12},
        {"since": "2024-01-01"},
    ],
)
async def test_what_makes_no_sense_is_refused(wanted):
    log = await open_sim(SimDevice(5))
    with pytest.raises(BadOption) as caught:
        async for _ in log.read(**wanted):
            pass
    assert caught.value.hint
    with pytest.raises(BadOption):
        await anext(log.topic("t").follow(**wanted))
    await log.close()


async def test_follow_takes_no_until():
    log = await open_sim(SimDevice(5))
    with pytest.raises(BadOption, match="until"):
        await anext(log.follow(until=moment(0)))
    with pytest.raises(BadOption, match="time zone"):
        await log.seek_time(datetime.datetime(2024, 1, 1))
    await log.close()


async def test_follow_waits_for_what_is_wanted():
    log = await open_sim(SimDevice(5))
    stream = log.follow(where={"tenant": {7, 8}}, types={1})
    waiting = asyncio.ensure_future(anext(stream))
    await log.append(b"no", attributes={"tenant": 7})
    await log.append(b"no", attributes={"tenant": 9}, type=1)
    await log.append(b"yes", attributes={"tenant": 8}, type=1)
    assert (await waiting).payload == b"yes"
    await stream.aclose()
    await log.close()


async def test_read_only_log_follows_what_is_wanted(tmp_path):
    async with walsvc.open(tmp_path / "log") as log, walsvc.open(tmp_path / "log", read_only=True) as reader:
        stream = reader.topic("t").follow(where={"a": 1})
        waiting = asyncio.ensure_future(anext(stream))
        await log.topic("t").append(b"no")
        await log.topic("t").append(b"yes", attributes={"a": 1})
        assert (await asyncio.wait_for(waiting, 60)).payload == b"yes"
        await stream.aclose()


async def groups_of(log: Any) -> list[tuple[int, dict[str, Any]]]:
    """Flags and metadata of all groups with records."""
    found = []
    ids = log.writer.segments.ids()
    for segment, end in zip(ids, [*ids[1:], log.next_lsn], strict=True):
        _, stream = await open_stream(log.writer.segments.disk, *segment_place(log, segment))
        assert isinstance(stream, GroupStream)
        while stream.chain.next_lsn < end:
            raw = await stream.next()
            if raw.header.records:
                found.append((raw.header.flags, decode_map(decode_meta(*raw))))
    return found


def segment_place(log: Any, segment: int) -> tuple[str, int, int]:
    name, length = log.writer.segments.file(segment)
    return name, segment, length


async def test_groups_say_which_labels_they_have():
    log = await open_sim(SimDevice(5))
    await log.append(b"plain", type=3)
    await asyncio.gather(*(log.append(b"x", attributes={"tenant": n % 3, "id": n}) for n in range(42)))
    await asyncio.gather(*(log.append(b"x", attributes={f"label {n}": n}) for n in range(40)))
    groups = await groups_of(log)
    assert groups[0] == (Flag.TYPES, {})
    few = next(meta["labels"] for _, meta in groups if "id" in meta.get("labels", ()) and meta["labels"]["id"] is None)
    assert sorted(few["tenant"]) == [0, 1, 2]
    assert any(flags & Flag.ATTRIBUTES and "labels" not in meta for flags, meta in groups)
    assert [record.lsn async for record in log.read(where={"id": 39})] == [41]
    assert [record.lsn async for record in log.read(where={"label 39": 39})] == [83]
    await log.close()


async def test_labels_are_left_out_where_the_segment_has_no_room_for_them():
    log = await open_sim(SimDevice(5), segment_bytes=65_536)
    for number in range(500):
        await log.append(bytes(3780 + number * 37 % 150), attributes={"tenant": "t" * 50})
    assert len(log.writer.segments.ids()) > 12
    assert {"labels" in meta for _, meta in await groups_of(log)} == {True, False}
    count = 0
    async for _ in log.read(where={"tenant": "t" * 50}):
        count += 1
    assert count == 500
    await log.close()


@given(st.lists(st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3), max_size=30))
def test_labels_never_hide_a_value_that_is_there(records):
    named = collect(map(pack_attributes, filter(None, records)))
    for record in records:
        for label, value in record.items():
            assert may_have(named, label, [value])
    for label in "abc":
        if not any(label in record for record in records):
            assert not may_have(named, label, [1])


def test_labels_have_bounds():
    many = [pack_attributes({"id": number}) for number in range(VALUES_MAX + 1)]
    assert collect(many[:-1]) == {"id": list(range(VALUES_MAX))}
    assert collect(many) == {"id": None}
    assert collect([pack_attributes({str(number): 1}) for number in range(LABELS_MAX + 1)]) is None
    assert may_have(None, "id", [5])
    assert may_have({"id": None}, "id", [5])
    assert not may_have({"id": [1, 2]}, "id", [5, 6])


async def test_damage_in_an_index_that_decides_is_corruption(tmp_path):
    async with walsvc.open(tmp_path / "log", max_group_bytes=1 << 20) as log:
        await large_log(log)
        name, _ = log.writer.segments.file(log.writer.segments.ids()[-1])
        segment = log.writer.segments.ids()[-1]
        _, stream = await open_stream(log.writer.segments.disk, name, segment, log.writer.segments.file(segment)[1])
        raw = await stream.next()
        while raw.header.first_lsn < log.next_lsn - 50:
            raw = await stream.next()
        header = raw.header
        damage(tmp_path / "log" / name, header.offset + 128 + header.payload_bytes + 3)
        with pytest.raises(Corruption) as caught:
            async for _ in log.read(where={"tenant": 1000}):
                pass
        assert caught.value.lsn == header.first_lsn
        assert caught.value.offset == header.offset


async def test_time_filters_do_not_trust_the_clock():
    log = await open_sim(SimDevice(5), segment_bytes=65_536)
    clock = Clock()
    for step in (0, 3600, -7200, 5, 5, 86_400, -86_000):
        await fill(log, clock, [(step, [One(0, None, None, 9_000)])] + [(1, [One(0, None, None, 9_000)])] * 4)
    everything = [record async for record in log.read()]
    assert len(log.writer.segments.ids()) > 4
    for low in range(-7300, 90_000, 997):
        wanted = {"since": moment(low), "until": moment(low + 3600)}
        assert await filtered(log, wanted) == expected(everything, wanted)
    assert {record.timestamp_ns % SECOND for record in everything} == {0}
    await log.close()
