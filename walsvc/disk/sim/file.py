"""A file of the simulated disk: its durable sectors, and the writes that are not durable yet.

A plain value: no loop, no faults, no random numbers of its own (callers hand in the coin); copies share their sectors
until one of them writes. The rules are in the head of walsvc/disk/sim/__init__.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

HASH_BYTES = 16
HASH_RANGE = 1 << 8 * HASH_BYTES
ZEROS = {sector: bytes(sector) for sector in (512, 4096)}  # disks have sectors of 512 or 4096 bytes
Coin = Callable[[], bool]
Fragment = tuple[int, int, bytes]
"""One sector's share of one write: number of the write, first byte within the sector, the bytes."""


class UnsyncedWrite(NamedTuple):
    """Range of a write in bytes, [offset, end). `zeros`: the written zeros of a new file, which need no fragments."""

    offset: int
    end: int
    zeros: bool = False


class SimFile:
    """One inode. Sectors that are absent are zeros, so a prepared segment costs nothing.

    Attributes:
        durable: sector index to its bytes on stable storage. Shared with forks: replaced, not changed, when `shared`.
        size: durable size in bytes.
        pending: sector index to the fragments that are not known to be durable, in order of writing.
        writes: the writes that `pending` belongs to, by number.
        in_flight: numbers of the writes that are not yet visible to readers; they never overlap each other.
        lost: numbers of the writes whose pages a failed sync marked clean: visible, but no sync will save them.
    """

    __slots__ = ("_content", "durable", "in_flight", "lost", "pending", "sector", "shared", "size", "writes", "zeros")

    def __init__(self, sector: int) -> None:
        self.sector: int = sector
        self.zeros: bytes = ZEROS[sector]
        self.durable: dict[int, bytes] = {}
        self.size: int = 0
        self.pending: dict[int, tuple[Fragment, ...]] = {}
        self.writes: dict[int, UnsyncedWrite] = {}
        self.in_flight: set[int] = set()
        self.lost: set[int] = set()
        self.shared: bool = False
        self._content = 0  # sum of the durable sectors' hashes, kept up with every change

    # ---- writing
    def begin(self, number: int, offset: int, data: bytes) -> None:
        """A write is on its way: from now on a crash may keep any of its sectors."""
        end = offset + len(data)
        for other in self.in_flight:
            write = self.writes[other]
            assert end <= write.offset or write.end <= offset, "writes in flight overlap: their order is undefined"
        self.writes[number] = write = UnsyncedWrite(offset, end)
        self.in_flight.add(number)
        for index in self._sectors(write):
            base = index * self.sector
            low, high = max(offset, base), min(end, base + self.sector)
            fragment = (number, low - base, data[low - offset : high - offset])
            self.pending[index] = (*self.pending.get(index, ()), fragment)

    def extend(self, number: int, end: int) -> None:
        """Written, unsynced zeros from the visible end of a new file up to `end`."""
        self.writes[number] = UnsyncedWrite(self.visible_size, end, zeros=True)

    def land(self, number: int) -> None:
        """The write completed: readers see it, a sync that begins now covers it."""
        self.in_flight.discard(number)

    def abandon(self, number: int, coin: Coin) -> None:
        """The write failed: each of its sectors stays, unsynced, where `coin` says so."""
        write = self.writes.pop(number)
        self.in_flight.discard(number)
        kept = [index for index in self._sectors(write) if coin()]
        self._drop(number, set(self._sectors(write)).difference(kept))
        if kept:
            base = kept[-1] * self.sector
            self.writes[number] = UnsyncedWrite(
                max(write.offset, kept[0] * self.sector), min(write.end, base + self.sector)
            )

    def forget(self, number: int) -> None:
        """The write never happened."""
        self.abandon(number, lambda: False)

    # ---- syncing
    def landed(self) -> list[int]:
        """Numbers of the writes that a sync beginning now covers."""
        return [number for number in self.writes if number not in self.in_flight]

    def commit(self, numbers: Iterable[int]) -> None:
        """These writes are durable. A sector goes out whole: with what older, visible writes had put into it."""
        for number in sorted(numbers):
            write = self.writes.get(number)
            if write is None or number in self.lost:
                continue
            del self.writes[number]
            self.size = max(self.size, write.end)
            for index in self._sectors(write):
                fragments = self.pending.get(index, ())
                if len(fragments) == 1 and fragments[0][0] == number and number not in self.in_flight:
                    self._store(index, self._overlay(index, fragments))
                    del self.pending[index]
                    continue
                settled = [each for each in fragments if each[0] <= number and each[0] not in self.in_flight]
                if settled:
                    self._store(index, self._overlay(index, settled))
                    self._keep_pending(index, [each for each in fragments if each not in settled])

    def fail_sync(self, numbers: Iterable[int], cached: bool, coin: Coin) -> None:
        """A sync of these writes failed.

        With a page cache the pages are clean now: readers see them, no later sync writes them. Without one, the device
        dropped the sectors for which `coin` says no, and still holds the others.
        """
        present = [number for number in numbers if number in self.writes]
        if cached:
            self.lost.update(present)
            return
        for number in present:
            self._drop(number, [index for index in self._sectors(self.writes[number]) if not coin()])

    def drop_lost(self) -> None:
        """Clean pages leave the page cache; what a failed sync had left in them is seen no more."""
        for number in sorted(self.lost & set(self.writes)):
            self._drop(number, list(self._sectors(self.writes[number])))
            self.writes.pop(number, None)
        self.lost.clear()

    # ---- reading
    @property
    def visible_size(self) -> int:
        """Size in bytes as stat(2) gives it."""
        ends = [write.end for number, write in self.writes.items() if number not in self.in_flight]
        return max(self.size, *ends) if ends else self.size

    def read(self, offset: int, length: int, coin: Coin) -> bytes:
        """Visible bytes, shorter at the end. A sector in flight is old or new as `coin` says."""
        end = min(offset + length, self.visible_size)
        if end <= offset:
            return b""
        wanted = range(offset // self.sector, -(-end // self.sector))
        if not self.pending:
            start, zeros, get = wanted.start * self.sector, self.zeros, self.durable.get
            return b"".join([get(index, zeros) for index in wanted])[offset - start : end - start]
        result = bytearray(end - offset)
        present = self.durable.keys() | self.pending.keys()
        indices: Iterable[int] = wanted
        if len(present) < len(wanted):  # a large read of a sparse file; sorted, because the coin's order must be fixed
            indices = sorted(index for index in present if index in wanted)
        for index in indices:
            if index not in present:
                continue
            seen = [each for each in self.pending.get(index, ()) if each[0] not in self.in_flight or coin()]
            base = index * self.sector
            low, high = max(offset, base), min(end, base + self.sector)
            result[low - offset : high - offset] = self._overlay(index, seen)[low - base : high - base]
        return bytes(result)

    def flip(self, offset: int, bit: int) -> None:
        """Invert one bit of the byte at `offset`, in the durable sector and wherever an unsynced write covers it."""
        index, place = divmod(offset, self.sector)
        self._store(index, flipped(self._overlay(index, ()), place, bit))
        fragments = self.pending.get(index)
        if fragments:
            self.pending[index] = tuple(
                (number, start, flipped(data, place - start, bit) if start <= place < start + len(data) else data)
                for number, start, data in fragments
            )

    # ---- copies
    def fork(self) -> SimFile:
        """A copy that costs the unsynced part only."""
        copy = self._durable_copy()
        copy.pending = dict(self.pending)
        copy.writes = dict(self.writes)
        copy.in_flight = set(self.in_flight)
        copy.lost = set(self.lost)
        return copy

    def after_crash(self, keep: Callable[[int, int], bool], size: int, garbage: Mapping[int, bytes]) -> SimFile:
        """The file as the next boot finds it.

        Args:
            keep: keep(number of the write, sector index): whether that sector of that write reached the disk.
            size: size in bytes; what lies beyond is gone.
            garbage: sector index to bytes of the sectors that the power cut turned into noise.
        """
        image = self._durable_copy()
        contents = {}
        for index in sorted(self.pending):
            kept = [each for each in self.pending[index] if keep(each[0], index)]
            if kept:
                contents[index] = self._overlay(index, kept)
        contents.update(garbage)
        for index, data in contents.items():
            inside = min(max(size - index * self.sector, 0), self.sector)
            image._store(index, data[:inside].ljust(self.sector, b"\0"))  # noqa: SLF001 - another file of its kind
        image.size = size
        return image

    def digest(self) -> bytes:
        """Hash of size and durable contents, the same in every process."""
        return self.size.to_bytes(8, "little") + (self._content % HASH_RANGE).to_bytes(HASH_BYTES, "little")

    def _durable_copy(self) -> SimFile:
        copy = SimFile(self.sector)
        copy.durable = self.durable
        copy.size = self.size
        copy._content = self._content
        self.shared = copy.shared = True
        return copy

    def _sectors(self, write: UnsyncedWrite) -> range:
        if write.zeros:
            return range(0)
        return range(write.offset // self.sector, -(-write.end // self.sector))

    def _overlay(self, index: int, fragments: Collection[Fragment]) -> bytes:
        content = self.durable.get(index) or self.zeros
        for _, start, data in fragments:
            content = data if len(data) == self.sector else content[:start] + data + content[start + len(data) :]
        return content

    def _store(self, index: int, data: bytes) -> None:
        if self.shared:
            self.durable = dict(self.durable)
            self.shared = False
        if index in self.durable:
            self._content -= sector_hash(index, self.durable.pop(index))
        if data != self.zeros:
            self.durable[index] = data
            self._content += sector_hash(index, data)

    def _drop(self, number: int, indices: Iterable[int]) -> None:
        for index in indices:
            self._keep_pending(index, [each for each in self.pending.get(index, ()) if each[0] != number])

    def _keep_pending(self, index: int, fragments: Collection[Fragment]) -> None:
        if fragments:
            self.pending[index] = tuple(fragments)
        else:
            self.pending.pop(index, None)


@lru_cache(1 << 16)
def sector_hash(index: int, data: bytes) -> int:
    """A number for these bytes at this place. Sums of such numbers tell sets of sectors apart (AdHash, Bellare and
    Micciancio 1997), and change with one sector without a look at the others."""
    return int.from_bytes(
        hashlib.blake2b(data, digest_size=HASH_BYTES, key=index.to_bytes(8, "little")).digest(), "little"
    )


def flipped(data: bytes, place: int, bit: int) -> bytes:
    """`data` with bit `bit` (0 to 7) of the byte at `place` inverted."""
    return data[:place] + bytes((data[place] ^ (1 << bit),)) + data[place + 1 :]
