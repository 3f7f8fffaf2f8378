"""Groups and segment headers as bytes: round trips, every flipped bit, hostile lengths."""

from __future__ import annotations

import itertools
import struct
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walsvc.format.chain import Chain, Need, later_evidence
from walsvc.format.columns import encode_column
from walsvc.format.group import (
    GROUP_HEADER_BYTES,
    GROUP_MAGIC,
    HEADER_CRC,
    HEADER_CRC_OFFSET,
    BadGroup,
    Flag,
    GroupHeader,
    align_up,
    crc32c,
    decode_columns,
    decode_group_header,
    decode_meta,
    encode_group,
    record_ends,
)
from walsvc.format.meta import Metadata, decode_map, encode_map
from walsvc.format.segment import (
    ENCRYPTED,
    BadSegment,
    SegmentHeader,
    decode_segment_header,
    encode_segment_header,
    parse_name,
    segment_name,
    spare_name,
)

SEGMENT = SegmentHeader(512, 1 << 20, 77, 3, 2, 10, 123, 8192, 512)


def make_group(chain: Chain, payloads: list[bytes], meta: bytes = b"", durable_lsn: int = 0, flags: int = 0) -> bytes:
    rest = encode_column(array("I", map(len, payloads))) + meta
    length = sum(map(len, payloads))
    total = align_up(GROUP_HEADER_BYTES + length + len(rest), chain.align)
    header = GroupHeader(
        flags, chain.log_id, chain.generation, chain.segment, chain.offset, chain.next_lsn, durable_lsn, 0, 5,
        len(payloads), length, len(rest) - len(meta), len(meta), total, chain.previous_crc,
    )  # fmt: skip
    data = bytearray(b"\xee" * total)
    encode_group(memoryview(data), header, payloads, rest)
    return bytes(data)


def begin() -> Chain:
    return Chain.begin(SEGMENT, encode_segment_header(SEGMENT), SEGMENT.file_bytes)


@given(st.lists(st.binary(max_size=6000), max_size=20), st.binary(max_size=50))
def test_group_round_trip(payloads, meta):
    chain = begin()
    data = make_group(chain, payloads, meta)
    header = chain.take(data, chain.offset)
    assert isinstance(header, GroupHeader)
    ends = record_ends(decode_columns(header, data))
    assert [data[a:b] for a, b in itertools.pairwise(ends)] == payloads
    assert decode_meta(header, data) == meta
    assert chain.next_lsn == 10 + len(payloads)
    assert chain.offset == 4096 + len(data)
    used = GROUP_HEADER_BYTES + header.payload_bytes + header.index_bytes + header.meta_bytes
    assert not data[used:].strip(b"\0"), "padding leaks old bytes"


def test_every_flipped_bit_of_a_group_is_detected():
    data = bytearray(make_group(begin(), [b"abc", b"", b"d" * 300], b"\x80"))
    for position in range(len(data)):
        for bit in range(8):
            data[position] ^= 1 << bit
            with pytest.raises(BadGroup):
                begin().take(bytes(data), begin().offset)
            data[position] ^= 1 << bit


def test_every_flipped_bit_of_a_segment_header_is_detected():
    data = bytearray(encode_segment_header(SEGMENT))
    for position in range(len(data)):
        for bit in range(8):
            data[position] ^= 1 << bit
            with pytest.raises(BadSegment):
                decode_segment_header(bytes(data))
            data[position] ^= 1 << bit


def test_segment_header_round_trip_with_all_fields():
    header = SEGMENT._replace(
        cipher=1,
        required=ENCRYPTED,
        key_id=b"k1",
        salt=bytes(range(32)),
        key_check=bytes(range(16)),
        optional=7,
        seal_at=1 << 40,
    )
    assert decode_segment_header(encode_segment_header(header)) == header


def test_newer_version_and_unknown_required_feature_are_newer_not_damage():
    data = bytearray(encode_segment_header(SEGMENT))
    data[8:12] = struct.pack("<HH", 2, 2 ^ 0xFFFF)
    with pytest.raises(BadSegment) as caught:
        decode_segment_header(bytes(data))
    assert caught.value.newer
    with pytest.raises(BadSegment) as caught:
        decode_segment_header(encode_segment_header(SEGMENT._replace(required=1 << 31)))
    assert caught.value.newer


