"""What a server holds for its clients: many at once, and little sent that asks for much."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable

from tests.service.raw import Raw
from tests.service.simulated import SMALL, Devices, serving
from tests.waiting import until
from walsvc import WalConfig
from walsvc.service.server import server as of_server
from walsvc.service.server.auth import Grant, Tokens
from walsvc.service.server.limits import Limits
from walsvc.service.server.progress import TIGHT_SECONDS, Progress
from walsvc.service.server.turns import SLICE, TURN
from walsvc.service.wire.frames import (
    Ack,
    Append,
    Batch,
    Call,
    Cancel,
    End,
    Error,
    Goodbye,
    Open,
    Ping,
    Pong,
    Records,
    Result,
    Welcome,
)
from walsvc.service.wire.methods import ADMIN, APPEND, CONSUME, READ
from walsvc.service.wire.protocol import encode

KIB = 1 << 10
MIB = 1 << 20
BIG = WalConfig(segment_bytes=64 * MIB, max_group_bytes=8 * MIB)


async def test_announced_lengths_hold_nothing(tmp_path) -> None:
    """Seven connections say that 64 MiB follow, and nothing more: 28 bytes."""
    async with serving(tmp_path) as server, await Raw.welcomed(server) as good:
        silent = [await Raw.welcomed(server) for _ in range(7)]
        for each in silent:
            each.writer.write(struct.pack("<I", 64 * MIB))
        await until(lambda: server.budget.bytes == 4 * 7)
        good.append(1, b"x")
        await good.expect(Ack, 1)
        assert not server.budget.held
        for each in silent:
            await each.close()


async def test_frames_that_stand_still_end_while_others_wait_for_what_they_hold(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("walsvc.service.server.progress.TIGHT_SECONDS", 0.05)
    monkeypatch.setattr(of_server, "LOOK_SECONDS", 0.01)
    limits = Limits(pending_total_bytes=256 * KIB)
    frame = encode(Append(1, 0, 0, 0, 0, None, 0, b"", [bytes(MIB)]))
    async with serving(tmp_path, limits=limits, config=BIG) as server, await Raw.welcomed(server) as good:
        hostile = [await Raw.welcomed(server) for _ in range(20)]
        for each in hostile:
            each.writer.write(frame[: 40 * KIB])
        await until(lambda: server.budget.held)
        for id in range(1, 4):
            good.append(id, b"x")
            await good.expect(Ack, id)
            assert server.budget.bytes <= 256 * KIB + 40 * KIB
        assert server.status().rejected["timeout"] >= 4
        for each in hostile:
            await each.close()


def test_clock_of_a_frame() -> None:
    progress = Progress(60.0)
    progress.holds(100, 0, 1000, 0.0)
    assert progress.fault(59.0, None) is None
    assert "nothing came for 61.0 s" in str(progress.fault(61.0, None))
    assert "others wait" in str(progress.fault(TIGHT_SECONDS + 0.1, 0.0))
    progress.paused(1.0)
    assert progress.fault(1000.0, 0.0) is None, "the server does not read: the client can do nothing"
    progress.resumed(1000.0)
    assert progress.fault(1001.0, 0.0) is None
    assert progress.fault(1003.0, 0.0) is not None
    for second in range(1000, 1070):
        progress.holds(100 + second, 0, 1 << 20, float(second))
    assert progress.fault(1070.0, None) is None, "64 KiB a second besides"
    assert "bytes of its frame are missing after" in str(progress.fault(1080.0, None))
    assert "others wait for them" in str(progress.fault(1069.5, 1060.0))
    progress.holds(0, 0, 0, 1080.0)
    assert progress.fault(1e9, 0.0) is None
    progress.holds(0, 5, 0, 2000.0)
    assert progress.fault(2100.0, None) is None, "a batch may take its time while nobody waits for it"
    assert progress.fault(2100.0, 2099.0) is not None


async def test_empty_records_cost_their_room(tmp_path) -> None:
    """Batch parts of 8,192 empty payloads: what is held is bounded, though no byte of payload came."""
    devices, limits = Devices(), Limits(pending_bytes=64 * KIB)
    async with serving(tmp_path, devices, limits=limits) as server, await Raw.welcomed(server) as raw:
        raw.append(1, b"x")
        await raw.expect(Ack, 1)
        turn = server.logs[""].writer.core.queue.take_turn()  # the log takes nothing meanwhile
        part = Batch(2, 0, 0, 0, 0, None, 0, False, [b""] * 5000)
        raw.send(part, part._replace(part=1), part._replace(part=2))
        goodbye = await raw.expect(Goodbye)
        assert goodbye.code == "Backpressure"
        assert "0 payload bytes are unanswered on this connection, of 10000 records" in goodbye.message
        turn.end()
        await until(lambda: server.budget.bytes == 0)


async def test_batch_of_empty_records_goes_to_the_log_as_it_comes(tmp_path) -> None:
    async with serving(tmp_path) as server, await Raw.welcomed(server) as raw:
        for part in range(12):
            raw.send(Batch(1, 0, 0, 0, 0, None, part, part == 11, [b""] * 2000))
        assert sum(each[1] for each in (await raw.expect(Ack, 1)).parts) == 24_000
        await until(lambda: server.budget.bytes == 0)


async def test_frames_are_done_in_slices(tmp_path) -> None:
    """A neighbour's PING is answered before all of a flood is done."""
    async with serving(tmp_path) as server, await Raw.welcomed(server) as neighbour:
        flood = await Raw.welcomed(server)
        count = 4 * TURN
        turns = [0]

        def turn() -> None:
            turns[0] += 1
            asyncio.get_running_loop().call_soon(turn)

        (connection,) = [each for each in server.roster if each is not next(iter(server.roster))]
        done: list[int] = []
        dispatch: Callable[[object], None] = connection.do

        def counted(frame: object) -> None:
            done.append(turns[0])
            dispatch(frame)

        connection.do = counted
        turn()
        flood.send(*(Ping(id) for id in range(1, count + 1)))
        neighbour.send(Ping(1))
        await neighbour.expect(Pong, 1)
        assert [(await flood.expect(Pong)).id for _ in range(count)] == list(range(1, count + 1)), "all, in order"
        assert max(done.count(number) for number in set(done)) <= TURN + SLICE
        await flood.close()


