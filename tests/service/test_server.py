"""The server, heard and seen by a client of plain frames."""

from __future__ import annotations

import asyncio
import os
import socket
import stat

import pytest

import walsvc
from tests.waiting import until
from walsvc import BadOption, Locked, PathError
from walsvc.disk.sim import SimDevice
from walsvc.model import Record
from walsvc.service.server.limits import STREAM_BYTES, Limits
from walsvc.service.server.server import Server, serve
from walsvc.service.wire.columns import records_of
from walsvc.service.wire.frames import (
    RECORD_COST,
    Ack,
    Batch,
    Call,
    Cancel,
    Credit,
    End,
    Error,
    Goodbye,
    Hello,
    Open,
    Ping,
    Pong,
    Records,
    Result,
    StateFrame,
    Welcome,
)
from walsvc.service.wire.protocol import encode

from .raw import Raw
from .simulated import SMALL, Devices, serving


async def records(raw: Raw, id: int, count: int) -> list[Record]:
    """The next `count` records of a stream."""
    found: list[Record] = []
    while len(found) < count:
        found += records_of(await raw.expect(Records, id))
    assert len(found) == count
    return found


async def call(raw: Raw, id: int, method: str, **args: object) -> object:
    """What a method returns."""
    raw.send(Call(id, method, args))
    answer = await raw.next()
    assert isinstance(answer, Result), answer
    return answer.value


# ---- appending


async def test_appends_are_durable_and_tell_where_they_are(tmp_path) -> None:
    async with serving(tmp_path) as server, await Raw.welcomed(server) as raw:
        raw.append(1, b"a", b"bc", topic="t", type=5, attributes=b"\x81\xa1k\x01")
        ack = await raw.expect(Ack, 1)
        assert ack.durable
        assert ack.state[:3] == [1, 3, 2]
        [(first, count, segment, offset)] = ack.parts
        assert (first, count, segment) == (1, 2, 1)
        raw.append(2, b"d", mode=1)
        relaxed = await raw.expect(Ack, 2)
        assert not relaxed.durable
        log = server.logs[""]
        found = [record async for record in log.read()]
        assert [(each.payload, each.topic, each.type, each.attributes) for each in found] == [
            (b"a", "t", 5, {"k": 1}),
            (b"bc", "t", 5, {"k": 1}),
            (b"d", None, 0, {}),
        ]
        assert offset % 4096 == 128


async def test_acknowledgements_of_one_group_leave_in_one_write(tmp_path) -> None:
    devices = Devices()
    async with serving(tmp_path, devices) as server, await Raw.welcomed(server) as raw:
        raw.append(1, b"first")
        await raw.expect(Ack, 1)
        [connection] = server.roster
        writes: list[bytes] = []
        transport = connection._transport

        class Counting:
            def __getattr__(self, name):
                return getattr(transport, name)

            def write(self, data):
                writes.append(data)
                transport.write(data)

        connection._transport = Counting()
        devices[""].stall_sync(0.05)
        for id in range(2, 52):
            raw.append(id, b"x")
        for id in range(2, 52):
            await raw.expect(Ack, id)
        assert len(writes) <= 3, "the first may go alone, the others share a group"


@pytest.mark.parametrize(
    ("fields", "code", "says"),
    [
        ({"payloads": []}, "BadOption", "no payload"),
        ({"payloads": [bytes(40_000)] * 2}, "BadOption", "more than a group holds"),
        ({"mode": 7}, "BadOption", "mode 7"),
        ({"type": 65536}, "BadOption", "type=65536"),
        ({"topic": ""}, "BadOption", "topic's name"),
        ({"topic": "x" * 256}, "BadOption", "topic's name"),
        ({"attributes": b"\xc1"}, "BadOption", "not msgpack"),
        ({"attributes": b"\x01"}, "BadOption", "map with string keys"),
        ({"attributes": b"\x81\x01\x01"}, "BadOption", "map with string keys"),
        ({"attributes": b"\x81\xa1a\x81\x91\x01\x02"}, "BadOption", "not msgpack"),
        ({"attributes": bytes(65537)}, "RecordTooLarge", "65537 bytes"),
        ({"payloads": [bytes(70_000)]}, "RecordTooLarge", "70000 bytes"),
    ],
)
async def test_a_wrong_append_gets_its_error_and_the_connection_lives(tmp_path, fields, code, says) -> None:
    config = walsvc.WalConfig(segment_bytes=65536, max_group_bytes=65536, max_record_bytes=65536)
    async with serving(tmp_path, config=config) as server, await Raw.welcomed(server) as raw:
        raw.append(1, b"x", **fields)
        error = await raw.expect(Error, 1)
        assert error.code == code
        assert says in error.message
        raw.append(2, b"good")
        assert (await raw.expect(Ack, 2)).parts[0][0] == 1, "nothing was written before"


