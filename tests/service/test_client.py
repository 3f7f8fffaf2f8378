"""A log behind a server as its user sees it, besides what the contract suite says of every log."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

import walsvc
from tests.service.certificates import certificates
from tests.service.simulated import SMALL, Devices, serving
from tests.service.wire import placed
from tests.waiting import until
from walsvc import Backpressure, BadOption, BadPayload, Closed, Denied, Relaxed, Truncated, WalConfig, WrongLoop
from walsvc.service.server.auth import Grant, Tokens
from walsvc.service.server.limits import Limits
from walsvc.service.server.listeners import tls_context
from walsvc.service.wire.frames import Append, Batch

SECRET = "0123456789abcdef"


@pytest.fixture
def frames(monkeypatch) -> list[Any]:
    """APPEND and BATCH frames that clients send."""
    from walsvc.service.client import sent, sent_batches

    seen: list[Any] = []
    for module in (sent, sent_batches):
        real = module.encode

        def encode(frame: Any, real: Any = real) -> bytes:
            if isinstance(frame, (Append, Batch)):
                seen.append(frame)
            return real(frame)

        monkeypatch.setattr(module, "encode", encode)
    return seen


async def test_appends_of_one_turn_with_the_same_labels_leave_in_one_frame(frames):
    async with placed() as place, walsvc.open(place.wire.url) as log:
        topic = log.topic("t")
        waiting = [log.append(b"%d" % number) for number in range(100)]
        waiting += [topic.append(b"a"), topic.append(b"b"), log.append(b"r", Relaxed), log.append(b"x", type=1)]
        results = await asyncio.gather(*waiting)
        assert [len(frame.payloads) for frame in frames] == [100, 2, 1, 1]
        assert [frame.seq for frame in frames] == [1, 201, 205, 207], "two numbers for each record: see Sent"
        assert [result.lsn for result in results] == list(range(1, 105))
        await log.append(b"later")
        assert frames[-1].done == 209, "everything before was answered"


async def test_frames_keep_to_the_servers_limits(frames):
    config = WalConfig(segment_bytes=65536, max_group_records=7)
    async with placed(config, limits=Limits(requests=3)) as place, walsvc.open(place.wire.url) as log:
        await asyncio.gather(*(log.append(b"x") for _ in range(100)))
        assert {len(frame.payloads) for frame in frames} == {7, 2}
        frames.clear()
        await asyncio.gather(*(log.append(bytes(3000)) for _ in range(50)))
        assert max(sum(map(len, frame.payloads)) for frame in frames) <= log._session.limits["append_bytes"]
        await asyncio.gather(*(log.topic(f"t{number}").append(b"x") for number in range(50)))
        assert log.next_lsn == 201
        assert log.topics() == [f"t{number}" for number in range(50)]


async def test_append_waits_in_order_over_the_credit_and_append_nowait_raises():
    async with placed() as place, walsvc.open(place.wire.url, max_pending_bytes=4096) as log:
        place.wire.mute = True
        waiting = [log.append(bytes([number]) * 1000) for number in range(20)]
        with pytest.raises(Backpressure) as caught:
            log.append_nowait(b"x" * 1000)
        assert caught.value.hint
        assert log.stats().waiting == 16
        waiting[5].cancel()
        place.wire.mute = False
        place.wire.cut()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(results[5], asyncio.CancelledError)
        assert [r.lsn for r in results if not isinstance(r, BaseException)] == list(range(1, 20))
        assert [record.payload[0] async for record in log.read()] == [n for n in range(20) if n != 5]
        assert (await log.append_nowait(b"x" * 1000)).lsn == 20


async def test_flush_waits_for_appends_that_wait_for_room():
    async with placed() as place, walsvc.open(place.wire.url, max_pending_bytes=4096) as log:
        for _ in range(20):
            log.append(bytes(1000), Relaxed)
        assert await log.flush() == 20


async def test_payload_and_arguments_are_checked_at_once():
    async with placed() as place, walsvc.open(place.wire.url) as log:
        payload = bytearray(b"original")
        waiting = log.append(payload, attributes={"n": 1})
        payload[:] = b"XXXXXXXX"
        result = await waiting
        assert result.encoded_len == len(b"original") + 4
        for call in (lambda: log.append("text"), lambda: log.topic("t").append_nowait(7)):
            with pytest.raises(BadPayload):
                call()
        for call in (
            lambda: log.append(b"x", mode="strict"),
            lambda: log.append(b"x", type=-1),
            lambda: log.append(b"x", attributes=[1]),
            lambda: log.topic(""),
        ):
            with pytest.raises(BadOption):
                call()
        assert [record.payload async for record in log.read()] == [b"original"]


async def test_errors_come_with_their_class_and_fields():
    async with placed() as place, walsvc.open(place.wire.url) as log:
        await log.append_batch([bytes(3000)] * 100)
        await log.truncate_before(90)
        with pytest.raises(Truncated) as caught:
            await anext(log.read(5))
        assert (caught.value.lsn, caught.value.expected) == (5, "at least LSN 90")
        assert caught.value.hint
        with pytest.raises(BadOption) as bad:
            await log.truncate_before(1000)
        assert bad.value.hint
        with pytest.raises(TypeError, match="frobnicate"):
            await anext(log.read(frobnicate=1))
        for lsn in (1 << 40, 1 << 70, {1}):
            with pytest.raises(BadOption):
                await log.wait_durable(lsn)
        with pytest.raises(BadOption):
            await anext(log.follow(start=object()))
        assert log._session.requests == {}


async def test_each_waiter_gets_an_error_of_its_own():
    async with placed() as place, walsvc.open(place.wire.url) as log:
        await log.seal()
        waiting = [log.append(b"x") for _ in range(5)]
        errors = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(error) for error in errors} == {Closed}
        assert len({id(error) for error in errors}) == 5


async def test_what_other_clients_do_is_seen():
    async with placed() as place, walsvc.open(place.wire.url) as one, walsvc.open(place.wire.url) as two:
        follower = one.follow()
        await two.topic("of two").append(b"x")
        assert (await anext(follower)).topic == "of two"
        assert one.next_lsn == 2
        assert one.topics() == []
        await two.hold("h", 1)
        assert await one.refresh() == 2
        assert (one.topics(), one.holds(), one.stats().topics) == (["of two"], {"h": 1}, 1)
        assert [pin.name for pin in one.retention().pins] == ["h"]
        await one.release("h")
        assert one.holds() == {}
        await follower.aclose()


async def test_consumer_name_is_held_by_one_client():
    async with placed() as place, walsvc.open(place.wire.url) as two:
        async with walsvc.open(place.wire.url) as one:
            consumer = await one.consumer("c")
            with pytest.raises(walsvc.InUse):
                await two.consumer("c")
            assert (await two.consumers())[0].in_use
        with pytest.raises(Closed):
            await consumer.next()
        again = await two.consumer("c")
        assert again.position == 1


async def test_slow_reader_is_sent_no_more_than_it_asked_for():
    async with (
        placed() as place,
        walsvc.open(place.wire.url, read_ahead_bytes=8192) as slow,
        walsvc.open(place.wire.url) as other,
    ):
        await other.append_batch([bytes(1000)] * 500)
        stream = slow.read()
        assert (await anext(stream)).lsn == 1
        before = place.server.status().sent_bytes
        for _ in range(20):
            await other.append(b"x")
        assert place.server.status().sent_bytes - before < 20_000
        assert [record.lsn async for record in stream] == list(range(2, 501))


async def test_reading_given_up_leaves_nothing_open():
    async with placed() as place, walsvc.open(place.wire.url) as log:
        await log.append_batch([bytes(1000)] * 500)
        for _ in range(5):
            stream = log.read_batches()
            await anext(stream)
            await stream.aclose()
        await log.flush()
        await until(lambda: place.server.status().streams == 0)
        assert log._session.requests == {}


async def test_read_only_client_appends_nothing():
    async with placed() as place, walsvc.open(place.wire.url, read_only=True) as log:
        for call in (lambda: log.append(b"x"), lambda: log.append_nowait(b"x"), lambda: log.append_batch([b"x"])):
            with pytest.raises(Closed, match="read_only"):
                call()
        assert [record async for record in log.read()] == []


async def test_wrong_token_is_told_at_once_and_rights_are_kept(monkeypatch, tmp_path):
    tokens = Tokens(
        [(SECRET, Grant("reader", frozenset({"read"}))), (SECRET * 2, Grant("writer", frozenset({"append"})))]
    )
    async with placed(tokens=tokens) as place:
        monkeypatch.delenv("WALSVC_TOKEN", raising=False)
        with pytest.raises(Denied):
            await walsvc.open(place.wire.url)
        monkeypatch.setenv("WALSVC_TOKEN", SECRET)
        async with walsvc.open(place.wire.url) as reader:
            with pytest.raises(Denied):
                await reader.append(b"x")
            with pytest.raises(Denied):
                await reader.truncate_before(1)
            with pytest.raises(Denied, match="seal") as caught:
                await reader.seal()
            assert "admin" in caught.value.hint
        (tmp_path / "token").write_text(SECRET * 2)
        async with walsvc.open(place.wire.url, token_file=tmp_path / "token") as writer:
            assert (await writer.append(b"x")).lsn == 1
            assert (writer.stats().records, writer.topics(), writer.retention().segments) == (1, [], 0)
            with pytest.raises(Denied):
                await anext(writer.read())


async def test_token_that_is_refused_later_is_tried_again_for_a_while_only(monkeypatch):
    grant = Grant("all", frozenset({"read", "append", "admin"}))
    monkeypatch.setenv("WALSVC_TOKEN", SECRET)
    async with (
        placed(tokens=Tokens([(SECRET, grant)])) as place,
        walsvc.open(place.wire.url, backoff_seconds=0.001, max_pending_bytes=4096, reconnect_seconds=1) as log,
    ):
        place.wire.deaf = True
        sent = log.append(b"x")
        await until(lambda: place.log.next_lsn == 2)
        place.wire.refusing = True
        place.wire.cut()
        await until(lambda: not log._session.connected)
        unsent = [log.append(bytes(1000)) for _ in range(10)]
        batch = log.append_batch([bytes(1000)] * 3)
        await place.stop()
        await place.start(tokens=Tokens([(SECRET * 2, grant)]))
        place.wire.deaf = place.wire.refusing = False
        with pytest.raises(walsvc.OutcomeUnknown, match="token"):
            await sent
        told = await asyncio.gather(*unsent, batch, return_exceptions=True)
        assert {type(error) for error in told} == {Denied}
        with pytest.raises(Denied):
            await log.flush()
        with pytest.raises(Denied):
            log.append(b"y")


async def test_namespaces_are_logs_of_their_own(tmp_path):
    devices = Devices()
    async with serving(tmp_path, devices, host="127.0.0.1", port=0, namespaces=True) as server:
        url = server.addresses[0]
        async with walsvc.open(f"{url}/a") as a, walsvc.open(url, namespace="b") as b:
            await a.append(b"of a")
            assert [record async for record in b.read()] == []
        async with walsvc.open(f"{url}/a") as a:
            assert [record.payload async for record in a.read()] == [b"of a"]
        with pytest.raises(BadOption):
            await walsvc.open(f"{url}?namespace=.hidden")


async def test_tls_verifies_the_server_and_shows_a_certificate(tmp_path):
    files = certificates()
    context = tls_context(files.server_cert, files.server_key, files.ca)
    async with serving(tmp_path, host="127.0.0.1", port=0, tls=context) as server:
        url = server.addresses[0]
        assert url.startswith("wals://")
        client = {"cert": files.client_cert, "key": files.client_key}
        async with walsvc.open(url, ca=files.ca, server_name="localhost", **client) as log:
            assert (await log.append(bytes(100_000))).lsn == 1
        with pytest.raises(Denied, match="certificate"):
            await walsvc.open(url, **client)
        with pytest.raises(Denied, match="certificate"):
            await walsvc.open(url, ca=files.ca, server_name="other.example", **client)
        with pytest.raises(walsvc.Unreachable) as without:
            await walsvc.open(url, ca=files.ca)
        assert "cert=" in without.value.hint
        with pytest.raises(walsvc.Unreachable) as plain:
            await walsvc.open(url.replace("wals", "wal"), connect_seconds=5.0)
        assert "wals://" in plain.value.hint
    async with serving(tmp_path, host="127.0.0.1", port=0) as server:
        with pytest.raises(walsvc.Unreachable) as encrypted:
            await walsvc.open(server.addresses[0].replace("wal", "wals"), ca=files.ca)
        assert "wal://" in encrypted.value.hint


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "what answers there is no walsvc server: it speaks HTTP"),
        (b"-ERR unknown command\r\n", "what answers there is no walsvc server: it speaks Redis"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "what answers there is no walsvc server: it speaks SSH"),
        (b"220 mail.example ESMTP\r\n", "what answers there is no walsvc server"),
    ],
)
async def test_another_service_at_the_address_is_told_from_a_server(answer: bytes, said: str) -> None:
    def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as other:
        url = f"wal://127.0.0.1:{other.sockets[0].getsockname()[1]}"
        with pytest.raises(walsvc.ProtocolError) as caught:
            await walsvc.open(url)
    assert (caught.value.message, caught.value.path) == (said, url)
    assert "--listen" in (caught.value.hint or "")


async def test_other_threads_loops_and_forked_children_are_refused():
    async with placed() as place, walsvc.open(place.wire.url) as log:
        await log.append(b"x")
        caught: list[BaseException] = []

        def elsewhere() -> None:
            for call in (lambda: log.append(b"x"), lambda: asyncio.run(log.flush()), lambda: log.append_nowait(b"x")):
                try:
                    call()
                except WrongLoop as error:
                    caught.append(error)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        await asyncio.to_thread(thread.join)
        assert len(caught) == 3
        child = os.fork()
        if child == 0:
            try:
                log.append(b"x")
            except WrongLoop:
                os._exit(0)
            os._exit(1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert (await log.append(b"y")).lsn == 2


async def test_batches_of_every_kind_in_their_turn():
    async with placed() as place, walsvc.open(place.wire.url, max_pending_bytes=100_000) as log:

        async def source(count: int) -> AsyncIterator[bytes]:
            for number in range(count):
                yield b"s%d" % number + bytes(1000)

        first = log.append(b"first")
        kinds = [
            log.append_batch([b"a", b"b"]),
            log.append_batch(b"g%d" % number for number in range(3)),
            log.append_batch(source(2)),
            log.append_batch([b"l%d" % number + bytes(1000) for number in range(800)]),
            log.append_batch(source(0)),
            log.append_batch([]),
            log.topic("t").append_batch([b"t"]),
        ]
        last = log.append(b"last")
        assert (await first).lsn == 1
        results = await asyncio.gather(*kinds)
        assert [len(each) for each in results] == [2, 3, 2, 800, 0, 0, 1]
        assert [each[0].lsn for each in results if each] == [2, 4, 7, 9, 809]
        assert (await last).lsn == 810
        records = [record async for record in log.read()]
        assert [record.payload[:2] for record in records[:9]] == [
            b"fi",
            b"a",
            b"b",
            b"g0",
            b"g1",
            b"g2",
            b"s0",
            b"s1",
            b"l0",
        ]
        assert records[808].topic == "t"


async def test_closing_twice_and_using_it_afterwards():
    async with placed(SMALL) as place:
        log = await walsvc.open(place.wire.url)
        await log.append(b"x", Relaxed)
        await asyncio.gather(log.close(), log.close())
        assert place.log.durable_lsn == 1, "closing makes this client's records durable"
        await log.close()
        for call in (log.flush, lambda: log.consumer("c"), lambda: anext(log.read()), lambda: log.truncate_before(1)):
            with pytest.raises(Closed):
                await call()


async def test_closing_a_consumer_raises_what_kept_the_server_from_saving_its_acknowledgements(monkeypatch):
    async with placed() as place, walsvc.open(place.wire.url) as log:
        consumer = await log.topic("t").consumer("c")

        async def close(self: Any) -> None:
            self._leave()
            raise walsvc.NoSpace("no room", errno=28)

        with monkeypatch.context() as patch:
            patch.setattr("walsvc.topics.consumer.Consumer.close", close)
            with pytest.raises(walsvc.NoSpace, match="no room"):
                await consumer.close()
        await consumer.close()  # it is closed
        async with await log.topic("t").consumer("c"):
            pass


async def test_hello_that_cannot_be_said_is_told_at_once(monkeypatch):
    from walsvc.service.client import dialing

    monkeypatch.setattr(dialing, "MAGIC", "\ud800")
    async with placed() as place:
        with pytest.raises(walsvc.ProtocolError, match="Hello"):
            await walsvc.open(place.wire.url)
