"""Acknowledgements of a shared consumer behind a server: those that are called for in one turn of the loop share one frame, one join of
the group commit, and one answer.

At most two frames are on their way, one whose group is being committed and one for the group behind it; what comes meanwhile waits for the
first answer and leaves together. Its answer brings deliveries for those who will ask for some, where the consumer was opened with
`prefetch`. Each caller's deliveries are acknowledged as a whole or not at all: where those of one have
been refused, nothing of the frame was done, and each caller's are sent alone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from walsvc.errors import BadOption, LeaseLost, WalError, WalTimeout, copy_of
from walsvc.service.client.call import Calling
from walsvc.service.client.delivery import Home
from walsvc.service.client.session import Session
from walsvc.service.client.stock import BYTES_MAX, Stock

FEATURE = "ahead"
FRAMES = 2
ROWS_MAX = 1_000  # of several callers in a frame: about 32 KiB


class Acknowledging(Home, Protocol):
    """The consumer."""

    def check_there(self) -> None:
        """Raise whatever makes a call of it vain that was made before it was closed."""

    def ahead(self, answer: Any) -> None:
        """Take the deliveries that an answer has brought."""


@dataclass(slots=True, eq=False, repr=False)
class Asked:
    """The deliveries that one caller acknowledges.

    Attributes:
        rows: its deliveries.
        answer: what the caller waits for.
        call: it was sent by it; None: it was not sent yet.
    """

    rows: list[list[Any]]
    answer: asyncio.Future[None]
    call: Calling | None = None


class Acks:
    """See the head of this file. Loop thread only."""

    def __init__(self, home: Acknowledging, session: Session, stock: Stock) -> None:
        self._home = home
        self._session = session
        self._stock = stock
        self._waiting: deque[Asked] = deque()
        self._sent: dict[Calling, list[Asked]] = {}
        self._due = False

    async def ack(self, rows: list[list[Any]]) -> None:
        """Acknowledge the deliveries of one caller. Raises what the server answers; WalTimeout."""
        self._home.check()
        self._session.check_source()
        asked = Asked(rows, self._session.loop.create_future())
        self._waiting.append(asked)
        if not self._due:
            self._due = True
            self._session.loop.call_soon(self._send_due)
        try:
            if self._session.config.timeout is None:
                await asked.answer
                return
            done, _ = await asyncio.wait([asked.answer], timeout=self._session.config.timeout)
            if not done:
                raise self._session.timed_out("shared.ack")
            asked.answer.result()
        except (asyncio.CancelledError, WalTimeout):
            self._give_up(asked)
            raise

    def _give_up(self, asked: Asked) -> None:
        """The caller waits no more. What was not sent is not acknowledged; a frame that nobody waits for is given up at the server."""
        asked.answer.cancel()
        if asked.call is None:
            if asked in self._waiting:
                self._waiting.remove(asked)
        elif all(each.answer.done() for each in self._sent.get(asked.call, ())):
            asked.call.give_up()
            asked.call.answer.cancel()  # it is no longer in the table, so no frame will answer it

    # ---- sending

    @property
    def under_way(self) -> list[asyncio.Future[Any]]:
        """The answers that are waited for."""
        return [call.answer for call in self._sent]

    def send_all(self) -> None:
        """The consumer is being closed: what was called for before leaves before that, each caller's alone, since a refusal could not be
        told apart any more."""
        while self._waiting:
            if not (asked := self._waiting.popleft()).answer.done():
                self._call([asked])

    def _send_due(self) -> None:
        self._due = False
        self._send()
        self._session.write_out()

    def _send(self) -> None:
        while self._waiting and len(self._sent) < FRAMES:
            self._send_some()

    def _send_some(self) -> None:
        some: list[Asked] = []
        rows = 0
        while self._waiting and (not some or rows + len(self._waiting[0].rows) <= ROWS_MAX):
            asked = self._waiting.popleft()
            if not asked.answer.done():  # else its caller has given up
                some.append(asked)
                rows += len(asked.rows)
        if some:
            self._call(some)

    def _call(self, some: list[Asked]) -> None:
        """Send what some callers acknowledge in one frame."""
        rows = [row for each in some for row in each.rows]
        args: dict[str, Any] = {"stream": self._home.id, "deliveries": rows}
        ahead = self._stock.ask() if FEATURE in self._session.info.get("features", ()) else 0
        if ahead:
            args |= {"max_bytes": BYTES_MAX, "max_records": ahead}
        try:
            self._home.check_there()
            call = Calling(self._session, "shared.ack", args, self._home.ahead if ahead else None)
        except WalError as error:
            self._stock.answered(ahead)
            refuse(some, error)
            return
        self._sent[call] = some
        for each in some:
            each.call = call
        call.answer.add_done_callback(partial(self._answered, call, ahead))

    def _answered(self, call: Calling, ahead: int, answer: asyncio.Future[Any]) -> None:
        self._stock.answered(ahead)
        some = [each for each in self._sent.pop(call) if not each.answer.done()]
        error = asyncio.CancelledError() if answer.cancelled() else answer.exception()
        if error is None:
            for each in some:
                each.answer.set_result(None)
        elif len(some) > 1 and isinstance(error, (LeaseLost, BadOption)):
            for each in some:
                self._call([each])
        else:
            refuse(some, error)
        self._send()


def refuse(some: list[Asked], error: BaseException) -> None:
    """Tell callers why their deliveries are not acknowledged."""
    for each in some:
        if each.answer.done():
            continue
        if isinstance(error, asyncio.CancelledError):
            each.answer.cancel()
        else:
            each.answer.set_exception(copy_of(error) if isinstance(error, WalError) else error)
