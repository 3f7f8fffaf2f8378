"""Clients that are gone leave calls and streams: these are ended a slice in each turn of the loop, whoever goes at the same time, and none of it stays."""

from __future__ import annotations

import asyncio
import gc
import time
from contextlib import suppress
from typing import Any

import pytest

from tests.service.raw import Raw
from tests.service.simulated import Devices, serving
from tests.waiting import until
from walsvc.service.ops import collecting
from walsvc.service.server import sessions as of_sessions
from walsvc.service.server.gate import Gate
from walsvc.service.server.limits import Limits
from walsvc.service.server.sessions import Sessions
from walsvc.service.server.turns import CONSUMER_UNITS, HEAVY_OPENINGS, OPEN_UNITS, SLICE, Turns
from walsvc.service.wire.frames import Call, Error, Open, Ping, Pong, Result

FRAMES: dict[str, Any] = {
    "read": lambda id: Open(id, "read", {}, 1),
    "follow": lambda id: Open(id, "follow", {}, 1),
    "consumer": lambda id: Open(id, "consumer", {"name": str(id)}, 1),
    "wait_durable": lambda id: Call(id, "wait_durable", {"lsn": 1000}),
}


async def never(*_: object, **__: object) -> Any:
    """A call that has no answer."""
    await asyncio.get_running_loop().create_future()


