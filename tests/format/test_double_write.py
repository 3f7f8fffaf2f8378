"""The slot header: its bytes as the head of the format file says, and what makes it valid."""

from __future__ import annotations

import re

import pytest

from walsvc.format import double_write
from walsvc.format.double_write import (
    SLOT_CRC_OFFSET,
    SLOT_FIELDS,
    SLOT_HEADER_BYTES,
    BadSlot,
    SlotHeader,
    check_image,
    crc32c,
    decode_slot_header,
    encode_slot_header,
)

IMAGE = bytes(range(256)) * 2
HEADER = SlotHeader(
    header_bytes=4096,
    log_id=0x0123456789ABCDEF,
    sequence=77,
    segment=1,
    ordinal=1,
    generation=3,
    offset=8192,
    group_offset=8256,
    image_bytes=512,
    group_bytes=256,
    previous_crc=0xDEADBEEF,
    image_crc=crc32c(IMAGE),
)
SLOT_BYTES = 16384


def test_diagram_and_struct_agree() -> None:
    rows = re.findall(r"^ +(\d+) +(\d+)  (\w+)", double_write.__doc__ or "", re.MULTILINE)
    place = 0
    for offset, size, _ in rows:
        assert int(offset) == place
        place += int(size)
    assert place == SLOT_HEADER_BYTES
    assert SLOT_FIELDS.size == SLOT_CRC_OFFSET
    named = [name for _, _, name in rows]
    assert named == ["magic", "version", "version_check", *SlotHeader._fields, "zeros", "header_crc"]


def test_header_decodes_to_what_was_encoded() -> None:
    data = encode_slot_header(HEADER)
    assert len(data) == SLOT_HEADER_BYTES
    assert decode_slot_header(data + bytes(100), SLOT_BYTES) == HEADER
    assert data[:16].hex() == "8957414c5344570a0100feff00100000"
    assert (HEADER.whole, HEADER.end) == (True, 8512)
    assert HEADER._replace(group_bytes=9999).end == 8256  # of a group that it holds in part it restores nothing


def test_every_flipped_bit_of_header_and_image_is_noticed() -> None:
    data = encode_slot_header(HEADER)
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BadSlot):
            decode_slot_header(bytes(damaged), SLOT_BYTES)
    check_image(HEADER, IMAGE)
    for bit in range(0, 8 * len(IMAGE), 7):
        damaged = bytearray(IMAGE)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BadSlot):
            check_image(HEADER, bytes(damaged))


@pytest.mark.parametrize(
    "changes",
    [
        {"image_bytes": SLOT_BYTES - 4096 + 1},
        {"image_bytes": 2**32 - 1},
        {"header_bytes": 127},
        {"header_bytes": 2**32 - 1},
        {"offset": 8257},
        {"group_offset": 8705},
    ],
)
def test_lengths_are_believed_only_as_far_as_they_fit(changes: dict[str, int]) -> None:
    data = encode_slot_header(HEADER._replace(**changes))
    with pytest.raises(BadSlot):
        decode_slot_header(data, SLOT_BYTES)


def test_shorter_data_is_no_slot() -> None:
    for length in (0, 8, SLOT_HEADER_BYTES - 1):
        with pytest.raises(BadSlot):
            decode_slot_header(encode_slot_header(HEADER)[:length], SLOT_BYTES)
    with pytest.raises(BadSlot):
        check_image(HEADER, IMAGE[:-1])
