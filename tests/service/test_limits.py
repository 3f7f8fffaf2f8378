"""What a client may not do, and what it is told: each limit of the server, with a neighbour who notices nothing."""

from __future__ import annotations

import asyncio
import struct
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.waiting import until
from walsvc import BadOption, Entry, ProtocolError, WalConfig
from walsvc.log.commit.payload import pack_attributes
from walsvc.service.server.limits import Limits
from walsvc.service.server.server import Server
from walsvc.service.wire.frames import (
    FIRST,
    FROM_CLIENT,
    HELLO_BYTES_MAX,
    KINDS,
    MAGIC,
    OVERHEAD_BYTES,
    Ack,
    Append,
    Batch,
    Call,
    End,
    Error,
    Goodbye,
    Hello,
    Open,
    Ping,
    Records,
    Result,
    Welcome,
)
from walsvc.service.wire.protocol import encode

from .raw import Raw
from .simulated import Devices, serving

KIB = 1 << 10
SMALL = Limits(frame_bytes=64 * KIB + OVERHEAD_BYTES, pending_bytes=64 * KIB, requests=4, streams=2)


async def refused(raw: Raw, code: str, says: str) -> None:
    """The connection ends with these words."""
    goodbye = await raw.expect(Goodbye)
    assert goodbye.code == code
    assert says in goodbye.message
    assert await raw.ended()
    await raw.close()


async def works(raw: Raw) -> None:
    """A neighbour goes on."""
    raw.append(77, b"neighbour")
    assert (await raw.expect(Ack, 77)).durable


@contextmanager
def allocated() -> Iterator[Callable[[], int]]:
    """Give a function that says how many bytes were allocated at most since the block began."""
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# ---- records

LABELS = pack_attributes({"label": "x" * 60_000})


async def test_attributes_that_a_frame_has_once_are_not_copied_for_more_records_than_a_group_holds(tmp_path) -> None:
    """60 kB of labels and 8,192 empty payloads would be 490 MB."""
    async with serving(tmp_path) as server, await Raw.welcomed(server) as raw:
        with allocated() as most:
            raw.append(1, *[b""] * 8192, attributes=LABELS)
            error = await raw.expect(Error, 1)
            assert error.code == "BadOption"
            assert most() < 8 << 20
        assert server.budget.bytes == 0
        await works(raw)


async def test_attributes_count_for_each_record_that_has_them_while_it_is_not_answered(tmp_path) -> None:
    config = WalConfig(segment_bytes=16 << 20, max_group_bytes=4 << 20)
    async with serving(tmp_path, config=config) as server, await Raw.welcomed(server) as raw:
        held: list[int] = []
        charge = server.budget.charge
        server.budget.charge = lambda cost: (charge(cost), held.append(server.budget.bytes))[0]  # type: ignore[method-assign]
        raw.append(1, *[b""] * 20, attributes=LABELS)
        assert (await raw.expect(Ack, 1)).durable
        assert max(held) >= 20 * len(LABELS)
        await works(raw)
        assert server.budget.bytes == 0


# ---- frames


@pytest.mark.parametrize("length", [HELLO_BYTES_MAX + 1, 1 << 31, (1 << 32) - 1])
async def test_first_frame_that_is_too_long_is_refused_by_its_length(tmp_path, length) -> None:
    async with serving(tmp_path) as server, await Raw.welcomed(server) as neighbour:
        raw = await Raw.to(server)
        raw.writer.write(struct.pack("<I", length) + b"x")
        await refused(raw, "ProtocolError", f"a frame of {length} bytes is over the limit")
        await works(neighbour)
        assert server.status().rejected == {"frame": 1}