async def test_large_answers_wait_until_the_client_reads(tmp_path) -> None:
    """Calls in 15 kB whose answers would fill 100 MB are made one by one as the client takes them."""
    async with serving(tmp_path, config=WalConfig(segment_bytes=4 * MIB)) as server:
        log = server.logs[""]
        await asyncio.gather(*(log.topic(f"{number:0200}").append(b"") for number in range(2000)))
        raw = await Raw.to(server)
        raw.writer.transport.pause_reading()
        raw.hello()
        await until(lambda: len(server.roster) == 1 and next(iter(server.roster)).sessions is not None)
        (connection,) = server.roster
        made: list[int] = []
        topics = log.topics
        log.topics = lambda: made.append(1) or topics()
        raw.send(*(Call(id, "topics", {}) for id in range(1, 251)))
        await until(lambda: connection.stuck)
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(made) < 20
        assert connection._transport.get_write_buffer_size() < 4 * MIB
        raw.writer.transport.resume_reading()
        for id in range(1, 251):
            assert len((await raw.expect(Result, id)).value) == 2000
        await raw.close()


async def test_reads_of_one_connection_take_turns(tmp_path) -> None:
    """Streams with a byte of credit each on a record of a megabyte: the server reads it as often as the client takes it."""
    async with serving(tmp_path, config=BIG) as server:
        log = server.logs[""]
        await log.append(bytes(MIB))
        raw = await Raw.to(server)
        raw.writer.transport.pause_reading()
        raw.hello()
        await until(lambda: len(server.roster) == 1 and next(iter(server.roster)).sessions is not None)
        (connection,) = server.roster
        raw.send(*(Open(id, "read", {}, 1) for id in range(1, 101)))
        await until(lambda: connection.stuck)
        for _ in range(200):
            await asyncio.sleep(0)
        assert connection._transport.get_write_buffer_size() < 6 * MIB
        assert connection.sent_bytes < 8 * MIB
        await raw.close()


async def test_streams_that_are_being_opened_count(tmp_path) -> None:
    async with serving(tmp_path, limits=Limits(streams=2)) as server, await Raw.welcomed(server) as raw:
        raw.send(*(Open(id, "consumer", {"name": f"c{id}"}, 1) for id in range(1, 51)))
        answers = [await raw.next() for _ in range(50)]
        assert [type(each) for each in answers].count(Result) == 2
        assert {each.code for each in answers if isinstance(each, Error)} == {"Backpressure"}
        assert len(server.logs[""].retention().pins) == 2
        raw.send(*(Open(id, "write", {}, 1) for id in range(51, 53)))
        await raw.expect(Error, 52)


async def never(lsn: int) -> int:
    """A wait that only its caller ends."""
    await asyncio.get_running_loop().create_future()
    return lsn


