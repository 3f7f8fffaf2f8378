"""Messages that a fenced writer had on its way, and that still found a place: they count for nobody."""

from __future__ import annotations

import itertools

import pytest

from tests.engines.streams import api
from walsvc import Fenced
from walsvc.engines.jetstream.message import WINDOW, Kind, Message, claim_message, directory_messages, encode_message
from walsvc.engines.jetstream.takeover import counts


async def publish(ask, stream: str, data: bytes, last: int | None = None) -> int:
    """Publish behind message `last`, or wherever the stream ends; returns the sequence."""
    headers = {} if last is None else {"Nats-Expected-Last-Sequence": str(last)}
    return (await ask.client.jetstream().publish(f"walsvc.{stream}", data, headers=headers)).seq


def stray_write(publisher, sequence: int, place) -> Message:
    """A group that would continue the active segment, as far as its header says."""
    segment, offset, lsn = place
    return Message(
        Kind.WRITE,
        publisher._stream_id,
        sequence,
        publisher.epoch,
        publisher.base,
        segment,
        offset,
        lsn,
        1,
        0,
        1,
        512,
        7,
        b"x",
    )


def stray_directory(publisher, sequence: int, _place) -> Message:
    """A directory that says there is nothing."""
    [message] = directory_messages([], 1000)
    return message._replace(
        stream_id=publisher._stream_id, sequence=sequence, epoch=publisher.epoch, base=sequence, previous_crc=7
    )


@pytest.mark.parametrize("kinds", [[stray_write], [stray_directory], [stray_write, stray_directory, stray_write]])
async def test_strays_behind_a_claim_count_for_nobody(cluster, stream, open_stream, kinds):
    former = await open_stream()
    for number in range(30):
        await former.append(b"%d" % number * 3000)
    segment = former.writer.core.tail.segment
    place, publisher = (segment.id, segment.end, former.next_lsn), former.writer.segments.disk._publisher
    async with api(cluster) as ask:
        sequence = await publish(ask, stream, claim_message(publisher._stream_id)[0])
        previous = 7
        for make in kinds:
            message = make(publisher, sequence + 1, place)._replace(previous_crc=previous)
            data, previous = encode_message(message)
            sequence = await publish(ask, stream, data, sequence)
    with pytest.raises(Fenced):
        await former.append(b"too late")
    await former.close()
    expected = [b"%d" % number * 3000 for number in range(30)]
    async with open_stream(read_only=True) as reader:
        assert [record.payload async for record in reader.read()] == expected
    for opening in range(3):
        async with open_stream() as later:
            assert [record.payload async for record in later.read()] == expected
            expected.append(b"%d" % opening)
            await later.append(expected[-1])


def chain(kinds: str) -> list[Message]:
    """Messages as letters: c a claim, m one that names the one before it, s one that does not."""
    crcs, run = itertools.count(1), []
    for letter in kinds:
        previous = run[-1].header_crc if run else 0
        message = Message(Kind.CLAIM if letter == "c" else Kind.WRITE, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, previous, b"")
        run.append(message._replace(previous_crc=0 if letter in "cs" else previous, header_crc=next(crcs)))
    return run


@pytest.mark.parametrize(
    ("kinds", "whole", "verdict"),
    [
        ("m", True, True),
        ("m", False, None),
        ("c", True, False),
        ("cs", True, False),
        ("csm", True, False),
        ("cscsmm", True, False),
        ("cm", False, True),
        ("csccm", False, True),
        ("csccmm", False, True),
        ("mm", False, None),
        ("m" * (WINDOW + 1), False, True),
        ("cs" + "m" * (WINDOW - 2), False, False),
        ("m" * WINDOW, False, None),
    ],
)
def test_what_counts_is_told_by_the_chain(kinds, whole, verdict):
    assert counts(chain(kinds), whole=whole) is verdict
