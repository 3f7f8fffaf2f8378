"""The log's answers to requests: ACK or ERROR, at once or when the replica has the records, too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from walsvc.errors import Backpressure, BadOption, WalError
from walsvc.log.commit.replicated import Replicated
from walsvc.log.writer import WalWriter
from walsvc.model import Mode, Relaxed, Strict
from walsvc.service.server.limits import Limits
from walsvc.service.server.line import Line
from walsvc.service.wire.frames import QUORUM, RELAXED, STRICT, Ack
from walsvc.visible import counted

CANCELLED = "the request was cancelled; what had been accepted of it stays"
MODES: dict[int, Mode] = {STRICT: Strict, RELAXED: Relaxed, QUORUM: Strict}  # what the log is asked for
WAITING_MAX = 16  # times the limit of requests: how many may wait for the replica, of which hardly anything is kept


class Answers:
    """Answers the requests of one connection.

    Attributes:
        waiting: by id: the log has their records, and the replica not yet.
    """

    def __init__(self, line: Line, limits: Limits, writer: WalWriter) -> None:
        self.waiting: dict[int, asyncio.Future[Any]] = {}
        self._line = line
        self._waiting_max = WAITING_MAX * limits.requests
        self._writer = writer

    def replica(self, mode: int) -> Replicated | None:
        """The replica that a request of this mode waits for, after the log. Raises what makes that vain."""
        if mode not in MODES:
            raise BadOption(f"mode {mode} is not known", hint="0: Strict, 1: Relaxed, 2: Quorum")
        if mode != QUORUM:
            return None
        if len(self.waiting) >= self._waiting_max:
            raise Backpressure(
                f"the replica is behind: {counted(len(self.waiting), 'request')} of this connection in front of this one",
                expected=f"at most {self._waiting_max}",
                hint="wait for answers, or append with mode=Strict",
            )
        return self._writer.core.replica()

    def after(
        self, id: int, future: asyncio.Future[Any], replica: Replicated, stored: Callable[[], None]
    ) -> asyncio.Future[Any]:
        """The future of a request that waits for the replica, too. `stored` gives back what it holds of the server as soon as the
        log has answered, so that no outage of the replica stops anybody who does not wait for it."""
        answer = replica.after(future)
        future.add_done_callback(partial(self._stored, id, answer, stored))
        answer.add_done_callback(partial(self.tell, id))
        return answer

    def _stored(self, id: int, answer: asyncio.Future[Any], stored: Callable[[], None], _: asyncio.Future[Any]) -> None:
        stored()
        if not answer.done():
            self.waiting[id] = answer

    def tell(self, id: int, future: asyncio.Future[Any]) -> None:
        """ACK or ERROR."""
        self.waiting.pop(id, None)
        line = self._line
        if line.leaving:
            if not future.cancelled():
                future.exception()  # looked at: it is nobody's any more
            return
        if future.cancelled():
            line.answer_error(id, WalError(CANCELLED))
            return
        error = future.exception()
        if error is None:
            result = future.result()
            duplicate = result[0].encoded_len if getattr(result, "duplicate", False) else None
            line.send(Ack(id, result.places, result.durable, result.sync_us, line.state, duplicate))
        elif isinstance(error, WalError):
            line.answer_error(id, error)
        else:
            line.fail(error)
