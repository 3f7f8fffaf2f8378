"""Groups of one segment, read in large pieces and checked one by one. Recovery, readers and inspection share it."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from walsvc.config import KIB, MIB
from walsvc.disk.base import Disk
from walsvc.errors import Corruption, UnsupportedFormat
from walsvc.format.chain import Chain, later_evidence
from walsvc.format.group import GROUP_HEADER_BYTES, BadGroup, GroupHeader
from walsvc.format.segment import SEGMENT_HEADER_BYTES, BadSegment, SegmentHeader, decode_segment_header

CHUNK_BYTES = 2 * MIB
FIRST_CHUNK_BYTES = 256 * KIB  # pieces double from here: who reads a few records does not pay for megabytes


class RawGroup(NamedTuple):
    """A checked group: its header, and the buffer in which it stands at `at`."""

    header: GroupHeader
    data: bytes
    at: int


class GroupStream:
    """Reads a segment's groups in order; while one piece is checked, the next one is on its way.

    `chain` says where it stands. The file may be written meanwhile: what was read ahead is believed only as far as it is
    valid. Where it is not, that place is read afresh before it counts as the end, and again at the next call.
    """

    def __init__(self, disk: Disk, name: str, chain: Chain, chunk_bytes: int = CHUNK_BYTES) -> None:
        self.disk = disk
        self.name = name
        self.chain = chain
        self.bytes_read = 0
        self._chunk_bytes = chunk_bytes
        self._forget()

    def _forget(self) -> None:
        """Believe nothing that was read so far."""
        self._data = b""
        self._base = self.chain.offset
        self._piece_bytes = min(FIRST_CHUNK_BYTES, self._chunk_bytes)
        self._ahead: asyncio.Task[bytes] | None = None

    async def next(self) -> RawGroup:
        """The next group. Raises BadGroup where no valid one stands, with the chain unmoved; OSError from reading."""
        fresh = False
        while True:
            try:
                taken = self.chain.take(self._data, self._base)
                if isinstance(taken, GroupHeader):
                    return RawGroup(taken, self._data, taken.offset - self._base)
                if await self._read_on():
                    continue
                raise BadGroup("the file ends inside a group")
            except BadGroup:
                self._forget()
                if fresh:
                    raise
                fresh = True

    async def _read_on(self) -> bool:
        """Put the next piece of the file behind what is left of the last one; False at the end of the file."""
        position = self._base + len(self._data)
        if position >= self.chain.file_bytes:
            return False
        if self._ahead is not None:
            got = await self._ahead
            self._ahead = None
        else:
            got = await self.disk.read(self.name, position, self._piece_bytes)
        self.bytes_read += len(got)
        self._data = self._data[self.chain.offset - self._base :] + got
        self._base = self.chain.offset
        if self._piece_bytes == self._chunk_bytes and position + len(got) < self.chain.file_bytes:
            reading = self.disk.read(self.name, position + len(got), self._piece_bytes)
            self._ahead = asyncio.get_running_loop().create_task(reading)
            self._ahead.add_done_callback(
                lambda done: done.cancelled() or done.exception()
            )  # perhaps nobody comes back
        self._piece_bytes = min(2 * self._piece_bytes, self._chunk_bytes)
        return len(got) > 0

    async def evidence(self) -> GroupHeader | None:
        """After the end was met: a later group that proves that the record missing here had been durable."""
        position = self.chain.offset
        while position < self.chain.file_bytes:
            data = await self.disk.read(self.name, position, self._chunk_bytes + GROUP_HEADER_BYTES)
            self.bytes_read += len(data)
            found = later_evidence(self.chain, data, position)
            if found is not None:
                return found
            position += self._chunk_bytes
        return None


async def load_header(disk: Disk, name: str, first_lsn: int | None) -> tuple[SegmentHeader, bytes]:
    """Read and check a segment's header.

    Args:
        disk: where.
        name: the file.
        first_lsn: what its name says; None for a spare.

    Raises:
        Corruption, UnsupportedFormat: with path, segment and offset 0.
    """
    data = await disk.read(name, 0, SEGMENT_HEADER_BYTES)
    path = f"{disk.path.rstrip('/')}/{name}"
    try:
        header = decode_segment_header(data)
    except BadSegment as error:
        if error.newer:
            raise UnsupportedFormat(
                f"{name} needs a newer walsvc: {error.reason}", path=path, segment=first_lsn, hint="upgrade walsvc"
            ) from None
        raise Corruption(
            f"{name} is no walsvc segment, or its header is damaged: {error.reason}",
            path=path,
            segment=first_lsn,
            offset=0,
            hint="if the file is not part of this log, move it elsewhere; otherwise restore it from a backup",
        ) from None
    if first_lsn is not None and header.first_lsn != first_lsn:
        raise Corruption(
            f"{name} is the segment of another LSN, renamed or copied",
            path=path,
            segment=first_lsn,
            offset=0,
            expected=f"first LSN {first_lsn}",
            actual=f"first LSN {header.first_lsn}",
            hint=f"its own name would be {header.file_name}",
        )
    return header, data


async def open_stream(
    disk: Disk, name: str, first_lsn: int | None, file_bytes: int
) -> tuple[SegmentHeader, GroupStream]:
    """A stream at the first group of a segment. Raises Corruption where the file was cut: it had its full length, durably,
    before anything was written to it."""
    header, data = await load_header(disk, name, first_lsn)
    if file_bytes < header.file_bytes:
        raise Corruption(
            f"{name} is shorter than it was made",
            path=f"{disk.path.rstrip('/')}/{name}",
            segment=first_lsn,
            offset=file_bytes,
            expected=f"{header.file_bytes} bytes",
            actual=f"{file_bytes}",
            hint="its end is missing; restore it from a backup",
        )
    return header, GroupStream(disk, name, Chain.begin(header, data, file_bytes))
