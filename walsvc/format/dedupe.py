"""The callers' own keys that the log remembers (`append(..., dedupe=key)`), and the records that they became.

A key's row goes into the metadata of the group that holds its record, so both are durable or neither is; a snapshot has the rows that
are still remembered, in the order in which they came. The key of the metadata begins with "!": a writer that does not know it would
drop the rows, and append twice what was to be there once.

    row    60 bytes, little-endian: topic u32, key 16 bytes, lsn u64, segment u64, offset u64, length u32, sync_us u32, time_ns u64
           topic, key   number of the topic, 0: of none; BLAKE2b-128 of the caller's key, so that a row's length does not depend on it
           lsn, segment, offset, length   where the record stands, as AppendResult says
           sync_us   of its group; 0 where the row was written with the record, before that was known
           time_ns   wall clock when the log was opened, or the time of the newest row before if that is later, and the time since by
                     the monotonic clock

A row is forgotten when its topic has `records` later ones, when it is older than `seconds`, or, the oldest of all first, when all
rows together have more than `bytes`.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from typing import ClassVar, NamedTuple

from walsvc.format.group import BadGroup

try:
    from _blake2 import blake2b  # as hashlib has it, which would load OpenSSL
except ImportError:  # an interpreter that keeps it elsewhere
    from hashlib import blake2b

KEY = "!dedupe"
ROW: struct.Struct = struct.Struct("<I16sQQQIIQ")
DEDUPE_BYTES: int = ROW.size + 32  # what a row adds to its group's metadata at most
BYTES_MAX: int = 64 << 20  # of all rows, whatever the options say


class KeyRow(NamedTuple):
    """The place of a key's record; see the head of this file."""

    lsn: int
    segment: int
    offset: int
    length: int
    sync_us: int
    time_ns: int


def digest_of(key: str) -> bytes:
    """The digest that stands for a caller's key."""
    return blake2b(key.encode(), digest_size=16).digest()


class Keys:
    """The rows of one log, by topic and key, oldest first."""

    def __init__(self) -> None:
        self._rows: OrderedDict[tuple[int, bytes], bytes] = OrderedDict()  # packed: a snapshot joins them
        self._topics: dict[int, OrderedDict[bytes, None]] = {}
        self._records_max = 1 << 62
        self._seconds_max = float("inf")
        self._bytes_max = BYTES_MAX

    def __len__(self) -> int:
        return len(self._rows)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Keys) and self.encode() == other.encode()

    __hash__: ClassVar[None] = None  # type: ignore[assignment]

    @property
    def encoded_bytes(self) -> int:
        """Bytes of `encode`."""
        return len(self._rows) * ROW.size

    def limit(self, records: int, seconds: float, size: int) -> None:
        """For a writer: how much to remember. Without it everything that was found is kept, up to BYTES_MAX."""
        self._records_max, self._seconds_max, self._bytes_max = records, seconds, size
        for topic in list(self._topics):
            self._shorten(topic)

    @property
    def newest_ns(self) -> int:
        """Time of the key that came last; 0: there is none."""
        return self._time(next(reversed(self._rows))) if self._rows else 0

    # ---- asking

    def find(self, topic: int, key: bytes, now_ns: int) -> KeyRow | None:
        """The row of a key; None: it is not remembered."""
        packed = self._rows.get((topic, key))
        if packed is None:
            return None
        row = KeyRow(*ROW.unpack(packed)[2:])
        return None if now_ns - row.time_ns > self._seconds_max * 1e9 else row

    def remembers(self, topic: int, now_ns: int) -> bool:
        """True if any key of a topic is remembered."""
        keys = self._topics.get(topic)
        return keys is not None and self.find(topic, next(reversed(keys)), now_ns) is not None

    # ---- changing

    def note(self, topic: int, key: bytes, row: KeyRow) -> bytes:
        """A key's record was accepted; returns its row."""
        packed = ROW.pack(topic, key, *row)
        self._enter(topic, key, packed)
        return packed

    def _enter(self, topic: int, key: bytes, packed: bytes) -> None:
        self._rows.pop((topic, key), None)
        self._rows[topic, key] = packed
        keys = self._topics.setdefault(topic, OrderedDict())
        keys[key] = None
        keys.move_to_end(key)
        self._shorten(topic)

    def _shorten(self, topic: int) -> None:
        while len(self._topics.get(topic, ())) > self._records_max:
            self._drop(topic, next(iter(self._topics[topic])))
        newest = self.newest_ns
        while self._rows:
            oldest = next(iter(self._rows))
            late = newest - self._time(oldest) > self._seconds_max * 1e9
            if not late and self.encoded_bytes <= self._bytes_max:
                return
            self._drop(*oldest)

    def _time(self, place: tuple[int, bytes]) -> int:
        return int(ROW.unpack(self._rows[place])[-1])

    def _drop(self, topic: int, key: bytes) -> None:
        self._rows.pop((topic, key), None)
        keys = self._topics[topic]
        keys.pop(key, None)
        if not keys:
            del self._topics[topic]

    def settle(self, topic: int, key: bytes, sync_us: int) -> None:
        """The record of a key is durable: remember how long that took, as its own answer says."""
        packed = self._rows.get((topic, key))
        if packed is not None:
            number, digest, *place, _, time_ns = ROW.unpack(packed)
            self._rows[topic, key] = ROW.pack(number, digest, *place, min(sync_us, 0xFFFF_FFFF), time_ns)

    def cut(self, lsn: int) -> None:
        """The log ends with record `lsn` now: what has no record may be appended again."""
        for topic, key in [place for place, packed in self._rows.items() if ROW.unpack(packed)[2] > lsn]:
            self._drop(topic, key)

    def forget(self, topic: int) -> None:
        """A topic is gone."""
        for key in list(self._topics.get(topic, ())):
            self._drop(topic, key)

    def copy(self) -> Keys:
        """A copy that later changes of this one do not touch."""
        copy = Keys()
        copy._rows = self._rows.copy()
        copy._topics = {topic: keys.copy() for topic, keys in self._topics.items()}
        return copy

    # ---- bytes

    def encode(self) -> bytes:
        """All rows, for a snapshot."""
        return b"".join(self._rows.values())

    def apply(self, data: bytes) -> None:
        """Take note of encoded rows. Raises BadGroup if they are cut."""
        if len(data) % ROW.size:
            raise BadGroup("the rows of callers' keys are cut")
        for begin in range(0, len(data), ROW.size):
            packed = bytes(data[begin : begin + ROW.size])
            self._enter(int.from_bytes(packed[:4], "little"), packed[4:20], packed)
