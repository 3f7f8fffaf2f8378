"""BATCH frames of one connection to the log: a batch when all of it is here, or as its parts arrive where it is too long for that."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from walsvc.api import Log
from walsvc.errors import ProtocolError, WalError
from walsvc.log.commit.producers import append_request, stream_request
from walsvc.service.server.admission import Admission
from walsvc.service.server.answers import CANCELLED, MODES, Answers
from walsvc.service.server.budget import Budget
from walsvc.service.server.large import Large
from walsvc.service.server.limits import Limits
from walsvc.service.server.line import Line
from walsvc.service.server.parts import Parts
from walsvc.service.wire.frames import APPEND_COST, ITEMS_MAX, RECORD_COST, Batch, Credit
from walsvc.topics.names import check_name


class Batches:
    """The batches of one connection that are not answered.

    Args:
        line, limits, log: of the connection.
        budget: of the server.
        large: what large batches of all connections wait for.
        admission, answers: of its requests.
    """

    def __init__(
        self,
        line: Line,
        limits: Limits,
        log: Log,
        *,
        budget: Budget,
        large: Large,
        admission: Admission,
        answers: Answers,
    ) -> None:
        self._line = line
        self._limits = limits
        self._log = log
        self._budget = budget
        self._large = large
        self._admission = admission
        self._answers = answers
        config = log.config
        self._records_max = max(config.max_batch_bytes // RECORD_COST, ITEMS_MAX)  # of a batch
        self._small_max = min(config.max_group_bytes, config.max_batch_bytes)  # bytes of a batch that is one group
        # before the log gets a batch whose end has not come: the client's credit must suffice for them
        self._gathered_max = max(min(large.bytes_max, config.max_pending_bytes // 2), self._small_max)
        self._batches: dict[int, Parts] = {}

    def __contains__(self, id: int) -> bool:
        return id in self._batches

    def __len__(self) -> int:
        return len(self._batches)

    # ---- arriving

    def is_known(self, frame: Batch) -> bool:
        """True if a part goes on with a batch, or is of one that is over: answered, refused or cancelled."""
        return frame.id in self._batches or frame.part > 0

    def begin(self, frame: Batch, size: int) -> bool:
        """The first part, which was admitted; False: the batch is refused."""
        core = self._log.writer.core
        try:
            self._admission.check_right()
            replica = self._answers.replica(frame.mode)
            if frame.topic is not None:
                check_name("topic", frame.topic)
            request = self._admission.request(frame)
            known = request is not None and core.metadata.producers.find(request) is not None
        except WalError as error:
            self._line.answer_error(frame.id, error)
            return False
        parts = self._batches[frame.id] = Parts(frame, replica, core.queue.bounds, self._records_max)
        if known:
            self._start(frame.id, parts, self._streamed(frame, parts))
        elif frame.since:
            self._line.send(Credit(frame.id, 0))  # a client that cannot send all of it again must know
        self._add(frame, parts, size)
        return True

    def go_on(self, frame: Batch, size: int) -> None:
        """Another part."""
        parts = self._batches.get(frame.id)
        if parts is None:
            return
        if frame.part != parts.following:
            raise ProtocolError(f"part {frame.part} of batch {frame.id} came", expected=f"part {parts.following}")
        self._admission.admit_part(frame, size)
        self._add(frame, parts, size)

    def _add(self, frame: Batch, parts: Parts, size: int) -> None:
        parts.add(frame, size)
        self._admission.hold(size, len(frame.payloads))
        if parts.future is None:
            self._take(frame.id, parts, asked=not frame.payloads)

    def _take(self, id: int, parts: Parts, *, asked: bool) -> None:
        """Let the log have a batch when all of it is here, or as much as may be gathered; or since the client has no credit for its next
        record, and asked by a part of nothing."""
        if parts.error is not None:
            error = parts.error
            self._drop(id)
            self._line.answer_error(id, error)
        elif parts.last and parts.cost <= self._small_max:
            self._give(id, parts)
        elif parts.last or (asked and parts.records) or parts.cost > self._gathered_max:
            self._large.give(parts, self._log, self._line, partial(self._give, id, parts))
        elif parts.cost > self._small_max:
            self._large.gather(parts, self._line)

    def _give(self, id: int, parts: Parts) -> None:
        """Give a batch to the log: whole where it is one group."""
        first, whole = parts.first, parts.last and parts.cost <= self._small_max
        try:
            future = self._whole(first, parts) if whole else self._streamed(first, parts)
            self._start(id, parts, future)
        except WalError as error:
            self._drop(id)
            self._line.answer_error(id, error)

    def _whole(self, first: Batch, parts: Parts) -> Any:
        return append_request(
            self._log.writer.core,
            parts.whole(),
            MODES[first.mode],
            topic=first.topic,
            request=self._admission.request(first),
            expected=first.expected,
        )

    def _streamed(self, first: Batch, parts: Parts) -> Any:
        """Give the log a batch of which more parts may come."""
        source = parts.source(self._limits, partial(self._consumed, first.id, parts))
        request = self._admission.request(first)
        return stream_request(self._log.writer.core, source, first.topic, request, expected=first.expected)

    def _start(self, id: int, parts: Parts, future: asyncio.Future[Any]) -> None:
        self._budget.asked += 1
        if parts.replicated is None:
            parts.future = future
            future.add_done_callback(partial(self._answer, id))
        else:
            parts.future = self._answers.after(id, future, parts.replicated, partial(self._over, id))

    # ---- on its way

    def _consumed(self, id: int, parts: Parts, taken: int, records: int) -> None:
        if self._batches.get(id) is not parts:
            return
        parts.bytes -= taken
        parts.records -= records
        self._admission.hold(-taken, -records)
        if records and not parts.last:
            self._line.send(Credit(id, taken + APPEND_COST * records))

    @property
    def streaming(self) -> bool:
        """True if the log waits for more of a batch of this connection, which must be read then."""
        return any(parts.future is not None and not parts.last for parts in self._batches.values())

    @property
    def gathered(self) -> int:
        """The bytes and records that are held of batches that have not gone to the log yet."""
        if not self._batches:
            return 0
        waiting = [parts for parts in self._batches.values() if parts.future is None]
        return sum(parts.bytes + parts.records for parts in waiting)

    def late(self, now: float) -> bool:
        """True if a batch keeps a place for too long that others wait for."""
        return any(self._large.late(parts, now) for parts in self._batches.values())

    # ---- over

    def _answer(self, id: int, future: asyncio.Future[Any]) -> None:
        self._over(id)
        self._answers.tell(id, future)

    def _over(self, id: int) -> None:
        """The log has answered."""
        if id in self._batches:
            self._drop(id)
        self._budget.answered()

    def _drop(self, id: int) -> None:
        parts = self._batches.pop(id)
        self._large.leave(parts)
        parts.items.clear()
        self._admission.hold(-parts.bytes, -parts.records)
        parts.bytes = parts.records = 0

    def cancel(self, id: int) -> None:
        """Give one up; nothing happens where there is none."""
        parts = self._batches.get(id)
        if parts is None:
            return
        if parts.future is not None:
            parts.future.cancel()
        else:
            self._drop(id)
            self._line.answer_error(id, WalError(CANCELLED))

    def give_up(self) -> None:
        """The connection is over: what the log has not accepted it never will."""
        for id, parts in list(self._batches.items()):
            if parts.future is not None:
                parts.future.cancel()
            else:
                self._drop(id)

    def last(self) -> list[asyncio.Future[Any]]:
        """The batches that will still be answered; one whose end is missing is given up."""
        for id, parts in list(self._batches.items()):
            if parts.last and parts.future is None:
                self._give(id, parts)  # it waited for its turn
        begun = [(parts, parts.future) for parts in self._batches.values() if parts.future is not None]
        for parts, future in begun:
            if not parts.last:
                future.cancel()
        return [future for _, future in begun]
