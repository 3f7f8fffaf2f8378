"""The message format: every bit of it is checked, and what writes leave behind is where reading looks."""

from __future__ import annotations

import random

import pytest

from tests.contract.openers import on_simulated_disk
from walsvc.engines.jetstream.message import (
    MESSAGE_HEADER_BYTES,
    BadMessage,
    Kind,
    Message,
    SegmentRow,
    Span,
    decode_message,
    decode_rows,
    encode_message,
    encode_rows,
    span_of,
)
from walsvc.engines.jetstream.segment_table import FilePart, Index, SegmentTable

MESSAGE = Message(
    kind=Kind.WRITE,
    stream_id=0x1122334455667788,
    sequence=7,
    epoch=3,
    base=2,
    segment=1,
    offset=4096,
    first_lsn=10,
    records=2,
    part=0,
    parts=1,
    length=512,
    previous_crc=99,
    body=b"the body of a message",
)


def test_head_of_the_module_has_the_size_of_the_header():
    assert MESSAGE_HEADER_BYTES == 96


def test_message_comes_back_as_it_was():
    data, crc = encode_message(MESSAGE)
    assert decode_message(data, stream_id=MESSAGE.stream_id, sequence=7) == MESSAGE._replace(header_crc=crc)
    assert decode_message(data, stream_id=None, sequence=7).next_lsn == 12


def test_every_flipped_bit_is_found():
    data, _ = encode_message(MESSAGE)
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BadMessage):
            decode_message(bytes(damaged), stream_id=MESSAGE.stream_id, sequence=7)


def test_every_cut_is_found():
    data, _ = encode_message(MESSAGE)
    for length in range(len(data)):
        with pytest.raises(BadMessage):
            decode_message(data[:length], stream_id=MESSAGE.stream_id, sequence=7)


def test_message_of_another_place_or_stream_is_not_taken():
    data, _ = encode_message(MESSAGE)
    with pytest.raises(BadMessage, match="belongs at sequence 7"):
        decode_message(data, stream_id=MESSAGE.stream_id, sequence=8)
    with pytest.raises(BadMessage, match="another log"):
        decode_message(data, stream_id=1, sequence=7)


def test_newer_kinds_are_not_damage():
    data, _ = encode_message(MESSAGE._replace(kind=9))
    with pytest.raises(BadMessage) as caught:
        decode_message(data, stream_id=None, sequence=7)
    assert caught.value.newer


def test_directory_body_comes_back_and_a_cut_one_is_found():
    rows = [SegmentRow(1, 65536, 2, 30), SegmentRow(900, 65536, 29, 77)]
    assert decode_rows(encode_rows(rows)) == rows
    assert decode_rows(b"") == []
    for length in set(range(1, 64)) - {32}:  # whole rows are a directory, too: the CRC is what finds that cut
        with pytest.raises(BadMessage):
            decode_rows(encode_rows(rows)[:length])


def write(segment: int, offset: int, sequence: int, *, part: int = 0, parts: int = 1, length: int = 100) -> Message:
    return MESSAGE._replace(
        segment=segment,
        offset=offset,
        sequence=sequence,
        part=part,
        parts=parts,
        length=length,
        records=1,
        first_lsn=sequence,
    )


def listing(*rows: SegmentRow, sequence: int = 1) -> Message:
    return MESSAGE._replace(kind=Kind.DIRECTORY, sequence=sequence, body=encode_rows(list(rows)))


def test_directory_follows_writes_and_removals():
    directory = SegmentTable()
    for message in (
        listing(SegmentRow(1, 65536, 1, 5), SegmentRow(50, 65536, 6, 8)),
        write(50, 8192, 11),
        MESSAGE._replace(kind=Kind.REMOVE, segment=1, sequence=12),
    ):
        directory.apply(message)
    assert directory.rows() == [SegmentRow(50, 65536, 6, 11)]
    assert directory.first_sequence == 6


def test_write_of_several_messages_counts_only_when_all_are_there():
    directory = SegmentTable()
    directory.apply(listing(SegmentRow(1, 65536, 1, 5)))
    directory.apply(write(1, 4096, 6, part=0, parts=3))
    directory.apply(write(1, 4196, 7, part=1, parts=3))
    assert directory.files[1].last_sequence == 5
    directory.apply(listing(SegmentRow(1, 65536, 1, 5), sequence=8))  # a takeover cut it off
    directory.apply(write(1, 4296, 9, part=2, parts=3))
    assert directory.files[1].last_sequence == 5
    for part in range(3):
        directory.apply(write(1, 4096 + 100 * part, 10 + part, part=part, parts=3))
    assert directory.files[1].last_sequence == 12


@pytest.mark.parametrize("seed", range(20))
def test_index_shows_what_was_written_last(seed):
    source, index, model = random.Random(seed), Index(), [0] * 2000
    end = 0
    for sequence in range(1, 60):
        back = source.random() < 0.2
        offset = source.choice([piece.offset for piece in index.between(0, end)] or [0]) if back else end
        length = source.randint(1, 30)
        index.add(FilePart(offset, length, sequence, sequence))
        model[offset : offset + length] = [sequence] * length
        end = offset + length if back else max(end, offset + length)
        if back:
            for piece in index.between(end, 2000):
                assert piece.offset >= end
    painted = [0] * 2000
    for piece in index.between(0, 2000):
        painted[piece.offset : piece.offset + piece.length] = [piece.sequence] * piece.length
    last = index.end[0]
    assert all(shown in (0, real) for shown, real in zip(painted[:last], model[:last], strict=True))
    for start in range(0, last, 37):
        inside = index.between(start, start + 50)
        assert all(piece.offset < start + 50 and piece.offset + piece.length > start for piece in inside)


async def test_span_is_that_of_the_groups_in_a_write(tmp_path):
    async with on_simulated_disk()(tmp_path)(max_group_records=3) as log:
        for _ in range(3):
            await log.append_batch([b"a", b"b", b"c"])
        name, length = log.writer.segments.file(1)
        data = await log.writer.segments.disk.read(name, 0, length)
    assert span_of(data) == Span(1, 9)
    assert span_of(data[:4096]) == Span(0, 0)
    assert span_of(b"\0" * 512) == Span(0, 0)
