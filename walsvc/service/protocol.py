"""The service protocol: frames to bytes and back. Pure, no I/O (h11's way); docs/PROTOCOL.md is the specification.

    frame = u32 little-endian length of the body | body
    body  = one msgpack array: [kind, id, field, ...]

Lengths from 2^30 on are not valid; the two upper bits are kept for compressed bodies. Each kind has its fields in a fixed
order; a receiver ignores what stands behind those it knows, so a later version can add some. `id` is chosen by the client,
unique among its unanswered requests and streams; 0 is the connection itself.

What a client can make the server hold is bounded: the length is checked before the body is buffered, and an array has at
most ITEMS_MAX elements, so that the 1,024 levels that msgpack nests at most cannot ask for more than 64 MiB of lists.
Records and errors as frames are in columns.py and codes.py.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import msgpack

from walsvc.errors import ProtocolError
from walsvc.service.checks import (
    Check,
    is_any,
    is_bool,
    is_bytes,
    is_int,
    is_map,
    is_name,
    is_parts,
    is_payloads,
    is_state,
    is_text,
    or_column,
)

MAGIC = "walsvc"
VERSION = 1  # the only one so far: both VERSION_MIN and VERSION_MAX of a HELLO
LENGTH = struct.Struct("<I")
LENGTH_MAX = (1 << 30) - 1
HELLO_BYTES_MAX = 4096  # the only frame before authentication: a token, three short names
OVERHEAD_BYTES = 128 * 1024  # of a frame besides its payloads: attributes have up to 64 KiB, names up to 255 bytes
ITEMS_MAX = 8192  # payloads in one frame, and elements of any array or map from a client
RESULT_ITEMS_MAX = 1 << 24  # of one from the server: a log may have 100,000 topics
TOKEN_BYTES_MAX = 1024
RECORD_COST = 64  # what a record costs of a stream's credit besides its payload
STRICT, RELAXED = 0, 1  # `mode` of APPEND and BATCH

STATE_FIELDS = (
    "first_lsn", "next_lsn", "durable_lsn", "pending_bytes", "waiting", "records", "payload_bytes", "groups", "syncs",
    "written_bytes", "rotations", "segments", "spares", "segment_id", "group_records_max", "sync_us_last", "sync_us_total",
    "topics",
)  # fmt: skip
"""What a State says: fields of walsvc.Stats. The first three are always there; a receiver ignores what follows those it knows."""
State = list[int]  # of the log at that moment


class Hello(NamedTuple):
    """First frame of a client."""

    id: int
    magic: str
    version_min: int
    version_max: int
    token: str | None
    namespace: str | None
    client: str
    producer: int
    options: dict[str, Any]


class Append(NamedTuple):
    """Independent appends, which share a group; the producer's request `seq`."""

    id: int
    seq: int
    done: int
    since: int
    mode: int
    topic: str | None
    type: int
    attributes: bytes
    payloads: list[bytes]


class Batch(NamedTuple):
    """A part of an atomic batch; all parts have the id and the seq of the first, and their numbers in `part`."""

    id: int
    seq: int
    done: int
    since: int
    mode: int
    topic: str | None
    part: int
    last: bool
    payloads: list[bytes]


class Call(NamedTuple):
    """A method by name."""

    id: int
    method: str
    args: dict[str, Any]


class Open(NamedTuple):
    """Begin a stream of records: "read", "follow" or "consumer"."""

    id: int
    what: str
    args: dict[str, Any]
    credit: int


class Credit(NamedTuple):
    """To the server: `bytes` more may be sent on stream `id`. To the client: `bytes` of the batch `id` are consumed."""

    id: int
    bytes: int


class Cancel(NamedTuple):
    """Give up a request that is not accepted yet, or end a stream."""

    id: int


class Ping(NamedTuple):
    """Are you there?"""

    id: int


class Welcome(NamedTuple):
    """Answer to HELLO: the connection is open."""

    id: int
    version: int
    limits: dict[str, int]
    state: State
    info: dict[str, Any]


class Ack(NamedTuple):
    """Where the records of an APPEND or BATCH are: parts of [first_lsn, count, segment_id, offset of the first]."""

    id: int
    parts: list[list[int]]
    durable: bool
    sync_us: int
    state: State


class Result(NamedTuple):
    """What a CALL returned, or what an OPEN has opened."""

    id: int
    value: Any
    state: State


