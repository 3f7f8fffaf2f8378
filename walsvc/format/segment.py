"""Segment header: the first 4096 bytes of every `%016x.wal` file. All integers little-endian.

    offset  size  field
         0     8  magic          89 57 41 4C 53 56 43 0A ("\\x89WALSVC\\n": high bit and newline catch text-mode copies, as PNG)
         8     2  version        format version, 1
        10     2  version_check  bitwise complement of version, so that a flipped bit is damage and not "a newer version"
        12     4  required       feature bits that a reader must know, or it must not read; 1: the groups are encrypted
        16     4  optional       feature bits that a reader may ignore; 1: the file was recycled, expect old bytes in it;
                                 2: the segment was rewritten: seal_at counts, not the successor's previous_end;
                                 4: the file is small and takes metadata only (a writer begins no record in it)
        20     4  block_bytes    block size of the writer; the first group starts at max(4096, block_bytes)
        24     8  file_bytes     length of the file as prepared
        32     8  log_id         random, the same in all segments and groups of a log
        40     8  generation     number of the writer's opening that wrote this header, from 1
        48     8  ordinal        1 for the first segment of a log, then one more for each
        56     8  first_lsn      LSN of the first record; the file's name in hex
        64     8  created_ns     wall clock, Unix nanoseconds
        72     8  previous_end   offset in the preceding segment at which its seal stands (0: no preceding segment)
        80     4  align          alignment of groups: block_bytes in layout pad, 64 in layout pack
        84     2  cipher         0 none, 1 AES-256-GCM
        86     2  key_id_bytes   length of the key's name
        88    32  key_id         name of the key
       120    32  salt           for the segment's derived key
       152    16  key_check      tells a wrong key from damage
       168     8  seal_at        where this segment's own seal stands, if the segment was rewritten and has one; else 0
       176     8  before_at      where the group stood that `before` names
       184     4  before         header CRC, as it was first written, of the group in the segment before that holds LSN
                                 first_lsn - 1; 0: not bound (written by walsvc 0.1.0, or there is no segment before)
       188  3904  zeros
      4092     4  crc            CRC32C of bytes 0 to 4091

A segment header is valid if and only if (1) the magic is right, (2) version and version_check are complements, (3) the
version is known, (4) the CRC is right, (5) no unknown bit is set in required, and cipher is one of the table, 1 exactly
if the groups are encrypted, (6) first_lsn is the file's name.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from walsvc.checksum import crc32c

SEGMENT_MAGIC = b"\x89WALSVC\n"
VERSION = 1
SEGMENT_HEADER_BYTES = 4096
ENCRYPTED = 1  # bit of `required`: groups are encrypted, see walsvc.format.cipher
REQUIRED_KNOWN = ENCRYPTED
AES_256_GCM = 1  # value of `cipher`
RECYCLED = 1  # bits of `optional`
REWRITTEN = 2
METADATA_ONLY = 4
SALT_OFFSET = 120
SEGMENT_FIELDS = struct.Struct("<8sHHIIIQQQQQQQIHH32s32s16sQQI")
VERSION_FIELDS = struct.Struct("<8sHH")
CRC_FIELD = struct.Struct("<I")
CRC_OFFSET = SEGMENT_HEADER_BYTES - CRC_FIELD.size


class SegmentHeader(NamedTuple):
    """The fields of a valid segment header; see the module's table."""

    block_bytes: int
    file_bytes: int
    log_id: int
    generation: int
    ordinal: int
    first_lsn: int
    created_ns: int
    previous_end: int
    align: int
    required: int = 0
    optional: int = 0
    cipher: int = 0
    key_id: bytes = b""
    salt: bytes = bytes(32)
    key_check: bytes = bytes(16)
    seal_at: int = 0
    before_at: int = 0
    before: int = 0

    @property
    def data_start(self) -> int:
        """Offset of the first group."""
        return max(SEGMENT_HEADER_BYTES, self.block_bytes)

    @property
    def file_name(self) -> str:
        """The file's name."""
        return segment_name(self.first_lsn)


