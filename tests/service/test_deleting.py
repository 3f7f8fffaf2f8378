"""Deleting topics of a served log: who hears of it, and what a lost connection repeats."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import walsvc
from tests.service.raw import Raw
from tests.service.simulated import serving
from tests.service.wire import QUICK, payloads, placed
from tests.waiting import until
from walsvc import BadOption
from walsvc.service.server.auth import Grant, Tokens
from walsvc.service.wire.frames import Ack, Call, Error, Purged, Result
from walsvc.service.wire.methods import ADMIN, APPEND, READ

Delete = Callable[[Any, Any], Awaitable[None]]
BY: dict[str, Delete] = {
    "a client": lambda client, _: client.delete_topic("a"),
    "the server's own program": lambda _, log: log.delete_topic("a"),
}


@pytest.mark.parametrize("delete", BY.values(), ids=BY)
async def test_nobody_gets_what_was_sent_ahead_of_a_deleted_topic(tmp_path, delete) -> None:
    async with serving(tmp_path) as server, walsvc.open(server.addresses[0]) as log:
        for number in range(9):
            await log.topic("ab"[number % 2]).append(b"x")
        async with walsvc.open(server.addresses[0]) as other:
            consumer = await other.consumer("c")
            iterations = [other.read(), other.follow(), other.read(reverse=True)]
            assert [(await anext(each)).lsn for each in iterations] == [1, 1, 9]
            assert (await consumer.next()).lsn == 1
            await delete(log, server.logs[""])
            await log.topic("a").append(b"another one")
            await other.refresh()
            assert other.topics() == ["b", "a"]
            assert [(await consumer.next()).lsn for _ in range(5)] == [2, 4, 6, 8, 10]
            assert [record.lsn async for record in iterations[0]] == [2, 4, 6, 8]
            assert [(await anext(iterations[1])).lsn for _ in range(5)] == [2, 4, 6, 8, 10]
            assert [record.lsn async for record in iterations[2]] == [8, 6, 4, 2]
            await consumer.ack(10)
            await iterations[1].aclose()


async def test_deletion_whose_answer_was_lost_is_repeated_and_spares_a_topic_that_was_made_since():
    async with placed() as place, walsvc.open(place.wire.url, **QUICK) as log:
        await log.topic("a").append(b"old")
        place.wire.deaf = True
        deleting = asyncio.create_task(log.delete_topic("a"))
        await asyncio.sleep(0.01)
        assert not deleting.done()
        place.wire.deaf = False
        place.wire.cut()  # before its number has come
        await deleting
        await log.topic("a").append(b"older")
        number = place.log.writer.core.metadata.topics.get("a")
        place.wire.deaf = True
        deleting = asyncio.create_task(log._session.call("delete_topic", topic="a", number=number))
        await until(lambda: "a" not in place.log.topics())
        await place.log.topic("a").append(b"new")
        place.wire.deaf = False
        place.wire.cut()
        assert await deleting == 0
        assert await payloads(log) == [b"new"]
        with pytest.raises(BadOption, match="no topic 'b'"):
            await log.delete_topic("b")


async def test_deletion_is_repeated_to_a_server_that_was_killed_behind_it():
    async with placed() as place, walsvc.open(place.wire.url, **QUICK) as log:
        await log.topic("a").append(b"old")
        await log.topic("b").append(b"b")
        number = place.log.writer.core.metadata.topics.get("a")
        place.wire.deaf = True
        deleting = asyncio.create_task(log._session.call("delete_topic", topic="a", number=number))
        await until(lambda: "a" not in place.log.topics())
        await place.log.flush()
        await place.crash()
        await place.start()
        place.wire.deaf = False
        await deleting
        assert await payloads(log) == [b"b"]


async def test_deleting_needs_the_right_and_tells_only_those_who_may_read(tmp_path) -> None:
    tokens = Tokens(
        [
            ("a" * 16, Grant("a", frozenset({APPEND}))),
            ("r" * 16, Grant("r", frozenset({READ}))),
            ("x" * 16, Grant("x", frozenset({APPEND, ADMIN}))),
        ]
    )
    async with (
        serving(tmp_path, tokens=tokens) as server,
        await Raw.welcomed(server, token="r" * 16) as looking,
        await Raw.welcomed(server, token="a" * 16) as appending,
        await Raw.welcomed(server, token="x" * 16) as admin,
    ):
        await server.logs[""].topic("t").append(b"x")
        for raw in (looking, appending):
            for number, method in enumerate(("delete_topic", "topic.number"), 5):
                raw.send(Call(number, method, {"topic": "t"}))
                assert (await raw.expect(Error, number)).code == "Denied"
        admin.send(Call(7, "delete_topic", {"topic": "t"}))
        assert (await admin.expect(Result, 7)).value == 2
        assert (await looking.expect(Purged, 0))[:4] == (0, "t", {}, 2)
        appending.append(2, b"y")
        while not isinstance(answer := await appending.next(), Ack):
            assert not isinstance(answer, Purged), "names are not for everybody"