@pytest.mark.parametrize("length", [SMALL.frame_bytes + 1, 1 << 30, (1 << 31) + 5])
async def test_later_frame_that_is_too_long_costs_no_memory_however_much_comes(tmp_path, length) -> None:
    async with serving(tmp_path, limits=SMALL) as server, await Raw.welcomed(server) as neighbour:
        raw = await Raw.welcomed(server)
        with allocated() as most:
            raw.writer.write(struct.pack("<I", length))
            piece = bytes(256 * KIB)
            for _ in range(40):
                raw.writer.write(piece)
                try:
                    await raw.writer.drain()
                except ConnectionError:
                    break
            await refused(raw, "ProtocolError", "is over the limit")
            assert most() < 16 << 20, "10 MB were sent; both sides of the socket are in this process"
        await works(neighbour)
        assert server.status().pending_bytes == 0


async def test_frame_of_lists_within_lists_is_not_made(tmp_path) -> None:
    """Each byte would be an object of 56: 8 MiB of them took half a GiB, and seconds of the loop."""
    lists = b"\xdc\x20\x00" + b"\x90" * 8_192
    body = b"\x94\x03\x01\xa5stats\x81\xa1x\xdc\x04\x00" + lists * 1_024
    async with serving(tmp_path) as server, await Raw.welcomed(server) as neighbour:
        raw = await Raw.welcomed(server)
        with allocated() as most:
            raw.writer.write(struct.pack("<I", len(body)) + body)
            await refused(raw, "ProtocolError", "elements in its arrays and maps")
            assert most() < 160 << 20, "2^20 lists, and what was sent"
        await works(neighbour)


@pytest.mark.parametrize(
    ("words", "spoken"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), "TLS"),
        (b"SSH-2.0-x\r\n", "SSH"),
        (b"*1\r\n$4\r\nPING\r\n", "Redis"),
    ],
)
async def test_foreign_protocol_is_turned_away_in_words_it_can_read(tmp_path, words, spoken) -> None:
    async with serving(tmp_path) as server, await Raw.welcomed(server) as neighbour:
        raw = await Raw.to(server)
        raw.writer.write(words)
        if spoken == "HTTP":
            async with asyncio.timeout(60):
                answer = await raw._reader.read()
            assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
            await raw.close()
        else:
            await refused(raw, "ProtocolError", f"speaks {spoken}")
        await works(neighbour)
        assert server.status().rejected == {"protocol": 1}


@pytest.mark.parametrize(
    ("frame", "code", "says"),
    [
        (Ping(1), "ProtocolError", "kind 7 is not expected"),
        (Hello(0, "other", 1, 1, None, None, "", 0, {}), "ProtocolError", "protocol's name"),
        (Hello(0, MAGIC, 2, 9, None, None, "", 0, {}), "UnsupportedFormat", "other versions"),
    ],
)
async def test_connection_that_does_not_begin_with_a_good_hello_is_refused(tmp_path, frame, code, says) -> None:
    async with serving(tmp_path) as server:
        raw = await Raw.to(server)
        raw.send(frame, Call(1, "seal", {}))
        await refused(raw, code, says)
        assert server.logs[""].writer.core.health.closed is None, "nothing behind it had an effect"


async def test_second_hello_is_refused(tmp_path) -> None:
    async with serving(tmp_path) as server:
        raw = await Raw.welcomed(server)
        raw.hello()
        await refused(raw, "ProtocolError", "kind 0 is not expected")


# ---- connections


async def test_connections_over_the_limit_are_told_and_those_before_go_on(tmp_path) -> None:
    async with serving(tmp_path, limits=Limits(connections=2)) as server:
        async with await Raw.welcomed(server) as first, await Raw.welcomed(server):
            await refused(await Raw.to(server), "Backpressure", "too many connections")
            await works(first)
            assert server.status().rejected == {"connections": 1}
        await until(lambda: not server.status().connections, 0)
        async with await Raw.welcomed(server) as later:
            await works(later)


async def test_who_only_holds_a_place_makes_room_for_who_has_something_to_say(tmp_path) -> None:
    async with serving(tmp_path, limits=Limits(connections=2)) as server, await Raw.welcomed(server) as first:
        silent = [await Raw.to(server) for _ in range(5)]
        for raw in silent[:-1]:
            await refused(raw, "Backpressure", "too many connections")
        async with await Raw.welcomed(server) as second:
            await refused(silent[-1], "Backpressure", "too many connections")
            await works(first)
            await works(second)
            assert server.status().connections == 2