class Error(NamedTuple):
    """A request or a stream failed: an error of the WalError tree, by the name of its class."""

    id: int
    code: str
    message: str
    fields: dict[str, Any]
    state: State


class Records(NamedTuple):
    """Records of a stream, in columns: a value that is no list counts for all of them."""

    id: int
    turn: int
    lsns: int | list[int]
    payloads: list[bytes]
    types: int | list[int]
    topics: str | list[str | None] | None
    timestamps: int | list[int]
    attributes: bytes | list[bytes]
    state: State


class End(NamedTuple):
    """A stream has ended in order."""

    id: int
    state: State


class StateFrame(NamedTuple):
    """The log's range has changed and nothing else told it."""

    id: int
    state: State


class Pong(NamedTuple):
    """Answer to PING."""

    id: int
    state: State


class Purged(NamedTuple):
    """Records below LSN `before` with these labels, of the topic or (None) of all, are hidden; also those sent already."""

    id: int
    topic: str | None
    labels: dict[str, Any]
    before: int
    state: State


class Goodbye(NamedTuple):
    """The last frame of a connection, and why it is."""

    id: int
    code: str
    message: str


Frame = (
    Hello | Append | Batch | Call | Open | Credit | Cancel | Ping
    | Welcome | Ack | Result | Error | Records | End | StateFrame | Pong | Goodbye | Purged
)  # fmt: skip
KINDS: dict[type[Frame], tuple[int, tuple[Check, ...]]] = {
    Hello: (0, (is_int, is_text, is_int, is_int, is_name, is_name, is_text, is_int, is_map)),
    Append: (1, (is_int, is_int, is_int, is_int, is_int, is_name, is_int, is_bytes, is_payloads)),
    Batch: (2, (is_int, is_int, is_int, is_int, is_int, is_name, is_int, is_bool, is_payloads)),
    Call: (3, (is_int, is_text, is_map)),
    Open: (4, (is_int, is_text, is_map, is_int)),
    Credit: (5, (is_int, is_int)),
    Cancel: (6, (is_int,)),
    Ping: (7, (is_int,)),
    Welcome: (16, (is_int, is_int, is_map, is_state, is_map)),
    Ack: (17, (is_int, is_parts, is_bool, is_int, is_state)),
    Result: (18, (is_int, is_any, is_state)),
    Error: (19, (is_int, is_text, is_text, is_map, is_state)),
    Records: (
        20,
        (
            is_int,
            is_int,
            or_column(is_int),
            is_payloads,
            or_column(is_int),
            or_column(is_name),
            or_column(is_int),
            or_column(is_bytes),
            is_state,
        ),
    ),
    End: (21, (is_int, is_state)),
    StateFrame: (22, (is_int, is_state)),
    Pong: (23, (is_int, is_state)),
    Goodbye: (24, (is_int, is_text, is_text)),
    Purged: (25, (is_int, is_name, is_map, is_int, is_state)),
}
Table = dict[int, tuple[type[Frame], tuple[Check, ...]]]
FROM_CLIENT: Table = {
    KINDS[each][0]: (each, KINDS[each][1]) for each in (Append, Batch, Call, Open, Credit, Cancel, Ping)
}
FIRST: Table = {0: (Hello, KINDS[Hello][1])}
FROM_SERVER: Table = {KINDS[each][0]: (each, KINDS[each][1]) for each in KINDS if KINDS[each][0] >= 16}
FROM_SERVER[KINDS[Credit][0]] = (Credit, KINDS[Credit][1])

FOREIGN: dict[bytes, str] = {
    b"GET ": "HTTP", b"HEAD": "HTTP", b"POST": "HTTP", b"PUT ": "HTTP", b"DELE": "HTTP", b"OPTI": "HTTP", b"CONN": "HTTP",
    b"PRI ": "HTTP/2", b"SSH-": "SSH", b"\x16\x03\x01": "TLS", b"\x16\x03\x03": "TLS", b"*1\r\n": "Redis", b"INFO": "NATS",
}  # fmt: skip

_packer = msgpack.Packer(use_bin_type=True)


