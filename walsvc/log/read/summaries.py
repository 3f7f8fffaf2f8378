"""Seals of segments, as a reader uses them: which topics are in them, where to begin, and when their records were written.

The seal's place is in the header of the segment after it, so an answer costs two small reads, and none when it is asked
for again. Whatever is missing, damaged or out of place means "not known": the reader looks through the segment then.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from walsvc.disk.base import Disk
from walsvc.errors import Corruption, MissingKey, UnsupportedFormat, WrongKey
from walsvc.format.cipher import SegmentCipher, cipher_of
from walsvc.format.group import BadGroup, Flag, GroupHeader, check_group_body, decode_group_header, decode_meta
from walsvc.format.index import SegmentIndex
from walsvc.format.meta import decode_map
from walsvc.format.segment import segment_name
from walsvc.format.summary import Summary, decode_summary
from walsvc.keyring import Keys
from walsvc.log.read.stream import load_header

SEAL_READ_BYTES = 4096
ROWS_KEPT = 1 << 20  # of all seals together: 24 MB


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Seal:
    """The content of a segment's seal.

    Attributes:
        summary: the topics in it.
        index: where a reader may begin, and the times of its records.
        newest: the highest timestamp of all records of the log up to its end, or higher.

    None is what it does not say.
    """

    summary: Summary | None
    index: SegmentIndex | None
    newest: int | None


class Summaries:
    """A cache of seals, those used last."""

    def __init__(self, disk: Disk, keys: Keys = None) -> None:
        self._disk = disk
        self.keys = keys
        self._known: OrderedDict[int, Seal | None] = OrderedDict()
        self._rows = 0
        self.bytes_read: int = 0

    async def seal(self, segment: int, successor: int) -> Seal | None:
        """The seal of the segment with first LSN `segment`, or None where it is not known."""
        known = self._known
        if segment in known:
            known.move_to_end(segment)
            return known[segment]
        try:
            found = await self._read(segment, successor)
        except (BadGroup, Corruption, UnsupportedFormat, MissingKey, WrongKey, OSError, MemoryError):
            return None  # perhaps not written yet, or not to be read at present: look again next time
        if known is not self._known:
            return found  # forgotten meanwhile
        self._known[segment] = found
        self._rows += rows_of(found)
        while self._rows > ROWS_KEPT and len(self._known) > 1:
            self._rows -= rows_of(self._known.popitem(last=False)[1])
        return found

    async def _read(self, segment: int, successor: int) -> Seal | None:
        following, data = await load_header(self._disk, segment_name(successor), successor)
        self.bytes_read += len(data)
        if following.previous_end == 0:
            return None
        try:
            return await self._read_at(following.previous_end, following.log_id, segment, successor)
        except BadGroup:
            own, data = await load_header(self._disk, segment_name(segment), segment)
            self.bytes_read += len(data)
            if not own.seal_at:
                raise
            return await self._read_at(own.seal_at, following.log_id, segment, successor)  # it was compacted

    async def _read_at(self, offset: int, log_id: int, segment: int, successor: int) -> Seal:
        data = await self._disk.read(segment_name(segment), offset, SEAL_READ_BYTES)
        self.bytes_read += len(data)
        header = decode_group_header(data)
        expected = (log_id, segment, offset, successor)
        if not header.flags & Flag.SEAL or place_of(header) != expected:
            raise BadGroup("no seal of this segment stands where the next one says")
        if header.group_bytes > len(data):
            data = await self._disk.read(segment_name(segment), offset, header.group_bytes)
            self.bytes_read += len(data)
        if len(data) < header.group_bytes:
            raise BadGroup("the file ends inside the seal")
        cipher = await self._cipher(segment)
        check_group_body(header, data, encrypted=cipher is not None)
        opened = data if cipher is None else cipher.open_group(header, data)
        said = decode_map(decode_meta(header, opened))
        summary, index = said.get("summary"), said.get("index")
        return Seal(
            None if summary is None else decode_summary(summary),
            None if index is None else SegmentIndex.decode(index),
            said.get("newest"),
        )

    async def _cipher(self, segment: int) -> SegmentCipher | None:
        if self.keys is None:
            return None
        header, data = await load_header(self._disk, segment_name(segment), segment)
        self.bytes_read += len(data)
        return cipher_of(self.keys, header, self._disk.path)

    def forget(self) -> None:
        """Segments were removed at the log's end: others may come to bear their names."""
        self._known = OrderedDict()
        self._rows = 0


def rows_of(seal: Seal | None) -> int:
    """Bytes of the cache that a seal takes."""
    if seal is None:
        return 1
    topics = 0 if seal.summary is None else len(seal.summary.numbers)
    return 1 + topics + 2 * (0 if seal.index is None else len(seal.index))


def place_of(header: GroupHeader) -> tuple[int, int, int, int]:
    """Log, segment, offset and next LSN, which must be right in a seal besides its CRCs."""
    return header.log_id, header.segment, header.offset, header.next_lsn