def test_unknown_group_flag_under_right_crc_is_newer():
    data = make_group(begin(), [b"x"], flags=1 << 30)
    with pytest.raises(BadGroup) as caught:
        begin().take(data, begin().offset)
    assert caught.value.newer


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (88, 0),
        (88, 512 * 3 + 1),
        (88, 0xFFFFFE00),
        (76, 0xFFFFFFFF),
        (80, 0xFFFFFFFF),
        (84, 0xFFFFFFFF),
        (72, 0xFFFFFFFF),
    ],
)
def test_impossible_lengths_under_a_right_header_crc_are_refused(field, value):
    """A hostile or buggy writer's lengths: typed error, and never more than the file is asked for."""
    data = bytearray(make_group(begin(), [b"x" * 900]))
    struct.pack_into("<I", data, field, value)
    struct.pack_into("<I", data, HEADER_CRC_OFFSET, crc32c(bytes(data[:HEADER_CRC_OFFSET])))
    with pytest.raises(BadGroup):
        begin().take(bytes(data), begin().offset)


@pytest.mark.parametrize("change", ["log_id", "segment", "offset", "next_lsn", "previous_crc"])
def test_valid_group_at_the_wrong_place_is_refused(change):
    chain = begin()
    data = make_group(chain, [b"x"])
    setattr(chain, change, getattr(chain, change) + (512 if change == "offset" else 1))
    with pytest.raises(BadGroup):
        chain.take(data, chain.offset)


def test_group_of_an_earlier_generation_is_refused_and_of_a_later_one_taken():
    chain = begin()
    data = make_group(chain, [b"x"])
    older, newer = begin(), begin()
    older.generation, newer.generation = 4, 2
    with pytest.raises(BadGroup):
        older.take(data, older.offset)
    assert isinstance(newer.take(data, newer.offset), GroupHeader)
    assert newer.generation == 3


def test_short_buffer_asks_for_exactly_what_is_missing():
    data = make_group(begin(), [b"x" * 5000])
    assert begin().take(b"", begin().offset) == Need(GROUP_HEADER_BYTES)
    assert begin().take(data[:200], begin().offset) == Need(len(data))


def test_payload_full_of_magics_is_no_evidence_and_no_group():
    chain = begin()
    chain.take(make_group(begin(), [GROUP_MAGIC * 4000]), chain.offset)
    assert later_evidence(begin(), make_group(begin(), [GROUP_MAGIC * 4000], durable_lsn=99), 4096) is None


def test_later_group_is_evidence_only_when_its_durable_lsn_reaches_the_missing_one():
    chain = begin()
    first = make_group(chain, [b"a", b"b"])
    chain.take(first, chain.offset)
    for durable_lsn, expected in ((9, False), (10, True), (11, True)):
        second = make_group(chain, [b"c"], durable_lsn=durable_lsn)
        damaged = b"\xff" + first[1:] + second
        assert (later_evidence(begin(), damaged, 4096) is not None) is expected


def test_columns_with_a_wrong_index_length_are_refused():
    data = make_group(begin(), [b"ab"])
    header = decode_group_header(data)
    with pytest.raises(BadGroup):
        decode_columns(header._replace(records=2), data)
    with pytest.raises(BadGroup):
        decode_columns(header._replace(flags=Flag.TYPES), data)


def test_header_crc_stands_where_the_document_says():
    data = make_group(begin(), [b"x"])
    assert HEADER_CRC.unpack_from(data, 124)[0] == crc32c(data[:124])


def test_metadata_unknown_key_is_ignored_unless_it_begins_with_an_exclamation_mark():
    metadata = Metadata()
    metadata.apply({"colour": 3, "truncated": 5})
    assert metadata.truncated == 5
    with pytest.raises(BadGroup) as caught:
        metadata.apply({"!colour": 3})
    assert caught.value.newer


def test_metadata_snapshot_replaces_what_was_known():
    metadata = Metadata(truncated=9, sealed=True, cut=4)
    metadata.apply(decode_map(Metadata(truncated=2).snapshot()), snapshot=True)
    assert metadata == Metadata(truncated=2)


@pytest.mark.parametrize("data", [b"\x93\x01\x02\x03", b"\xc1", b"\x81\x01\x02", b"\x81\xa1"])
def test_metadata_that_is_no_map_is_refused(data):
    with pytest.raises(BadGroup):
        decode_map(data)


def test_encode_map_round_trip():
    assert decode_map(encode_map({"a": [1, b"x"], "b": {"c": None}})) == {"a": [1, b"x"], "b": {"c": None}}
    assert decode_map(b"") == {}


def test_names_round_trip_and_foreign_names_are_none():
    assert segment_name(255) == "00000000000000ff.wal"
    assert parse_name(segment_name(255), ".wal") == 255
    assert parse_name(spare_name(3), ".spare") == 3
    for name in ("ff.wal", "00000000000000FF.wal", "00000000000000ff.spare", "00000000000000ff.wal.bak", "LOCK"):
        assert parse_name(name, ".wal") is None