async def test_who_does_not_say_hello_in_time_is_told(tmp_path) -> None:
    async with serving(tmp_path, limits=Limits(handshake_seconds=0.05)) as server:
        silent, slow = await Raw.to(server), await Raw.to(server)
        slow.writer.write(encode(Hello(0, MAGIC, 1, 1, None, None, "", 0, {}))[:-1])
        await refused(silent, "WalTimeout", "no complete HELLO")
        await refused(slow, "WalTimeout", "no complete HELLO")
        assert server.status().rejected == {"timeout": 2}


@asynccontextmanager
async def kept_alive(*raws: Raw) -> AsyncIterator[None]:
    """Each says PING all the time; what comes in answer is left to whoever reads."""

    async def ping() -> None:
        while True:
            for raw in raws:
                raw.send(Ping(1 << 20))
            await asyncio.sleep(0.02)

    pings = asyncio.ensure_future(ping())
    try:
        yield
    finally:
        pings.cancel()
        await asyncio.wait([pings])


async def test_half_open_connection_is_ended_and_one_that_pings_is_not(tmp_path) -> None:
    async with serving(tmp_path, limits=Limits(idle_seconds=1.0)) as server, await Raw.welcomed(server) as pinging:
        dead = await Raw.welcomed(server)
        async with kept_alive(pinging):
            await refused(dead, "WalTimeout", "nothing was heard")
            await works(pinging)


async def test_who_reads_nothing_at_all_is_ended_and_lets_go_of_its_consumer(tmp_path) -> None:
    async with serving(tmp_path, limits=Limits(idle_seconds=0.5)) as server:
        for _ in range(100):
            await server.logs[""].append_batch([bytes(1000)] * 60)
        stalled = await Raw.to(server, limit=1 << 12)
        stalled.hello()
        await stalled.expect(Welcome)
        stalled.send(Open(1, "consumer", {"name": "c"}, 1 << 40))
        await stalled.expect(Result, 1)
        await until(lambda: server.status().rejected.get("timeout") is not None, 0.01)
        answer: Any = None
        while not isinstance(answer, Result):  # the name is free a moment later
            async with await Raw.welcomed(server) as another:
                another.send(Open(2, "consumer", {"name": "c"}, 1))
                answer = await another.next()
                assert isinstance(answer, Error | Result)
        assert await stalled.ended()
        await stalled.close()


# ---- credit


async def test_credit_of_appends_is_kept_or_the_connection_ends(tmp_path) -> None:
    devices = Devices()
    async with serving(tmp_path, devices, limits=SMALL) as server, await Raw.welcomed(server) as neighbour:
        await works(neighbour)
        raw = await Raw.welcomed(server)
        raw.append(1, bytes(64 * KIB))
        assert (await raw.expect(Ack, 1)).durable, "one request may always be sent"
        devices[""].stall_sync(1.0)
        raw.append(2, bytes(40 * KIB))
        raw.append(3, bytes(40 * KIB))
        await refused(raw, "Backpressure", "81920 payload bytes are unanswered")
        await works(neighbour)
        assert server.status().pending_bytes == 0
        assert server.status().rejected == {"credit": 1}


async def test_requests_that_are_not_answered_are_counted(tmp_path) -> None:
    devices = Devices()
    async with serving(tmp_path, devices, limits=SMALL) as server:
        raw = await Raw.welcomed(server)
        raw.append(1, b"x")
        await raw.expect(Ack, 1)
        devices[""].stall_sync(1.0)
        for id in range(2, 7):
            raw.append(id, b"x")
        await refused(raw, "Backpressure", "4 requests unanswered")


