"""Clients that come, and those that are turned away: they cost more than an append, so they take their part of a turn of the loop."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

from tests.service.raw import Raw
from tests.service.simulated import serving
from tests.waiting import until
from walsvc.service.server.auth import Grant, Tokens
from walsvc.service.server.denials import DELAY_MAX_SECONDS, PER_SECOND, Denials
from walsvc.service.server.entrance import ACCEPTED_AT_LEAST, ACCEPTED_AT_ONCE, Acceptor
from walsvc.service.server.turns import ACCEPT_UNITS, LIGHT, SLICE, TURN, Turns
from walsvc.service.wire.frames import Ack, Call, Error, Goodbye, Ping, Pong, Result, Welcome

GOOD = "g" * 32


async def accepted_in_turns(place: Path, turns: Turns, count: int) -> list[int]:
    """How many of `count` clients that wait are accepted in each turn of the loop."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    listening.bind(str(place / "s"))
    listening.listen(count)
    clients = [socket.socket(socket.AF_UNIX) for _ in range(count)]
    for each in clients:
        each.connect(str(place / "s"))
    number, came = [0], list[int]()

    def turn() -> None:
        number[0] += 1
        asyncio.get_running_loop().call_soon(turn)

    def factory() -> asyncio.BaseProtocol:
        came.append(number[0])
        return asyncio.Protocol()

    turn()
    acceptor = Acceptor(listening, factory, None, None, 1.0, turns=turns)  # type: ignore[arg-type]
    await until(lambda: len(came) == count and not acceptor._tasks)
    acceptor.close()
    for each in clients:
        each.close()
    return [came.count(at) for at in sorted(set(came))]


async def test_clients_that_come_take_their_part_of_a_turn_of_the_loop(tmp_path) -> None:
    counts = await accepted_in_turns(tmp_path, Turns(), 40)
    assert max(counts) == TURN // 2 // ACCEPT_UNITS < ACCEPTED_AT_ONCE


async def test_some_clients_are_let_in_in_each_turn_however_busy_the_server_is(tmp_path) -> None:
    turns = Turns()
    busy = turns.pace()
    busy.did(100 * LIGHT)

    def work() -> None:
        busy.did(SLICE)
        busy.later(work)

    busy.later(work)
    assert set(await accepted_in_turns(tmp_path, turns, 20)) == {ACCEPTED_AT_LEAST}


async def test_answers_to_frames_that_came_together_leave_in_one_write(tmp_path) -> None:
    async with serving(tmp_path) as server, await Raw.welcomed(server) as raw:
        (connection,) = server.roster
        written: list[int] = []
        flush = connection.flush

        def counted() -> None:
            written.append(len(connection._outgoing))
            flush()

        connection.flush = counted
        raw.send(*(Ping(id) for id in range(1, SLICE)))
        for id in range(1, SLICE):
            await raw.expect(Pong, id)
        assert written == [SLICE - 1]
        raw.send(Ping(99))
        await raw.expect(Pong, 99)
        assert written == [SLICE - 1, 1]


async def test_ids_may_come_in_any_order_and_again_once_they_are_answered(tmp_path) -> None:
    async with serving(tmp_path) as server, await Raw.welcomed(server) as raw:
        for id in (7, 3, 7, 3, 1):
            raw.append(id, b"x")
            assert (await raw.expect(Ack, id)).durable
            raw.send(Call(id, "topics", {}))
            await raw.expect(Result, id)


async def test_calls_wait_for_their_turn_without_a_task_and_are_answered_in_order(tmp_path) -> None:
    async with serving(tmp_path) as server, await Raw.welcomed(server) as raw:
        (connection,) = server.roster
        shared, sessions = server.shared, connection.sessions
        shared.turns.left, shared.turns._due = 0, True  # the turn is over, and the next one does not come yet
        connection.pace.did(10 * LIGHT)
        for id in range(1, 101):
            sessions.call(Call(id, "topics", {}))  # type: ignore[union-attr]
        sessions.cancel(50)  # type: ignore[union-attr]
        assert (shared.calls.used, len(sessions._tasks)) == (99, 0)  # type: ignore[union-attr]
        shared.turns._due = False
        shared.turns.spend(0)
        assert (await raw.expect(Error, 50)).message == "the call was cancelled"
        for id in (*range(1, 50), *range(51, 101)):
            frame = await raw.next()
            assert isinstance(frame, Result)
            assert frame.id == id
        raw.send(*(Call(id, "topics", {}) for id in range(101, 201)))
        raw.writer.transport.abort()  # type: ignore[attr-defined]
        await until(lambda: len(server.roster) == 0 and shared.calls.used == 0)


# ---- turned away


def test_denials_are_told_at_once_up_to_a_rate_and_then_later_and_later() -> None:
    now = [100.0]
    denials = Denials(lambda: now[0])
    burst = int(PER_SECOND)
    assert [denials.delay() for _ in range(burst)] == [0.0] * burst
    assert [denials.delay() for _ in range(3)] == [each / PER_SECOND for each in (1, 2, 3)]
    for _ in range(10 * burst):
        assert denials.delay() <= DELAY_MAX_SECONDS
    assert denials.delay() == DELAY_MAX_SECONDS
    now[0] += DELAY_MAX_SECONDS + 1
    assert [denials.delay() for _ in range(burst)] == [0.0] * burst, "what was too much is forgotten soon"


async def test_flood_of_strangers_waits_and_who_has_a_token_does_not(tmp_path) -> None:
    tokens = Tokens([(GOOD, Grant("good", frozenset({"append", "read"})))])
    async with serving(tmp_path, tokens=tokens) as server:
        denials = server.shared.denials
        denials._clock = lambda: denials._bucket.at  # time stands
        denials._bucket.level = -DELAY_MAX_SECONDS * PER_SECOND
        gone = await Raw.to(server)
        gone.hello("g" * 32 + "?")
        await until(lambda: len(server.roster) == 1)
        (connection,) = list[Any](server.roster)
        await until(lambda: not connection.reading)
        connection.abort()
        assert await gone.ended()
        assert connection.greeting._denying.cancelled(), "nobody is told any more"
        denials._bucket.level = -1.0
        stranger, good = await Raw.to(server), await Raw.to(server)
        stranger.hello("s" * 32)
        good.hello(GOOD)
        await good.expect(Welcome)
        goodbye = await stranger.expect(Goodbye)
        assert goodbye.code == "Denied"
        assert server.status().rejected == {"token": 1}
        for each in (gone, stranger, good):
            await each.close()
