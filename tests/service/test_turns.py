"""Clients take turns: whoever asks for much waits behind whoever asks for little, and no turn of the loop is long."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from tests.service.raw import Raw
from tests.service.simulated import Devices, serving
from tests.waiting import until
from walsvc import WalConfig
from walsvc.service.server import server as of_server
from walsvc.service.server import state as of_state
from walsvc.service.server.limits import Limits
from walsvc.service.server.turns import HURRIED_TURNS, LIGHT, SLICE, TURN, UNITS_PER_SECOND, Turns
from walsvc.service.wire.frames import Ack, Batch, Call, Credit, Error, Open, Ping, Pong, Records, Result, StateFrame

KIB, MIB = 1 << 10, 1 << 20


def old(turns: Turns) -> Any:
    """The pace of a client that has been here for a while and asked for nothing."""
    pace = turns.pace()
    pace._at -= 1000
    return pace


async def test_light_ones_come_before_those_who_keep_the_server_busy() -> None:
    turns, done = Turns(), list[str]()
    busy, other, light = old(turns), old(turns), old(turns)
    now = asyncio.get_running_loop().time()
    for pace in (busy, other, light):
        pace._loop = SimpleNamespace(time=lambda: now)  # on a busy machine a unit is forgiven before the next line
    busy.did(LIGHT + 1)
    other.did(LIGHT + 1)
    assert (busy.light, other.light, light.light) == (False, False, True)
    assert not busy.may_go, "this turn of the loop is over"
    assert not light.may_go

    def work(name: str, pace: Any, units: int) -> None:
        done.append(name)
        pace.did(units)

    busy.later(lambda: work("busy", busy, SLICE))
    other.later(lambda: work("other", other, SLICE))
    light.later(lambda: work("light", light, 1))
    assert done == []
    await asyncio.sleep(0)
    assert done == ["light", "busy"]
    await asyncio.sleep(0)
    assert done == ["light", "busy", "other"]
    assert turns.waiting == 0


async def test_turn_of_the_loop_is_bounded_whoever_waits() -> None:
    turns, counts = Turns(), list[int]()
    busy = [old(turns) for _ in range(100)]
    for pace in busy:
        pace.did(100 * LIGHT)
    await until(lambda: turns.left > 0, 0)
    turns.spend(TURN)
    done = [0]

    def slice_of(pace: Any) -> None:
        done[0] += SLICE
        pace.did(SLICE)

    for pace in busy:
        pace.later(lambda pace=pace: slice_of(pace))
    while turns.waiting:
        before = done[0]
        await asyncio.sleep(0)
        counts.append(done[0] - before)
        assert old(turns).may_go, "half of each turn is for who comes with little"
    assert max(counts) <= TURN // 2 + SLICE
    assert sum(counts) == 100 * SLICE


async def test_turns_are_short_for_those_who_keep_the_server_busy_while_a_light_one_waits_for_its_answer() -> None:
    turns, done = Turns(), [0]
    busy = [old(turns) for _ in range(10)]

    def work(pace: Any) -> None:
        done[0] += SLICE
        pace.did(SLICE)
        pace.later(lambda: work(pace))

    for pace in busy:
        pace.did(100 * LIGHT)
        pace.later(lambda pace=pace: work(pace))

    async def counts(turns: int) -> list[int]:
        found = []
        for _ in range(turns):
            before = done[0]
            await asyncio.sleep(0)
            found.append(done[0] - before)
        return found

    assert (await counts(6))[-4:] == [TURN // 2] * 4
    assert old(turns).may_go
    assert await counts(HURRIED_TURNS + 2) == [SLICE] * HURRIED_TURNS + [TURN // 2] * 2


async def test_light_ones_never_take_a_whole_turn_for_good() -> None:
    turns, done = Turns(), list[int]()
    busy = old(turns)
    busy.did(10 * TURN)
    busy.later(lambda: done.append(1))
    for _ in range(10 * TURN):
        old(turns).later(lambda: turns.spend(1))
    await asyncio.sleep(0)
    assert done == [1], "one of the busy ones has its turn in each"


async def test_who_just_came_is_not_light_and_work_is_forgotten() -> None:
    turns = Turns()
    new = turns.pace()
    assert not new.light, "or coming again and again would be a way around"
    new._at -= (LIGHT + 1) / UNITS_PER_SECOND
    assert new.light
    new.did(2 * LIGHT)
    assert not new.light


async def test_wait_for_a_turn_that_is_given_up_takes_nothing_from_others() -> None:
    turns = Turns()
    one, other = old(turns), old(turns)
    waiting = [asyncio.ensure_future(pace.turn(1)) for pace in (one, other)]
    asyncio.get_running_loop().call_soon(waiting[0].cancel)
    turns.left, turns._due = 0, True  # the turn is over, and the next one does not come yet
    await asyncio.sleep(0)
    assert turns.waiting == 2
    await asyncio.wait(waiting[:1])
    turns._due = False
    turns.spend(0)
    await waiting[1]
    assert waiting[0].cancelled()
    assert turns.waiting == 0


async def test_small_request_passes_floods_of_others(tmp_path) -> None:
    """Eight clients send 1,000 PINGs each in one write; a client that was here is answered after a turn or two of them."""
    async with serving(tmp_path) as server, await Raw.welcomed(server) as good:
        (connection,) = server.roster
        connection.pace._at -= 1000
        floods = [await Raw.welcomed(server) for _ in range(8)]
        done, answered_at = [0], [0]
        for each in server.roster:
            if each is not connection:
                do = each.do

                def counted(frame: Any, do: Any = do) -> None:
                    done[0] += 1
                    do(frame)

                each.do = counted
        send = connection.send

        def noted(frame: Any) -> None:
            answered_at[0] = answered_at[0] or done[0]
            send(frame)

        for flood in floods:
            flood.send(*(Ping(id) for id in range(1, 1001)))
        await until(lambda: done[0] > TURN)
        begun = done[0]
        connection.send = noted
        good.send(Ping(7))
        await good.expect(Pong, 7)
        assert answered_at[0] - begun <= 3 * TURN, "8 x 1,000 are there"
        for flood in floods:
            for _ in range(1000):
                await flood.expect(Pong)
            await flood.close()


async def test_who_takes_all_is_served_while_others_have_filled_the_room(tmp_path) -> None:
    """A call, a read and a consumer of a client that reads, beside one that has left more unread than the server holds."""
    config = WalConfig(segment_bytes=4 * MIB)
    async with serving(tmp_path, config=config, limits=Limits(pending_total_bytes=256 * KIB)) as server:
        log = server.logs[""]
        await log.append_batch([bytes(1000)] * 1500)
        slow = await Raw.welcomed(server)
        slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
        slow.send(Open(1, "read", {}, 1 << 40))
        outgoing = server.budget.outgoing
        outgoing.charge(256 * KIB)  # of more of its kind
        assert outgoing.full
        async with await Raw.welcomed(server) as good:
            good.send(Call(1, "topics", {}), Open(2, "read", {}, 10), Open(3, "consumer", {"name": "c"}, 10))
            wanted = {(Result, 1), (Records, 2), (Records, 3)}
            while wanted:
                frame = await good.next()
                wanted.discard((type(frame), frame.id))  # type: ignore[union-attr]
            assert outgoing.full
        outgoing.charge(-256 * KIB)
        await slow.close()


async def test_batch_that_comes_in_drops_is_given_up(tmp_path) -> None:
    """Each part comes in time, and all others wait for the batch."""
    config = WalConfig(segment_bytes=65536, max_group_bytes=8 * KIB)
    limits = Limits(idle_seconds=1.0, pending_bytes=64 * KIB)
    async with serving(tmp_path, config=config, limits=limits) as server:
        raw = await Raw.welcomed(server)
        raw.send(
            Batch(1, 0, 0, 0, 0, None, 0, False, [bytes(5 * KIB)] * 8)
        )  # the log has it: more than half the credit
        answer: Any = None
        for part in range(1, 100):
            raw.send(Batch(1, 0, 0, 0, 0, None, part, False, [b"drop"]))
            try:
                async with asyncio.timeout(0.1):
                    while not isinstance(answer := await raw.next(), Error):
                        pass
                break
            except TimeoutError:
                continue
        assert isinstance(answer, Error)
        assert answer.code == "WalTimeout"
        assert part < 60, "not of the last: each took 0.1 s"
        await raw.close()
        async with await Raw.welcomed(server) as neighbour:
            neighbour.append(1, b"x")
            assert (await neighbour.expect(Ack, 1)).parts[0][0] == 1


async def test_batch_of_empty_records_has_an_end(tmp_path) -> None:
    config = WalConfig(segment_bytes=65536, max_batch_bytes=1 * MIB)
    async with serving(tmp_path, config=config) as server, await Raw.welcomed(server) as raw:
        answer: Any = None
        for part in range(20):
            raw.send(Batch(1, 0, 0, 0, 0, None, part, False, [b""] * 2000))
        while not isinstance(answer, Error):
            answer = await raw.next()
            assert isinstance(answer, Credit | Error)
        assert answer.code == "RecordTooLarge"
        assert "16384 records" in answer.message
        assert server.logs[""].next_lsn == 1


async def test_opening_a_consumer_waits_for_the_end_of_that_one_alone(tmp_path) -> None:
    devices = Devices()
    async with serving(tmp_path, devices) as server:
        closing, log = server.shared.closing, server.logs[""]
        ended = asyncio.Event()
        closing.add(asyncio.ensure_future(ended.wait()), (log, None, "a"))  # type: ignore[arg-type]
        async with await Raw.welcomed(server) as raw:
            raw.send(Open(1, "consumer", {"name": "a"}, 1), Open(2, "consumer", {"name": "b"}, 1))
            await raw.expect(Result, 2)
            raw.send(Ping(9))
            while not isinstance(answer := await raw.next(), Pong):
                assert not isinstance(answer, Result)
            ended.set()
            await raw.expect(Result, 1)


async def test_connections_are_looked_at_a_few_in_each_turn_of_the_loop(tmp_path, monkeypatch) -> None:
    """Ten thousand idle ones, each of which is told how far the log is, must hold up nobody."""
    monkeypatch.setattr(of_server, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(of_server, "LOOKS_A_TURN", 4)
    async with serving(tmp_path) as server:
        raws = [await Raw.welcomed(server) for _ in range(10)]
        turns, looks = [0], list[tuple[int, int]]()

        def turn() -> None:
            turns[0] += 1
            asyncio.get_running_loop().call_soon(turn)

        for number, connection in enumerate(server.roster):
            look = connection.look
            connection.look = lambda now, look=look, number=number: (looks.append((turns[0], number)), look(now))
        turn()
        await until(lambda: len(looks) >= 40)
        of_turns = [at for at, _ in looks]
        assert max(of_turns.count(at) for at in of_turns) == 4
        assert {number for _, number in looks} == set(range(10))
        for raw in raws:
            await raw.close()


async def test_news_of_a_log_are_made_once_for_all_who_hear_of_them(tmp_path, monkeypatch) -> None:
    """A record is news to every idle client: the frame that says so is the same for all of them."""
    monkeypatch.setattr(of_server, "LOOK_SECONDS", 0.01)
    made: list[int] = []
    of_log = of_state.state_of
    monkeypatch.setattr(of_state, "state_of", lambda log: (made.append(1), of_log(log))[1])
    async with serving(tmp_path) as server:
        raws = [await Raw.welcomed(server) for _ in range(10)]
        await server.logs[""].append(b"x")
        for raw in raws:
            while (await raw.expect(StateFrame)).state[2] < 1:
                pass
        looks = len(made)
        for raw in raws[1:]:
            raw.writer.transport.abort()  # type: ignore[attr-defined]
        await until(lambda: len(server.roster) == 1)
        raws[0].append(1, b"y")
        assert (await raws[0].expect(Ack, 1)).state[2] == 2
        assert looks <= len(made)
        before = len(made)
        await server.logs[""].append_batch([b"z"] * 3)
        while (await raws[0].expect(StateFrame)).state[2] < 5:
            pass
        assert len(made) > before, "it is looked at anew each time"
        await raws[0].close()
