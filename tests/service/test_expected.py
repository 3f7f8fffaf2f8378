"""Conditional appends over the service: decided by the server, once, whatever becomes of the connection."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

import walsvc
from tests.service.counters import campaign
from tests.service.simulated import serving
from walsvc import Conflict, UnsupportedFormat
from walsvc.service.wire.frames import FROM_CLIENT, Append, Batch
from walsvc.service.wire.protocol import LENGTH, decode, encode


async def test_of_many_writers_exactly_one_wins(tmp_path):
    async with serving(tmp_path) as server, AsyncExitStack() as stack:
        url = server.addresses[0]
        logs = [await stack.enter_async_context(walsvc.open(url)) for _ in range(8)]
        expected = 0
        for turn in range(5):
            answers = await asyncio.gather(
                *(each.topic("t").append(b"%d" % turn, expected=expected) for each in logs), return_exceptions=True
            )
            won = [each for each in answers if not isinstance(each, BaseException)]
            lost = [each for each in answers if isinstance(each, Conflict)]
            assert (len(won), len(lost)) == (1, 7)
            assert {(each.expected, each.actual) for each in lost} == {(expected, won[0].lsn)}
            expected = won[0].lsn


async def test_plain_appends_of_the_same_turn_stay_before_and_behind(tmp_path):
    async with serving(tmp_path) as server, walsvc.open(server.addresses[0]) as log:
        topic = log.topic("t")
        answers = [
            topic.append(b"1"),
            topic.append(b"2", expected=1),
            topic.append(b"3"),
            topic.append(b"4", expected=3),
        ]
        answers += [topic.append(b"5", expected=3)]
        *good, bad = await asyncio.gather(*answers, return_exceptions=True)
        assert [each.lsn for each in good] == [1, 2, 3, 4]
        assert isinstance(bad, Conflict)


async def test_older_server_is_not_asked(tmp_path):
    async with serving(tmp_path) as server, walsvc.open(server.addresses[0]) as log:
        log._session.info["features"] = []
        for call in (log.append, log.topic("t").append, log.append_nowait):
            with pytest.raises(UnsupportedFormat, match="does not know conditional appends"):
                call(b"x", expected=0)
        with pytest.raises(UnsupportedFormat):
            log.append_batch([b"x"], expected=0)
        assert (await log.append(b"x")).lsn == 1


def test_frames_without_a_condition_are_as_they_were():
    plain = Append(1, 2, 3, 4, 0, "t", 0, b"", [b"x"])
    part = Batch(1, 2, 3, 4, 0, "t", 0, True, [b"x"])
    for frame in (plain, part):
        body, other = encode(frame)[LENGTH.size :], encode(frame._replace(expected=0))[LENGTH.size :]
        assert (body[0], other[0], len(other)) == (0x9A, 0x9B, len(body) + 1)
        assert decode(body, FROM_CLIENT) == frame
        assert decode(other, FROM_CLIENT) == frame._replace(expected=0)


def test_counter_of_clients_whose_server_is_killed_is_the_number_of_successes():
    outcome = asyncio.run(campaign(clients=16, increments=6, kills=2))
    assert outcome.right, outcome
    assert (outcome.successes, outcome.kills) == (96, 2)
    assert outcome.conflicts > 0
