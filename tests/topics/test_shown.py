"""Records that were delivered and are not acknowledged, as ranges: the same as a list of LSNs gives, at a bounded cost."""

from __future__ import annotations

import random

import pytest

import walsvc
from walsvc.topics.shown import COMPACTED, Shown

SEED = 20_261_130


@pytest.mark.parametrize("gap", [1, 2, 5])
def test_ranges_say_what_a_list_says(gap: int) -> None:
    print(f"seed {SEED}")
    chance = random.Random(SEED + gap)
    shown, known, following = Shown(), list[int](), 1
    for _ in range(6_000):
        step = chance.random()
        if step < 0.7:
            following += chance.randint(1, gap)
            shown.show(following)
            known.append(following)
        elif step < 0.85 and known:
            lsn = chance.choice(known)
            assert lsn in shown
            shown.remove(lsn)
            known.remove(lsn)
        elif step < 0.87:
            lsn = max(following - chance.randint(0, 40), 1)
            shown.drop_above(lsn)
            known = [each for each in known if each <= lsn]
            following = min(following, lsn)
        elif step < 0.875 and known:
            lsn = chance.randint(known[0] - 1, known[-1] + 1)
            assert shown.up_to(lsn) == sum(each <= lsn for each in known)
            shown.drop_below(lsn)
            known = [each for each in known if each >= lsn]
        lsn = chance.randint(0, following + 2)
        assert (lsn in shown) == (lsn in known)
        assert bool(shown) == bool(known)
        if known:
            assert (shown.first, shown.last) == (known[0], known[-1])
            assert shown.second == (known[1] if len(known) > 1 else None)
            assert shown.up_to(lsn) == sum(each <= lsn for each in known)
    shown.clear()
    assert not shown


def test_ranges_that_are_over_are_let_go() -> None:
    shown = Shown()
    for lsn in range(2, 20 * COMPACTED, 2):
        shown.show(lsn)
        shown.drop_below(lsn - 20)
    assert len(shown._firsts) <= 2 * COMPACTED + 20
    assert shown.up_to(lsn) == 11


async def test_consumer_that_never_acknowledges_keeps_one_range(tmp_path) -> None:
    async with walsvc.open(tmp_path / "log") as log:
        await log.append_batch([b"x"] * 5_000)
        consumer = await log.consumer("reader")
        while consumer._place.following < log.next_lsn:
            await consumer.read_batch(max_records=64)
        assert len(consumer._shown._firsts) == 1
        await consumer.ack(2_000, only=True)
        await consumer.ack(1, only=True)
        assert consumer.position == 2
        await consumer.ack(5_000)
        assert consumer.position == 5_001
