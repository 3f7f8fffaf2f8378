"""Calls of one client get LSNs in the order in which they were called, over any number of lost connections, and what one of
them meets on the way is its own trouble."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

import walsvc
from tests.service.wire import QUICK, payloads, placed
from tests.waiting import until
from walsvc import BadOption, RecordTooLarge, WalConfig
from walsvc.service.server.limits import Limits

PART = bytes(30_000)  # nine of them are more than one part of a batch


def called_in_order(results: list[Any]) -> None:
    """The LSNs of what was called ascend, batches with all of theirs."""
    lsns = [result.lsn for each in results for result in ([each] if hasattr(each, "lsn") else each)]
    assert lsns == list(range(lsns[0], lsns[0] + len(lsns)))


@pytest.mark.parametrize("cuts", [1, 2, 5])
async def test_append_behind_a_batch_in_parts_stays_behind_it_over_lost_connections(cuts) -> None:
    async with placed() as place, walsvc.open(place.wire.url, **QUICK) as log:
        place.wire.mute = True
        batch = log.append_batch([PART] * 20)
        behind = [
            log.append(b"behind"),
            log.append_batch([b"a", b"b"]),
            log.append_batch([PART] * 12),
            log.append(b"last"),
        ]
        flushed = asyncio.ensure_future(log.flush())
        await until(lambda: log._appends.unanswered_bytes > 19 * len(PART))
        place.wire.mute = False
        place.wire.limits[0] = place.wire.carried[0] + 250_000 if cuts > 1 else None
        place.wire.cut()
        for cut in range(2, cuts + 1):
            await until(lambda: place.wire.limits[0] is None)  # broken again, in the middle of a batch
            place.wire.limits[0] = place.wire.carried[0] + 250_000 if cut < cuts else None
        results = await asyncio.gather(batch, *behind)
        called_in_order(results)
        assert await flushed == results[-1].lsn == 36


@pytest.mark.parametrize("seed", range(4))
async def test_calls_get_lsns_in_call_order_wherever_the_connection_breaks(seed) -> None:
    draw = random.Random(seed)
    print("seed", seed)
    limits = Limits(pending_bytes=300_000, requests=6)
    async with placed(limits=limits) as place, walsvc.open(place.wire.url, **QUICK) as log:
        calls, count = [], 0
        for _ in range(60):
            what = draw.randrange(6)
            if what == 0:
                calls.append(log.append_batch([PART] * draw.randrange(9, 14)))
            elif what == 1:
                calls.append(log.append_batch([b"%d" % each for each in range(draw.randrange(1, 9))]))
            elif what == 2:
                calls.append(log.topic("t").append(PART))
            else:
                calls.append(log.append(b"x"))
            if draw.randrange(3) == 0:
                await asyncio.sleep(0)
            if draw.randrange(8) == 0:
                place.wire.limits[0] = place.wire.carried[0] + draw.randrange(400_000)
                count += 1
        place.wire.cut()
        called_in_order(await asyncio.wait_for(asyncio.gather(*calls), 60))
        assert place.server.status().rejected.get("credit") is None, "what is sent again keeps to the credit"
        assert count > 2


async def test_requests_sent_again_keep_to_smaller_limits_of_a_server_that_comes_back() -> None:
    async with placed() as place, walsvc.open(place.wire.url, **QUICK) as log:
        place.wire.mute = True
        calls = [log.append(bytes(50_000)) for _ in range(20)] + [
            log.topic("t").append(b"%d" % each) for each in range(8)
        ]
        calls += [log.append_batch([PART] * 12), log.append(b"last")]
        await asyncio.sleep(0)
        await place.stop()
        place.wire.mute = False
        await place.start(limits=Limits(pending_bytes=65536, requests=2))
        called_in_order(await asyncio.wait_for(asyncio.gather(*calls), 60))
        assert place.server.status().rejected == {}


@pytest.mark.parametrize("arrived", [True, False], ids=["carried out before", "never arrived"])
async def test_only_what_no_longer_fits_the_limits_of_a_server_fails(arrived) -> None:
    async with placed() as place, walsvc.open(place.wire.url, **QUICK) as log:
        place.wire.deaf, place.wire.mute = arrived, not arrived
        large = [log.append(bytes(200_000)), log.append_batch([bytes(9000)] * 2), log.append_batch([bytes(9000)] * 40)]
        small = log.append(b"small")
        if arrived:
            await until(lambda: place.log.durable_lsn == 44)
        else:
            await until(lambda: log._appends.unanswered_bytes > 500_000)
        await place.stop()
        place.wire.deaf = place.wire.mute = False
        place._config = WalConfig(segment_bytes=65536, max_group_bytes=65536, max_record_bytes=8192)
        await place.start(limits=Limits(frame_bytes=150_000))
        found = await asyncio.wait_for(asyncio.gather(*large, return_exceptions=True), 60)
        if arrived:
            called_in_order(found)
        else:
            assert all(type(each) is RecordTooLarge and each.hint for each in found), found
        assert (await small).lsn == (44 if arrived else 1)
        assert (await log.append(b"after")).lsn == (await small).lsn + 1
        assert place.server.status().rejected == {}


@pytest.mark.parametrize("cuts", [0, 3])
@pytest.mark.parametrize("arrived", ["nothing", "the first frame", "everything"])
async def test_appends_of_one_turn_share_no_fate_where_limits_have_become_smaller(arrived, cuts) -> None:
    """They left in one frame: of what was not carried out, what fits goes on in order, before what was called behind it."""
    large_frames = WalConfig(segment_bytes=4 << 20)
    async with placed(large_frames) as place, walsvc.open(place.wire.url, **QUICK) as log:
        place.wire.deaf, place.wire.mute = arrived == "everything", arrived == "nothing"
        sizes = [1, 20_000, *[3_000] * 40, 9_000, 5, *[8_000] * 9]
        calls = [log.append(b"%03d" % number + bytes(size)) for number, size in enumerate(sizes)]
        if arrived == "the first frame":
            await asyncio.gather(*calls)
            place.wire.mute = True
            calls = [log.append(b"%03d" % number + bytes(size)) for number, size in enumerate(sizes)]
        behind = [
            log.append(b"behind", attributes={"k": 1}),
            log.append_batch([b"a", b"b"]),
            log.topic("t").append(b"t"),
        ]
        if arrived == "everything":
            await until(lambda: place.log.durable_lsn == len(sizes) + 4)
        else:
            await until(lambda: log._appends.unanswered_bytes > sum(sizes))
        before = len(sizes) if arrived == "the first frame" else 0
        await place.stop()
        place.wire.deaf = place.wire.mute = False
        place._config = WalConfig(segment_bytes=65536, max_group_bytes=32768, max_record_bytes=8192)
        for each in range(cuts):
            place.wire.limits[0] = place.wire.carried[0] + 3_000 + 20_000 * each
            await place.start()
            await until(lambda: place.wire.limits[0] is None or all(call.done() for call in [*calls, *behind]))
            await place.stop()
        place.wire.limits[0] = None
        await place.start()
        found = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 60)
        if arrived == "everything":
            called_in_order(found + await asyncio.gather(*behind))
            return
        large = [number for number, size in enumerate(sizes) if size > 8189]
        assert [number for number, each in enumerate(found) if isinstance(each, RecordTooLarge)] == large
        called_in_order([each for each in found if not isinstance(each, Exception)] + await asyncio.gather(*behind))
        stored = await payloads(log)
        assert stored[before : before + len(sizes) - len(large)] == [
            b"%03d" % number + bytes(size) for number, size in enumerate(sizes) if number not in large
        ]
        assert len(stored) == before + len(sizes) - len(large) + 4
        assert place.server.status().rejected == {}


async def test_call_that_no_longer_fits_a_frame_fails_alone() -> None:
    async with placed() as place, walsvc.open(place.wire.url, **QUICK) as log:
        await log.append(b"x", attributes={"key": "k"})
        place.wire.mute = True
        values = ["v" * 20_000 + str(each) for each in range(8)]
        reading = asyncio.ensure_future(anext(log.read(where={"key": values}), None))
        appended = log.append(b"small")
        await asyncio.sleep(0.01)
        await place.stop()
        place.wire.mute = False
        await place.start(limits=Limits(frame_bytes=100_000))
        with pytest.raises(BadOption, match="frame"):
            await reading
        assert (await appended).lsn == 2
        with pytest.raises(BadOption, match="frame"):
            await anext(log.read(where={"key": values}), None)
        assert await payloads(log) == [b"x", b"small"]