async def test_batch_in_parts_is_atomic_and_credited_as_it_is_consumed(tmp_path) -> None:
    """The log takes a batch of more than half of the client's credit before its end is here."""
    async with (
        serving(tmp_path, limits=Limits(pending_bytes=400_000)) as server,
        await Raw.welcomed(server, producer=3) as raw,
    ):
        payloads = [bytes([number]) * 10_000 for number in range(30)]
        for part, payload in enumerate(payloads[:-1]):
            raw.send(Batch(9, 1, 1, 0, 0, "t", part, False, [payload]))
        credited = 0
        while credited < 200_000:
            credited += (await raw.expect(Credit, 9)).bytes
        raw.send(Batch(9, 1, 1, 0, 0, "t", 29, True, payloads[-1:]))
        raw.append(10, b"after", seq=2)
        acks: dict[int, Ack] = {}
        while len(acks) < 2:
            each = await raw.expect(Ack)
            acks[each.id] = each
        ack = acks[9]
        assert ack.parts[0][0] == 1
        assert sum(part[1] for part in ack.parts) == 30
        assert len(ack.parts) > 3
        assert acks[10].parts[0][0] == 31
        assert [record.payload async for record in server.logs[""].read(1, 31)] == payloads
        raw.send(Batch(11, 3, 1, 0, 0, None, 0, False, [b"a"]), Batch(11, 3, 1, 0, 0, None, 1, True, [b"b"]))
        assert (await raw.expect(Ack, 11)).parts[0][:2] == [32, 2]
        assert server.status().pending_bytes == 0


async def test_batch_of_a_lost_connection_leaves_nothing_and_is_written_when_it_is_sent_again(tmp_path) -> None:
    payloads = [bytes([number]) * 20_000 for number in range(12)]
    async with serving(tmp_path, limits=Limits(pending_bytes=256 << 10)) as server:
        async with await Raw.welcomed(server, producer=3) as raw:
            raw.append(1, b"before", seq=1)
            await raw.expect(Ack, 1)
            for part, payload in enumerate(payloads[:8]):
                raw.send(Batch(9, 2, 1, 0, 0, None, part, False, [payload]))
            await raw.expect(Credit, 9)
        async with await Raw.welcomed(server, producer=3) as raw:
            raw.send(Batch(1, 2, 1, 2, 0, None, 0, False, payloads[:6]))
            assert (await raw.expect(Credit, 1)).bytes == 0, "it was not known"
            raw.send(Batch(1, 2, 1, 2, 0, None, 1, True, payloads[6:]))
            ack = await raw.expect(Ack, 1)
            assert sum(part[1] for part in ack.parts) == 12
            raw.send(Batch(2, 3, 1, 2, 0, None, 0, False, payloads[:1]), Cancel(2))
            assert "cancelled" in (await raw.expect(Error, 2)).message
        async with await Raw.welcomed(server, producer=3) as raw:
            raw.send(Batch(5, 2, 1, 2, 0, None, 0, False, payloads[:1]))
            assert (await raw.expect(Ack, 5)).parts == ack.parts, "known, so no further part is wanted"
            raw.send(Batch(5, 2, 1, 2, 0, None, 1, True, payloads[1:2]), Ping(6))
            await raw.expect(Pong, 6)
        assert [record.payload async for record in server.logs[""].read()] == [b"before", *payloads]


