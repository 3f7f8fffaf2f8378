"""truncate_after in the server's log beside clients that read: what was sent ahead is void."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from typing import Any

import pytest

import walsvc
from tests.waiting import until
from walsvc.service.server.server import serve


@pytest.fixture
async def served(tmp_path) -> AsyncIterator[tuple[Any, Any]]:
    """A log, and a client of its server that takes little ahead."""
    with tempfile.TemporaryDirectory(prefix="walsvc-") as place:
        async with (
            serve(tmp_path / "log", unix=f"{place}/socket") as server,
            walsvc.open(server.addresses[0], read_ahead_bytes=65536) as client,
        ):
            yield server.logs[""], client


async def test_cut_and_grown_again_between_two_frames_is_told_to_who_reads(served):
    log, client = served
    await log.append_batch([b"old" + bytes(1000)] * 300)
    follower, reader = client.follow(), client.read()
    for each in (follower, reader):
        assert [(await anext(each)).lsn for _ in range(20)] == list(range(1, 21))
    ended = client.follow(301)
    waiting = asyncio.ensure_future(anext(ended))
    await client.wait_durable(300)
    await log.truncate_after(10)
    await log.append_batch([b"new" + bytes(1000)] * 400)
    assert [(await waiting).lsn, (await anext(ended)).lsn] == [11, 12]
    lsns, place = [], 20
    while place < 410:
        record = await asyncio.wait_for(anext(follower), 60)
        assert record.payload[:3] == b"new" or (not lsns and record.lsn == place + 1), "sent before the cut was told"
        if record.payload[:3] == b"new":
            lsns.append(record.lsn)
        place = record.lsn
    assert lsns == list(range(11, 411))
    rest = [record async for record in reader]
    assert {record.payload[:3] for record in rest} <= {b"old"}
    assert [record.lsn for record in rest] == list(range(21, 21 + len(rest)))
    assert len(rest) < 280
    await follower.aclose()
    await ended.aclose()


async def test_nothing_that_was_cut_is_shown_once_the_client_that_cuts_is_answered(served):
    log, client = served
    await log.append_batch([b"old"] * 100)
    ways = [client.follow(), client.read(), client.read_batches()]
    for way in ways[:2]:
        assert (await anext(way)).lsn == 1
    assert len(await anext(ways[2])) == 100
    await client.truncate_after(10)
    assert [(await anext(ways[0])).lsn for _ in range(9)] == list(range(2, 11))
    assert [record.lsn async for record in ways[1]] == list(range(2, 11))
    assert [batch async for batch in ways[2]] == []
    await client.append(b"new")
    assert (await anext(ways[0])).payload == b"new"
    await ways[0].aclose()


async def test_purge_and_cut_whose_callers_have_gone_are_told_to_all_readers(served):
    log, client = served
    await asyncio.gather(*(log.append(b"old", attributes={"key": n % 2}) for n in range(100)))
    reader, follower = client.read(), client.follow()
    assert (await anext(reader)).lsn == (await anext(follower)).lsn == 1
    turn = log.writer.core.queue.take_turn()
    await turn.granted
    async with walsvc.open(client.path) as other:
        purging = asyncio.ensure_future(other.purge(1))
        await until(lambda: log.writer.core.changes.length, 0)
        purging.cancel()
        await asyncio.gather(purging, return_exceptions=True)
    turn.end()
    async with walsvc.open(client.path) as other:
        cutting = asyncio.ensure_future(other.truncate_after(10))
        await until(lambda: log.writer.core.queue.held, 0)
        cutting.cancel()
        await asyncio.gather(cutting, return_exceptions=True)
    await log.append(b"new")
    await client.flush()
    assert [record.lsn async for record in reader] == [3, 5, 7, 9]
    assert [(await anext(follower)).lsn for _ in range(5)] == [3, 5, 7, 9, 11]
    await follower.aclose()
