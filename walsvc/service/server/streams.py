"""Streams of records to a client, each with its credit: what the client does not take is neither read nor kept.

A stream sends while its credit is above zero and the connection takes bytes; so a slow reader holds nothing but one frame,
and nobody else notices. Records that are there go out together: a frame is closed when it is full, or when the source has
to wait for more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

from walsvc.api import Log
from walsvc.config import KIB, MIB
from walsvc.errors import WalError
from walsvc.log.read.cuts import Cuts
from walsvc.log.read.reading import follow_groups
from walsvc.model import Record
from walsvc.service.server.limits import STREAM_BYTES, STREAM_RECORDS
from walsvc.service.server.line import Line
from walsvc.service.server.outgoing import Turn
from walsvc.service.server.turns import units_of
from walsvc.service.wire.columns import cost_of, packed_labels, records_frame
from walsvc.service.wire.frames import RECORD_COST, End, Result
from walsvc.service.wire.wanted import reading
from walsvc.service.wire.window import Window
from walsvc.tasks import begin_task

READ_UNITS = 48  # a step of a reader: it asks the disk a few times, and looks through what it has read
READER_BYTES_MIN = 512 * KIB  # what a reader of the log holds by itself at the beginning, and
READER_BYTES_MAX = 12 * MIB  # at most: walsvc.log.read.stream reads ahead in pieces that grow
Groups = AsyncGenerator[list[Record], None]
Begin = Callable[[int, int], Groups]  # makes the source of records from an LSN on, up to an LSN or a cut


class Stream:
    """The sending half of a stream: gathers records and watches the credit."""

    def __init__(self, line: Line, id: int, credit: int) -> None:
        self.id = id
        self._window = Window(credit)
        self._line = line
        self._gathered: list[Record] = []
        self._gathered_labels: list[bytes] = []  # their attributes, packed
        self._gathered_cost = 0
        self._labels_bytes = 0
        self._granted: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self.task: asyncio.Task[None] | None = None
        self._cancelled = False  # by `cancel`

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Let `work` send; what it raises unexpectedly ends the connection."""
        self._cancelled = False
        self.task = begin_task(work)
        self.task.add_done_callback(self._check)

    def _check(self, task: asyncio.Task[None]) -> None:
        """A client must not wait for what nobody sends: one whose connection ends begins anew."""
        error = asyncio.CancelledError("from outside") if task.cancelled() else task.exception()
        if error is not None and not (task.cancelled() and self._cancelled):
            self._line.fail(error)
        if self.task is task:
            self.task = self._granted = None  # they hold the error, which holds this stream: a cycle of many objects

    def cancel(self) -> None:
        """Send nothing more, from the task's next step on."""
        self._cancelled = True
        if self.task is not None:
            self.task.cancel()

    async def stop(self) -> None:
        """Send nothing more."""
        self.cancel()
        if self.task is not None:
            await asyncio.wait([self.task])
        self.drop()

    def grant(self, credit: int) -> None:
        """The client takes more."""
        self._window.give(credit)
        if self._window.left > 0 and self._granted is not None and not self._granted.done():
            self._granted.set_result(None)

    async def ready(self) -> None:
        """Wait until the client and the connection take more."""
        while self._window.left <= 0:
            self._granted = self._loop.create_future()
            await self._granted
        await self._line.writable()

    async def rest(self) -> None:
        """The same. Whoever waits long lets go of what the log's reader holds, where others need the memory."""
        outgoing = self._line.share.outgoing
        if self._window.left > 0 and not self._line.stuck and not self._line.share.full:
            return
        outgoing.rest(self, self._held())
        try:
            await self.ready()
        finally:
            outgoing.wake(self)

    def _held(self) -> int:
        """About how many bytes the log's reader holds."""
        return 0

    def let_go(self) -> None:
        """See walsvc.service.server.outgoing."""

    @property
    def full(self) -> bool:
        """True if the records gathered fill a frame, or are all that the client takes."""
        cost = self._gathered_cost
        return (
            cost + self._labels_bytes >= min(STREAM_BYTES, self._line.share.outgoing.allowance)
            or len(self._gathered) >= STREAM_RECORDS
            or cost >= self._window.left
        )

    def gather(self, record: Record) -> None:
        """Send a record with those that come in the same turn of the loop."""
        if not self._gathered:
            self._loop.call_soon(self.flush)
        self.add(record)

    def add(self, record: Record) -> int:
        """Gather a record that is sent by `flush`; returns the bytes of its attributes."""
        labels = packed_labels(record)
        self._gathered.append(record)
        self._gathered_labels.append(labels)
        self._gathered_cost += len(record.payload) + RECORD_COST
        self._labels_bytes += len(labels)
        return len(labels)

    def flush(self, turn: int = 0) -> None:
        """Send what is gathered."""
        if self._gathered:
            records, self._gathered = self._gathered, []
            labels, self._gathered_labels = self._gathered_labels, []
            self._window.take(self._gathered_cost)
            self._gathered_cost = self._labels_bytes = 0
            self._line.send(records_frame(self.id, turn, records, labels, self._line.state))

    def drop(self) -> None:
        """Send nothing of what is gathered."""
        self._gathered.clear()
        self._gathered_labels.clear()
        self._gathered_cost = self._labels_bytes = 0