async def test_repeated_append_has_the_same_lsns_also_after_the_server_was_restarted(tmp_path) -> None:
    devices = Devices()
    async with serving(tmp_path, devices) as server:
        async with await Raw.welcomed(server, producer=3) as raw:
            raw.append(1, b"a", b"b", seq=1)
            first = await raw.expect(Ack, 1)
        async with await Raw.welcomed(server, producer=3) as raw:
            raw.append(8, b"a", b"b", seq=1, since=1)
            assert (await raw.expect(Ack, 8)).parts == first.parts
    async with serving(tmp_path, devices) as server, await Raw.welcomed(server, producer=3) as raw:
        raw.append(9, b"a", b"b", seq=1, since=1)
        assert (await raw.expect(Ack, 9)).parts == first.parts
        raw.append(10, b"c", seq=2, done=2)
        assert (await raw.expect(Ack, 10)).parts[0][0] == 3
        raw.send(Goodbye(0, "", ""))
        assert (await raw.expect(Goodbye)).code == "ProtocolError"
    async with serving(tmp_path, devices) as server, await Raw.welcomed(server, producer=3) as raw:
        raw.append(1, b"a", b"b", seq=1, since=1)
        assert (await raw.expect(Error, 1)).code == "OutcomeUnknown"


async def test_newer_connection_of_a_producer_takes_over_and_what_waited_is_not_accepted_twice(tmp_path) -> None:
    devices = Devices()
    config = walsvc.WalConfig(segment_bytes=65536, max_group_bytes=8192, max_pending_bytes=8192)
    async with serving(tmp_path, devices, config=config) as server:
        older = await Raw.welcomed(server, producer=3)
        older.append(1, b"first", seq=1)
        await older.expect(Ack, 1)
        devices[""].stall_sync(1.0)
        for id in range(2, 6):
            older.append(id, b"%d" % id * 4000, seq=id)
        older.send(Ping(99))
        await older.expect(Pong, 99)
        newer = await Raw.welcomed(server, producer=3)
        assert (await older.expect(Goodbye)).code == "InUse"
        for id in range(2, 6):
            newer.append(id, b"%d" % id * 4000, seq=id, since=2)
        lsns = [(await newer.expect(Ack, id)).parts[0][0] for id in range(2, 6)]
        assert lsns == [2, 3, 4, 5]
        assert [record.payload[:1] async for record in server.logs[""].read()] == [b"f", b"2", b"3", b"4", b"5"]
        await older.close()
        await newer.close()


async def test_cancelled_append_that_waits_for_room_is_not_written(tmp_path) -> None:
    devices = Devices()
    config = walsvc.WalConfig(segment_bytes=65536, max_group_bytes=8192, max_pending_bytes=8192)
    async with serving(tmp_path, devices, config=config) as server, await Raw.welcomed(server) as raw:
        raw.append(1, b"first")
        await raw.expect(Ack, 1)
        devices[""].stall_sync(1.0)
        for id in range(2, 6):
            raw.append(id, bytes(4000))
        raw.send(Cancel(5))
        assert "cancelled" in (await raw.expect(Error, 5)).message
        for id in range(2, 5):
            await raw.expect(Ack, id)
        assert server.logs[""].next_lsn == 5


# ---- calls


async def test_methods_answer_what_the_log_answers(tmp_path) -> None:
    async with serving(tmp_path) as server, await Raw.welcomed(server) as raw:
        raw.append(1, b"a", b"b", b"c", topic="t")
        await raw.expect(Ack, 1)
        log = server.logs[""]
        assert await call(raw, 2, "flush") == 3
        assert await call(raw, 3, "wait_durable", lsn=2) == 3
        assert await call(raw, 4, "topics") == ["t"]
        assert await call(raw, 5, "topic.count", topic="t") == 3
        assert await call(raw, 6, "topic.first_lsn", topic="t") == 1
        assert await call(raw, 7, "topic.last_lsn", topic="none") is None
        assert await call(raw, 8, "hold", name="h", lsn=2) == 2
        assert await call(raw, 9, "holds") == log.holds() == {"h": 2}
        raw.send(Call(10, "truncate_before", {"lsn": 3}))
        refused = await raw.expect(Error, 10)
        assert (refused.code, bool(refused.fields["hint"])) == ("BadOption", True)
        assert await call(raw, 11, "truncate_before", lsn=3, force=True) is None
        assert await call(raw, 12, "release", name="h") is None
        retention = await call(raw, 13, "retention")
        assert isinstance(retention, dict)
        assert retention["first_lsn"] == 3
        assert await call(raw, 14, "truncate_after", lsn=3) is None
        stats = await call(raw, 15, "stats")
        assert isinstance(stats, dict)
        assert stats["next_lsn"] == 4
        assert await call(raw, 16, "reclaim") == 0
        assert await call(raw, 17, "seal") is None
        raw.append(18, b"late")
        assert (await raw.expect(Error, 18)).code == "Closed"


