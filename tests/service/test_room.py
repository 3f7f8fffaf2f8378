"""Calls of a client beyond what the server takes of a connection wait for room, in the client."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import walsvc
from tests.service.simulated import Devices, serving
from tests.waiting import until
from walsvc.service.client.order import SendOrder
from walsvc.service.client.room import Room
from walsvc.service.server.limits import Limits


@pytest.mark.parametrize("calls", [4, 32, 1024])
async def test_more_calls_than_the_server_takes_are_all_answered(tmp_path: Path, calls: int) -> None:
    async with serving(tmp_path, limits=Limits(calls=calls)) as server, walsvc.open(server.addresses[0]) as log:
        topic = log.topic("t")
        await topic.append(b"x")
        connected = server.status().accepted
        assert await asyncio.gather(*(topic.count() for _ in range(100))) == [1] * 100
        mixed = [
            each() for _ in range(25) for each in (topic.last_lsn, log.flush, topic.limits, lambda: log.wait_durable(1))
        ]
        assert len(await asyncio.gather(*mixed)) == 100
        assert server.status().accepted == connected, "the connection was never ended"


async def test_calls_that_no_frame_can_hold_leave_their_room_to_others(tmp_path: Path) -> None:
    limits = Limits(calls=16, frame_bytes=96 << 10)
    async with serving(tmp_path, limits=limits) as server, walsvc.open(server.addresses[0], timeout=60.0) as log:
        for _ in range(16):
            with pytest.raises(walsvc.BadOption, match="over the server's limit"):
                await log.release("x" * 100_000)
        await log.release("x")
        assert server.status().accepted == 1


async def test_more_records_are_read_by_their_lsns_than_streams_may_be_open(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, walsvc.open(server.addresses[0]) as log:
        await log.append(b"x")
        assert [each.payload for each in await asyncio.gather(*(log.get(1) for _ in range(600)))] == [b"x"] * 600
        assert server.status().accepted == 1


async def test_calls_that_wait_keep_back_neither_appends_nor_other_kinds_of_calls(tmp_path: Path) -> None:
    async with serving(tmp_path, limits=Limits(calls=64)) as server, walsvc.open(server.addresses[0]) as log:
        queues = [await log.topic(f"t{number}").consumer("w", shared=True) for number in range(12)]
        asking = [asyncio.ensure_future(queue.next()) for queue in queues for _ in range(20)]
        for number in range(12):
            await log.topic(f"t{number}").append_batch([b"x"] * 20)
            assert await log.topic(f"t{number}").count() == 20
        given = await asyncio.gather(*asking)
        await asyncio.gather(*(each.ack() for each in given))
        assert [await queue.lag() for queue in queues] == [0] * 12
        assert server.status().accepted == 1


async def test_calls_that_wait_are_given_up_and_outlive_a_server_that_comes_back_with_less_room(tmp_path: Path) -> None:
    devices = Devices()
    async with serving(tmp_path, devices, limits=Limits(calls=400)) as server:
        log = await walsvc.open(server.addresses[0], reconnect_seconds=60.0)
        workers = await log.topic("t").consumer("w", shared=True)
        asking = [asyncio.ensure_future(workers.next()) for _ in range(60)]
        await until(lambda: server.logs[""].stats().topics >= 1 or log.connected, 0)
    counting = [asyncio.ensure_future(log.topic("t").count()) for _ in range(200)]
    await asyncio.sleep(0)
    for each in (*asking[::3], *counting[::3]):
        each.cancel()
    async with serving(tmp_path, devices, limits=Limits(calls=16)) as server:
        assert [await each for each in counting if not each.cancelled()] == [0] * 133
        await log.topic("t").append_batch([b"x"] * 40)
        given = [await each for each in asking if not each.cancelled()]
        assert sorted(each.record.lsn for each in given) == list(range(1, 41))
        assert {each.attempt for each in given} == {1}
        await workers.ack(given)
        assert server.status().accepted == 1
        await log.close()


def test_a_call_that_left_is_followed_by_one_of_the_same_consumer_that_has_no_other() -> None:
    sent: list[int] = []

    class Request:
        def __init__(self, id: int, consumer: int) -> None:
            self.id, self.consumer = id, consumer

        def again(self) -> bool:
            if room.enter(self.id, self, "shared.next", self.consumer):  # type: ignore[arg-type]
                sent.append(self.id)
            return True

    table: dict[int, Any] = {}
    order = SendOrder(table)
    room = Room(order)
    room.begin(16)
    for id, consumer in ((1, 7), (2, 7), (3, 7), (4, 8), (5, 8)):
        table[id] = Request(id, consumer)
        order.add([(id, table[id])])
    assert sent == [1, 4], "one for all, and one for each consumer"
    assert room.leave(4)
    assert sent == [1, 4, 5]
    assert room.leave(1)
    assert sent == [1, 4, 5, 2]
    assert not room.leave(3)
    assert room.leave(2)
    assert room.leave(5)
    assert sent == [1, 4, 5, 2]
