"""The service protocol: frames to bytes and back. Pure, no I/O (h11's way); docs/PROTOCOL.md is the specification.

    frame = u32 little-endian length of the body | body
    body  = one msgpack array: [kind, id, field, ...]

Lengths from 2^30 on are not valid; the two upper bits are kept for compressed bodies. Each kind has its fields in a fixed
order; a receiver ignores what stands behind those it knows, so a later version can add some. `id` is chosen by the client,
unique among its unanswered requests and streams; 0 is the connection itself.

What a client can make the server hold is bounded: the length is checked before the body is buffered, an array has at
most ITEMS_MAX elements, so that the 1,024 levels that msgpack nests at most cannot ask for more than 64 MiB of lists, and all arrays
and maps of a frame have at most ELEMENTS_MAX together.
The frames are in frames.py, records and errors as frames in columns.py and codes.py.
"""

from __future__ import annotations

import struct
from operator import call
from typing import Any

import msgpack

from walsvc.errors import ProtocolError
from walsvc.service.wire.frames import (
    FROM_SERVER,
    ITEMS_MAX,
    KINDS,
    OPTIONAL,
    RESULT_ITEMS_MAX,
    Frame,
    Table,
)

LENGTH = struct.Struct("<I")
LENGTH_MAX = (1 << 30) - 1
COPIED_MAX = 4096  # a shorter body is copied: two views cost more

FOREIGN: dict[bytes, str] = {
    b"GET ": "HTTP", b"HEAD": "HTTP", b"POST": "HTTP", b"PUT ": "HTTP", b"DELE": "HTTP", b"OPTI": "HTTP", b"CONN": "HTTP",
    b"PRI ": "HTTP/2", b"SSH-": "SSH", b"\x16\x03\x01": "TLS", b"\x16\x03\x03": "TLS", b"*1\r\n": "Redis", b"INFO": "NATS",
    b"HTTP": "HTTP", b"-ERR": "Redis",  # answers, to a client that has the wrong port
}  # fmt: skip

NUMBERS = {kind: number for kind, (number, _) in KINDS.items()}
COUNTED_BYTES = 64 * 1024  # of a body: in a smaller one nothing needs counting
ELEMENTS_MAX = 1 << 20  # of all arrays and maps of a frame together: each append of a transaction has five
_packer = msgpack.Packer(use_bin_type=True)


def encode(frame: Frame) -> bytes:
    """The bytes of a frame. Raises ProtocolError where it cannot be encoded, or would be longer than LENGTH_MAX."""
    kind = type(frame)
    row = [NUMBERS[kind], *frame]
    if kind in OPTIONAL:
        for _ in range(OPTIONAL[kind]):
            if row[-1] is not None:
                break
            row.pop()
    try:
        body = _packer.pack(row)
    except (TypeError, ValueError, OverflowError) as error:
        raise ProtocolError(f"a {type(frame).__name__} frame cannot be encoded: {error}") from None
    if len(body) > LENGTH_MAX:
        raise ProtocolError(f"a frame of {len(body)} bytes cannot be sent", expected=f"at most {LENGTH_MAX}")
    return LENGTH.pack(len(body)) + body  # type: ignore[no-any-return]


def decode(body: bytes | bytearray | memoryview, table: Table, items_max: int = ITEMS_MAX) -> Frame:
    """The frame in a body; only kinds in `table` are known. Raises ProtocolError."""
    counted = Counted() if items_max == ITEMS_MAX and len(body) > COUNTED_BYTES else None
    try:
        row = msgpack.unpackb(
            body,
            raw=False,
            strict_map_key=True,
            max_array_len=items_max,
            max_map_len=items_max,
            list_hook=counted,
            object_hook=counted,
        )
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        raise ProtocolError(f"a frame is not one msgpack value within the limits: {error}") from None
    if type(row) is not list or not row or type(row[0]) is not int:
        raise ProtocolError("a frame is not an array that begins with its kind")
    if row[0] not in table:
        raise ProtocolError(f"a frame of kind {row[0]} is not expected here", expected=f"one of {sorted(table)}")
    frame, checks = table[row[0]]
    fields, count = row[1 : 1 + len(checks)], len(checks)
    if len(fields) < count:
        fields += [None] * min(count - len(fields), OPTIONAL.get(frame, 0))
    if len(fields) < count:
        raise ProtocolError(f"{frame.__name__} has {len(fields)} fields", expected=f"{len(checks)}")
    if not all(map(call, checks, fields)):
        name = next(name for check, value, name in zip(checks, fields, frame._fields, strict=True) if not check(value))
        raise ProtocolError(f"{name} of {frame.__name__} is not valid")
    return tuple.__new__(frame, fields)


class Counted:
    """Counts the elements of a frame's arrays and maps, as each is complete: a byte of a frame can be an object of 64."""

    def __init__(self) -> None:
        self._left = ELEMENTS_MAX

    def __call__(self, value: Any) -> Any:
        self._left -= len(value) + 1
        if self._left < 0:
            raise ProtocolError(f"a frame has more than {ELEMENTS_MAX} elements in its arrays and maps")
        return value


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
        self.over_limit: bool = False  # a frame was refused for its length
        self.refused: bool = False  # that, or the other side speaks another protocol
        self.frame_bytes: int = 0  # of the last frame's body
        self.more: bool = False  # bytes are here that no frame was made of
        self._items_max = RESULT_ITEMS_MAX if table is FROM_SERVER else ITEMS_MAX
        self._data: bytes | bytearray = b""
        self._at = 0

    @property
    def expected_bytes(self) -> int:
        """Length of the frame that is not complete yet, as far as it is known; 0: none has begun."""
        rest = len(self._data) - self._at
        return 0 if rest < LENGTH.size else LENGTH.size + int(LENGTH.unpack_from(self._data, self._at)[0])

    @property
    def incomplete_bytes(self) -> int:
        """Bytes that have come of the frame that is not complete yet."""
        return len(self._data) - self._at

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
        self.more = True

    def next_frame(self) -> Frame | None:
        """The next complete frame; None: more bytes are needed. Raises ProtocolError; the connection is over then."""
        data, at = self._data, self._at
        size = len(data)
        if size - at < LENGTH.size:
            return None
        (length,) = LENGTH.unpack_from(data, at)
        if length > self.body_bytes_max:
            raise self._refusal(length)
        begin = at + LENGTH.size
        end = begin + length
        if size < end:
            return None
        self.frame_bytes = length
        if end == size:
            self._data, self._at, self.more = b"", 0, False  # a large frame is not kept until the next one comes
        else:
            self._at = end
        if length <= COPIED_MAX:
            return decode(data[begin:end], self.table, self._items_max)
        with memoryview(data) as view, view[begin:end] as body:
            return decode(body, self.table, self._items_max)

    def _refusal(self, length: int) -> ProtocolError:
        self.refused = True
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
