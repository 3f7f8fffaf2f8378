"""Reading one topic: segments without it are skipped by their summaries, large groups without it by their topic columns."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from functools import partial
from itertools import compress

from crc32c import crc32c

from walsvc.config import KIB, MIB
from walsvc.disk.base import Disk
from walsvc.format.chain import Chain, Need
from walsvc.format.group import (
    GROUP_HEADER_BYTES,
    BadGroup,
    Flag,
    GroupHeader,
    decode_columns,
    decode_meta,
    decode_topics,
)
from walsvc.format.meta import Summary, decode_column, decode_map
from walsvc.log.reader import Cursor, Segments, decode_records
from walsvc.log.stream import GroupStream, RawGroup, open_stream
from walsvc.model import Record

CHUNK_BYTES_MIN = 64 * KIB  # read at a time while passing over groups
CHUNK_BYTES_MAX = 1 * MIB  # and while taking one after the other


class TopicStream(GroupStream):
    """A segment's groups in order, those without a topic passed over."""

    def __init__(self, disk: Disk, name: str, chain: Chain, number: int) -> None:
        super().__init__(disk, name, chain, CHUNK_BYTES_MIN)
        self._number = number

    async def step(self) -> RawGroup | None:
        """Step behind the next group. None if it has nothing of the topic; then its payload was read only if it lay on
        the way. Raises BadGroup and OSError as `next` does."""
        header = await self._look(self.chain.peek)
        beyond = header.end - self._base - len(self._data)  # bytes of it that are yet to be read
        if beyond > 0 and (
            not header.flags & Flag.TOPICS or (beyond > CHUNK_BYTES_MIN and not await self._in_column(header))
        ):
            self.chain.pass_over(header)
            self._chunk_bytes = CHUNK_BYTES_MIN
            return None
        await self._look(self.chain.take)
        raw = RawGroup(header, self._data, header.offset - self._base)
        if not header.flags & Flag.TOPICS:
            return None
        topics = decode_columns(*raw).topics
        if topics is None or self._number not in topics:
            return None
        self._chunk_bytes = min(2 * self._chunk_bytes, CHUNK_BYTES_MAX)
        return raw

    async def _look(self, look: Callable[[bytes, int], GroupHeader | Need]) -> GroupHeader:
        """What `look` finds in the buffer, after reading as much as it needs. What was read ahead of the writer is read
        afresh before it counts as bad."""
        fresh = False
        while True:
            try:
                found = look(self._data, self._base) if self._data else Need(GROUP_HEADER_BYTES)
            except BadGroup:
                if fresh:
                    self._data = b""
                    raise
                found = Need(GROUP_HEADER_BYTES)
            if isinstance(found, GroupHeader):
                return found
            self._base = self.chain.offset
            length = min(max(found.length, self._chunk_bytes), self.chain.file_bytes - self._base)
            self._data = await self.disk.read(self.name, self._base, length)
            self.bytes_read += len(self._data)
            fresh = True
            if len(self._data) < found.length:
                self._data = b""
                raise BadGroup("the file ends inside a group")

    async def _in_column(self, header: GroupHeader) -> bool:
        """Whether the topic is in the group's column, which is read alone, and checked by its CRC."""
        start = header.offset + GROUP_HEADER_BYTES + header.payload_bytes
        rest = await self.disk.read(self.name, start, header.end - start)
        self.bytes_read += len(rest)
        if len(rest) < header.end - start or crc32c(rest) != header.rest_crc:
            raise BadGroup("the CRC of index, metadata and padding is wrong")
        return self._number in decode_topics(header, rest)


