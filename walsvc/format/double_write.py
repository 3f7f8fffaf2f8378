"""The double-write file: a group's bytes, durable before the log's own blocks are rewritten. Integers little-endian.

The file `double-write` in a log's directory is SLOTS slots of equal length, so a slot begins at its number times a third of
the file's length. Slots 0 and 1 are for the groups in the pipeline, by turns; slot 2 is for what is written beside it: the
seal of a segment. A slot is a header and an image, which are written and synced together:

    | slot header 128 | zeros to header_bytes | image: image_bytes of a segment, from offset on | whatever was there |

The image begins with the block in which the group begins. In layout pack that block may hold the ends of older groups;
the image then has these bytes, too, as they stand in the log.

    offset  size  field
         0     8  magic          89 57 41 4C 53 44 57 0A
         8     2  version        1
        10     2  version_check  bitwise complement of version
        12     4  header_bytes   where the image begins in the slot: the block size of the writer's device
        16     8  log_id         as in the segment header
        24     8  sequence       one more with each slot written, over all openings: tells the newer of two slots
        32     8  segment        first LSN of the segment
        40     8  ordinal        number of the segment: until it has its name, the file is the spare of this number
        48     8  generation     of the group
        56     8  offset         of the image in the segment's file
        64     8  group_offset   of the group in the segment's file
        72     4  image_bytes    length of the image
        76     4  group_bytes    length of the group
        80     4  previous_crc   of the group: header CRC of the group before it
        84     4  image_crc      CRC32C of the image
        88    36  zeros
       124     4  header_crc     CRC32C of bytes 0 to 123

A slot is valid if and only if (1) the magic is right, and version and version_check are complements, (2) the header CRC is
right, (3) the version is known, (4) header_bytes and image_bytes fit into the slot, and the image begins at or before the
group and reaches up to it, (5) image_crc is right. A slot that is not valid is nothing: it was cut while it was written,
and then nothing was written to the log yet. A valid slot may be stale; whether it may be used, the chain of groups decides
(walsvc/log/recover/overlay.py).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from walsvc.checksum import crc32c

DOUBLE_WRITE_NAME = "double-write"
DOUBLE_WRITE_NEW = "double-write.new"  # while it is made
SLOT_MAGIC = b"\x89WALSDW\n"
SLOT_VERSION = 1
SLOT_FIELDS = struct.Struct("<8sHHIQQQQQQQIIII36s")
SLOT_HEADER_BYTES = 128
SLOT_CRC_OFFSET = 124
SLOT_CRC = struct.Struct("<I")
PIPELINE_SLOTS = 2
OUTSIDE_SLOT = 2
SLOTS = 3


class SlotHeader(NamedTuple):
    """The fields of a slot's header; see the module's table."""

    header_bytes: int
    log_id: int
    sequence: int
    segment: int
    ordinal: int
    generation: int
    offset: int
    group_offset: int
    image_bytes: int
    group_bytes: int
    previous_crc: int
    image_crc: int

    @property
    def whole(self) -> bool:
        """The image holds all of the group."""
        return self.offset + self.image_bytes >= self.group_offset + self.group_bytes

    @property
    def end(self) -> int:
        """The end of the part of the segment that the slot can restore: with the group, never beyond it; else where it begins."""
        return self.group_offset + self.group_bytes if self.whole else self.group_offset


class BadSlot(ValueError):
    """Bytes that are no valid slot."""


def encode_slot_header(header: SlotHeader) -> bytes:
    """The header's 128 bytes."""
    fields = SLOT_FIELDS.pack(SLOT_MAGIC, SLOT_VERSION, SLOT_VERSION ^ 0xFFFF, *header, bytes(36))
    return fields + SLOT_CRC.pack(crc32c(fields))


def decode_slot_header(data: bytes, slot_bytes: int) -> SlotHeader:
    """Parse the header at the beginning of `data` and check rules 1 to 4 for a slot of `slot_bytes`. Raises BadSlot."""
    if len(data) < SLOT_HEADER_BYTES:
        raise BadSlot("the file ends inside a slot's header")
    magic, version, version_check, *fields = SLOT_FIELDS.unpack_from(data)
    if magic != SLOT_MAGIC or version ^ 0xFFFF != version_check:
        raise BadSlot("no slot header stands here")
    if crc32c(data[:SLOT_CRC_OFFSET]) != SLOT_CRC.unpack_from(data, SLOT_CRC_OFFSET)[0]:
        raise BadSlot("the slot header's CRC is wrong")
    if version != SLOT_VERSION:
        raise BadSlot(f"the slot has version {version}")
    header = SlotHeader._make(fields[:-1])
    if not SLOT_HEADER_BYTES <= header.header_bytes <= slot_bytes - header.image_bytes:
        raise BadSlot("the slot's lengths are impossible")
    if not header.offset <= header.group_offset <= header.offset + header.image_bytes:
        raise BadSlot("the slot's image does not reach its group")
    return header


def check_image(header: SlotHeader, image: bytes) -> None:
    """Rule 5. Raises BadSlot."""
    if len(image) != header.image_bytes or crc32c(image) != header.image_crc:
        raise BadSlot("the image's CRC is wrong")
