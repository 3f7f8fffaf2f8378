"""Which topics a sealed segment holds, from the summary in its seal: what lets a reader of one topic skip segments.

The seal's place is in the header of the segment after it, so an answer costs two small reads, and none when it is asked
for again. Whatever is missing, damaged or out of place means "not known": the reader looks through the segment then.
"""

from __future__ import annotations

from collections import OrderedDict

from walsvc.disk.base import Disk
from walsvc.errors import Corruption, UnsupportedFormat
from walsvc.format.group import BadGroup, Flag, GroupHeader, check_group_body, decode_group_header, decode_meta
from walsvc.format.meta import Summary, decode_map, decode_summary
from walsvc.format.segment import segment_name
from walsvc.log.stream import load_header

SEAL_READ_BYTES = 4096
ROWS_KEPT = 1 << 20  # of all summaries together: 24 MB


class Summaries:
    """A cache of summaries, those used last."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._known: OrderedDict[int, Summary | None] = OrderedDict()
        self._rows = 0
        self.bytes_read = 0

    async def of(self, segment: int, successor: int) -> Summary | None:
        """The summary of the segment with first LSN `segment`, or None where it is not known."""
        if segment in self._known:
            self._known.move_to_end(segment)
            return self._known[segment]
        try:
            found = await self._read(segment, successor)
        except (BadGroup, Corruption, UnsupportedFormat, OSError):
            return None  # perhaps not written yet: look again next time
        self._known[segment] = found
        self._rows += rows_of(found)
        while self._rows > ROWS_KEPT and len(self._known) > 1:
            self._rows -= rows_of(self._known.popitem(last=False)[1])
        return found

    async def _read(self, segment: int, successor: int) -> Summary | None:
        following, data = await load_header(self._disk, segment_name(successor), successor)
        self.bytes_read += len(data)
        if following.previous_end == 0:
            return None
        data = await self._disk.read(segment_name(segment), following.previous_end, SEAL_READ_BYTES)
        self.bytes_read += len(data)
        header = decode_group_header(data)
        expected = (following.log_id, segment, following.previous_end, successor)
        if not header.flags & Flag.SEAL or place_of(header) != expected:
            raise BadGroup("no seal of this segment stands where the next one says")
        if header.group_bytes > len(data):
            data = await self._disk.read(segment_name(segment), following.previous_end, header.group_bytes)
            self.bytes_read += len(data)
        if len(data) < header.group_bytes:
            raise BadGroup("the file ends inside the seal")
        check_group_body(header, data)
        summary = decode_map(decode_meta(header, data)).get("summary")
        return None if summary is None else decode_summary(summary)

    def forget(self) -> None:
        """Segments were removed at the log's end: others may come to bear their names."""
        self._known.clear()
        self._rows = 0


def rows_of(summary: Summary | None) -> int:
    """How many topics a summary names."""
    return 1 if summary is None else 1 + len(summary.numbers)


def place_of(header: GroupHeader) -> tuple[int, int, int, int]:
    """What must be right of a seal besides its CRCs."""
    return header.log_id, header.segment, header.offset, header.next_lsn
