"""Groups of one segment, read in large pieces and checked one by one. Recovery, readers and inspection share it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from walsvc.config import KIB, MIB
from walsvc.disk.base import Disk
from walsvc.errors import Corruption, UnsupportedFormat
from walsvc.format.chain import Chain, Need, later_evidence, strength
from walsvc.format.cipher import SegmentCipher, cipher_of
from walsvc.format.group import GROUP_HEADER_BYTES, BadGroup, Bytes, GroupHeader, align_up
from walsvc.format.index import IndexRow
from walsvc.format.segment import SEGMENT_HEADER_BYTES, BadSegment, SegmentHeader, decode_segment_header
from walsvc.keyring import Keys
from walsvc.tasks import begin_task

CHUNK_BYTES = 4 * MIB  # read at a time: at 3 GB/s, the way through the thread is then a tenth of it
FIRST_CHUNK_BYTES = 256 * KIB  # pieces double from here: who reads a few records does not pay for megabytes
HEAD_BYTES_MAX = 1 * MIB + 64 * KIB  # in front of a piece, for the beginning of a group: one of ordinary size fits
BLOCK_BYTES = 4096  # pieces end at multiples of it, so that the next one can be read with O_DIRECT as it is


FoundT = TypeVar("FoundT")


class RawGroup(NamedTuple):
    """A checked group: its header, and the buffer in which it stands at `at`; valid until the stream takes the next."""

    header: GroupHeader
    data: Bytes
    at: int


class Chunk(NamedTuple):
    """A chunk of the file on its way into `memory`, behind `head` bytes that are left free."""

    memory: memoryview
    head: int
    reading: asyncio.Task[int]


class GroupStream:
    """Reads a segment's groups in order; while one piece is checked, the next one is on its way.

    `chain` says where it stands. The file may be written meanwhile: what was read ahead is believed only as far as it is
    valid. Where it is not, that place is read afresh before it counts as the end, and again at the next call.

    Bytes go from the device into memory of the disk's own kind and are looked at there; a group that two pieces share is
    made whole by moving its beginning in front of the second one.
    """

    def __init__(
        self,
        disk: Disk,
        name: str,
        chain: Chain,
        chunk_bytes: int = CHUNK_BYTES,
        cipher: SegmentCipher | None = None,
    ) -> None:
        self.disk = disk
        self.name = name
        self.chain = chain
        self.cipher = cipher  # None: the segment is not encrypted, or its groups are wanted as they stand
        self.bytes_read: int = 0
        self._chunk_bytes = chunk_bytes
        self.forget()

    def forget(self) -> None:
        """Believe nothing that was read so far, and let its memory go."""
        self._data: Bytes = b""
        self._base = self.chain.offset
        self._piece_bytes = min(FIRST_CHUNK_BYTES, self._chunk_bytes)
        self._ahead: Chunk | None = None
        self._memory: memoryview | None = None  # which `_data` is a part of
        self._spare: memoryview | None = None  # memory of the chunk before

    def start_at(self, row: IndexRow) -> None:
        """Begin at a row of the segment's index instead of where the stream stands."""
        self.chain.skip_to(row)
        self.forget()

    async def next(self) -> RawGroup:
        """The next group. Raises BadGroup where no valid one stands, with the chain unmoved; OSError from reading;
        Corruption where an encrypted one does not authenticate, with the chain unmoved."""
        return await self._found(self.chain.check, self._taken)

    def _taken(self, header: GroupHeader) -> RawGroup:
        raw = self.opened(RawGroup(header, self._data, header.offset - self._base))
        self.chain.pass_over(header)
        return raw

    async def _found(
        self, look: Callable[[Bytes, int], GroupHeader | Need], take: Callable[[GroupHeader], FoundT]
    ) -> FoundT:
        """The answer of `take` to the header that `look` finds, which has as much of the file as it needs. What was read ahead of the
        writer is read afresh before it counts as bad."""
        fresh = False
        while True:
            try:
                found = look(self._data, self._base)
                if isinstance(found, GroupHeader):
                    return take(found)
                if await self._read_on(found.length):
                    continue
                raise BadGroup("the file ends inside a group")
            except BadGroup:
                self.forget()
                if fresh:
                    raise
                fresh = True

    async def _read_on(self, need: int) -> bool:
        """Put the next piece of the file behind what is left of the last one; False at the end of the file.

        `need` is what the group at hand has, as far as that is known.
        """
        rest = self._data[self.chain.offset - self._base :]
        position = self.chain.offset + len(rest)
        if position >= self.chain.file_bytes:
            return False
        piece = self._ahead or self._begin(position, max(self._piece_bytes, need - len(rest)))
        self._ahead = None
        got = await piece.reading
        self.bytes_read += got
        if len(rest) <= piece.head:
            start = piece.head - len(rest)
            piece.memory[start : piece.head] = rest
            self._data = piece.memory[start : piece.head + got]
            self._memory, self._spare = piece.memory, self._memory
        else:  # a group larger than a piece
            self._data = b"".join((rest, piece.memory[piece.head : piece.head + got]))
            self._memory, self._spare = None, piece.memory
        self._base = self.chain.offset
        position += got
        if self._piece_bytes == self._chunk_bytes and position < self.chain.file_bytes and got:
            self._ahead = self._begin(position, self._piece_bytes)
            await asyncio.sleep(0)  # the task sets the disk to work now, not when somebody waits for it
        self._piece_bytes = min(2 * self._piece_bytes, self._chunk_bytes)
        return got > 0

    def _begin(self, position: int, length: int) -> Chunk:
        """Begin to read about `length` bytes of the file from `position` on."""
        length = align_up(position + length, BLOCK_BYTES) - position
        head = min(align_up(length // 2, BLOCK_BYTES), HEAD_BYTES_MAX) + position % BLOCK_BYTES
        memory, self._spare = self._spare, None
        if memory is None or len(memory) < head + length:
            memory = self.disk.buffer(head + length)
        reading = begin_task(self.disk.read_into(self.name, position, memory[head : head + length]))
        reading.add_done_callback(lambda done: done.cancelled() or done.exception())  # perhaps nobody comes back
        return Chunk(memory, head, reading)

    @property
    def readable(self) -> bool:
        """True if the groups' content can be read: not where an encrypted segment is looked at from outside."""
        return self.cipher is not None or not self.chain.encrypted

    def opened(self, raw: RawGroup) -> RawGroup:
        """A checked group as it would stand in a plain segment: decrypted where the segment is encrypted.

        Whoever checks groups without `next` calls it for each, before it looks at anything behind the header, and before
        the chain passes over the group.

        Raises:
            Corruption: the group does not authenticate. Its CRCs are right, so this is no torn tail.
        """
        if self.cipher is None:
            return raw
        try:
            return RawGroup(raw.header, self.cipher.open_group(*raw), 0)
        except BadGroup as error:
            raise Corruption(
                f"{error.reason}; its CRCs are right",
                path=self.disk.path,
                segment=raw.header.segment,
                offset=raw.header.offset,
                lsn=raw.header.first_lsn,
                hint="the file was changed from outside, and walsvc has changed nothing. Restore it from a backup",
            ) from None

    async def evidence(self) -> GroupHeader | None:
        """After the end was met: the later group that shows most of what had been durable from the record missing here on.

        Where a log is being written, what is missing may have come since: read on before believing it.
        """
        strongest: GroupHeader | None = None
        position = self.chain.offset
        while position < self.chain.file_bytes:
            data = await self.disk.read(self.name, position, self._chunk_bytes + GROUP_HEADER_BYTES)
            self.bytes_read += len(data)
            found = later_evidence(self.chain, data, position)
            if found is not None and (strongest is None or strength(found) > strength(strongest)):
                strongest = found
            position += self._chunk_bytes
        return strongest


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
        if error.older:
            raise UnsupportedFormat(
                f"{name} was written by an older walsvc: {error.reason}",
                path=path,
                segment=first_lsn,
                hint=f"bring the log up to this version: walsvc migrate {disk.path}",
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
    disk: Disk, name: str, first_lsn: int | None, file_bytes: int, keys: Keys = None
) -> tuple[SegmentHeader, GroupStream]:
    """A stream at the first group of a segment. Raises Corruption where the file was cut: it had its full length, durably,
    before anything was written to it; MissingKey and WrongKey where `keys` do not fit an encrypted one."""
    header, data = await load_header(disk, name, first_lsn)
    if file_bytes < header.file_bytes:
        raise too_short(disk, name, header, file_bytes)
    chain = Chain.begin(header, data, file_bytes)
    return header, GroupStream(disk, name, chain, cipher=cipher_of(keys, header, disk.path))


def too_short(disk: Disk, name: str, header: SegmentHeader, file_bytes: int) -> Corruption:
    """A segment whose file was cut."""
    return Corruption(
        f"{name} is shorter than it was made",
        path=f"{disk.path.rstrip('/')}/{name}",
        segment=header.first_lsn,
        offset=file_bytes,
        expected=f"{header.file_bytes} bytes",
        actual=f"{file_bytes}",
        hint="its end is missing; restore it from a backup",
    )


def unsupported(stream: GroupStream, error: BadGroup) -> UnsupportedFormat:
    """UnsupportedFormat at the place of a group that a newer walsvc wrote."""
    return UnsupportedFormat(
        error.reason,
        path=stream.disk.path,
        segment=stream.chain.segment,
        offset=stream.chain.offset,
        lsn=stream.chain.next_lsn,
        hint="upgrade walsvc",
    )