class RecordStream(Stream):
    """A "read" or "follow". Where the log is cut, the client is told first: what it was sent from there on is void.

    The reads of a connection take turns (`turn`): each begins when the client has taken what the one before has read, or the
    first records of all of them would be held at once. A follower waits for records, and takes no turn here.

    While it waits for the client it rests: its reader may be dropped then, and it goes on with another one.
    """

    def __init__(  # noqa: PLR0917
        self, line: Line, id: int, credit: int, cuts: Cuts, bounds: dict[str, int], turn: asyncio.Lock | None = None
    ) -> None:
        super().__init__(line, id, credit)
        self._turn = turn
        self._bounds = tuple(bounds)
        self._following: int = bounds["start"]  # nothing was gathered from there on
        self._cuts = cuts
        self._opened = self._told = cuts.count
        self._source: Groups | None = None
        self._records: deque[Record] = deque()  # of the source, that come next
        self._read_bytes = 0  # of the source so far

    def tell_cut(self) -> None:
        """Say where the log was cut since the client was told last."""
        if self._told != self._cuts.count:
            end, self._told = self._cuts.since(self._told), self._cuts.count
            gathered = [record for record in self._gathered if record.lsn < end]
            super().drop()
            for record in gathered:
                self.add(record)
            self._keep([record for record in self._records if record.lsn < end])
            self._following = min(self._following, end)
            self._line.send(Result(self.id, dict.fromkeys(self._bounds, end), self._line.state))

    def flush(self, turn: int = 0) -> None:
        self.tell_cut()
        super().flush(turn)

    async def pump(self, begin: Begin) -> None:
        """Send what `begin` gives to its end, then END, or the error that ended it."""
        try:
            await self.rest()
            while self._records or await self._read(begin):
                await self._line.pace.turn(1)  # `send` counts the bytes
                self._gather()
                if self.full or self._line.stuck:
                    self.flush()
                    await self.rest()
            self.flush()
            self._line.send(End(self.id, self._line.state))
        except WalError as error:
            self.flush()
            self._line.answer_error(self.id, error)
        finally:
            self.let_go()

    def _gather(self) -> None:
        """Gather what comes next, as far as the client takes it: one record at least."""
        self.tell_cut()
        records, cost, line = self._records, 0, self._line
        while records:
            record = records.popleft()
            cost += len(record.payload) + RECORD_COST
            self._following = record.lsn + 1
            self.gather(record)
            if self.full or line.stuck:
                break
        line.share.read(-cost)

    async def _read(self, begin: Begin) -> bool:
        """Read the next records of the source, for which it waits; False at its end."""
        if self._source is None:
            self._source = begin(self._following, self._cuts.since(self._opened))
        if self._turn is None:
            records = await anext(self._source, None)
        else:
            async with self._turn:
                await self._line.writable()
                await self._line.pace.turn(READ_UNITS)
                async with self._line.share.turn():
                    records = await anext(self._source, None)
        if records is None:
            return False
        cost = cost_of(records)
        self._line.pace.did(units_of(cost, len(records)))
        self._keep(records)
        self._read_bytes += cost
        return True

    def _keep(self, records: list[Record]) -> None:
        """These come next, and none of those that came next before."""
        if records or self._records:
            self._line.share.read(cost_of(records) - cost_of(self._records))
            self._records = deque(records)

    def _held(self) -> int:
        return 0 if self._source is None else min(READER_BYTES_MIN + 2 * self._read_bytes, READER_BYTES_MAX)

    def let_go(self) -> None:
        self._keep([])
        self._source, self._read_bytes = None, 0

    def drop(self) -> None:
        self._keep([])
        super().drop()


def range_of(log: Log, args: dict[str, Any]) -> dict[str, Any]:
    """The LSNs that "start" and, for a read, "stop" mean at this moment: a client that comes back goes on within them."""
    found: dict[str, Any] = {"start": log.first_lsn if args["start"] is None else args["start"]}
    if "stop" in args:
        found["stop"] = log.next_lsn if args["stop"] is None else min(args["stop"], log.next_lsn)
    return found


def source_of(log: Log, what: str, args: dict[str, Any], turn: Callable[[], Turn]) -> Begin:
    """A function that makes the source of a "read" or "follow", for RecordStream.pump."""
    wanted = reading(args)
    stop = wanted.pop("stop", None)

    def begin(start: int, end: int) -> Groups:
        if what == "read":
            return log.read_batches(**{**wanted, "start": start, "stop": min(stop, end)})
        return follow_groups(log.writer.segments, turn, **{**wanted, "start": start})

    return begin