class TopicCursor(Cursor):
    """A position in one topic of a log.

    Attributes:
        bytes_read: from the disk so far.
    """

    def __init__(self, disk: Disk, segments: Segments, start: int, number: int) -> None:
        super().__init__(disk, segments, start)
        self._number = number
        self._passed_bytes = 0

    @property
    def bytes_read(self) -> int:
        """Bytes read from the disk so far, summaries included."""
        return self._passed_bytes + (0 if self._stream is None else self._stream.bytes_read)

    def _leave(self) -> None:
        self._passed_bytes, self._stream = self.bytes_read, None

    async def _take(self, limit: int) -> list[Record]:
        while self.next_lsn < limit:
            if self._epoch != self._segments.epoch:
                self._leave()
                self._epoch = self._segments.epoch
            if self._stream is None and (skip := await self._skip()) is not None:
                self.next_lsn = min(skip, limit)
                continue
            if self._stream is None:
                self._stream = await self._guarded(self._open)
            stream, chain = self._stream, self._stream.chain
            assert isinstance(stream, TopicStream)
            end = self._segment_end(chain.segment)
            if end is not None and chain.next_lsn >= end:
                self._leave()
                self.next_lsn = max(self.next_lsn, end)
                continue
            first = chain.next_lsn
            raw = await self._guarded(stream.step)
            local_limit = limit if end is None else min(limit, end)
            start, self.next_lsn = self.next_lsn, max(self.next_lsn, min(chain.next_lsn, local_limit))
            if chain.next_lsn > local_limit:
                self._leave()  # a group was cut by truncate_after, or by `limit`: look up the place anew
            if raw is not None and (records := self._records(raw, max(start - first, 0), local_limit - first)):
                return records
        return []

    def _records(self, raw: RawGroup, begin: int, end: int) -> list[Record]:
        """The topic's records among those at index `begin` to `end` of the group."""
        topics = decode_columns(raw.header, raw.data, raw.at).topics
        assert topics is not None, "step() gives only groups with the topic"
        records = decode_records(raw, self._segments.topic_names)
        return list(compress(records[begin:end], map(self._number.__eq__, topics[begin:end])))

    async def _skip(self) -> int | None:
        """Where to go on when the segment at the position has nothing more of the topic; None: look into it."""
        if self.next_lsn < self._segments.first_lsn:
            return None  # opening it says Truncated
        ids = self._segments.segment_ids()
        place = bisect_right(ids, self.next_lsn) - 1
        if place < 0 or place + 1 == len(ids):
            return None
        segment, successor = ids[place], ids[place + 1]
        summaries = self._segments.summaries
        before = summaries.bytes_read
        summary = await summaries.of(segment, successor)
        self._passed_bytes += summaries.bytes_read - before
        if summary is None or last_in(summary, self._number) >= self.next_lsn:
            return None
        return successor

    async def _open(self) -> GroupStream:
        stream = await super()._open()
        return TopicStream(self._disk, stream.name, stream.chain, self._number)

    async def count_before(self) -> int:
        """How many records the topic ever had below the position, dropped ones included.

        Reads the opening snapshot of the segment at the position, and of the segment what lies below the position.
        """
        ids = self._segments.segment_ids()
        segment = ids[max(bisect_right(ids, self.next_lsn) - 1, 0)]
        return await self._guarded(partial(self._count_in, segment))

    async def _count_in(self, segment: int) -> int:
        name, file_bytes = self._segments.segment_file(segment)
        _, whole = await open_stream(self._disk, name, segment, file_bytes)
        self._stream = whole
        raw = await whole.next()
        counts = decode_column(decode_map(decode_meta(*raw)).get("counts", b""))
        count = counts[self._number - 1] if self._number <= len(counts) else 0
        stream = TopicStream(self._disk, name, whole.chain, self._number)
        self._stream = stream
        while stream.chain.next_lsn < self.next_lsn:
            first = stream.chain.next_lsn
            if (found := await stream.step()) is not None:
                topics = decode_columns(found.header, found.data, found.at).topics
                assert topics is not None, "step() gives only groups with the topic"
                count += topics[: self.next_lsn - first].count(self._number)
        self._leave()
        return count


def last_in(summary: Summary, number: int) -> int:
    """LSN of a topic's last record in a segment, 0 if there is none."""
    place = bisect_left(summary.numbers, number)
    there = place < len(summary.numbers) and summary.numbers[place] == number
    return summary.lasts[place] if there else 0