async def test_calls_and_streams_of_all_connections_have_limits(tmp_path) -> None:
    """What is over one is refused by its name, its connection goes on, and what has ended makes room."""
    limits = Limits(calls_total=6, streams_total=4)
    async with serving(tmp_path, limits=limits) as server:
        server.logs[""].wait_durable = never
        async with await Raw.welcomed(server) as first, await Raw.welcomed(server) as second:
            for raw in (first, second):
                raw.send(*(Call(id, "wait_durable", {"lsn": 1}) for id in range(10, 14)))
                raw.send(*(Open(id, "follow", {}, 1) for id in range(20, 23)))
            await first.expect(Result, 22)
            refused = {each.id: each.fields["hint"] for each in [await second.expect(Error) for _ in range(2)]}
            assert all("calls_total" in hint for hint in refused.values())
            assert set(refused) == {12, 13}
            assert "streams_total" in (await second.expect(Error, 21)).fields["hint"]
            assert "streams_total" in (await second.expect(Error, 22)).fields["hint"]
            assert (server.shared.calls.used, server.shared.streams.used) == (6, 4)
            first.send(Cancel(20), Cancel(10))
            await first.expect(End, 20)
            second.send(Open(30, "follow", {}, 1), Call(31, "topics", {}))
            await second.expect(Result, 30)
            await second.expect(Result, 31)
            second.send(Open(32, "follow", {}, 1))
            assert (await second.expect(Error, 32)).code == "Backpressure"
        await until(lambda: not len(server.roster))
        await until(lambda: (server.shared.calls.used, server.shared.streams.used) == (0, 0))  # given up a turn later


async def test_calls_of_a_connection_have_a_limit(tmp_path) -> None:
    async with serving(tmp_path, limits=Limits(calls=2)) as server, await Raw.welcomed(server) as raw:
        server.logs[""].wait_durable = never
        raw.send(*(Call(id, "wait_durable", {"lsn": 1}) for id in range(1, 4)))
        goodbye = await raw.expect(Goodbye)
        assert "higher limit of calls" in goodbye.message
        assert server.shared.calls.used == 0


async def test_namespaces_that_are_being_opened_count(tmp_path) -> None:
    devices, gate = Devices(), asyncio.Event()

    async def slow(config: WalConfig) -> object:
        await gate.wait()
        return await devices.open(config)

    limits = Limits(open_namespaces=2, namespace_seconds=0.0)
    async with serving(tmp_path, devices, namespaces=True, limits=limits, opener=slow) as server:
        raws = [await Raw.to(server) for _ in range(10)]
        for number, raw in enumerate(raws):
            raw.hello(namespace=f"n{number}")
        refused = [raw for raw in raws[2:] if (await raw.expect(Goodbye)).code == "Backpressure"]
        assert len(refused) == 8
        gate.set()
        for raw in raws[:2]:
            await raw.expect(Welcome)
        assert len(server.logs) == 2
        assert len(server.logs_by_name._turns) == 0, "no lock is kept of a name that was asked for"
        for raw in raws:
            await raw.close()


