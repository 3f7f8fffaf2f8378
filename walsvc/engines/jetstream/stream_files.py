"""Reading a stream's messages as the files that they make."""

from __future__ import annotations

import asyncio
import errno
from collections import OrderedDict
from collections.abc import Callable, Sequence

from walsvc.config import MIB
from walsvc.engines.jetstream.message import BadMessage, Kind, Message
from walsvc.engines.jetstream.segment_table import FilePart, Hole, Index, SegmentFile, SegmentTable, piece_of
from walsvc.engines.jetstream.stream import Stream
from walsvc.engines.jetstream.takeover import survey
from walsvc.format.segment import parse_name

CACHE_BYTES = 16 * MIB  # of bodies read or written lately: recovery reads what opening has read
INDEX_PIECES = 1 << 20  # in all indexes, at 32 bytes each; beyond that the ones not read for long are dropped, but for
INDEXES_MIN = 8  # segments


class Cache:
    """Bodies of messages, the latest used ones."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._bodies: OrderedDict[int, bytes] = OrderedDict()

    def get(self, sequence: int) -> bytes | None:
        """The body of a message, if it is here."""
        if sequence in self._bodies:
            self._bodies.move_to_end(sequence)
        return self._bodies.get(sequence)

    def put(self, sequence: int, body: bytes) -> None:
        """Keep a checked body."""
        if sequence not in self._bodies:
            self._used += len(body)
        self._bodies[sequence] = body
        while self._used > self._limit and len(self._bodies) > 1:
            _, dropped = self._bodies.popitem(last=False)
            self._used -= len(dropped)


class StreamFiles:
    """The segments' files in a stream.

    Attributes:
        directory: which there are.
        cache: bodies at hand.
    """

    def __init__(
        self,
        stream: Stream,
        directory: SegmentTable,
        last: int,
        *,
        follows: bool,
        busy: Callable[[SegmentFile], bool] = lambda _: False,
    ) -> None:
        """`last`: the last message that the directory knows; `follows`: somebody else writes, and is to be followed; `busy`:
        a segment may be written to, and must keep its index."""
        self.directory: SegmentTable = directory
        self.cache: Cache = Cache(CACHE_BYTES)
        self._stream = stream
        self._follows = follows
        self._busy = busy
        self._reads = 0
        self._last = last
        self._before: Message | None = None  # the message at `_last`, where it was seen
        self._indexing = asyncio.Lock()

    def file(self, name: str) -> SegmentFile:
        """A segment's file. Raises FileNotFoundError."""
        segment = parse_name(name, ".wal")
        if segment is None or segment not in self.directory.files:
            raise FileNotFoundError(errno.ENOENT, "there is no such file in the stream", name)
        return self.directory.files[segment]

    async def read(self, name: str, offset: int, length: int) -> bytes:
        """Bytes of a file; zeros where nothing was written. Ends before a place that is missing or damaged in the stream,
        and raises Corruption for it when it stands at `offset`."""
        file = self.file(name)
        if self._follows and (file.index is None or file.index.end[0] < offset + length):
            await self.refresh()
            file = self.file(name)
        self._reads += 1
        file.used = self._reads
        index = file.index or await self._edges(file, offset, offset + length) or await self.index(file)
        end = min(offset + length, file.file_bytes)
        hole, pieces = index.hole, index.between(offset, end)
        bodies, bad = await self._bodies(pieces)
        if bad is not None and (hole is None or bad.offset < hole.offset):
            hole = bad
        if hole is not None and hole.offset < end:
            if hole.offset <= offset:
                await self.refresh()
                self.file(name)  # a reader may find that the writer has removed it meanwhile
                raise self._stream.corruption(
                    hole.sequence, hole.reason, segment=file.first_lsn, offset=hole.offset, lsn=hole.lsn
                )
            end = hole.offset
        data = bytearray(max(end - offset, 0))
        for piece in pieces:
            if piece.offset >= end:
                break
            body = bodies.get(piece.sequence, b"")
            skip = max(offset - piece.offset, 0)
            at = piece.offset + skip - offset
            shown = body[skip : skip + max(end - piece.offset - skip, 0)]
            data[at : at + piece.length - skip] = shown.ljust(min(piece.length - skip, len(data) - at), b"\0")
        return bytes(data)

    async def _bodies(self, pieces: Sequence[FilePart]) -> tuple[dict[int, bytes], Hole | None]:
        """The bodies of these pieces by sequence, up to the first one that is missing or damaged."""
        bodies = {piece.sequence: body for piece in pieces if (body := self.cache.get(piece.sequence)) is not None}
        missing = [piece for piece in pieces if piece.sequence not in bodies]
        places = {piece.sequence: piece for piece in missing}
        while missing:
            run = [missing.pop(0)]
            while missing and missing[0].sequence == run[-1].sequence + 1:
                run.append(missing.pop(0))
            async for sequence, message in self._stream.scan(run[0].sequence, run[-1].sequence):
                piece = places[sequence]
                if isinstance(message, BadMessage):
                    before = [each.end_lsn for each in pieces if each.offset < piece.offset]
                    return bodies, Hole(piece.offset, sequence, before[-1] if before else 0, message.reason)
                bodies[sequence] = message.body
                self.cache.put(sequence, message.body)
        return bodies, None

    async def _edges(self, file: SegmentFile, start: int, end: int) -> Index | None:
        """An index of nothing but the first and the last write of a segment that is complete, where [start, end) is in one
        of them: opening looks at headers and seals, and has no need of what is between."""
        if file.first_lsn == max(self.directory.files):
            return None
        if file.edges is None:
            edges = Index()
            for sequence in (file.first_sequence, file.last_sequence):
                async for _, message in self._stream.scan(sequence, sequence):
                    if isinstance(message, BadMessage) or message.parts > 1 or message.kind != Kind.WRITE:
                        return None
                    self.cache.put(sequence, message.body)
                    edges.add(piece_of(message))
            file.edges = edges
        first, last = file.edges.lengths[0], file.edges.offsets[-1]
        return file.edges if end <= first or start >= last else None

    async def index(self, file: SegmentFile) -> Index:
        """The index of a segment's bytes."""
        async with self._indexing:
            index = file.index or await self._load_index(file)
            self.release()
            return index

    def release(self) -> None:
        """Drop indexes where they take much memory, first those that were not read for long."""
        held = [(file, file.index) for file in self.directory.files.values() if file.index is not None]
        pieces = sum(len(index.offsets) for _, index in held)
        held.sort(key=lambda each: (each[0].used, each[0].first_lsn))
        newest = max(self.directory.files, default=0)
        for file, index in held[:-INDEXES_MIN]:
            if pieces <= INDEX_PIECES:
                break
            if file.first_lsn != newest and not self._busy(file):
                pieces -= len(index.offsets)
                file.index = None

    async def _load_index(self, file: SegmentFile) -> Index:
        """Go through a segment's messages once, and remember it."""
        index, last = Index(), file.last_sequence
        bad: tuple[int, BadMessage] | None = None
        parts: tuple[Message, ...] = ()
        async for sequence, message in self._stream.scan(file.first_sequence, last):
            if isinstance(message, BadMessage):
                bad = bad or (sequence, message)
                continue
            if message.kind != Kind.WRITE or message.segment != file.first_lsn:
                continue
            self.cache.put(sequence, message.body)
            parts = (*parts, message) if message.part else (message,)
            if len(parts) < message.parts:
                continue
            if bad is not None and index.hole is None and parts[0].offset > index.end[0]:
                index.hole = Hole(*reversed_place(index, bad))
            for part in parts:
                index.add(piece_of(part))
        if bad is not None and index.hole is None and bad[0] == last:
            index.hole = Hole(*reversed_place(index, bad))
        if file.last_sequence > last:
            return await self._extend(file, index, last + 1)
        file.index = index
        return index

    async def _extend(self, file: SegmentFile, index: Index, first: int) -> Index:
        """The writes to a segment that came while its messages were gone through."""
        while first <= file.last_sequence:
            last = file.last_sequence
            async for _, message in self._stream.scan(first, last):
                if isinstance(message, Message) and message.kind == Kind.WRITE and message.segment == file.first_lsn:
                    index.add(piece_of(message))
            first = last + 1
        file.index = index
        return index

    async def refresh(self) -> None:
        """Reading beside a writer elsewhere: take what it has published since."""
        if not self._follows:
            return
        async with self._indexing:
            first, last = await self._stream.extent()
            if first <= self._last + 1 and await self._follow(last):
                self.release()
                return
            # what was published since is purged in part, so a newer directory is there
            self.directory, _, self._last = await survey(self._stream)
            self._before = None

    async def _follow(self, last: int) -> bool:
        """Take the messages up to `last`; False where one was purged meanwhile."""
        async for sequence, message in self._stream.scan(self._last + 1, last, self._before):
            try:
                if isinstance(message, BadMessage):
                    raise message
                self.directory.apply(message)
            except BadMessage as error:
                first, _ = await self._stream.extent()
                if first > sequence:
                    return False
                raise self._stream.bad(sequence, error) from None
            self.cache.put(sequence, message.body)
            self._last, self._before = sequence, message
        return True


def reversed_place(index: Index, bad: tuple[int, BadMessage]) -> tuple[int, int, int, str]:
    """The fields of the hole behind an index's end."""
    offset, lsn = index.end
    return offset, bad[0], lsn, bad[1].reason