class BadSegment(ValueError):
    """Bytes that are no valid segment header. `newer`: because of a newer version or feature; `older`: of an older version."""

    def __init__(self, reason: str, *, newer: bool = False, older: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.newer = newer
        self.older = older


def segment_name(first_lsn: int) -> str:
    """`%016x.wal`: lexical order is LSN order."""
    return f"{first_lsn:016x}.wal"


def spare_name(ordinal: int) -> str:
    """Name of the file that is prepared to become segment number `ordinal`."""
    return f"{ordinal:016x}.spare"


def parse_name(name: str, suffix: str) -> int | None:
    """The number in a segment's or spare's file name, or None if the name is not one."""
    stem, dot, end = name.partition(".")
    if dot + end != suffix or len(stem) != 16 or not set(stem) <= set("0123456789abcdef"):
        return None
    return int(stem, 16)


def encode_segment_header(header: SegmentHeader) -> bytes:
    """The header's 4096 bytes."""
    fields = SEGMENT_FIELDS.pack(
        SEGMENT_MAGIC,
        VERSION,
        VERSION ^ 0xFFFF,
        header.required,
        header.optional,
        header.block_bytes,
        header.file_bytes,
        header.log_id,
        header.generation,
        header.ordinal,
        header.first_lsn,
        header.created_ns,
        header.previous_end,
        header.align,
        header.cipher,
        len(header.key_id),
        header.key_id,
        header.salt,
        header.key_check,
        header.seal_at,
        header.before_at,
        header.before,
    )
    body = fields.ljust(CRC_OFFSET, b"\0")
    return body + CRC_FIELD.pack(crc32c(body))


def version_of(data: bytes) -> int:
    """The format version of the segment that begins with `data`: rules 1 and 2, which hold in all versions."""
    magic, version, version_check = VERSION_FIELDS.unpack_from(data.ljust(VERSION_FIELDS.size, b"\0"))
    if magic != SEGMENT_MAGIC:
        raise BadSegment(f"the magic is {magic!r}")
    if version ^ 0xFFFF != version_check:
        raise BadSegment("the version field contradicts its check field")
    return int(version)


def decode_segment_header(data: bytes) -> SegmentHeader:
    """Parse and check rules 1 to 5; the caller knows the file's name and checks rule 6. Raises BadSegment."""
    if len(data) < SEGMENT_HEADER_BYTES:
        raise BadSegment(f"the file ends inside the header, after {len(data)} bytes")
    (_, version, _, required, optional, block_bytes, file_bytes, log_id, generation, ordinal) = (
        SEGMENT_FIELDS.unpack_from(data)[:10]
    )
    first_lsn, created_ns, previous_end, align, cipher, key_id_bytes, key_id, *rest = SEGMENT_FIELDS.unpack_from(data)[
        10:
    ]
    if version_of(data) != VERSION:
        reason = f"format version {version}, this walsvc writes and reads {VERSION}"
        raise BadSegment(reason, newer=version > VERSION, older=version < VERSION)
    if CRC_FIELD.unpack_from(data, CRC_OFFSET)[0] != crc32c(data[:CRC_OFFSET]):
        raise BadSegment("the header's CRC is wrong")
    if required & ~REQUIRED_KNOWN:
        raise BadSegment(f"required features {required & ~REQUIRED_KNOWN:#x} are unknown", newer=True)
    if cipher not in (0, AES_256_GCM):
        raise BadSegment(f"cipher {cipher} is unknown", newer=True)
    if bool(cipher) != bool(required & ENCRYPTED):
        raise BadSegment("the header contradicts itself on whether the segment is encrypted")
    return SegmentHeader(
        block_bytes,
        file_bytes,
        log_id,
        generation,
        ordinal,
        first_lsn,
        created_ns,
        previous_end,
        align,
        required,
        optional,
        cipher,
        key_id[:key_id_bytes],
        *rest,
    )