async def test_batch_in_parts_keeps_to_its_credit_and_to_its_order(tmp_path) -> None:
    async with serving(tmp_path, limits=SMALL) as server:
        raw = await Raw.welcomed(server)
        raw.send(*(Batch(1, 0, 0, 0, 0, None, part, False, [bytes(30 * KIB)]) for part in range(3)))
        await refused(raw, "Backpressure", "92160 payload bytes")
        raw = await Raw.welcomed(server)
        raw.send(Batch(1, 0, 0, 0, 0, None, 0, False, [b"x"]), Batch(1, 0, 0, 0, 0, None, 2, False, [b"x"]))
        await refused(raw, "ProtocolError", "part 2 of batch 1 came")
        assert server.logs[""].next_lsn == 1


async def test_batch_that_stalls_is_given_up_and_those_who_waited_go_on(tmp_path) -> None:
    config = WalConfig(segment_bytes=65536, max_group_bytes=8 * KIB)
    limits = Limits(idle_seconds=0.5, pending_bytes=64 * KIB)
    async with (
        serving(tmp_path, config=config, limits=limits) as server,
        await Raw.welcomed(server) as neighbour,
        await Raw.welcomed(server) as raw,
        kept_alive(raw, neighbour),
    ):
        raw.send(Batch(1, 0, 0, 0, 0, None, 0, False, [bytes(5 * KIB)] * 8))
        await until(lambda: server.logs[""].writer.core.placement.batch_lsn, 0)
        neighbour.append(5, b"waits")
        error = await raw.expect(Error, 1)
        assert error.code == "WalTimeout"
        assert "nothing of it was kept" in error.message
        assert (await neighbour.expect(Ack, 5)).parts[0][0] == 1


async def test_streams_of_a_connection_are_counted(tmp_path) -> None:
    async with serving(tmp_path, limits=SMALL) as server, await Raw.welcomed(server) as raw:
        raw.send(*(Open(id, "follow", {}, 1) for id in (1, 2, 3)))
        error = await raw.expect(Error)
        assert (error.id, error.code) == (3, "Backpressure")
        await works(raw)


async def test_too_much_unanswered_in_all_stops_reading_until_it_is_answered(tmp_path) -> None:
    """Twelve clients send 60 KiB each while the disk stands still: the server reads what it may keep, then waits."""
    devices = Devices()
    limits = Limits(pending_total_bytes=128 * KIB)
    config = WalConfig(segment_bytes=65536, max_group_bytes=64 * KIB, max_pending_bytes=64 * KIB)
    async with serving(tmp_path, devices, limits=limits, config=config) as server:
        clients = [await Raw.welcomed(server) for _ in range(12)]
        await works(clients[0])
        devices[""].stall_sync(1.0)
        for client in clients:
            client.append(1, bytes(60 * KIB))
        await until(lambda: server.budget.held, 0)
        assert server.status().pending_bytes < 256 * KIB
        lsns = [(await client.expect(Ack, 1)).parts[0][0] for client in clients]
        assert sorted(lsns) == list(range(2, 14))
        assert not server.budget.held
        assert server.status().pending_bytes == 0
        for client in clients:
            await client.close()


async def test_batch_goes_on_while_too_much_is_unanswered_since_all_wait_for_it(tmp_path) -> None:
    limits = Limits(pending_total_bytes=64 * KIB)
    config = WalConfig(segment_bytes=65536, max_group_bytes=8 * KIB)
    async with serving(tmp_path, limits=limits, config=config) as server, await Raw.welcomed(server) as raw:
        raw.send(Batch(1, 0, 0, 0, 0, None, 0, False, [bytes(5 * KIB)] * 8))
        await until(lambda: server.logs[""].writer.core.placement.batch_lsn, 0)
        others = [await Raw.welcomed(server) for _ in range(4)]
        for other in others:
            other.append(1, bytes(30 * KIB))
        await until(lambda: server.budget.over, 0)
        for part in range(1, 5):
            raw.send(Batch(1, 0, 0, 0, 0, None, part, part == 4, [bytes(5 * KIB)] * 4))
        assert sum(each[1] for each in (await raw.expect(Ack, 1)).parts) == 24
        for other in others:
            assert (await other.expect(Ack, 1)).parts[0][0] > 24
            await other.close()


