"""Writers that take a stream from each other: exactly one at a time has its records acknowledged."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from walsvc import Fenced, Relaxed
from walsvc.disk.base import TakenOver
from walsvc.engines.jetstream.connect import connect
from walsvc.engines.jetstream.message import WINDOW
from walsvc.engines.jetstream.options import JetStreamOptions, parse_url
from walsvc.engines.jetstream.stream import Stream
from walsvc.engines.jetstream.takeover import announce, claim, look, publisher_behind


async def test_former_writer_is_fenced_at_its_next_append(open_stream):
    async with open_stream() as former:
        await former.append(b"former")
        async with open_stream() as later:
            with pytest.raises(Fenced) as caught:
                await former.append(b"too late")
            assert caught.value.hint
            with pytest.raises(Fenced):
                await former.append(b"still")
            assert (await later.append(b"later")).lsn == 2
            assert [record.payload async for record in later.read()] == [b"former", b"later"]


async def test_what_was_on_its_way_is_acknowledged_or_not_there_twice(open_stream):
    former = await open_stream()
    with contextlib.suppress(Fenced):  # from closing, where all were acknowledged and none has told of it
        waiting = [former.append(b"%d" % number * 3000) for number in range(100)]
        async with open_stream() as later:
            results = await asyncio.gather(*waiting, return_exceptions=True)
            acknowledged = {r.lsn: b"%d" % n * 3000 for n, r in enumerate(results) if not isinstance(r, BaseException)}
            assert all(isinstance(each, Fenced) for each in results if isinstance(each, BaseException))
            found = {record.lsn: record.payload async for record in later.read()}
            assert acknowledged.items() <= found.items()
            assert sorted(found) == list(range(1, len(found) + 1))
            assert len(set(found.values())) == len(found)
        await former.close()


async def test_relaxed_records_of_a_fenced_writer_are_not_lost_silently(open_stream):
    with pytest.raises(Fenced):
        async with open_stream(relaxed_interval=None) as former:
            await former.append(b"only accepted", mode=Relaxed)
            async with open_stream() as later:
                await later.append(b"later")


async def test_writers_fighting_lose_and_double_nothing(open_stream):
    acknowledged: dict[int, bytes] = {}
    logs, reigns, fenced = [], [], 0

    async def reign(log, name: int, begun: asyncio.Event) -> None:
        nonlocal fenced
        for number in range(10_000):
            payload = b"%d %d" % (name, number)
            try:
                result = await log.append(payload)
            except Fenced:
                fenced += 1
                return
            assert result.lsn not in acknowledged
            acknowledged[result.lsn] = payload
            if number == 5:
                begun.set()

    for name in range(8):
        begun = asyncio.Event()
        logs.append(await open_stream())
        reigns.append(asyncio.ensure_future(reign(logs[-1], name, begun)))
        await asyncio.wait_for(begun.wait(), 60)
    await asyncio.wait_for(asyncio.gather(*reigns[:-1]), 60)
    reigns[-1].cancel()
    found = {record.lsn: record.payload async for record in logs[-1].read()}
    assert fenced == 7
    assert acknowledged.items() <= found.items()
    assert len(set(found.values())) == len(found)
    for log in logs:
        await log.close()


async def test_of_two_openings_that_saw_the_same_end_one_is_refused(cluster, stream, open_stream):
    async with open_stream() as log:
        await log.append(b"x")
    address, options = parse_url(cluster.url(stream)), JetStreamOptions()
    streams = [Stream(await connect(address, options), address, options) for _ in range(2)]
    await claim_all(streams[0])
    sights = [await look(each) for each in streams]
    assert sights[0].newest == sights[1].newest
    publishers = [publisher_behind(each, sight) for each, sight in zip(streams, sights, strict=True)]
    outcomes = []
    for publisher, where, sight in zip(publishers, streams, sights, strict=True):
        await publisher.start()
        outcomes.append(await announce(where, publisher, sight.directory))
    assert outcomes[0] is None
    assert isinstance(outcomes[1], TakenOver)
    for publisher, where in zip(publishers, streams, strict=True):
        await publisher.abort()
        await where.client.close()


async def claim_all(stream: Stream) -> None:
    """What every opening does first."""
    await look(stream)
    await claim(stream, WINDOW)


async def test_writers_that_open_at_once_leave_one(open_stream):
    opened = await asyncio.gather(*(open_stream() for _ in range(4)), return_exceptions=True)
    logs = [each for each in opened if not isinstance(each, BaseException)]
    results = await asyncio.gather(*(log.append(b"x") for log in logs), return_exceptions=True)
    others = [each for each in [*opened, *results] if isinstance(each, BaseException)]
    assert all(isinstance(each, Fenced) for each in others)
    assert sum(not isinstance(each, BaseException) for each in results) == 1
    for log in logs:
        await log.close()
