"""Streams of records to a client, each with its credit: what the client does not take is neither read nor kept.

A stream sends while its credit is above zero and the connection takes bytes; so a slow reader holds nothing but one frame,
and nobody else notices. Records that are there go out together: a frame is closed when it is full, or when the source has
to wait for more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Any

from walsvc.api import Log
from walsvc.errors import WalError
from walsvc.log.read.cuts import Cuts
from walsvc.model import Record
from walsvc.service.server.limits import STREAM_BYTES, STREAM_RECORDS
from walsvc.service.server.line import Line
from walsvc.service.wire.columns import cost_of, records_frame
from walsvc.service.wire.frames import RECORD_COST, End, Result
from walsvc.service.wire.wanted import reading
from walsvc.service.wire.window import Window
from walsvc.tasks import begin_task

RecordSource = AsyncGenerator[list[Record], None] | AsyncGenerator[Record, None]


class Stream:
    """The sending half of a stream: gathers records and watches the credit."""

    def __init__(self, line: Line, id: int, credit: int) -> None:
        self.id = id
        self._window = Window(credit)
        self._line = line
        self._gathered: list[Record] = []
        self._gathered_cost = 0
        self._granted: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self.task: asyncio.Task[None] | None = None

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Let `work` send; what it raises unexpectedly ends the connection."""
        self.task = begin_task(work)
        self.task.add_done_callback(self._check)

    def _check(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._line.fail(error)

    async def stop(self) -> None:
        """Send nothing more."""
        if self.task is not None:
            self.task.cancel()
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

    @property
    def full(self) -> bool:
        """What is gathered is a frame, or all that the client takes."""
        cost = self._gathered_cost
        return cost >= STREAM_BYTES or len(self._gathered) >= STREAM_RECORDS or cost >= self._window.left

    def gather(self, record: Record) -> None:
        """Send a record with those that come in the same turn of the loop."""
        if not self._gathered:
            self._loop.call_soon(self.flush)
        self._gathered.append(record)
        self._gathered_cost += len(record.payload) + RECORD_COST

    def flush(self, turn: int = 0) -> None:
        """Send what is gathered."""
        if self._gathered:
            records, self._gathered = self._gathered, []
            self._window.take(self._gathered_cost)
            self._gathered_cost = 0
            self._line.send(records_frame(self.id, turn, records, self._line.state))

    def drop(self) -> None:
        """Send nothing of what is gathered."""
        self._gathered.clear()
        self._gathered_cost = 0


class RecordStream(Stream):
    """A "read" or "follow". Where the log is cut, the client is told first: what it was sent from there on is void.

    The reads of a connection take turns (`turn`): each begins when the client has taken what the one before has read, or the
    first records of all of them would be held at once. A follower waits for records, and takes no turn.
    """

    def __init__(  # noqa: PLR0917
        self, line: Line, id: int, credit: int, what: str, cuts: Cuts, turn: asyncio.Lock | None = None
    ) -> None:
        super().__init__(line, id, credit)
        self._turn = turn
        self._bounds = ("start",) if what == "follow" else ("start", "stop")
        self._cuts = cuts
        self._opened = self._told = cuts.count

    def tell_cut(self) -> None:
        """Say where the log was cut since the client was told last."""
        if self._told != self._cuts.count:
            end, self._told = self._cuts.since(self._told), self._cuts.count
            self._gathered = [record for record in self._gathered if record.lsn < end]
            self._gathered_cost = cost_of(self._gathered)
            self._line.send(Result(self.id, dict.fromkeys(self._bounds, end), self._line.state))

    def gather(self, record: Record) -> None:
        self.tell_cut()
        super().gather(record)

    def flush(self, turn: int = 0) -> None:
        self.tell_cut()
        super().flush(turn)

    async def pump(self, begin: Callable[[int], RecordSource]) -> None:
        """Send a source to its end, then END, or the error that ended it. `begin` makes it, up to a cut that came since the
        stream was opened, or from there."""
        try:
            await self.ready()
            async with aclosing(begin(self._cuts.since(self._opened))) as records:
                while (item := await self._next(records)) is not None:
                    for record in self._cuts.standing(item) if isinstance(item, list) else (item,):
                        self.gather(record)
                        if self.full or self._line.stuck:
                            self.flush()
                            await self.ready()
            self.flush()
            self._line.send(End(self.id, self._line.state))
        except WalError as error:
            self.flush()
            self._line.answer_error(self.id, error)

    async def _next(self, records: RecordSource) -> list[Record] | Record | None:
        """What the source gives next; None at its end."""
        if self._turn is None:
            return await anext(records, None)
        async with self._turn:
            await self._line.writable()
            return await anext(records, None)


def range_of(log: Log, args: dict[str, Any]) -> dict[str, Any]:
    """What "start" and, for a read, "stop" mean at this moment: a client that comes back goes on within it."""
    found: dict[str, Any] = {"start": log.first_lsn if args["start"] is None else args["start"]}
    if "stop" in args:
        found["stop"] = log.next_lsn if args["stop"] is None else min(args["stop"], log.next_lsn)
    return found


def source_of(log: Log, what: str, args: dict[str, Any]) -> Callable[[int], RecordSource]:
    """What makes the source of a "read" or "follow", for RecordStream.pump."""
    wanted = reading(args)

    def begin(end: int) -> RecordSource:
        if what == "read":
            return log.read_batches(**{**wanted, "stop": min(wanted["stop"], end)})
        return log.follow(**{**wanted, "start": min(wanted["start"], end)})

    return begin