async def test_frames_and_batches_that_are_not_complete_never_hold_up_each_other_for_good(tmp_path) -> None:
    """Each has sent a part, all parts together are over the limit, and the log owes nobody an answer."""
    limits = Limits(pending_total_bytes=128 * KIB, frame_bytes=256 * KIB)
    async with serving(tmp_path, limits=limits) as server:
        clients = [await Raw.welcomed(server) for _ in range(8)]
        frame = encode(Append(1, 0, 0, 0, 0, None, 0, b"", [bytes(60 * KIB)]))
        for client in clients[:4]:
            client.writer.write(frame[: 8 * KIB])
        for client in clients[4:]:
            client.send(Batch(1, 0, 0, 0, 0, None, 0, False, [bytes(30 * KIB)]))
        await until(lambda: server.budget.held, 0)
        for client in clients[:4]:
            client.writer.write(frame[8 * KIB :])
        for client in clients[4:]:
            client.send(Batch(1, 0, 0, 0, 0, None, 1, True, [bytes(30 * KIB)]))
        for client in clients:
            await client.expect(Ack, 1)
        assert server.logs[""].next_lsn == 13
        assert (server.budget.bytes, server.budget.asked, server.budget.held) == (0, 0, 0)
        silent, other = clients[0], clients[1]
        silent.writer.write(encode(Append(2, 0, 0, 0, 0, None, 0, b"", [bytes(200 * KIB)]))[: 180 * KIB])
        await until(lambda: server.budget.held, 0)
        other.append(2, b"waits until the silent one is gone")
        await silent.close()
        await other.expect(Ack, 2)
        for client in clients[1:]:
            await client.close()


def test_limits_have_bounds() -> None:
    with pytest.raises(BadOption, match="frame_bytes=65536"):
        Limits(frame_bytes=64 * KIB)
    least = Limits(frame_bytes=96 * KIB).told(WalConfig())
    assert least["record_bytes"] == least["append_bytes"] == 32 * KIB
    for name in Limits.__dataclass_fields__:
        with pytest.raises(BadOption, match=name):
            Limits(**{name: -1 if isinstance(getattr(Limits(), name), int) else -1.0})
        with pytest.raises(BadOption, match=name):
            Limits(**{name: 1 << 60 if isinstance(getattr(Limits(), name), int) else 1e12})


# ---- anything at all

VALUE: Any = st.one_of(
    st.none(), st.booleans(), st.integers(0, 2**64 - 1), st.text(max_size=5), st.binary(max_size=30),
    st.lists(st.binary(max_size=9), max_size=3),
    st.dictionaries(st.sampled_from(["lsn", "start", "name", "topic", "stream", "to"]), st.integers(0, 9) | st.text(max_size=3)),
)  # fmt: skip
METHODS = st.sampled_from(["flush", "wait_durable", "topics", "hold", "consumer.ack", "consumer.seek", "stats", "x"])


@st.composite
def frames(draw: Any) -> bytes:
    """A frame that is almost right, or anything with a length in front, or anything."""
    way = draw(st.integers(0, 5))
    if way == 0:
        return bytes(draw(st.binary(max_size=40)))
    if way == 1:
        body = draw(st.binary(max_size=60))
        return struct.pack("<I", len(body)) + bytes(body)
    if way == 2:
        return encode(Call(draw(st.integers(1, 5)), draw(METHODS), draw(VALUE.filter(lambda each: type(each) is dict))))
    kind = draw(st.sampled_from([each for each in KINDS if KINDS[each][0] < 8]))
    fields = [draw(st.integers(0, 5)) if name in ("id", "part", "mode") else draw(VALUE) for name in kind._fields]
    return encode(tuple.__new__(kind, fields))