async def test_what_is_left_is_ended_a_slice_in_each_turn_before_heavy_ones_have_theirs() -> None:
    turns, done = Turns(), list[str]()
    busy = turns.pace()
    busy.did(10 * SLICE)
    for number in range(4):
        turns.clear(lambda number=number: done.append(f"left {number}"), SLICE // 2)
    assert done == ["left 0", "left 1"], "a little is ended at once"
    busy.later(lambda: done.append("busy"))
    await asyncio.sleep(0)
    assert done[2:] == ["left 2", "left 3", "busy"]


async def test_client_that_is_gone_has_no_turn() -> None:
    turns, done = Turns(), list[str]()
    gone, other = turns.pace(), turns.pace()
    for pace in (gone, other):
        pace.did(10 * SLICE)
    await asyncio.sleep(0)
    turns.left, turns._due = 0, True  # the turn is over, and the next one does not come yet
    waiting = asyncio.ensure_future(gone.turn(1))
    await asyncio.sleep(0)
    gone.over, turns._due = True, False
    other.later(lambda: done.append("other"))
    await until(lambda: done == ["other"] and turns.waiting == 0)
    late = asyncio.ensure_future(gone.turn(1))
    await asyncio.sleep(0)
    assert not waiting.done()
    assert not late.done()
    for each in (waiting, late):
        each.cancel()
        with suppress(asyncio.CancelledError):
            await each


@pytest.mark.parametrize(
    ("what", "units"), [("read", OPEN_UNITS), ("consumer", CONSUMER_UNITS), ("wait_durable", OPEN_UNITS)]
)
async def test_clients_that_go_together_are_ended_a_slice_in_each_turn_and_count_until_then(
    tmp_path, monkeypatch, what: str, units: int
) -> None:
    """Three connections with forty of them each, cut in the same turn of the loop."""
    ended = [0]
    end = Sessions._end
    monkeypatch.setattr(Sessions, "_end", lambda *args: (ended.__setitem__(0, ended[0] + 1), end(*args))[1])
    async with serving(tmp_path) as server, await Raw.welcomed(server) as good:
        await server.logs[""].append_batch([b"x"] * 10)
        server.logs[""].wait_durable = never
        raws = [await Raw.welcomed(server) for _ in range(3)]
        for number, raw in enumerate(raws):
            raw.send(*(FRAMES[what](id) for id in range(100 * number + 1, 100 * number + 41)), Ping(999))
            await raw.expect(Pong, 999)
        used = server.shared.calls if what == "wait_durable" else server.shared.streams
        await until(lambda: used.used == 120 and server.shared.turns.waiting == 0)
        if what == "consumer":
            await until(lambda: sum(each.streams for each in server.roster) == 120)
            await until(lambda: not any(each.sessions._tasks for each in server.roster))
        for connection in server.roster:
            if connection.sessions._tasks or connection.streams:
                connection.abort()
        counts: list[int] = []
        while ended[0] < 120:
            before = ended[0]
            await asyncio.sleep(0)
            counts.append(ended[0] - before)
            assert used.used >= 120 - ended[0], "who has not ended counts"
        assert max(counts) <= 2 * SLICE // units, "at once and in the turn that follows"
        await until(lambda: used.used == 0)
        if what == "consumer":  # it is free again
            good.send(FRAMES[what](1))
            await good.expect(Result, 1)
        for raw in raws:
            await raw.close()


async def test_name_of_a_consumer_whose_end_has_not_come_is_waited_for(tmp_path, monkeypatch) -> None:
    async with serving(tmp_path) as server, await Raw.welcomed(server) as good:
        raw = await Raw.welcomed(server)
        raw.send(FRAMES["consumer"](1))
        await raw.expect(Result, 1)
        turns, left = server.shared.turns, list[Any]()
        monkeypatch.setattr(turns, "clear", lambda do, units: left.append(do))
        await raw.close()
        await until(lambda: len(left) == 1)
        good.send(FRAMES["consumer"](1), Ping(2))
        await good.expect(Pong, 2)
        left.pop()()  # it tells what it leaves
        good.send(Ping(3))
        await good.expect(Pong, 3)
        assert server.shared.streams.used == 2
        left.pop()()
        await good.expect(Result, 1)
        monkeypatch.undo()


async def test_connections_that_go_together_tell_what_they_leave_a_few_in_each_turn(tmp_path, monkeypatch) -> None:
    told = [0]
    leave = Sessions._leave
    monkeypatch.setattr(Sessions, "_leave", lambda self: (told.__setitem__(0, told[0] + 1), leave(self))[1])
    async with serving(tmp_path) as server, await Raw.welcomed(server) as good:
        server.logs[""].wait_durable = never
        raws = [await Raw.welcomed(server) for _ in range(12)]
        for raw in raws:
            raw.send(FRAMES["consumer"](1)._replace(args={"name": str(raws.index(raw))}))
            await raw.expect(Result, 1)
            raw.send(*(FRAMES["wait_durable"](id) for id in range(2, 2 * SLICE + 1)), Ping(999))
            await raw.expect(Pong, 999)
        await until(lambda: server.shared.calls.used == 12 * (2 * SLICE - 1) and server.shared.turns.waiting == 0)
        _, *others = server.roster
        for connection in others:
            connection.abort()
        counts: list[int] = []
        while told[0] < 12:
            before = told[0]
            await asyncio.sleep(0)
            counts.append(told[0] - before)
            if before == 0 and told[0]:
                good.send(FRAMES["consumer"](1)._replace(args={"name": "11"}))  # of the last one
        assert max(counts) <= 2, "at once and in the turn that follows"
        await good.expect(Result, 1)
        await server.shared.closing.done()
        assert (server.shared.calls.used, server.shared.streams.used) == (0, 1)
        for raw in raws:
            await raw.close()


@pytest.mark.parametrize("what", FRAMES)
async def test_nothing_that_a_client_had_open_waits_for_the_garbage_collector(tmp_path, what: str) -> None:
    async with serving(tmp_path) as server:
        server.logs[""].wait_durable = never
        await server.logs[""].append_batch([b"x" * 100] * 50)
        gc.collect()
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            raw = await Raw.welcomed(server)
            raw.send(*(FRAMES[what](id) for id in range(1, 101)), Ping(999))
            await raw.expect(Pong, 999)
            shared = server.shared
            await until(lambda: shared.streams.used + shared.calls.used == 100 and shared.turns.waiting == 0)
            for _ in range(20):
                await asyncio.sleep(0)
            await raw.close()
            await until(lambda: shared.streams.used + shared.calls.used == 0)
            await shared.closing.done()
            assert gc.collect() < 20, "the two transports of asyncio, which hold themselves"
        finally:
            if was_enabled:
                gc.enable()


async def test_opening_that_is_refused_leaves_nothing_to_the_garbage_collector(tmp_path) -> None:
    async with serving(tmp_path, limits=Limits(streams=1)) as server, await Raw.welcomed(server) as raw:
        raw.send(FRAMES["follow"](1))
        await raw.expect(Result, 1)
        gc.collect()
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            raw.send(*(FRAMES["consumer"](id) for id in range(2, 102)))
            await raw.expect(Error, 101)
            await until(lambda: not server.shared.turns.waiting)
            assert gc.collect() < 20, "and no error for each, with the frame that raised it"
        finally:
            if was_enabled:
                gc.enable()


async def test_gate_lets_some_in_at_a_time_in_order_and_passes_over_those_that_give_up() -> None:
    gate, inside = Gate(2), list[int]()

    async def enter(number: int) -> None:
        async with gate:
            inside.append(number)
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(enter(number)) for number in range(6)]
    await asyncio.sleep(0)
    assert inside == [0, 1]
    tasks[2].cancel()
    await asyncio.sleep(0)
    assert inside == [0, 1], "both have gone out, and the next ones are told"
    tasks[3].cancel()  # its turn has come and it has not seen that
    await asyncio.wait(tasks)
    assert inside == [0, 1, 4, 5]
    async with gate, gate:
        pass  # both places are free again


