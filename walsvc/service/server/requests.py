"""The appends of one connection: APPEND and BATCH frames to the log, and the answers back."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from walsvc.api import Log
from walsvc.errors import BadOption, WalError
from walsvc.log.commit.ack import all_done
from walsvc.log.commit.encoding import measure
from walsvc.log.commit.group import Labels
from walsvc.log.commit.payload import check_packed
from walsvc.log.commit.producers import append_request, check_request
from walsvc.service.server.admission import Admission
from walsvc.service.server.answers import MODES, Answers
from walsvc.service.server.auth import Grant
from walsvc.service.server.batches import Batches
from walsvc.service.server.budget import Share
from walsvc.service.server.line import Line
from walsvc.service.server.shared import Shared
from walsvc.service.wire.columns import part_bytes
from walsvc.service.wire.frames import Append, Batch
from walsvc.topics.names import check_name


class Requests:
    """The appends of a connection that have not been answered.

    Args:
        line: the connection.
        shared: what all connections have in common.
        share: the connection's share of the budget.
        log: where to.
        grant: what its token gives.
        producer: the number of its producer; 0: none.
    """

    def __init__(self, line: Line, shared: Shared, share: Share, log: Log, grant: Grant, *, producer: int) -> None:
        self._line = line
        self._counts = shared.counts.requests
        self._budget = shared.budget
        self._share = share
        self._core = log.writer.core
        self._frame_bytes = shared.limits.frame_bytes
        self._admission = Admission(line, shared.limits, share, grant, producer)
        self._answers = Answers(line, shared.limits, log.writer)
        self._batches = Batches(
            *(line, shared.limits, log),
            budget=shared.budget,
            large=shared.large,
            admission=self._admission,
            answers=self._answers,
        )
        self._futures: dict[int, asyncio.Future[Any]] = {}
        self._attributes = b""  # that were found good last

    def __contains__(self, id: int) -> bool:
        return id in self._futures or id in self._batches or id in self._answers.waiting

    @property
    def unanswered(self) -> int:
        """Requests that the log has not answered."""
        return len(self._futures) + len(self._batches)

    @property
    def streaming(self) -> bool:
        """See Batches."""
        return self._batches.streaming

    @property
    def gathered(self) -> int:
        """See Batches."""
        return self._batches.gathered

    def late(self, now: float) -> bool:
        """See Batches."""
        return self._batches.late(now)

    # ---- arriving

    def append(self, frame: Append) -> None:
        """APPEND."""
        id, payloads, labels = frame.id, frame.payloads, None
        _, size, _ = measure(payloads)
        count, copied = len(payloads), 0
        self._admission.admit(frame, size, len(self._futures) + len(self._batches))
        try:
            self._admission.check_right()
            if not payloads:
                raise BadOption("an APPEND frame has no payload")
            if frame.topic is not None:
                check_name("topic", frame.topic)
            if frame.attributes or frame.type:
                copied = count * len(frame.attributes)
                check_request(self._core, count, size + copied)
                payloads, labels = self._labelled(frame)
            replica = self._answers.replica(frame.mode)
            future = append_request(
                self._core,
                payloads,
                MODES[frame.mode],
                labels=labels,
                topic=frame.topic,
                request=self._admission.request(frame),
                expected=frame.expected,
                dedupe=frame.dedupe,
            )
        except WalError as error:
            self._line.answer_error(id, error)
            return
        self._counts["append"] += 1
        self._admission.hold(size, count, copied)
        self._budget.asked += 1
        if replica is None:
            self._futures[id] = future
            future.add_done_callback(partial(self._answer, id, size, count, copied))
        else:
            stored = partial(self._over, id, size, count, copied)
            self._futures[id] = self._answers.after(id, future, replica, stored)
        if self._budget.over:
            self._share.check()

    def _labelled(self, frame: Append) -> tuple[list[bytes], Labels]:
        """The payloads with their attributes in front."""
        if frame.type > 0xFFFF:
            raise BadOption(f"type={frame.type} is out of bounds", hint="allowed: 0 to 65535")
        packed = frame.attributes
        if packed and packed != self._attributes:
            check_packed(packed)
            self._attributes = packed
        payloads = [packed + payload for payload in frame.payloads] if packed else frame.payloads
        return payloads, Labels(frame.type, 0, len(packed))

    def batch(self, frame: Batch) -> None:
        """BATCH."""
        size = part_bytes(frame, self._frame_bytes)
        if self._batches.is_known(frame):
            self._batches.go_on(frame, size)
        else:
            self._admission.admit(frame, size, self.unanswered)
            self._counts["batch"] += self._batches.begin(frame, size)
        self._share.check()

    # ---- answering

    def _answer(self, id: int, size: int, count: int, copied: int, future: asyncio.Future[Any]) -> None:
        """The log has answered: ACK or ERROR, and then what it held is given back, while the answer is on its way."""
        del self._futures[id]
        self._answers.tell(id, future)
        self._admission.hold(-size, -count, -copied)
        self._budget.answered()

    def _over(self, id: int, size: int, count: int, copied: int) -> None:
        self._futures.pop(id, None)
        self._admission.hold(-size, -count, -copied)
        self._budget.answered()

    # ---- ending

    def cancel(self, id: int) -> None:
        """CANCEL: what waits for room is not accepted any more; what was accepted stays, and only the wait ends."""
        if (future := self._futures.get(id) or self._answers.waiting.get(id)) is not None:
            future.cancel()
        self._batches.cancel(id)

    def give_up(self) -> None:
        """The connection is over: nobody waits, and what is not accepted never will be."""
        for future in [*self._futures.values(), *self._answers.waiting.values()]:
            future.cancel()
        self._batches.give_up()

    async def settled(self) -> None:
        """Wait until everything that came whole is answered; a batch whose end is missing is given up."""
        waiting = [*self._futures.values(), *self._answers.waiting.values(), *self._batches.last()]
        if waiting:
            await all_done(waiting)