@pytest.mark.parametrize(
    ("method", "args", "says"),
    [
        ("nothing", {}, "no method 'nothing'"),
        ("flush", {"lsn": 1}, "no argument 'lsn'"),
        ("wait_durable", {}, "needs an argument 'lsn'"),
        ("wait_durable", {"lsn": "1"}, "cannot be str"),
        ("wait_durable", {"lsn": True}, "cannot be bool"),
        ("wait_durable", {"lsn": 99}, "was not given out"),
        ("topic.count", {"topic": ""}, "topic's name"),
        ("move_consumer", {"name": "c", "to": "first"}, "no consumer"),
    ],
)
async def test_a_wrong_call_is_bad_option(tmp_path, method, args, says) -> None:
    async with serving(tmp_path) as server, await Raw.welcomed(server) as raw:
        raw.send(Call(1, method, args))
        error = await raw.expect(Error, 1)
        assert error.code == "BadOption"
        assert says in error.message


async def test_ids_of_open_requests_are_not_taken_twice(tmp_path) -> None:
    devices = Devices()
    async with serving(tmp_path, devices) as server:
        for frames in ([Call(1, "flush", {})] * 2, [Open(1, "follow", {}, 1)] * 2):
            raw = await Raw.welcomed(server)
            raw.send(*frames)
            assert "came again" in (await raw.expect(Goodbye)).message
            await raw.close()


# ---- streams


async def test_read_gives_the_range_and_its_end(tmp_path) -> None:
    async with serving(tmp_path) as server, await Raw.welcomed(server) as raw:
        raw.append(1, b"a", b"b", b"c")
        await raw.expect(Ack, 1)
        raw.append(2, b"d", topic="t", attributes=b"\x81\xa1k\x01")
        await raw.expect(Ack, 2)
        raw.send(Open(3, "read", {"start": 2}, 1 << 20))
        assert (await raw.expect(Result, 3)).value == {"start": 2, "stop": 5}
        found = await records(raw, 3, 3)
        assert found == [record async for record in server.logs[""].read(2)]
        assert isinstance(await raw.next(), End)
        raw.send(Open(3, "read", {"topic": "t", "stop": 9}, 1 << 20))
        assert [each.lsn for each in await records(raw, 3, 1)] == [4]
        await raw.expect(End, 3)
        raw.send(Open(4, "read", {"start": 0}, 1))
        assert (await raw.expect(Error, 4)).code == "BadOption"
        raw.send(Open(5, "read", {"unknown": 0}, 1), Open(6, "write", {}, 1))
        assert "no argument 'unknown'" in (await raw.expect(Error, 5)).message
        assert "no stream 'write'" in (await raw.expect(Error, 6)).message


async def test_credit_bounds_what_a_stream_sends(tmp_path) -> None:
    async with serving(tmp_path) as server, await Raw.welcomed(server) as raw:
        for id in range(1, 11):
            raw.append(id, *[bytes(1000)] * 40)
            await raw.expect(Ack, id)
        raw.send(Open(20, "read", {}, 1))
        assert len(await records(raw, 20, 1)) == 1
        raw.send(Ping(21))
        assert isinstance(await raw.next(), Pong), "nothing without credit"
        raw.send(Credit(20, 10 * (1000 + RECORD_COST)))
        assert len(await records(raw, 20, 10)) == 10
        raw.send(Ping(22))
        assert isinstance(await raw.next(), Pong)
        raw.send(Credit(20, 1 << 30))
        frames = []
        while not isinstance(frame := await raw.next(), End):
            assert isinstance(frame, Records)
            frames.append(frame)
        assert sum(len(frame.payloads) for frame in frames) == 389
        assert max(sum(map(len, frame.payloads)) for frame in frames) <= STREAM_BYTES + 1000