async def test_thousands_that_give_up_waiting_cost_as_much_each_as_hundreds() -> None:
    async def seconds(count: int) -> float:
        gate = Gate(0)
        tasks = [asyncio.create_task(gate.acquire()) for _ in range(count)]
        await asyncio.sleep(0)
        for task in reversed(tasks):
            task.cancel()
        began = time.thread_time()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return time.thread_time() - began

    few, many = [min([await seconds(count) for _ in range(3)]) for count in (1000, 16_000)]
    assert many < 64 * few, "as many times as there are more, and not the square of that"


async def test_heavy_clients_open_few_consumers_at_a_time_and_light_ones_pass_them(tmp_path, monkeypatch) -> None:
    """All that one group of the log makes durable goes on in the same turn of the loop."""
    begun, go_on = [0], asyncio.Event()
    opened = of_sessions.OPENED["consumer"]

    async def opening(*args: Any) -> Any:
        begun[0] += 1
        await go_on.wait()
        return await opened(*args)

    async with serving(tmp_path) as server, await Raw.welcomed(server) as light, await Raw.welcomed(server) as heavy:
        monkeypatch.setitem(of_sessions.OPENED, "consumer", opening)
        first, _ = server.roster
        first.pace._at -= 1000
        heavy.send(*(FRAMES["consumer"](id) for id in range(1, 101)), Ping(999))
        await heavy.expect(Pong, 999)
        await until(lambda: begun[0] == HEAVY_OPENINGS)
        for _ in range(100):
            await asyncio.sleep(0)
        assert begun[0] == HEAVY_OPENINGS
        light.send(FRAMES["consumer"](1000))
        await until(lambda: begun[0] == HEAVY_OPENINGS + 1)
        go_on.set()
        await light.expect(Result, 1000)
        for _ in range(100):
            await heavy.expect(Result)


async def test_everything_that_clients_have_open_keeps_old_objects_from_being_looked_at(tmp_path) -> None:
    devices = Devices()
    async with serving(tmp_path, devices) as server, await Raw.welcomed(server) as raw:
        server.logs[""].wait_durable = never
        devices[""].stall_sync(1.0)
        raw.send(FRAMES["follow"](1), FRAMES["wait_durable"](2))
        for id in range(3, 13):
            raw.append(id, b"x")
        await until(lambda: server.shared.opened == 1 + 1 + 1 + 10)


def test_old_objects_are_looked_at_when_few_things_are_open_or_far_too_much_has_grown() -> None:
    grown, most, opened = collecting.GROWN, collecting.GROWN_MAX, collecting.OPEN_MAX
    found = [
        [collecting.is_due(looks, things) for things in (0, opened, opened + 1)]
        for looks in (grown - 1, grown, most - 1, most)
    ]
    assert found == [[False, False, False], [True, True, False], [True, True, False], [True, True, True]]


def test_python_looks_at_young_objects_alone() -> None:
    before = gc.get_threshold()
    try:
        collecting.begin()
        assert gc.get_threshold() == (*before[:2], collecting.NEVER)
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