def encode(frame: Frame) -> bytes:
    """The bytes of a frame. Raises ProtocolError where it cannot be encoded, or would be longer than LENGTH_MAX."""
    try:
        body = _packer.pack([KINDS[type(frame)][0], *frame])
    except (TypeError, ValueError, OverflowError) as error:
        raise ProtocolError(f"a {type(frame).__name__} frame cannot be encoded: {error}") from None
    if len(body) > LENGTH_MAX:
        raise ProtocolError(f"a frame of {len(body)} bytes cannot be sent", expected=f"at most {LENGTH_MAX}")
    return LENGTH.pack(len(body)) + body  # type: ignore[no-any-return]


def decode(body: bytes | bytearray | memoryview, table: Table, items_max: int = ITEMS_MAX) -> Frame:
    """The frame in a body; only kinds in `table` are known. Raises ProtocolError."""
    try:
        row = msgpack.unpackb(body, raw=False, strict_map_key=True, max_array_len=items_max, max_map_len=items_max)
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        raise ProtocolError(f"a frame is not one msgpack value within the limits: {error}") from None
    if type(row) is not list or not row or type(row[0]) is not int:
        raise ProtocolError("a frame is not an array that begins with its kind")
    if row[0] not in table:
        raise ProtocolError(f"a frame of kind {row[0]} is not expected here", expected=f"one of {sorted(table)}")
    frame, checks = table[row[0]]
    fields = row[1 : 1 + len(checks)]
    if len(fields) < len(checks):
        raise ProtocolError(f"{frame.__name__} has {len(fields)} fields", expected=f"{len(checks)}")
    for check, value, name in zip(checks, fields, frame._fields, strict=True):
        if not check(value):
            raise ProtocolError(f"{name} of {frame.__name__} is not valid")
    return tuple.__new__(frame, fields)


class FrameReader:
    """Bytes as they arrive to frames.

    Args:
        table: the kinds that may come: FIRST and then FROM_CLIENT at the server, FROM_SERVER at the client. Settable.
        body_bytes_max: largest body; longer ones are refused by their length alone, before anything is buffered. Settable.
    """

    def __init__(self, table: Table, body_bytes_max: int = LENGTH_MAX) -> None:
        self.table = table
        self.body_bytes_max = body_bytes_max
        self.foreign: str | None = None  # the protocol that the other side speaks instead, where it is known
        self.over_limit = False  # a frame was refused for its length
        self._items_max = RESULT_ITEMS_MAX if table is FROM_SERVER else ITEMS_MAX
        self._data: bytes | bytearray = b""
        self._at = 0

    @property
    def expected_bytes(self) -> int:
        """Length of the frame that is not complete yet, as far as it is known; 0: none has begun."""
        rest = len(self._data) - self._at
        return 0 if rest < LENGTH.size else LENGTH.size + int(LENGTH.unpack_from(self._data, self._at)[0])

    def receive(self, data: bytes) -> None:
        """Take what the transport gave. Call `next_frame` until it gives None before the next `receive`."""
        if self._at == len(self._data):
            self._data = data
        elif type(self._data) is bytearray:
            del self._data[: self._at]
            self._data += data
        else:
            self._data = bytearray(memoryview(self._data)[self._at :])
            self._data += data
        self._at = 0

    def next_frame(self) -> Frame | None:
        """The next complete frame; None: more bytes are needed. Raises ProtocolError; the connection is over then."""
        data, at = self._data, self._at
        if len(data) - at < LENGTH.size:
            if at == len(data):
                self._data, self._at = b"", 0  # a large frame is not kept until the next one comes
            return None
        (length,) = LENGTH.unpack_from(data, at)
        if length > self.body_bytes_max:
            raise self._refusal(length)
        begin = at + LENGTH.size
        if len(data) - begin < length:
            return None
        self._at = begin + length
        with memoryview(data) as view, view[begin : self._at] as body:
            return decode(body, self.table, self._items_max)

    def _refusal(self, length: int) -> ProtocolError:
        head = bytes(self._data[self._at : self._at + 4])
        self.foreign = next((name for start, name in FOREIGN.items() if head.startswith(start)), None)
        if self.foreign is not None:
            return ProtocolError(
                f"the other side speaks {self.foreign}, not the walsvc protocol",
                expected="a HELLO frame",
                actual=repr(head),
                hint="this port is no other service's",
            )
        self.over_limit = True
        return ProtocolError(
            f"a frame of {length} bytes is over the limit",
            expected=f"at most {self.body_bytes_max}",
            hint="nothing of it was read; split it, or raise the server's frame_bytes",
        )