async def test_slow_close_of_a_namespace_delays_no_timeout(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(of_server, "LOOK_SECONDS", 0.01)
    limits = Limits(handshake_seconds=1.0, namespace_seconds=0.0)
    async with serving(tmp_path, namespaces=True, limits=limits, config=SMALL) as server:
        async with await Raw.welcomed(server, namespace="a"):
            closing, log = asyncio.Event(), server.logs["a"]
            close = log.close

            async def slow(timeout: float | None = None) -> None:
                closing.set()
                await asyncio.get_running_loop().create_future() if timeout is None else await close(timeout)

            log.close = slow
        await closing.wait()
        async with await Raw.to(server) as silent:
            assert "no complete HELLO" in (await silent.expect(Goodbye)).message
        server._tidying.cancel()
        await asyncio.wait([server._tidying])
        await close()


NAMES = {"a": APPEND, "r": READ, "c": CONSUME, "m": ADMIN}
TOKENS = Tokens([(name * 16, Grant(name, frozenset({right}))) for name, right in NAMES.items()])


async def test_what_changes_the_log_needs_a_right_for_it(tmp_path) -> None:
    async with serving(tmp_path, tokens=TOKENS) as server:
        log = server.logs[""]
        await log.append(b"x")
        await log.hold("archive", 1)
        written = log.stats().written_bytes
        async with await Raw.welcomed(server, "r" * 16) as raw:
            raw.send(Call(1, "release", {"name": "archive"}), Call(2, "hold", {"name": "h", "lsn": 1}))
            raw.send(Open(3, "consumer", {"name": "c"}, 1), Call(4, "flush", {}))
            assert {(await raw.expect(Error, id)).code for id in (1, 2, 3, 4)} == {"Denied"}
        assert (log.holds(), log.stats().written_bytes) == ({"archive": 1}, written)
        async with await Raw.welcomed(server, "c" * 16) as raw:
            raw.send(Open(1, "consumer", {"name": "c"}, 1), Open(2, "read", {}, 1))
            assert (await raw.expect(Error, 2)).code == "Denied"
            await raw.expect(Records, 1)
            raw.send(Call(3, "consumer.ack", {"stream": 1, "lsn": 1}))
            assert (await raw.expect(Result, 3)).value == 2
        async with await Raw.welcomed(server, "m" * 16) as raw:
            raw.send(Call(1, "release", {"name": "archive"}))
            await raw.expect(Result, 1)


async def test_only_who_may_append_makes_a_namespace(tmp_path) -> None:
    devices = Devices()
    async with serving(tmp_path, devices, tokens=TOKENS, namespaces=True) as server:
        for name in "rc":
            async with await Raw.to(server) as raw:
                raw.hello(name * 16, "new")
                assert (await raw.expect(Goodbye)).code == "Denied"
        assert devices.opened == []
        async with await Raw.welcomed(server, "a" * 16, "new"):
            pass
        async with await Raw.welcomed(server, "r" * 16, "new"):
            assert devices.opened == ["new"]
    (tmp_path / "there").mkdir()
    async with (
        serving(tmp_path, tokens=TOKENS, namespaces=True) as server,
        await Raw.welcomed(server, "r" * 16, "there"),
    ):
        pass


async def test_holds_and_consumers_have_limits_also_many_at_once(tmp_path) -> None:
    async with serving(tmp_path, limits=Limits(holds=3, consumers=2)) as server, await Raw.welcomed(server) as raw:
        log = server.logs[""]
        await log.append(b"x")
        raw.send(*(Call(id, "hold", {"name": f"h{id}", "lsn": 1}) for id in range(1, 51)))
        raw.send(*(Open(id, "consumer", {"name": f"c{id}"}, 1) for id in range(51, 101)))
        answers: dict[int, object] = {}
        while len(answers) < 100:
            frame = await raw.next()
            if isinstance(frame, Result | Error):
                answers[frame.id] = frame
        assert {frame.code for frame in answers.values() if isinstance(frame, Error)} == {"Backpressure"}
        assert sum(isinstance(answers[id], Result) for id in range(1, 51)) == len(log.holds()) == 3
        assert sum(isinstance(answers[id], Result) for id in range(51, 101)) == 2
        raw.send(Call(200, "hold", {"name": min(log.holds()), "lsn": 2}))
        await raw.expect(Result, 200)  # one that is there may move
        open_one = next(id for id in range(51, 101) if isinstance(answers[id], Result))
        raw.send(Cancel(open_one), Open(201, "consumer", {"name": f"c{open_one}"}, 1))
        await raw.expect(Result, 201)


async def test_holds_and_consumers_of_all_namespaces_have_limits(tmp_path) -> None:
    """Many namespaces are no way around the limits of each; a name that is there may be used."""
    limits = Limits(holds_total=2, consumers_total=3)
    async with serving(tmp_path, limits=limits, namespaces=True) as server:
        raws = [await Raw.welcomed(server, namespace=name) for name in "ab"]
        answers: list[Result | Error] = []
        for raw in raws:
            raw.append(90, b"x")
            await raw.expect(Ack, 90)
            raw.send(*(Call(id, "hold", {"name": f"h{id}", "lsn": 1}) for id in (1, 2)))
            raw.send(*(Open(id, "consumer", {"name": f"c{id}"}, 1) for id in (3, 4)))
            mine: dict[int, Result | Error] = {}
            while len(mine) < 4:
                frame = await raw.next()
                if isinstance(frame, Result | Error):
                    mine[frame.id] = frame
            answers += (mine[id] for id in (1, 2, 3, 4))
        kinds = [type(each) for each in answers]
        assert (kinds[0], kinds[1], kinds[4], kinds[5]) == (Result, Result, Error, Error), "holds"
        assert (kinds[2], kinds[3]) == (Result, Result)
        assert sorted(kind.__name__ for kind in kinds[6:]) == ["Error", "Result"]
        refused = [each for each in answers if isinstance(each, Error)]
        assert {each.code for each in refused} == {"Backpressure"}
        assert all("all open logs together" in each.message for each in refused)
        assert {each.fields["hint"].rpartition(" ")[2] for each in refused} == {"holds_total", "consumers_total"}
        raws[0].send(Call(10, "hold", {"name": "h1", "lsn": 1}))
        await raws[0].expect(Result, 10)
        for raw in raws:
            await raw.close()