async def test_follow_sends_what_comes_and_together_what_comes_together(tmp_path) -> None:
    async with serving(tmp_path) as server, await Raw.welcomed(server) as raw, await Raw.welcomed(server) as other:
        raw.send(Open(1, "follow", {"topic": "t"}, 1 << 20))
        assert (await raw.expect(Result, 1)).value == {"start": 1}
        other.append(1, b"not this")
        other.append(2, *[b"x"] * 500, topic="t")
        await other.expect(Ack, 2)
        frame = await raw.expect(Records, 1)
        assert len(frame.payloads) == 500
        raw.send(Cancel(1))
        assert (await raw.expect(End, 1)).state[1] == 502
        raw.send(Cancel(1), Credit(1, 5), Ping(2))
        assert isinstance(await raw.next(), Pong), "of a stream that has ended nothing is left"


async def test_slow_reader_holds_back_neither_writers_nor_memory(tmp_path) -> None:
    """It gives credit without end, and reads nothing."""
    async with serving(tmp_path) as server, await Raw.welcomed(server) as writer:
        slow = await Raw.to(server, limit=1 << 14)
        slow.hello()
        await slow.expect(Welcome)
        slow.send(Open(1, "follow", {}, 1 << 40))
        await slow.expect(Result, 1)
        for id in range(1, 61):
            writer.append(id, *[bytes(1000)] * 60)
            await writer.expect(Ack, id)
        [connection] = [each for each in server.roster if each.sessions.streams]
        buffered = connection._transport.get_write_buffer_size()
        assert 0 < buffered < 2 << 20, "3.6 MB were appended"
        assert connection.stuck_since is not None
        got = 0
        while got < 60 * 60:
            got += len((await slow.expect(Records, 1)).payloads)
        assert connection.stuck_since is None
        await slow.close()


async def test_consumer_is_held_by_one_connection_and_free_when_that_ends(tmp_path) -> None:
    async with serving(tmp_path) as server, await Raw.welcomed(server) as raw:
        raw.append(1, b"a", b"b", b"c", topic="t")
        await raw.expect(Ack, 1)
        holder = await Raw.welcomed(server)
        args = {"name": "c", "topic": "t"}
        holder.send(Open(5, "consumer", args, 1 << 20))
        assert (await holder.expect(Result, 5)).value == {"position": 1, "topic": "t"}
        assert len(await records(holder, 5, 3)) == 3
        assert await call(holder, 6, "consumer.ack", stream=5, lsn=1) == 2
        assert await call(holder, 7, "consumer.lag", stream=5) == 2
        raw.send(Open(2, "consumer", args, 1))
        assert (await raw.expect(Error, 2)).code == "InUse"
        listed = await call(raw, 3, "consumers", topic="t")
        assert [each["name"] for each in listed] == ["c"]
        assert listed[0].items() >= {"topic": "t", "position": 2, "lag": 2, "in_use": True, "shared": False}.items()
        await holder.close()
        while (await call(raw, 4, "consumers"))[0]["in_use"]:  # type: ignore[index]
            pass
        raw.send(Open(8, "consumer", args, 1 << 20))
        assert (await raw.expect(Result, 8)).value == {"position": 2, "topic": "t"}
        assert [each.payload for each in await records(raw, 8, 2)] == [b"b", b"c"]
        raw.send(Cancel(8))
        await raw.expect(End, 8)
        raw.send(Open(9, "consumer", args, 1))
        assert (await raw.expect(Result, 9)).value["position"] == 2