async def survives(server: Server, pieces: list[bytes], *, welcomed: bool) -> None:
    """Send these to a fresh connection; afterwards the server is as well as before."""
    raw = await (Raw.welcomed(server, producer=4) if welcomed else Raw.to(server))
    try:
        for piece in pieces:
            raw.writer.write(piece)
        raw.writer.write_eof()
        assert await raw.ended()
    except (ConnectionError, ProtocolError):
        pass  # the latter where a word of HTTP was answered in HTTP
    await raw.close()


@pytest.mark.parametrize("welcomed", [False, True])
def test_any_frames_end_at_worst_their_own_connection(welcomed, tmp_path_factory) -> None:
    """Without HELLO nothing may have an effect at all."""
    runner = asyncio.Runner()
    devices = Devices()
    place = tmp_path_factory.mktemp("fuzz")
    context = serving(place, devices, limits=SMALL)
    server = runner.run(context.__aenter__())
    unexpected: list[str] = []
    runner.get_loop().set_exception_handler(lambda _, context: unexpected.append(str(context)))

    @given(st.lists(frames(), min_size=1, max_size=6))
    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    def send(pieces: list[bytes]) -> None:
        runner.run(survives(server, pieces, welcomed=welcomed))

    send()
    assert unexpected == []
    assert server.status().rejected.get("internal") is None
    if not welcomed:
        assert server.logs[""].next_lsn == 1
        assert sum(server.shared.counts.requests.values()) == 0

    async def end() -> None:
        async with await Raw.welcomed(server) as raw:
            await works(raw)
        await until(lambda: not server.status().connections, 0)
        assert server.status().pending_bytes == 0
        assert server.status().streams == 0
        await context.__aexit__(None, None, None)

    runner.run(end())
    runner.close()
    assert set(FIRST) | set(FROM_CLIENT) == set(range(8))


@pytest.mark.parametrize("way", ["read", "read_back", "consumer", "shared"])
async def test_long_labels_fill_a_frame_as_payloads_do(tmp_path, way) -> None:
    """4,096 records with 8 kB of labels each and no payload were one frame of 32 MB."""
    async with serving(tmp_path) as server, await Raw.welcomed(server) as raw:
        log = server.logs[""]
        await log.append_batch([Entry(b"", attributes={"n": number, "x": "y" * 8_000}) for number in range(300)])
        lsns: list[int] = []
        match way:
            case "read":
                raw.send(Open(1, "read", {}, 1 << 20))
                while not isinstance(frame := await raw.next(), End):
                    if isinstance(frame, Records):
                        assert len(encode(frame)) < 300 * KIB
                        lsns += range(frame.lsns, frame.lsns + len(frame.payloads))  # type: ignore[operator]
            case "consumer":
                raw.send(Open(1, "consumer", {"name": "c"}, 1 << 20))
                while len(lsns) < 300:
                    if isinstance(frame := await raw.next(), Records):
                        assert len(encode(frame)) < 300 * KIB
                        lsns += range(frame.lsns, frame.lsns + len(frame.payloads))  # type: ignore[operator]
            case "read_back":
                stop = None
                while len(lsns) < 300:
                    raw.send(Call(1, "read_back", {"max_bytes": 1 << 20, "stop": stop}))
                    frame = await raw.expect(Result, 1)
                    assert len(encode(frame)) < 300 * KIB
                    stop = frame.value["stop"]
                    lsns += range(stop, stop + len(frame.value["records"][1]))
            case "shared":
                raw.send(Open(1, "shared", {"name": "c"}, 0))
                await raw.expect(Result, 1)
                while len(lsns) < 300:
                    raw.send(Call(2, "shared.next", {"stream": 1, "max_bytes": 1 << 20, "max_records": 4096}))
                    frame = await raw.expect(Result, 2)
                    assert len(encode(frame)) < 300 * KIB
                    first = frame.value["records"][0]
                    lsns += range(first, first + len(frame.value["records"][1]))
                    assert set(frame.value["attempts"]) == {1}
        assert sorted(lsns) == list(range(1, 301))
