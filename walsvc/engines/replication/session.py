"""One connection to a replica's stream: find the place, ship what is durable, until something fails."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from walsvc.config import MIB
from walsvc.disk.base import Write
from walsvc.engines.jetstream.checks import ensure_stream
from walsvc.engines.jetstream.connect import CLOSE_SECONDS, close_client, connect
from walsvc.engines.jetstream.disk import JetStreamDisk
from walsvc.engines.jetstream.durability import check_durability
from walsvc.engines.jetstream.options import Address, JetStreamOptions, login_of
from walsvc.engines.jetstream.publish import Publisher
from walsvc.engines.jetstream.segment_table import SegmentTable
from walsvc.engines.jetstream.stream import Stream
from walsvc.engines.jetstream.takeover import take_over
from walsvc.engines.replication.replica import ResumePlan, plan_for
from walsvc.engines.replication.source import GroupSource, Moved, Shipment
from walsvc.errors import Corruption, ReplicaLost, WalError
from walsvc.format.segment import segment_name, spare_name
from walsvc.log.commit.catalog import BEGINNING, Mark
from walsvc.log.read.pins import REPLICA_HOLD
from walsvc.tasks import begin_task

if TYPE_CHECKING:
    from walsvc.api import Log
    from walsvc.engines.replication.shipping import Replication

WINDOW_BYTES = 4 * MIB  # on their way at most
WINDOW_MESSAGES = 256
DIRECTORY_BYTES = (
    8 * MIB
)  # after so many bytes a directory follows, so that going on after an outage reads no more than that
HOLD_SECONDS = 0.5  # between two changes of the hold while there is more to ship
LEAVE_SECONDS = 2 * CLOSE_SECONDS  # that the connection may take to end
logger: logging.Logger = logging.getLogger("walsvc.replication")


class ShippingSession:
    """One connection to the stream, from finding the place to the first failure.

    Attributes:
        connected: the stream was taken over.
    """

    def __init__(self, log: Log, replication: Replication, wake: asyncio.Event) -> None:
        self._log = log
        self._replication = replication
        self._replicated = replication.replicated
        self._wake = wake
        self._source = GroupSource(log)
        self._sent: deque[int] = deque()  # bytes of each write on its way
        self._sent_bytes = 0
        self._since_directory = 0
        self._handles: dict[int, int] = {}  # of the segments that are being written, by first LSN
        self._failure: OSError | None = None
        self._rewinds = -1
        self._first = 0  # the log's first segment, as the stream knows it
        self._dropping: tuple[int, Mark] | None = (
            None  # the first LSN as it is now, and the place where the log says so
        )
        self._held = 0
        self._hold_after = 0.0
        self._holding: asyncio.Task[None] | None = None
        self._publisher: Publisher | None = None
        self.connected: bool = False

    async def run(self, address: Address, options: JetStreamOptions) -> None:
        """Ship until something fails; raises what it was."""
        self._client = client = await connect(
            address, options, disconnected_cb=self._disconnected, **login_of(address, options)
        )
        try:
            self._stream = stream = Stream(client, address, options)
            info = await ensure_stream(stream, options, create=True)
            durability = self._replication.durability
            if durability is None or durability.down:  # looked at once: later a server may be down, and cannot tell
                durability = await check_durability(stream, info, address, options)
                self._replication.durability = durability
            self._note = ", NOT known to be synced (allow_unsynced)" if durability.weak else ""
            await self._take_over(info["state"]["first_seq"], durability.words)
            self.connected = True
            self._replication.accept()
            self._replicated.words = self._words
            await self._ship()
        finally:
            await self._leave(client)

    async def _leave(self, client: Any) -> None:
        if self._holding is not None:
            self._holding.cancel()
            await asyncio.wait([self._holding])
        if self._publisher is not None:
            await self._publisher.abort()  # the next session looks up the messages that are on their way
        await close_client(client)

    async def _take_over(self, first: int, words: str) -> None:
        """Publish a directory with the next epoch behind what is there, unless that is not this log's: nobody's task is
        fenced for nothing."""
        stream = self._stream
        self._directory, self._publisher, last = await take_over(stream, self._plan)
        self._disk = JetStreamDisk(stream, self._directory, self._publisher, words=words, last=last, first=first)

    # ---- shipping

    async def _ship(self) -> None:
        while True:
            self._wake.clear()
            if self._failure is not None:
                raise self._failure
            if self._replication.ending:
                raise asyncio.CancelledError
            if self._rewinds != self._replicated.rewinds:
                await self._find_place()
            await self._drop()
            piece = await self._next_piece()
            if piece is not None:
                await self._send(piece)
            elif self._rewinds == self._replicated.rewinds:
                if self._dropping is not None:
                    self._dropping = self._dropping[0], BEGINNING  # everything is shipped
                    await self._drop()
                if not self._sent:
                    self._hold(self._replicated.mark.segment)
                await self._wake.wait()

    async def _find_place(self) -> None:
        """Look where the log goes on, once everything that was sent has arrived, and remove what it does not have any more."""
        while self._sent:
            await self._arrival()
        extent = self._extent()
        plan = await self._plan(self._directory)
        for segment in plan.remove:
            await self._remove(segment)
        if plan.missing:
            logger.warning("%s: %d records were dropped before they were replicated", self._stream.path, plan.missing)
        try:
            await self._stand(plan, extent[1])
            self._rewinds = extent[0]
        except (Corruption, FileNotFoundError):
            if not await self._moved_since(extent):
                raise

    async def _stand(self, plan: ResumePlan, replacements: int) -> None:
        """Continue as the plan says, which was made behind so many replacements."""
        for handle in self._handles.values():
            await self._disk.close_file(handle)
        self._handles.clear()
        if plan.last is None:
            self._source.begin(plan.begin, plan.begin - 1)
            lsn, mark = plan.begin - 1, Mark(replacements, plan.begin, 0)
        else:
            await self._source.go_on(plan.last, plan.unsealed)
            lsn, mark = self._source.lsn, Mark(replacements, plan.last.segment, plan.last.end)
        self._replicated.stand(min(lsn, self._log.durable_lsn), mark)

    async def _next_piece(self) -> Shipment | None:
        """The next piece, if nothing was truncated while it was read."""
        extent = self._extent()
        try:
            piece = await self._source.next()
        except (Moved, Corruption, FileNotFoundError) as error:
            if not await self._moved_since(extent) and not isinstance(error, Moved):
                while self._sent:  # what lies before the damage is sound, and goes
                    await self._arrival()
                raise
            self._rewinds = -1
            return None
        return piece if self._replicated.rewinds == self._rewinds else None

    async def _plan(self, directory: SegmentTable) -> ResumePlan:
        """Find the place at which the log goes on, whatever is truncated meanwhile."""
        while True:
            extent = self._extent()
            try:
                return await plan_for(self._log, self._stream, directory)
            except (ReplicaLost, Corruption, FileNotFoundError):
                if not await self._moved_since(extent):
                    raise

    def _extent(self) -> tuple[int, int, dict[int, int]]:
        """Counters that change with the files."""
        writer = self._log.writer
        return self._replicated.rewinds, writer.view.replacements, dict(writer.view.sizes)

    async def _moved_since(self, extent: tuple[int, int, dict[int, int]]) -> bool:
        """True if files were exchanged or removed, and so were not what the log's state said. A truncation or a rotation that
        is under way tells of itself at its end."""
        async with self._log.writer.core.extent:
            await self._log.writer.core.pipeline.rotation.ended()
            return extent != self._extent()

    async def _send(self, piece: Shipment) -> None:
        while self._sent and (self._sent_bytes + len(piece.data) > WINDOW_BYTES or len(self._sent) >= WINDOW_MESSAGES):
            await self._arrival()
        begins = piece.offset == 0
        if not begins and piece.segment not in self._directory.files:
            return  # the seal of a segment that was dropped meanwhile
        handle = await self._begin(piece) if begins else await self._handle(piece.segment)
        if self._rewinds != self._replicated.rewinds:
            return  # what was read is void, and from here to `submit` nothing waits
        self._sent.append(len(piece.data))
        self._sent_bytes += len(piece.data)
        done = partial(self._arrived, piece, self._rewinds)
        self._disk.submit(Write(handle, piece.offset, memoryview(piece.data), done))
        if begins:
            await self._disk.rename(spare_name(piece.ordinal), segment_name(piece.segment))
            self._since_directory = 0
        self._since_directory += len(piece.data)
        if self._since_directory > DIRECTORY_BYTES:
            self._disk.publish_directory()
            self._since_directory = 0

    async def _begin(self, piece: Shipment) -> int:
        """A handle for a segment that is new in the stream."""
        if piece.segment in self._handles:
            await self._disk.close_file(self._handles.pop(piece.segment))
        while len(self._handles) > 1:  # the one before still gets its seal
            segment, old = next(iter(self._handles.items()))
            await self._disk.close_file(old)
            del self._handles[segment]
            if segment in self._directory.files:
                self._directory.files[segment].index = None  # where its bytes stand is of no use here
        await self._disk.allocate(spare_name(piece.ordinal), piece.file_bytes)
        self._handles[piece.segment] = handle = await self._disk.open_file(spare_name(piece.ordinal))
        return handle

    async def _handle(self, segment: int) -> int:
        if segment not in self._handles:
            self._handles[segment] = await self._disk.open_file(segment_name(segment))
        return self._handles[segment]

    async def _arrival(self) -> None:
        """Wait until something has arrived, or has failed."""
        if self._failure is not None:
            raise self._failure
        self._wake.clear()
        await self._wake.wait()
        if self._failure is not None:
            raise self._failure

    def _arrived(self, piece: Shipment, rewinds: int, _: Write, error: OSError | None) -> None:
        """The stream has a piece, and, since it answers in order, all before it."""
        self._wake.set()
        self._replication.moved.set()
        if error is not None:
            self._failure = self._failure or error
            return
        self._sent_bytes -= self._sent.popleft()
        if rewinds != self._replicated.rewinds:
            return
        self._replicated.advance(piece.lsn, piece.mark)
        self._hold(self._replicated.mark.segment)

    # ---- what is kept, and what is not

    def _hold(self, segment: int) -> None:
        """Let the log drop the segments before the one that is being shipped. Once for each segment, and seldom while it
        catches up: a change of the hold is a group of its own, and is shipped."""
        now = asyncio.get_running_loop().time()
        if segment <= self._held or (self._sent and now < self._hold_after):
            return
        if self._holding is not None and not self._holding.done():
            return
        self._hold_after = now + HOLD_SECONDS
        self._held = segment
        self._holding = begin_task(self._move_hold(segment))

    async def _move_hold(self, segment: int) -> None:
        lsn = max(segment, self._log.first_lsn)
        if self._log.holds().get(REPLICA_HOLD) == lsn:
            return
        try:
            await self._log.hold(REPLICA_HOLD, lsn)
        except WalError as error:  # a sealed, full, failed or closed log: more stays than must, that is all
            logger.debug("%s: the hold stays: %s", self._stream.path, error)

    async def _drop(self) -> None:
        """Remove the segments that the log has dropped, once its own word of that, in its metadata, is shipped."""
        first = self._log.segment_ids()[0]
        if first != self._first and self._dropping is None:
            self._dropping = first, self._log.writer.core.catalog.mark
        if self._dropping is None or self._source.mark < self._dropping[1]:
            return
        (self._first, _), self._dropping = self._dropping, None
        dropped = sorted(each for each in self._directory.files if each < self._first)
        for segment in dropped:
            await self._remove(segment)
        if dropped:
            await self._disk.sync_directory()

    async def _remove(self, segment: int) -> None:
        if segment in self._handles:
            await self._disk.close_file(self._handles.pop(segment))
        if segment in self._directory.files:
            await self._disk.remove(segment_name(segment))

    # ---- what is told

    async def _disconnected(self) -> None:
        """The client has lost its server, and tries the others."""
        self._replication.moved.set()

    def _words(self) -> str:
        if not self._client.is_connected:
            return "down: the connection is lost, and being made again"
        behind = self._replicated.mark < self._log.writer.core.catalog.mark
        return ("catching up" if behind else "current") + self._note