async def test_consumer_moves_and_says_so(tmp_path) -> None:
    async with serving(tmp_path) as server, await Raw.welcomed(server) as raw:
        for id in range(1, 7):
            raw.append(id, b"%d" % id, bytes(20_000))
            await raw.expect(Ack, id)
        raw.send(Open(10, "consumer", {"name": "c", "persist_every": 3}, 1 << 20))
        first = await raw.expect(Records, 10)
        raw.send(Call(11, "consumer.seek", {"stream": 10, "to": 11}))
        assert (await raw.expect(Result, 11)).value == 11
        moved = await raw.expect(Records, 10)
        assert moved.turn != first.turn
        assert [each.lsn for each in records_of(moved)] == [11, 12]
        assert await call(raw, 12, "consumer.seek", stream=10, to=1) == 1
        await records(raw, 10, 12)
        assert await call(raw, 13, "truncate_before", lsn=9, force=True) is None
        raw.send(Call(14, "consumer.seek", {"stream": 10, "to": 1}))
        assert (await raw.expect(Error, 14)).code == "BadOption"
        assert (await raw.expect(Error, 10)).code == "Truncated"
        assert await call(raw, 15, "consumer.seek", stream=10, to="first") == 9
        assert [each.lsn for each in await records(raw, 10, 4)] == [9, 10, 11, 12]
        raw.send(Call(16, "consumer.ack", {"stream": 99, "lsn": 1}))
        assert (await raw.expect(Error, 16)).code == "Closed"


# ---- state, and the end


async def test_state_is_told_without_being_asked(tmp_path) -> None:
    async with (
        serving(tmp_path, limits=Limits(idle_seconds=4.0, handshake_seconds=1.0)) as server,
        await Raw.welcomed(server) as quiet,
        await Raw.welcomed(server) as busy,
    ):
        busy.append(1, b"x")
        await busy.expect(Ack, 1)
        assert (await quiet.expect(StateFrame)).state[:3] == [1, 2, 1]


async def test_stop_answers_what_was_accepted_then_says_goodbye(tmp_path) -> None:
    devices = Devices()
    async with serving(tmp_path, devices) as server:
        raw = await Raw.welcomed(server)
        raw.append(1, b"first")
        await raw.expect(Ack, 1)
        devices[""].stall_sync(1.0)
        raw.append(2, b"accepted")
        raw.send(Open(3, "follow", {}, 1), Call(4, "wait_durable", {"lsn": 1}), Ping(5))
        await raw.expect(Pong, 5)
        stopping = asyncio.ensure_future(server.stop(10))
        await raw.expect(Ack, 2)
        assert (await raw.expect(Goodbye)).code == "Closed"
        assert server.status().reason == "stopping"
        assert not server.status().ready
        await stopping
        with pytest.raises(FileNotFoundError):
            await asyncio.open_unix_connection(tmp_path / "s")
        await raw.close()
    async with serving(tmp_path, devices) as server:
        assert server.logs[""].report.clean
        assert server.logs[""].next_lsn == 3


async def test_stop_keeps_its_deadline_where_the_disk_stands_still(tmp_path) -> None:
    devices = Devices()
    async with serving(tmp_path, devices, stop_seconds=0.2) as server:
        raw = await Raw.welcomed(server)
        raw.append(1, b"first")
        await raw.expect(Ack, 1)
        devices[""].stall_sync(0.7)
        raw.append(2, b"never answered")
        raw.send(Ping(5))
        await raw.expect(Pong, 5)
        log = server.logs[""]
        with pytest.raises(walsvc.WalTimeout):
            await server.stop(0.2)
        assert (await raw.expect(Goodbye)).code == "Closed"
        await raw.close()
        await log.close()
        server._stopping = asyncio.ensure_future(asyncio.sleep(0))


async def test_a_log_of_the_caller_is_served_and_stays_open(tmp_path) -> None:
    async with walsvc.open(tmp_path / "log", disk="threads") as log:
        async with serve(log, unix=tmp_path / "s") as server, await Raw.welcomed(server) as raw:
            raw.append(1, b"from a client")
            await raw.expect(Ack, 1)
            await log.append(b"from here")
        assert [record.payload async for record in log.read()] == [b"from a client", b"from here"]
        with pytest.raises(BadOption, match="served as it is"):
            Server(log, unix=tmp_path / "s", namespaces=True)


