"""Message: what a log is made of in a JetStream stream. Pure: bytes in, values out. Integers little-endian.

The log's files exist in the stream as the writes that made them. A group commit is one write, and so one message; the
message's body is the group exactly as it would stand in a segment file, with its own checks. The header says where:

    | header 96 | body |

    offset  size  field
         0     4  magic         "wMSG"
         4     2  version       1
         6     1  kind          see Kind
         7     1  zero
         8     8  stream_id     random, the same in all messages of a stream
        16     8  sequence      of this very message in its stream: none can be taken for another
        24     8  epoch         number of the writer's takeover, from 1; never falls
        32     8  base          sequence of the directory from which on replay knows every file
        40     8  segment       first LSN of the segment concerned; 0 in a directory
        48     8  offset        in the segment's file, where the write begins; in a directory that opens an epoch, any number
                                that no other opening has
        56     8  first_lsn     LSN of the body's first record (of the next one, if it has none)
        64     4  records       records in the write, all parts together
        68     4  part          0 and up: a write larger than one message is several, in a row
        72     4  parts         how many
        76     4  length        bytes written from `offset` on; those behind the body are zeros, and are not sent
        80     4  body_bytes    length of the body
        84     4  body_crc      CRC32C of the body
        88     4  previous_crc  header CRC of the message before (0: this is the first of the stream)
        92     4  header_crc    CRC32C of bytes 0 to 91; since it covers the other two, the chain covers all content

A message is valid if and only if (1) magic, version and header CRC are right, (2) stream_id and sequence are those of its
place, (3) body_bytes is the length of what follows, and body_crc is right, (4) part is below parts, (5) its epoch is not
below that of the message before, and previous_crc is that message's header CRC. A write counts when all its parts are
there in a row.

A writer has up to WINDOW messages on their way, each for one sequence. Whoever takes the stream over publishes as many claims
first, wherever they come to stand. A claim changes nothing, and names neither a sequence nor a message before it; but it takes
a place, so the writer's next message is refused. One that was on its way behind that may still find its sequence right, and
be stored: a stray. After WINDOW claims not even a stray has a place left. So from a claim on nothing counts, until a directory
opens a higher epoch; nothing of that was ever acknowledged.

A directory's body lists the segments as columns of u64: first LSN, length of the file, sequence of the first message and
of the last one that concern it. It opens an epoch, and another follows each beginning of a segment, so opening reads the
last message, then from its `base` on.
"""

from __future__ import annotations

import enum
import struct
from array import array
from typing import NamedTuple

from walsvc.checksum import crc32c
from walsvc.format.columns import decode_column, encode_column
from walsvc.format.group import BadGroup, decode_group_header
from walsvc.format.segment import SEGMENT_HEADER_BYTES, SEGMENT_MAGIC, BadSegment, SegmentHeader, decode_segment_header

MESSAGE_MAGIC = b"wMSG"
MESSAGE_VERSION = 1
MESSAGE_FIELDS = struct.Struct("<4sHBxQQQQQQQIIIIIII")
HEADER_CRC = struct.Struct("<I")
WINDOW = 8  # messages of a writer on their way at most: part of the format, since claims must outnumber them
MESSAGE_HEADER_BYTES = MESSAGE_FIELDS.size + HEADER_CRC.size


class Kind(enum.IntEnum):
    """Kinds of messages."""

    DIRECTORY = 1  # lists the segments
    WRITE = 2  # puts bytes into a segment's file; at offset 0 it makes the file, in place of one of that name
    REMOVE = 3  # removes a segment's file
    CLAIM = 4  # stands wherever the stream ended just then, and takes the place of its writer's next message


class Message(NamedTuple):
    """The fields of a message's header and its body; see the module's table."""

    kind: int
    stream_id: int
    sequence: int
    epoch: int
    base: int
    segment: int
    offset: int
    first_lsn: int
    records: int
    part: int
    parts: int
    length: int
    previous_crc: int
    body: bytes
    header_crc: int = 0

    @property
    def next_lsn(self) -> int:
        """LSN after the last record."""
        return self.first_lsn + self.records


