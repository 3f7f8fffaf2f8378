"""One connection to a replica's stream: find the place, ship what is durable, until something fails."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from walsvc.engines.jetstream.checks import ensure_stream
from walsvc.engines.jetstream.connect import CLOSE_SECONDS, close_client, connect
from walsvc.engines.jetstream.disk import JetStreamDisk
from walsvc.engines.jetstream.durability import Durability, check_durability
from walsvc.engines.jetstream.options import Address, JetStreamOptions, login_of
from walsvc.engines.jetstream.publish import Publisher
from walsvc.engines.jetstream.segment_table import SegmentTable
from walsvc.engines.jetstream.stream import Stream
from walsvc.engines.jetstream.takeover import take_over
from walsvc.engines.replication.hold import ReplicaHold
from walsvc.engines.replication.replica import ResumePlan, plan_for
from walsvc.engines.replication.replica_files import ReplicaFiles
from walsvc.engines.replication.source import GroupSource, Moved, Shipment
from walsvc.errors import Corruption, ReplicaLost
from walsvc.log.commit.catalog import BEGINNING, Mark
from walsvc.log.commit.replicated import Replicated

if TYPE_CHECKING:
    from walsvc.api import Log

LEAVE_SECONDS = 2 * CLOSE_SECONDS  # that the connection may take to end
logger: logging.Logger = logging.getLogger("walsvc.replication")


class Shipper(Protocol):
    """The task that runs one session after the other.

    Attributes:
        replicated: the replica, and the callers that wait for it.
        durability: what an acknowledgement of the stream is worth; None: not known yet.
        ending: the log is being closed.
        moved: set whenever the replica's place or state has changed.
    """

    replicated: Replicated
    durability: Durability | None
    ending: bool
    moved: asyncio.Event

    def accept(self) -> None:
        """Forget earlier refusals: the stream was taken over."""


class ShippingSession:
    """One connection to the stream, from finding the place to the first failure.

    Attributes:
        connected: the stream was taken over.
    """

    def __init__(self, log: Log, replication: Shipper, wake: asyncio.Event) -> None:
        self._log = log
        self._replication = replication
        self._replicated = replication.replicated
        self._wake = wake
        self._source = GroupSource(log)
        self._hold = ReplicaHold(log)
        self._rewinds = -1
        self._first = 0  # the log's first segment, as the stream knows it
        self._dropping: tuple[int, Mark] | None = None  # the first LSN as it is now, and where the log says that
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
        await self._hold.stop()
        if self._publisher is not None:
            await self._publisher.abort()  # the next session looks up the messages that are on their way
        await close_client(client)

    async def _take_over(self, first: int, words: str) -> None:
        """Publish a directory with the next epoch behind the stream's end. A stream of another log stays as it is: its writer is not
        fenced."""
        stream = self._stream
        directory, self._publisher, last = await take_over(stream, self._plan)
        disk = JetStreamDisk(stream, directory, self._publisher, words=words, last=last, first=first)
        self._files = ReplicaFiles(disk, directory, self._wake)

    # ---- shipping

    async def _ship(self) -> None:
        while True:
            self._wake.clear()
            self._files.check()
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
                if not self._files.busy:
                    self._move_hold()
                await self._wake.wait()

    async def _find_place(self) -> None:
        """Look where the log goes on, once everything that was sent has arrived, and remove what it does not have any more."""
        await self._files.arrived()
        extent = self._extent()
        plan = await self._plan(self._files.directory)
        for segment in plan.remove:
            await self._files.remove(segment)
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
        await self._files.close_all()
        if plan.last is None:
            self._source.begin(plan.begin, plan.begin - 1)
            lsn, mark = plan.begin - 1, Mark(replacements, plan.begin, 0)
        else:
            await self._source.go_on(plan.last, plan.unsealed)
            lsn, mark = self._source.lsn, Mark(replacements, plan.last.segment, plan.last.end)
        self._replicated.stand(min(lsn, self._log.durable_lsn), mark)

    async def _next_piece(self) -> Shipment | None:
        """Read the next piece; None where a truncation came between, or nothing more is durable."""
        extent = self._extent()
        try:
            piece = await self._source.next()
        except (Moved, Corruption, FileNotFoundError) as error:
            if not await self._moved_since(extent) and not isinstance(error, Moved):
                await self._files.arrived()  # the groups before the damage are sound, and go
                raise
            self._rewinds = -1
            return None
        return piece if self._replicated.rewinds == self._rewinds else None

    async def _plan(self, directory: SegmentTable) -> ResumePlan:
        """Find the place at which the log goes on, again where a truncation came between."""
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
        await self._files.room(len(piece.data))
        handle = await self._files.handle(piece)
        if handle is None or self._rewinds != self._replicated.rewinds:
            return  # the piece is void; from here to the write nothing waits
        await self._files.write(handle, piece, partial(self._arrived, piece, self._rewinds))

    def _arrived(self, piece: Shipment, rewinds: int, error: OSError | None) -> None:
        """Take notice that the stream has a piece, and, since it answers in order, all before it."""
        self._replication.moved.set()
        if error is None and rewinds == self._replicated.rewinds:
            self._replicated.advance(piece.lsn, piece.mark)
            self._move_hold()

    # ---- what is kept, and what is not

    def _move_hold(self) -> None:
        self._hold.move(self._replicated.mark.segment, catching_up=self._files.busy)

    async def _drop(self) -> None:
        """Remove the segments that the log has dropped, once its own word of that, in its metadata, is shipped."""
        first = self._log.writer.segments.ids()[0]
        if first != self._first and self._dropping is None:
            self._dropping = first, self._log.writer.core.catalog.mark
        if self._dropping is None or self._source.mark < self._dropping[1]:
            return
        (self._first, _), self._dropping = self._dropping, None
        await self._files.remove_below(self._first)

    # ---- what is told

    async def _disconnected(self) -> None:
        """Take notice that the client has lost its server, and tries the others."""
        self._replication.moved.set()

    def _words(self) -> str:
        if not self._client.is_connected:
            return "down: the connection is lost, and being made again"
        behind = self._replicated.mark < self._log.writer.core.catalog.mark
        return ("catching up" if behind else "current") + self._note