async def test_failure_of_the_log_reaches_every_client_and_the_status(tmp_path) -> None:
    devices = Devices()
    async with serving(tmp_path, devices) as server:
        raw, other = await Raw.welcomed(server), await Raw.welcomed(server)
        other.send(Open(1, "follow", {}, 1))
        await other.expect(Result, 1)
        devices[""].fail("submit")
        raw.append(1, b"lost")
        error = await raw.expect(Error, 1)
        assert (error.code, error.fields["errno"]) == ("DurabilityLost", 5)
        assert (await other.expect(Error, 1)).code == "DurabilityLost"
        status = server.status()
        assert not status.ready
        assert not status.live
        assert "the log has failed" in status.reason
        raw.append(2, b"later")
        assert (await raw.expect(Error, 2)).code == "DurabilityLost"
        await raw.close()
        await other.close()


async def test_stalled_disk_delays_acknowledgements_and_nothing_else(tmp_path) -> None:
    devices = Devices()
    async with (
        serving(tmp_path, devices) as server,
        await Raw.welcomed(server) as raw,
        await Raw.welcomed(server) as other,
    ):
        raw.append(1, b"first", topic="t")
        await raw.expect(Ack, 1)
        devices[""].stall_sync(1.0)
        raw.append(2, b"waits")
        raw.send(Ping(3))
        await raw.expect(Pong, 3)
        other.send(Ping(1), Call(2, "topics", {}))
        assert {type(await other.next()) for _ in range(2)} == {Pong, Result}
        other.append(3, b"relaxed", mode=1)
        assert not (await other.expect(Ack, 3)).durable
        assert server.logs[""].durable_lsn == 1, "all that while the disk stood still"
        assert (await raw.expect(Ack, 2)).durable


async def test_full_disk_is_told_and_goes_on_when_there_is_room(tmp_path) -> None:
    devices = Devices()
    device = SimDevice(5, capacity=400_000)
    devices.devices[""] = device
    async with serving(tmp_path, devices) as server, await Raw.welcomed(server) as raw:
        id, told = 0, None
        while told is None:
            id += 1
            raw.append(id, bytes(20_000))
            answer = await raw.next()
            if isinstance(answer, Error):
                told = answer
        assert (told.code, told.fields["errno"]) == ("NoSpace", 28)
        device.capacity = None
        raw.append(id + 1, b"room again")
        assert (await raw.expect(Ack, id + 1)).durable


# ---- the socket


async def test_unix_socket_is_private_and_replaces_a_dead_one_but_not_a_living_one(tmp_path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    before = os.umask(0)
    try:
        async with serving(tmp_path, unix=path) as server:
            assert stat.S_IMODE(os.lstat(path).st_mode) == 0o600
            with pytest.raises(Locked, match="another server listens"):
                await Server(tmp_path / "other", unix=path, opener=Devices().open).start()
            async with await Raw.welcomed(server) as raw:
                raw.append(1, b"x")
                await raw.expect(Ack, 1)
    finally:
        os.umask(before)
    assert not path.exists()
    path.write_text("something else")
    with pytest.raises(PathError, match="something else than a socket"):
        await Server(tmp_path / "other", unix=path, opener=Devices().open).start()
    assert path.read_text() == "something else"
    with pytest.raises(BadOption, match="has 1"):
        await Server(tmp_path / "other", unix="/" + "x" * 120, opener=Devices().open).start()
    with pytest.raises(PathError, match="cannot be made"):
        await Server(tmp_path / "other", unix=tmp_path / "no" / "s", opener=Devices().open).start()


async def test_port_in_use_is_a_path_error_and_the_log_is_released(tmp_path) -> None:
    devices = Devices()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PathError, match=f"cannot listen on 127.0.0.1:{port}"):
            await Server(tmp_path, host="127.0.0.1", port=port, opener=devices.open).start()
    async with serving(tmp_path, devices, host="127.0.0.1", port=0) as server, await Raw.welcomed(server) as raw:
        assert server.addresses == (f"wal://127.0.0.1:{server.port}",)
        raw.append(1, b"x")
        await raw.expect(Ack, 1)


def test_server_that_would_listen_nowhere_is_refused(tmp_path) -> None:
    with pytest.raises(BadOption, match="listen nowhere"):
        Server(tmp_path)


# ---- namespaces


