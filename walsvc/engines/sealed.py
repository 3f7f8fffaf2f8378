"""Sealed segments of a log as bytes to be copied elsewhere: their groups are checked on the way, and nothing else is copied.

Groups are taken as they are on disk, so no key is needed for an encrypted segment.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from walsvc.errors import Corruption
from walsvc.format.chain import Chain
from walsvc.format.group import BadGroup, Flag, GroupHeader
from walsvc.format.segment import SegmentHeader
from walsvc.log.reader import read_failed
from walsvc.log.stream import GroupStream, load_header

if TYPE_CHECKING:
    from walsvc.api import Log
    from walsvc.disk.base import Disk
    from walsvc.log.readonly import ReadOnlyLog


@dataclass(slots=True)
class Sealed:
    """A segment to which nothing is written any more.

    Attributes:
        disk, name, header, head: its file, and the bytes of its header.
        next_lsn: first LSN of the segment after it.
        used_bytes: from the header to the last group; first_ns, last_ns: wall clock of its first and last group. All
            three are known when `pieces` has ended.
    """

    disk: Disk
    name: str
    header: SegmentHeader
    head: bytes
    next_lsn: int
    used_bytes: int = 0
    first_ns: int = 0
    last_ns: int = 0

    @property
    def first_lsn(self) -> int:
        """LSN of its first record."""
        return self.header.first_lsn

    async def pieces(self, piece_bytes: int) -> AsyncIterator[bytes]:
        """The bytes in use, in pieces of `piece_bytes`, the last one shorter.

        Raises:
            Corruption: the segment ends before the next one begins. PathError: reading failed.
        """
        stream = GroupStream(self.disk, self.name, Chain.begin(self.header, self.head, self.header.file_bytes))
        piece = bytearray(self.head.ljust(self.header.data_start, b"\0"))
        self.used_bytes = self.first_ns = self.last_ns = 0
        ended = False
        while not ended:
            try:
                raw = await stream.next()
            except BadGroup as error:
                if stream.chain.next_lsn >= self.next_lsn:
                    break  # truncate_after began the next segment, and no seal was written
                raise self._damage(error.reason, stream.chain) from None
            except OSError as error:
                raise read_failed(self.disk, error, lsn=stream.chain.next_lsn) from error
            header = raw.header
            if header.records and header.first_lsn >= self.next_lsn:
                break  # dropped by truncate_after
            piece += memoryview(raw.data)[raw.at : raw.at + header.group_bytes]
            self._note(header)
            ended = bool(header.flags & Flag.SEAL)
            while len(piece) >= piece_bytes:
                yield bytes(memoryview(piece)[:piece_bytes])
                del piece[:piece_bytes]
        if piece:
            yield bytes(piece)

    def _note(self, header: GroupHeader) -> None:
        self.used_bytes = header.end
        self.first_ns = self.first_ns or header.timestamp_ns
        self.last_ns = header.timestamp_ns

    def _damage(self, reason: str, chain: Chain) -> Corruption:
        return Corruption(
            reason,
            path=self.disk.path,
            segment=self.first_lsn,
            offset=chain.offset,
            lsn=chain.next_lsn,
            hint="the segment was not archived; see `walsvc verify`",
        )


async def sealed_segments(log: Log | ReadOnlyLog) -> list[Sealed]:
    """All segments of the log but the active one, ascending."""
    from walsvc.api import Log

    if isinstance(log, Log):
        await log.writer._rotation_ended()  # only then has the last one its seal
    ids = list(log.segment_ids())
    found = []
    for first, following in pairwise(ids):
        name, _ = log.segment_file(first)
        header, head = await load_header(log._disk, name, first)
        found.append(Sealed(log._disk, name, header, head, following))
    return found