class BadMessage(ValueError):
    """Bytes that are no valid message. `newer`: a newer version wrote them."""

    def __init__(self, reason: str, *, newer: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.newer = newer


def encode_message(message: Message) -> tuple[bytes, int]:
    """The message's bytes and its header CRC, which the next one must name."""
    fields = MESSAGE_FIELDS.pack(
        MESSAGE_MAGIC,
        MESSAGE_VERSION,
        *message[:12],
        len(message.body),
        crc32c(message.body),
        message.previous_crc,
    )
    header_crc: int = crc32c(fields)
    return b"".join((fields, HEADER_CRC.pack(header_crc), message.body)), header_crc


def decode_message(data: bytes, *, stream_id: int | None, sequence: int) -> Message:
    """Parse and check rules 1 to 4; `stream_id` None: not known yet. Raises BadMessage."""
    if len(data) < MESSAGE_HEADER_BYTES or data[:4] != MESSAGE_MAGIC:
        raise BadMessage("it is no message of a walsvc log")
    (header_crc,) = HEADER_CRC.unpack_from(data, MESSAGE_FIELDS.size)
    if crc32c(data[: MESSAGE_FIELDS.size]) != header_crc:
        raise BadMessage("the message header's CRC is wrong")
    _, version, *fields, body_bytes, body_crc, previous_crc = MESSAGE_FIELDS.unpack_from(data)
    if version != MESSAGE_VERSION:
        raise BadMessage(f"message version {version}, this walsvc reads {MESSAGE_VERSION}", newer=True)
    message = Message._make((*fields, previous_crc, data[MESSAGE_HEADER_BYTES:], header_crc))
    if message.kind not in Kind.__members__.values():
        raise BadMessage(f"message kind {message.kind} is unknown", newer=True)
    if stream_id is not None and message.stream_id != stream_id:
        raise BadMessage("the message belongs to another log")
    if message.kind == Kind.CLAIM:
        message = message._replace(sequence=sequence)
    if message.sequence != sequence:
        raise BadMessage(f"the message belongs at sequence {message.sequence}")
    if len(message.body) != body_bytes or crc32c(message.body) != body_crc:
        raise BadMessage("the message body's length or CRC is wrong")
    if message.part >= message.parts or len(message.body) > message.length:
        raise BadMessage("the message's part or length is impossible")
    return message


class SegmentRow(NamedTuple):
    """A segment in a directory."""

    first_lsn: int
    file_bytes: int
    first_sequence: int
    last_sequence: int


def encode_rows(rows: list[SegmentRow]) -> bytes:
    """A directory's body."""
    columns = zip(*rows, strict=True) if rows else ()
    return b"".join(encode_column(array("Q", cells)) for cells in columns)


def decode_rows(body: bytes) -> list[SegmentRow]:
    """Decode the segments in a directory's body. Raises BadMessage if it is cut."""
    try:
        cells = decode_column(body)
    except ValueError:
        cells = array("Q", [0])
    count, rest = divmod(len(cells), len(SegmentRow._fields))
    if rest:
        raise BadMessage("the directory is cut")
    return [SegmentRow(*cells[row::count]) for row in range(count)]


def claim_message(stream_id: int) -> tuple[bytes, int]:
    """A claim's bytes and header CRC."""
    return encode_message(Message(Kind.CLAIM, stream_id, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, b""))


def directory_messages(rows: list[SegmentRow], body_bytes: int) -> list[Message]:
    """Encode a directory in as many messages as it needs; the publisher fills in their places."""
    body = encode_rows(rows)
    pieces = [body[at : at + body_bytes] for at in range(0, len(body), body_bytes)] or [b""]
    return [
        Message(Kind.DIRECTORY, 0, 0, 0, 0, 0, 0, 0, 0, part, len(pieces), len(piece), 0, piece)
        for part, piece in enumerate(pieces)
    ]


class Span(NamedTuple):
    """Records of a write."""

    first_lsn: int
    records: int


def span_of(data: bytes) -> Span:
    """The records in a write, which is a group, or a segment's header with groups behind it; (0, 0): neither."""
    header, at = segment_of(data), 0
    if header is not None:
        at = header.data_start
    first, following = 0, 0
    while at < len(data):
        try:
            group = decode_group_header(data, at)
        except BadGroup:
            break
        first, following = first or group.first_lsn, group.next_lsn
        at += group.group_bytes
    return Span(first, following - first)


def segment_of(data: bytes) -> SegmentHeader | None:
    """The segment header that a write begins with; None if it does not."""
    if data[: len(SEGMENT_MAGIC)] != SEGMENT_MAGIC:
        return None
    try:
        return decode_segment_header(data[:SEGMENT_HEADER_BYTES])
    except BadSegment as error:
        raise BadMessage(error.reason, newer=error.newer) from None
