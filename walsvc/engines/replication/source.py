"""A log's groups in order, as they are on disk, each once it is durable: what is shipped to the replica.

Groups are checked on the way and never decoded further, so no key is needed for an encrypted log. A group of an unfinished
batch is not durable, and so nothing of a batch is given out before its end is on stable storage: what was given up later
has never been shipped. A segment's seal comes after the beginning of the next segment, as in the log itself: at no time
does what was given out end with a seal whose successor is missing.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, NamedTuple

from walsvc.config import KIB
from walsvc.errors import Corruption
from walsvc.format.chain import Chain, Need, UnfinishedBatch
from walsvc.format.group import GROUP_HEADER_BYTES, BadGroup, Flag, GroupHeader
from walsvc.format.segment import segment_name
from walsvc.log.commit.catalog import Mark
from walsvc.log.read.stream import load_header

if TYPE_CHECKING:
    from walsvc.api import Log

PIECE_BYTES = 256 * KIB  # three nodes on loopback took 2 ms for such a message, 25 ms for one of 1 MiB


class Moved(Exception):
    """The groups to be read next are gone: the log was truncated meanwhile."""


class Shipment(NamedTuple):
    """Whole groups of one segment, one behind the other; at offset 0 the segment's header stands before them.

    Attributes:
        segment: its first LSN.
        file_bytes: length of its file.
        ordinal: its number.
        offset, end: where the groups stand in the file.
        data: the bytes.
        lsn: every record up to it is whole once these groups are there: of an unfinished batch none is.
        mark: of their end.
    """

    segment: int
    file_bytes: int
    ordinal: int
    offset: int
    end: int
    data: bytes
    lsn: int
    mark: Mark


class GroupSource:
    """Reads a log behind its writer. Begin with `begin` or `go_on`, then call `next` again and again."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._disk = log.writer.segments.disk
        self._writer = log.writer
        self._chain: Chain | None = None
        self._following = 0  # the segment to begin when there is no chain
        self._ordinal = 0
        self._replacements = 0
        self.lsn: int = 0  # all up to it is whole with what was given out
        self._head = b""  # of the segment, until its first groups have been given out
        self._seal: Shipment | None = None

    @property
    def mark(self) -> Mark:
        """Up to where everything was given out."""
        if self._chain is None or self._head:
            return Mark(self._replacements, self._following if self._chain is None else self._chain.segment, 0)
        return Mark(self._replacements, self._chain.segment, self._chain.offset)

    def begin(self, segment: int, lsn: int) -> None:
        """Give out everything from the beginning of `segment` on. What lies before is whole up to `lsn`."""
        self._chain, self._following, self.lsn, self._seal, self._head = None, segment, lsn, None, b""

    async def go_on(self, last: GroupHeader, unsealed: GroupHeader | None = None) -> None:
        """Give out what follows the group `last`. `unsealed`: the last group of the segment before, if that is no seal."""
        self._seal = None
        if unsealed is not None:
            await self._stand_behind(unsealed)
            assert self._chain is not None, "it stands behind a group"
            await self._read(self._chain, self._chain.file_bytes, last.segment)
        behind = [each for each in self._writer.view.ids if each > last.segment]
        # a cut may be between
        self.lsn = min([whole_lsn(last, last.first_lsn - 1), *(each - 1 for each in behind[:1])])
        await self._stand_behind(last)

    async def _stand_behind(self, last: GroupHeader) -> None:
        self._replacements = self._writer.view.replacements
        header, _ = await load_header(self._disk, segment_name(last.segment), last.segment)
        self._head, self._ordinal = b"", header.ordinal
        unfinished = last.batch_lsn and not last.flags & Flag.BATCH_END
        self._chain = Chain(
            log_id=header.log_id,
            segment=header.first_lsn,
            align=header.align,
            file_bytes=header.file_bytes,
            generation=last.generation,
            offset=last.end,
            next_lsn=last.next_lsn,
            previous_crc=last.header_crc,
            batch=UnfinishedBatch(last.batch_lsn, 0, 0, 0) if unfinished else None,
        )

    async def next(self) -> Shipment | None:
        """The next groups, about PIECE_BYTES unless one alone is larger; None when nothing more is durable.

        Raises:
            Moved: the log was truncated; see where it goes on. Corruption: what was durable is damaged. OSError: reading.
        """
        while True:
            segment, end = self._writer.view.place
            chain = self._chain or await self._begin_segment(self._following)
            if chain.segment not in self._writer.view.sizes:
                raise Moved
            if self._replacements != self._writer.view.replacements and chain.next_lsn == chain.segment:
                chain = await self._begin_segment(chain.segment)  # it had no records, and may be another file now
            following = None
            if chain.segment != segment:
                await self._writer.core.pipeline.rotation.ended()  # only then has the segment its seal
                following = self._next_segment(chain.segment)
                end = chain.file_bytes
            if self._seal is not None and not self._head:
                return self._give_seal()
            if (piece := await self._read(chain, end, following)) is not None:
                return piece
            if following is None:
                return None
            self._following, self._chain = following, None

    def _next_segment(self, segment: int) -> int:
        """The segment behind one that is not the active one."""
        ids = self._writer.view.ids
        place = bisect_right(ids, segment)
        if place == 0 or ids[place - 1] != segment or place == len(ids):
            raise Moved
        return ids[place]

    async def _begin_segment(self, first: int) -> Chain:
        if first not in self._writer.view.sizes:
            raise Moved
        self._replacements = self._writer.view.replacements
        header, head = await load_header(self._disk, segment_name(first), first)
        self._head, self._ordinal = head.ljust(header.data_start, b"\0"), header.ordinal
        if header.previous_end == 0:
            self.lsn = first - 1  # truncate_after may have cut inside a batch, whose end never comes
        self._chain = chain = Chain.begin(header, head, header.file_bytes)
        return chain

    async def _read(self, chain: Chain, end: int, following: int | None) -> Shipment | None:
        """The next groups of this segment; None at its end, where a seal is kept."""
        base, length, data = chain.offset, PIECE_BYTES, b""
        while True:
            if base >= end:
                taken = 0
                break
            data = await self._disk.read(segment_name(chain.segment), base, min(length, end - base))
            taken, need = self._take_all(chain, data, base, following)
            if not need:
                break
            if len(data) >= end - base:
                raise self._damage(chain, "the file ends inside a group")
            length = need
        if not taken:
            return None
        offset = 0 if self._head else base
        piece = self._piece(chain, offset, base + taken, self._head + data[:taken])
        self._head = b""
        return piece

    def _take_all(self, chain: Chain, data: bytes, base: int, following: int | None) -> tuple[int, int]:
        """Step behind all whole groups in `data`, a seal excepted; returns their length, and how much is needed where there
        is none."""
        while (at := chain.offset - base) < len(data):
            try:
                taken = chain.peek(data, base)
                if isinstance(taken, GroupHeader):
                    if following is not None and taken.records and taken.first_lsn >= following:
                        break  # dropped by truncate_after
                    if taken.flags & Flag.SEAL and at:
                        break
                    taken = chain.take(data, base)
            except BadGroup as error:
                if following is not None and chain.next_lsn >= following:
                    break  # truncate_after began the next segment, and no seal was written
                raise self._damage(chain, error.reason) from None
            if isinstance(taken, Need):
                return at, 0 if at else taken.length
            if taken.flags & Flag.SEAL:
                self._seal = self._piece(chain, taken.offset, taken.end, data[: taken.group_bytes])
                return 0, 0
            self.lsn = whole_lsn(taken, self.lsn)
            if following is not None:
                self.lsn = min(self.lsn, following - 1)
        return chain.offset - base, 0

    def _give_seal(self) -> Shipment | None:
        """The seal of the segment before, once this one's beginning has been given out."""
        seal, self._seal = self._seal, None
        return None if seal is None else seal._replace(lsn=self.lsn)

    def _piece(self, chain: Chain, offset: int, end: int, data: bytes) -> Shipment:
        mark = Mark(self._replacements, chain.segment, end)
        return Shipment(chain.segment, chain.file_bytes, self._ordinal, offset, end, data, self.lsn, mark)

    def _damage(self, chain: Chain, reason: str) -> Corruption:
        hint = "the log is damaged here; nothing of it was replicated from there on. See `walsvc verify`"
        return chain.damage(self._disk.path, reason, hint)


def whole_lsn(header: GroupHeader, before: int) -> int:
    """Up to which LSN all is whole behind this group, if it was so up to `before` ahead of it."""
    if header.batch_lsn and not header.flags & Flag.BATCH_END:
        return min(before, header.batch_lsn - 1)
    return header.next_lsn - 1 if header.records else before


async def read_header(log: Log, like: GroupHeader) -> bytes:
    """The bytes of the log where the header of a group like this one must stand."""
    return await log.writer.segments.disk.read(segment_name(like.segment), like.offset, GROUP_HEADER_BYTES)
