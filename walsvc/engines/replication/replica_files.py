"""The segments of a stream as replication writes them: which of them are open, and which writes are on their way."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial

from walsvc.config import MIB
from walsvc.disk.base import Write
from walsvc.engines.jetstream.disk import JetStreamDisk
from walsvc.engines.jetstream.segment_table import SegmentTable
from walsvc.engines.replication.source import Shipment
from walsvc.format.segment import segment_name, spare_name

WINDOW_BYTES = 4 * MIB  # on their way at most
WINDOW_MESSAGES = 256
DIRECTORY_BYTES = 8 * MIB  # a directory follows so many bytes: going on after an outage then reads no more than that


class ReplicaFiles:
    """Writes pieces of segments to a stream, in order. Loop thread only.

    Attributes:
        directory: the segments that the stream has.
        failure: of the first write that failed; the stream takes nothing behind it.
    """

    def __init__(self, disk: JetStreamDisk, directory: SegmentTable, wake: asyncio.Event) -> None:
        self._disk = disk
        self.directory = directory
        self._wake = wake  # set whenever a write has ended
        self._handles: dict[int, int] = {}  # of the segments that are being written, by first LSN
        self._sent: deque[int] = deque()  # bytes of each write on its way
        self._sent_bytes = 0
        self._since_directory = 0
        self.failure: OSError | None = None

    @property
    def busy(self) -> bool:
        """True while a write is on its way."""
        return bool(self._sent)

    def check(self) -> None:
        """Raise the error of a write that failed."""
        if self.failure is not None:
            raise self.failure

    async def room(self, count: int) -> None:
        """Wait until `count` bytes more may be on their way."""
        while self._sent and (self._sent_bytes + count > WINDOW_BYTES or len(self._sent) >= WINDOW_MESSAGES):
            await self._arrival()

    async def arrived(self) -> None:
        """Wait until every write has arrived."""
        while self._sent:
            await self._arrival()

    async def _arrival(self) -> None:
        self.check()
        self._wake.clear()
        await self._wake.wait()
        self.check()

    # ---- writing

    async def handle(self, piece: Shipment) -> int | None:
        """A handle for the piece's segment, which begins with the piece at offset 0; None for one that was removed meanwhile."""
        if piece.offset == 0:
            return await self._begin(piece)
        if piece.segment not in self.directory.files:
            return None
        if piece.segment not in self._handles:
            self._handles[piece.segment] = await self._disk.open_file(segment_name(piece.segment))
        return self._handles[piece.segment]

    async def _begin(self, piece: Shipment) -> int:
        await self._forget(piece.segment)
        while len(self._handles) > 1:  # the one before still gets its seal
            segment = next(iter(self._handles))
            await self._forget(segment)
            if segment in self.directory.files:
                self.directory.files[segment].index = None  # where its bytes stand is of no use here
        await self._disk.allocate(spare_name(piece.ordinal), piece.file_bytes)
        self._handles[piece.segment] = handle = await self._disk.open_file(spare_name(piece.ordinal))
        return handle

    async def write(self, handle: int, piece: Shipment, ended: Callable[[OSError | None], None]) -> None:
        """Send a piece; `ended` is called once it has arrived with all before it, or with its error. The send itself comes before
        the first await."""
        self._sent.append(len(piece.data))
        self._sent_bytes += len(piece.data)
        self._disk.submit(Write(handle, piece.offset, memoryview(piece.data), partial(self._ended, ended)))
        if piece.offset == 0:
            await self._disk.rename(spare_name(piece.ordinal), segment_name(piece.segment))
            self._since_directory = 0
        self._since_directory += len(piece.data)
        if self._since_directory > DIRECTORY_BYTES:
            self._disk.publish_directory()
            self._since_directory = 0

    def _ended(self, ended: Callable[[OSError | None], None], _: Write, error: OSError | None) -> None:
        self._wake.set()
        if error is None:
            self._sent_bytes -= self._sent.popleft()
        else:
            self.failure = self.failure or error
        ended(error)

    # ---- removing

    async def close_all(self) -> None:
        """Close every segment: the next piece may belong to another one."""
        for segment in list(self._handles):
            await self._forget(segment)

    async def remove(self, segment: int) -> None:
        """Remove a segment, if the stream has it."""
        await self._forget(segment)
        if segment in self.directory.files:
            await self._disk.remove(segment_name(segment))

    async def remove_below(self, first: int) -> None:
        """Remove the segments before `first`, and publish a directory without them."""
        dropped = sorted(each for each in self.directory.files if each < first)
        for segment in dropped:
            await self.remove(segment)
        if dropped:
            await self._disk.sync_directory()

    async def _forget(self, segment: int) -> None:
        handle = self._handles.pop(segment, None)
        if handle is not None:
            await self._disk.close_file(handle)
