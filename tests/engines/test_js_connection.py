"""The connection of a log in JetStream: ended while nobody answers, and given up in time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from functools import partial
from types import SimpleNamespace

import pytest

import walsvc
from tests.engines.cluster import WHY_NO_SERVER, Cluster
from walsvc import DurabilityLost, PathError
from walsvc.engines.jetstream import connect as connecting
from walsvc.engines.jetstream import opening as jetstream
from walsvc.engines.jetstream.connect import UNACKNOWLEDGED_MS, close_client, transport_of
from walsvc.engines.jetstream.message import Kind, Message
from walsvc.engines.jetstream.options import JetStreamOptions, parse_url
from walsvc.engines.jetstream.publish import Publisher
from walsvc.engines.jetstream.stream import Stream

pytestmark = pytest.mark.skipif(bool(WHY_NO_SERVER), reason=WHY_NO_SERVER or "it is there")
REMOVE = Message(Kind.REMOVE, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, b"")


@pytest.fixture
def mortal():
    """A server of the test's own."""
    cluster = Cluster(sync_always=(True,)).start()
    yield cluster
    cluster.stop()


def open_alone(cluster):
    return walsvc.open(
        cluster.url("log"), monitor=cluster.monitor, replicas=1, allow_unsynced=True, timeout=5, segment_bytes=65536
    )


async def nothing_left():
    """No task but the test's own goes on, or not for long."""
    for _ in range(1000):
        if asyncio.all_tasks() == {asyncio.current_task()}:
            return True
        await asyncio.sleep(0.05)
    return False


async def test_closing_while_no_server_answers_raises_nothing_of_the_client_s(mortal):
    log = await open_alone(mortal)
    await log.append(b"x")
    mortal.kill(0)
    with pytest.raises(DurabilityLost):
        await log.append(b"y")
    await log.close()
    assert await nothing_left()


async def test_opening_whose_servers_die_tells_that_nobody_answers(mortal, monkeypatch):
    async def dying(stream):
        mortal.kill(0)
        await stream.extent()

    monkeypatch.setattr(jetstream, "take_over", dying)
    with pytest.raises(PathError, match="did not answer"):
        await open_alone(mortal)
    assert await nothing_left()


async def test_opening_cancelled_between_two_connections_leaves_neither(open_stream, monkeypatch):
    """It has connected to the leader, and ends its connection to the server that it asked first."""
    async with open_stream() as log:
        await log.append(b"x")
    monkeypatch.setattr(jetstream, "connect", partial(connecting.connect, in_order=True))
    monkeypatch.setattr(jetstream, "leader_of", lambda _: "n2")
    closed = []

    async def close_and_be_cancelled(client):
        closed.append(client)
        if len(closed) == 1:
            opening.cancel()
        await close_client(client)

    monkeypatch.setattr(jetstream, "close_client", close_and_be_cancelled)
    opening = asyncio.ensure_future(open_stream())
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert len(closed) == 2
    assert all(client.is_closed for client in closed)
    assert await nothing_left()


async def test_client_that_does_not_close_is_left_in_time(monkeypatch):
    monkeypatch.setattr(connecting, "CLOSE_SECONDS", 0.05)
    cut = []
    client = SimpleNamespace(
        close=asyncio.Event().wait,
        _transport=SimpleNamespace(_io_writer=SimpleNamespace(transport=SimpleNamespace(abort=lambda: cut.append(1)))),
    )
    await asyncio.wait_for(close_client(client), 60)
    assert cut == [1]
    assert await nothing_left()


async def test_client_that_goes_on_reconnecting_after_its_close_is_ended(monkeypatch):
    """A cancellation that meets a refused connection is swallowed by wait_for (Python 3.11): the loop goes round again."""
    rounds = []

    async def reconnect():
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                rounds.append(len(rounds))
                if len(rounds) > 2:
                    raise

    client = SimpleNamespace(_reconnection_task=asyncio.ensure_future(reconnect()))

    async def close():
        await asyncio.sleep(0)
        client._reconnection_task.cancel()

    client.close = close
    await close_client(client)
    assert client._reconnection_task.cancelled()
    assert len(rounds) == 3