async def test_namespaces_are_logs_of_their_own_opened_on_demand_and_closed_when_unused(tmp_path) -> None:
    devices = Devices()
    limits = Limits(namespace_seconds=0.0, handshake_seconds=1.0, open_namespaces=2)
    async with serving(tmp_path, devices, namespaces=True, limits=limits) as server:
        assert dict(server.logs) == {}
        async with await Raw.welcomed(server, namespace="a") as a, await Raw.welcomed(server, namespace="b") as b:
            a.append(1, b"in a")
            b.append(1, b"in b")
            assert (await a.expect(Ack, 1)).parts[0][0] == (await b.expect(Ack, 1)).parts[0][0] == 1
            third = await Raw.to(server)
            third.hello(namespace="c")
            assert (await third.expect(Goodbye)).code == "Backpressure"
            await third.close()
        await until(lambda: not server.logs, 0.01)
        again = [await Raw.welcomed(server, namespace="a") for _ in range(3)]
        again[0].append(1, b"second")
        assert (await again[0].expect(Ack, 1)).parts[0][0] == 2
        for raw in again:
            await raw.close()
        assert devices.opened == ["a", "b", "a"]


async def test_namespace_closed_for_want_of_use_while_the_server_stops_is_closed_once(tmp_path) -> None:
    limits = Limits(namespace_seconds=0.0)
    server = Server(tmp_path, unix=tmp_path / "s", config=SMALL, namespaces=True, limits=limits, opener=Devices().open)
    log = await server.logs_by_name.take("a")
    server.logs_by_name.leave("a")
    troubles, _ = await asyncio.gather(server.logs_by_name.close(5.0), server.logs_by_name.close_idle())
    assert troubles == []
    assert not server.logs_by_name.open
    with pytest.raises(walsvc.Closed):
        await log.append(b"late")


async def test_failed_namespace_is_opened_again_for_the_next_client(tmp_path) -> None:
    devices = Devices()
    async with serving(tmp_path, devices, namespaces=True) as server:
        async with await Raw.welcomed(server, namespace="a") as raw:
            devices["a"].fail("submit")
            raw.append(1, b"lost")
            assert (await raw.expect(Error, 1)).code == "DurabilityLost"
        await until(lambda: not any(each.users for each in server.logs_by_name._opened.values()), 0)
        async with await Raw.welcomed(server, namespace="a") as raw:
            raw.append(1, b"kept")
            assert (await raw.expect(Ack, 1)).durable
        assert server.status().ready


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "x.wal", "LOCK", "x" * 201])
async def test_namespace_that_is_no_name_is_refused(tmp_path, name) -> None:
    async with serving(tmp_path, namespaces=True) as server, await Raw.to(server) as raw:
        raw.hello(namespace=name)
        assert (await raw.expect(Goodbye)).code == "BadOption"
        assert await raw.ended()


async def test_namespace_of_a_server_without_is_refused(tmp_path) -> None:
    async with serving(tmp_path) as server, await Raw.to(server) as raw:
        raw.hello(namespace="a")
        assert "no namespaces" in (await raw.expect(Goodbye)).message


async def test_namespace_that_cannot_be_opened_is_told(tmp_path) -> None:
    async def broken(config: walsvc.WalConfig) -> walsvc.Log:
        raise PathError("no such directory", path="/nowhere")

    async with serving(tmp_path, namespaces=True, opener=broken) as server, await Raw.to(server) as raw:
        raw.hello(namespace="a")
        raw.append(1, b"sent at once")
        goodbye = await raw.expect(Goodbye)
        assert (goodbye.code, "/nowhere" in goodbye.message) == ("PathError", True)


async def test_frames_sent_with_hello_wait_until_the_namespace_is_open(tmp_path) -> None:
    async with serving(tmp_path, namespaces=True) as server, await Raw.to(server) as raw:
        raw.writer.write(encode(Hello(0, "walsvc", 1, 1, None, "a", "raw", 0, {})) + encode(Call(1, "flush", {})))
        raw.append(2, b"x")
        await raw.expect(Welcome)
        answers = [await raw.next(), await raw.next()]
        assert {type(answer) for answer in answers} == {Result, Ack}
