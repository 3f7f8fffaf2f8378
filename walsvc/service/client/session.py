"""A client's session with a server: what outlives a connection. Requests wait here for their answers, over reconnecting.

A request is in the table from its first sending until its answer. When a connection is lost, another one is made, and the
requests that can be repeated are sent again, in the order of their first sending, before anything new: with the producer's
id and their own sequence numbers an append that was carried out already is answered, not carried out again. One that has to
wait for room keeps back all behind it: so the log takes calls in the order in which they were called.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from walsvc.errors import (
    BadOption,
    Closed,
    OutcomeUnknown,
    RecordTooLarge,
    Unreachable,
    UnsupportedFormat,
    WalError,
    WalTimeout,
    WrongLoop,
    copy_of,
    from_source,
)
from walsvc.service.client.call import Calling
from walsvc.service.client.config import Address, ClientConfig
from walsvc.service.client.connector import FINAL, Connector, logger
from walsvc.service.client.order import FrameWaiter, SendOrder
from walsvc.service.client.room import CALLS, Room
from walsvc.service.client.watching import Watchers
from walsvc.service.wire.codes import farewell_of
from walsvc.service.wire.frames import Frame, Goodbye, Purged, Welcome
from walsvc.service.wire.methods import METHODS
from walsvc.service.wire.protocol import LENGTH, encode


def nothing(*_: object) -> None:
    """Do nothing: no caller wants to hear of it."""


@dataclass(slots=True, eq=False, repr=False)
class AppendSide:
    """The calls of a session on its append side.

    Attributes:
        before_sending: what was appended leaves before what is called after it.
        state_changed, limits_changed: there may be more room, or less.
        ended: nobody gets room any more, for this reason.
        drawing: tasks of batches whose asynchronous source has not ended.
    """

    before_sending: Callable[[], None] = nothing
    state_changed: Callable[[], None] = nothing
    limits_changed: Callable[[], None] = nothing
    ended: Callable[[WalError], None] = nothing
    drawing: set[asyncio.Task[Any]] = field(default_factory=set)


class Session(Connector):
    """A connection that is made anew when it is lost, the requests on it, and the log's state as last heard.

    Attributes:
        state: [first_lsn, next_lsn, durable_lsn, counters...] as the last frame said.
        closed: why nothing can be called any more; None while it can.
        repeated: appends and batches that were sent again.
        order: the requests that were not sent on this connection.
        room: for calls at the server.
        appends: the append side; its owner sets it.
        cut, purged: called for records above an LSN that are gone, and for those that were hidden; their owner sets them.
        watchers: hear why the connection was lost, and None when there is one again.
    """

    def __init__(self, address: Address, config: ClientConfig) -> None:
        super().__init__(address, config)
        self.state: list[int] = [1, 1, 0]
        self.closed: WalError | None = None
        self.repeated = 0
        self.order: SendOrder = SendOrder(self.requests)
        self.room: Room = Room(self.order)
        self.appends: AppendSide = AppendSide()
        self.cut: Callable[[int], None] = nothing
        self.purged: Callable[[Purged], None] = nothing
        self.watchers: Watchers = Watchers(self.loop, address.url)
        self._ids = 0
        self._out: list[bytes] = []
        self._flushing = False

    # ---- calls that are wrong

    def check_loop(self) -> None:
        """Raise WrongLoop where this is not the loop that opened the log."""
        if asyncio._get_running_loop() is not self.loop:  # noqa: SLF001 - asyncio exports it; None in a forked child, too
            whom = "a forked child" if os.getpid() != self._process else "another event loop or thread"
            raise WrongLoop(
                f"the log was used from {whom}",
                path=self.address.url,
                hint="open it there again; a connection belongs to one loop",
            )

    def check(self, *, changes: bool = False) -> None:
        """Raise whatever makes any call vain; with `changes` also for a log that is only read."""
        self.check_loop()
        if self.closed is not None:
            raise copy_of(self.closed)
        if changes and self.config.read_only:
            raise Closed(
                "the log was opened with read_only=True", path=self.address.url, hint="open it without read_only"
            )

    @property
    def in_source(self) -> bool:
        """True in the source of a streamed batch of this log."""
        return bool(self.appends.drawing) and asyncio.current_task() in self.appends.drawing

    def check_source(self) -> None:
        """Raise BadOption for a call that the source of a streamed batch makes: it would wait for the end of that batch."""
        if self.in_source:
            raise from_source(self.address.url)

    def need(self, feature: str, what: str) -> None:
        """Raise UnsupportedFormat unless the server said in WELCOME that it has a feature; an older one would pass it over."""
        if feature not in self.info.get("features", ()):
            raise UnsupportedFormat(
                f"the server does not know {what}", path=self.address.url, hint="update walsvc where it serves the log"
            )

    # ---- sending

    def new_id(self) -> int:
        """An id for a request."""
        self._ids += 1
        return self._ids

    def send(self, frame: Frame) -> None:
        """Send a frame behind what was appended before. Without a connection it is dropped: `again` of its request sends it."""
        self.appends.before_sending()
        self.put(encode(frame))

    def put(self, data: bytes) -> None:
        """Send bytes of a frame with whatever else this turn of the loop sends, in one write. BadOption for more than the server
        takes in a frame."""
        if self._connection is None:
            return
        if len(data) > self.limits["frame_bytes"] + LENGTH.size:
            raise BadOption(
                f"a frame of {len(data)} bytes is over the server's limit",
                path=self.address.url,
                expected=f"at most {self.limits['frame_bytes']}",
                hint="give smaller arguments, or start the server with a larger frame_bytes",
            )
        self._out.append(data)
        self.wake_up()

    def wake_up(self) -> None:
        """Call `before_sending` at the end of this turn, and write."""
        if not self._flushing:
            self._flushing = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self.appends.before_sending()
        self._flushing = False
        self.write_out()

    def write_out(self) -> None:
        """Write what is to be sent, now."""
        if self._connection is not None and self._out:
            data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
            self._out.clear()
            self._connection.write(data)

    def begin(self, id: int, request: FrameWaiter) -> None:
        """Put a request into the table and send it, behind what was appended before it."""
        self.appends.before_sending()
        self.submit(id, request)

    def submit(self, id: int, request: FrameWaiter) -> None:
        """Put a request at the end of the table, and send it once all before it are sent; also a sign to try connecting, where
        there is no connection."""
        self.requests[id] = request
        self.wanted()
        if self._connection is not None:
            self.order.add([(id, request)])

    async def call(self, method: str, then: Callable[[Any], None] | None = None, /, **args: Any) -> Any:
        """Call a method of the server's log; returns its value, which `then` gets before any later frame is looked at.

        Raises:
            What the server answered; WalTimeout, Unreachable; OutcomeUnknown for what must not be repeated; Closed for what
            changes something where the log is only read.
        """
        self.check(changes=METHODS[method].changes)
        if METHODS[method].changes:
            self.check_source()
        return await self.request(method, then, **args)

    async def request(self, method: str, then: Callable[[Any], None] | None = None, /, **args: Any) -> Any:
        """Like call, also while the log is being closed."""
        call = Calling(self, method, args, then)
        try:
            if self.config.timeout is None:
                return await call.answer
            done, _ = await asyncio.wait([call.answer], timeout=self.config.timeout)
            if not done:
                raise self.timed_out(method)
            return call.answer.result()
        except (asyncio.CancelledError, WalTimeout):
            call.give_up()
            raise

    def timed_out(self, what: str) -> WalTimeout:
        """The error of a call that took too long."""
        return WalTimeout(
            f"{what} was not answered within {self.config.timeout} s",
            path=self.address.url,
            hint="the server is stalled or cannot be reached"
            if self.connected
            else "there is no connection at the moment",
        )

    # ---- receiving

    def received(self, frame: Frame) -> None:
        """A frame: its state first, so that who is woken by it sees what the frame saw."""
        if isinstance(frame, Goodbye):
            self._goodbye(frame)
            return
        if (state := getattr(frame, "state", None)) is not None:
            self._new_state(state)
        if isinstance(frame, Purged):
            self.purged(frame)
        elif (request := self.requests.get(frame.id)) is not None:
            self.useful = True
            request.received(frame)

    def _new_state(self, state: list[int]) -> None:
        before, self.state = self.state[2], state
        if state[2] < before:
            self.cut(state[2])
        self.appends.state_changed()

    def _goodbye(self, frame: Goodbye) -> None:
        error = farewell_of(frame.code, frame.message, self.address.url)
        if not isinstance(error, FINAL):
            error = Unreachable(
                f"the server ended the connection: {error.message}", path=self.address.url, hint=error.hint
            )
        if self._connection is not None:
            self._connection.end(error)

    def _disconnected(self, error: WalError) -> None:
        """The connection is lost."""
        self._out.clear()
        self.order.clear()
        self.room.clear()
        for request in list(self.requests.values()):
            request.lost()
        self.watchers.lost(error)

    def _connected(self, welcome: Welcome) -> None:
        """Send again what is not answered, in the order of its first sending."""
        self._new_state(welcome.state)
        self.appends.limits_changed()
        self.room.begin(self.limits.get("calls", CALLS))
        self.order.add(self.requests.items())
        self.wake_up()
        self.watchers.connected()

    # ---- ending

    def _give_up(self, error: WalError) -> None:
        """No connection in time, or never again: everybody who waits is told."""
        requests = list(self.requests.values())
        self.requests.clear()
        for request in requests:
            request.failed(error)

    def _finish(self, error: WalError) -> None:
        """Refuse every call from now on, and fail the requests that were not sent yet or wait for room."""
        if self.closed is None:
            logger.error("%s: nothing connects any more: %s", self.address.url, error.message)
        self.closed = self.closed or error
        self.appends.ended(error)
        self.appends.before_sending()
        self._give_up(error)

    def unreachable(self, error: WalError, what: str) -> WalError:
        """The error for a request that was certainly not carried out."""
        if isinstance(error, (*FINAL, Closed, RecordTooLarge)):
            return copy_of(error)
        return Unreachable(
            f"{what}: {error.message}",
            path=self.address.url,
            errno=getattr(error, "errno", None),
            hint=f"no connection for {self.config.reconnect_seconds} s (reconnect_seconds); nothing was written by this call",
        )

    def unknown(self, error: WalError, what: str) -> OutcomeUnknown:
        """The error for a request that may have been carried out."""
        return OutcomeUnknown(
            f"it is not known whether {what} was carried out: {error.message}",
            path=self.address.url,
            hint="look at the end of the log when the server is there again",
        )

    async def end(self, error: WalError) -> None:
        """No call and no connection from now on; whoever still waits gets `error`."""
        self._flush()
        self._finish(error)
        self.order.clear()
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.cancel()
            await asyncio.wait([runner])
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.closed()
