"""How long callers' keys are remembered, what becomes of an append that is given up, and who must know the rows."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import walsvc.format.meta
from walsvc import BadOption, UnsupportedFormat, WalConfig
from walsvc.disk.sim import SimDevice, SimDisk, run_sim
from walsvc.format.dedupe import KEY, ROW, KeyRow, Keys, digest_of
from walsvc.format.group import BadGroup
from walsvc.opening import open_on


def disk(device: SimDevice) -> SimDisk:
    return SimDisk(device, latency=0.0)


def test_a_row_is_as_the_document_says():
    keys = Keys()
    packed = keys.note(7, digest_of("k"), KeyRow(1, 2, 3, 4, 5, 6))
    assert packed == bytes.fromhex(
        "07000000 " + digest_of("k").hex() + "0100000000000000 0200000000000000 0300000000000000 04000000 05000000"
        "0600000000000000"
    )
    assert (ROW.size, keys.encode()) == (60, packed)
    with pytest.raises(BadGroup, match="cut"):
        keys.apply(packed[:-1])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5), st.integers(0, 30)), max_size=60),
    st.integers(1, 6),
    st.integers(5, 60),
    st.integers(2, 9),
)
def test_window_agrees_with_a_plain_list(steps, records, seconds, rows):
    keys, model, now = Keys(), list[tuple[int, bytes, int]](), 0
    keys.limit(records, seconds, rows * ROW.size)
    for topic, number, later in steps:
        now += later * 10**9
        key = digest_of(str(number))
        known = [each for each in model if each[:2] == (topic, key) and now - each[2] <= seconds * 10**9]
        assert (keys.find(topic, key, now) is not None) == bool(known)
        if not known:
            keys.note(topic, key, KeyRow(1, 1, 0, 0, 0, now))
            model = [each for each in model if each[:2] != (topic, key)] + [(topic, key, now)]
            mine = [each for each in model if each[0] == topic]
            model = [each for each in model if each[0] != topic or each in mine[-records:]]
            while model and (now - model[0][2] > seconds * 10**9 or len(model) > rows):
                del model[0]
        assert len(keys) == len(model)
        read = Keys()
        read.apply(keys.encode())
        assert read.encode() == keys.encode() == keys.copy().encode()


@pytest.mark.parametrize("ahead_days", [30, -30])
def test_wall_clock_that_is_set_forgets_no_key_and_keeps_none_for_ever(monkeypatch, ahead_days):
    """For a moment while the log is open; and from before its first opening on until behind a restart."""
    wall = time.time_ns
    ahead = 0
    monkeypatch.setattr(time, "time_ns", lambda: wall() + ahead * 86_400 * 10**9)

    async def repeated(log, *keys: str) -> list[bool]:
        return [(await log.append(b"x", dedupe=key)).duplicate for key in keys]

    async def main(_: int) -> None:
        nonlocal ahead
        device = SimDevice(1)
        async with await open_on(disk(device), WalConfig(dedupe_seconds=100.0)) as log:
            assert await repeated(log, "before") == [False]
            ahead = ahead_days
            assert await repeated(log, "before", "meanwhile") == [True, False]
            ahead = 0
            assert await repeated(log, "after", "before", "meanwhile") == [False, True, True]
            await asyncio.sleep(101)
            assert await repeated(log, "before", "meanwhile", "after") == [False, False, False]
        ahead = abs(ahead_days)
        async with await open_on(disk(device), WalConfig(dedupe_seconds=100.0)) as log:
            assert await repeated(log, "first") == [False]
        ahead = 0
        async with await open_on(disk(device), WalConfig(dedupe_seconds=100.0)) as log:
            assert await repeated(log, "first") == [True]
            await asyncio.sleep(101)
            assert await repeated(log, "first") == [False]

    run_sim(main, 1)


async def test_options_bound_what_is_remembered(monkeypatch):
    device = SimDevice(1)
    async with await open_on(disk(device), WalConfig(dedupe_records=3, dedupe_seconds=10.0)) as log:
        now = 1000.0
        monkeypatch.setattr(log.writer.core.queue.conditions, "_steady", lambda: now)
        topic = log.topic("t")
        for number in range(4):
            await topic.append(b"x", dedupe=f"k{number}")
        await log.topic("other").append(b"x", dedupe="k0")
        assert not (await topic.append(b"x", dedupe="k0")).duplicate
        assert (await topic.append(b"x", dedupe="k3")).duplicate
        now += 11
        assert not (await topic.append(b"x", dedupe="k3")).duplicate
        assert (await topic.append(b"x", dedupe="k3")).duplicate
    for wrong in ({"dedupe_records": 0}, {"dedupe_seconds": 0.0}, {"dedupe_bytes": 100}, {"dedupe_bytes": 1 << 30}):
        with pytest.raises(BadOption):
            WalConfig(**wrong)


async def test_append_given_up_before_it_is_accepted_leaves_the_key_to_the_next():
    config = WalConfig(max_pending_bytes=4096, max_group_bytes=4096)
    async with await open_on(disk(SimDevice(1)), config) as log:
        before = [log.append(bytes(4000)) for _ in range(3)]
        given_up, second, third = (log.append(each, dedupe="k") for each in (b"first", b"second", b"third"))
        given_up.cancel()
        await asyncio.gather(*before)
        assert not (await second).duplicate
        assert (await third)[:5] == (await second)[:5]
        assert [record.payload async for record in log.read(start=4)] == [b"second"]


async def test_repeat_that_is_given_up_leaves_the_first_alone():
    async with await open_on(disk(SimDevice(1)), WalConfig()) as log:
        first, repeat, other = (log.append(b"x", dedupe="k") for _ in range(3))
        repeat.cancel()
        waits = len(log.writer.core.waits)
        await asyncio.sleep(0)
        assert len(log.writer.core.waits) < waits
        assert ((await first).duplicate, (await other).duplicate) == (False, True)


async def test_reader_that_does_not_know_the_rows_refuses_the_log_and_reads_others(monkeypatch):
    with_keys, without = SimDevice(1), SimDevice(2)
    async with await open_on(disk(with_keys), WalConfig()) as log:
        await log.append(b"x", dedupe="k")
    async with await open_on(disk(without), WalConfig()) as log:
        await log.append(b"x", expected=0)
    monkeypatch.setattr(walsvc.format.meta, "KNOWN", walsvc.format.meta.KNOWN - {KEY})
    for read_only in (True, False):
        with pytest.raises(UnsupportedFormat, match="!dedupe"):
            async with await open_on(disk(with_keys), WalConfig(read_only=read_only)) as log:
                [record async for record in log.read()]
        async with await open_on(disk(without), WalConfig(read_only=read_only)) as log:
            assert [record.payload async for record in log.read()] == [b"x"]