async def test_connection_that_cannot_be_closed_does_not_leave_waiters_behind(open_stream, monkeypatch):
    log = await open_stream()
    await log.append(b"x")

    async def follow():
        return [record.lsn async for record in log.follow(1)]

    waiting = asyncio.ensure_future(follow())
    await asyncio.sleep(0.1)
    close = log.writer.segments.disk.close

    async def failing():
        await close()
        raise OSError("no")

    monkeypatch.setattr(log.writer.segments.disk, "close", failing)
    with pytest.raises(OSError, match="no"):
        await log.close()
    assert await asyncio.wait_for(waiting, 60) == [1]


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this platform has no such option")
async def test_silent_server_is_given_up_by_the_kernel_after_a_reconnect_too(open_stream):
    async with open_stream() as log:
        client, seen = log.writer.segments.disk._stream.client, []
        for _ in range(2):
            before = transport_of(client)
            connection = before.get_extra_info("socket")
            seen.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))
            await log.append(b"x")
            before.abort()
            deadline = time.monotonic() + 60
            while transport_of(client) is before or not client.is_connected:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.01)
            await log.append(b"y")
        assert seen == [UNACKNOWLEDGED_MS] * 2


# ---- cancellations that are swallowed


class Silent:
    """A stream whose client takes messages and never answers. `asked`: what waits for an answer."""

    subject, timeout = "s", 0.2

    def __init__(self) -> None:
        self.asked = []
        self.client = self

    def new_inbox(self):
        return "inbox"

    async def subscribe(self, *_args, **_more):
        return SimpleNamespace(unsubscribe=self.publish)

    async def publish(self, *_args, **_more):
        pass

    async def stored(self, _sequence):
        self.asked.append(asyncio.get_running_loop().create_future())
        return await asyncio.wait_for(self.asked[-1], 600)


async def begin(stream):
    """A publisher with one message on its way, that asks whether it is stored."""
    publisher, outcomes = Publisher(stream, stream_id=1, epoch=1, base=1, last=0, last_crc=0), []
    await publisher.start()
    publisher.put(REMOVE, outcomes.append)
    await asyncio.sleep(0.01)
    publisher._trouble = True
    publisher._wake.set()
    await asyncio.sleep(0.01)
    return publisher, outcomes


async def test_publisher_ends_though_an_answer_swallows_its_cancellation():
    stream = Silent()
    stream.timeout = 600
    publisher, outcomes = await begin(stream)
    data = publisher._in_flight[0].data
    stopping = asyncio.ensure_future(publisher.stop())
    await asyncio.sleep(0.01)
    stream.asked[-1].set_result(data)
    await publisher._answered(SimpleNamespace(subject="inbox.1", data=b'{"seq":1}'))
    await asyncio.wait_for(stopping, 60)
    assert outcomes == [None]


async def test_time_of_a_message_ends_though_an_answer_swallows_it():
    stream = Silent()

    async def swallowing(_sequence):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(1)

    async def refused(*_args, **_more):
        return SimpleNamespace(data=b'{"error":{"code":503}}')

    stream.stored, stream.request = swallowing, refused
    publisher, outcomes = await begin(stream)
    await asyncio.sleep(0.6)
    await publisher.abort()
    assert [type(each) for each in outcomes] == [TimeoutError]


async def test_time_of_a_question_ends_though_an_answer_swallows_it():
    asked = []

    async def busy(*_args, **_more):
        asked.append(time.monotonic())
        with contextlib.suppress(asyncio.CancelledError if len(asked) == 1 else ()):
            await asyncio.sleep(600)
        return SimpleNamespace(data=json.dumps({"error": {"code": 503, "description": "busy"}}).encode())

    address = parse_url("nats://nowhere/log")
    stream = Stream(SimpleNamespace(request=busy), address, JetStreamOptions(timeout=1.0))
    with pytest.raises(PathError, match="busy"):
        await asyncio.wait_for(stream.info(), 60)
