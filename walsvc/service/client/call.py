"""A CALL on its way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from walsvc.errors import BadOption, ProtocolError, Unreachable, WalError
from walsvc.service.client.order import FrameWaiter
from walsvc.service.client.room import Room
from walsvc.service.wire.codes import error_of
from walsvc.service.wire.frames import FROM_CLIENT, Call, Cancel, Error, Frame, Open, Result
from walsvc.service.wire.methods import METHODS
from walsvc.service.wire.protocol import LENGTH, decode, encode


class Line(Protocol):
    """The session as a call sees it."""

    loop: asyncio.AbstractEventLoop
    requests: dict[int, FrameWaiter]
    room: Room

    def new_id(self) -> int:
        """An id for a request."""

    def begin(self, id: int, request: FrameWaiter) -> None:
        """Put a request into the table and send it, behind what was appended before it."""

    def send(self, frame: Frame) -> None:
        """Send a frame behind what was appended before."""

    def put(self, data: bytes) -> None:
        """Send bytes of a frame."""

    def unreachable(self, error: WalError, what: str) -> WalError:
        """The error for a request that was certainly not carried out."""

    def unknown(self, error: WalError, what: str) -> WalError:
        """The error for a request that may have been carried out."""


class Calling:
    """A CALL that waits for its answer."""

    def __init__(self, session: Line, method: str, args: dict[str, Any], then: Callable[[Any], None] | None) -> None:
        self._session = session
        self._then = then
        self._frame = Call(session.new_id(), method, METHODS[method].divided(args))
        self._data = encoded(self._frame)
        self._sent = False
        self.answer: asyncio.Future[Any] = session.loop.create_future()
        session.begin(self._frame.id, self)

    def received(self, frame: Frame) -> None:
        """RESULT or ERROR."""
        self._session.room.leave(self._frame.id)
        if isinstance(frame, Result):
            if self._then is not None:
                self._then(frame.value)
            if not self.answer.done():
                self.answer.set_result(frame.value)
        elif isinstance(frame, Error) and not self.answer.done():
            self.answer.set_exception(error_of(frame.code, frame.message, frame.fields))

    def lost(self) -> None:
        """End a request that must not be repeated; its outcome is open."""
        if self._sent and not METHODS[self._frame.method].repeatable and not self.answer.done():
            error = Unreachable("the connection was lost")
            self.answer.set_exception(self._session.unknown(error, self._frame.method))
            self._session.room.leave(self._frame.id)

    def again(self) -> bool:
        """Ask, when there is room: what is behind it does not wait for that."""
        if not self._session.room.enter(self._frame.id, self, self._frame.method):
            return True
        self._session.put(self._data)
        self._sent = True
        return True

    def failed(self, error: WalError) -> None:
        """No connection in time, or the server takes no such frame."""
        self._session.room.leave(self._frame.id)
        if not self.answer.done():
            self.answer.set_exception(self._session.unreachable(error, f"{self._frame.method} could not be called"))

    def give_up(self) -> None:
        """Tell the server that no caller waits for the answer any more. An answer that `then` must hear of is still awaited."""
        if self._then is None and self._frame.id in self._session.requests and self._session.room.leave(self._frame.id):
            self._session.send(Cancel(self._frame.id))


def encoded(frame: Call | Open) -> bytes:
    """The bytes of a frame that holds a caller's arguments; BadOption for what is no argument: what the server could not read would
    end the connection, and every other call on it."""
    try:
        data = encode(frame)
        decode(memoryview(data)[LENGTH.size :], FROM_CLIENT)
        return data
    except ProtocolError as error:
        raise BadOption(
            f"an argument cannot be sent: {error.message}",
            hint="use text, lists, maps, and integers from -2^63 to 2^64 - 1",
        ) from None
