"""What becomes of a message whose acknowledgement does not come."""

from __future__ import annotations

import pytest

from walsvc import DurabilityLost
from walsvc.engines.jetstream.publish import Publisher


def suspect(publisher: Publisher) -> None:
    """What the publisher does by itself when an acknowledgement is late."""
    publisher._trouble = True
    publisher._wake.set()


async def test_lost_acknowledgement_is_made_up_by_what_is_stored(open_stream, monkeypatch):
    answered, dropped = Publisher._answered, []

    async def drop(publisher, reply):
        if dropped and dropped[-1] == "next":
            dropped[-1] = reply.subject
            suspect(publisher)
        else:
            await answered(publisher, reply)

    monkeypatch.setattr(Publisher, "_answered", drop)
    async with open_stream() as log:
        await log.append(b"one")
        dropped.append("next")
        assert (await log.append(b"two")).lsn == 2
        assert dropped[-1] != "next"
        assert (await log.append(b"three")).lsn == 3
        assert [record.payload async for record in log.read()] == [b"one", b"two", b"three"]
    async with open_stream() as log:
        assert [record.payload async for record in log.read()] == [b"one", b"two", b"three"]


async def test_lost_message_is_sent_again_at_its_place(open_stream, monkeypatch):
    async with open_stream() as log:
        await log.append(b"one")
        publisher, lost = log.writer.segments.disk._publisher, []
        publish = publisher._stream.client.publish

        async def lose(subject, payload, reply="", headers=None):
            if not lost and subject == publisher._stream.subject:
                lost.append(len(payload))
                suspect(publisher)
            else:
                await publish(subject, payload, reply, headers)

        monkeypatch.setattr(publisher._stream.client, "publish", lose)
        assert (await log.append(b"two")).lsn == 2
        assert len(lost) == 1
        assert [record.payload async for record in log.read()] == [b"one", b"two"]


async def test_message_that_is_sent_twice_is_stored_once(open_stream, monkeypatch):
    async with open_stream() as log:
        publisher = log.writer.segments.disk._publisher
        publish = publisher._stream.client.publish

        async def twice(subject, payload, reply="", headers=None):
            await publish(subject, payload, reply, headers)
            await publish(subject, payload, reply, headers)

        monkeypatch.setattr(publisher._stream.client, "publish", twice)
        for number in range(20):
            assert (await log.append(b"%d" % number)).lsn == number + 1
        monkeypatch.undo()
        assert [record.payload async for record in log.read()] == [b"%d" % number for number in range(20)]
    async with open_stream() as log:
        assert log.next_lsn == 21


async def test_no_majority_within_the_time_ends_the_log(open_stream, monkeypatch):
    log = await open_stream(timeout=4.0)
    await log.append(b"one")
    client = log.writer.segments.disk._stream.client

    async def nowhere(*_args, **_more):
        suspect(log.writer.segments.disk._publisher)

    monkeypatch.setattr(client, "publish", nowhere)
    with pytest.raises(DurabilityLost, match=r"did not answer|no majority"):
        await log.append(b"two")
    monkeypatch.undo()
    await log.close()
    async with open_stream() as again:
        assert [record.payload async for record in again.read()] == [b"one"]
