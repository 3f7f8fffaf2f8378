"""The order in which a client's requests are sent: that of their calls, over lost connections."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Protocol

from walsvc.errors import WalError
from walsvc.service.wire.frames import Frame


class FrameWaiter(Protocol):
    """An entry of the table that waits for frames."""

    def received(self, frame: Frame) -> None:
        """A frame with its id."""

    def again(self) -> bool:
        """Send it: all before it was sent on this connection. False: it waits, and nothing behind it may be sent before. Raises
        WalError where it cannot be sent; then `failed` hears of that."""

    def lost(self) -> None:
        """The connection is lost; perhaps there will be another."""

    def failed(self, error: WalError) -> None:
        """It is over: no connection in time, or none any more. The request is no longer in the table."""


class SendOrder:
    """Requests that are in the table and were not sent on this connection, in order.

    Args:
        requests: the table.
    """

    def __init__(self, requests: dict[int, FrameWaiter]) -> None:
        self._requests = requests
        self._unsent: deque[tuple[int, FrameWaiter]] = deque()
        self._sending = False

    def add(self, requests: Iterable[tuple[int, FrameWaiter]]) -> None:
        """Put requests at the end, and send what may be sent."""
        self._unsent.extend(requests)
        self.send_on()

    def forget(self, id: int) -> None:
        """Take a request off the table: it is over."""
        self._requests.pop(id, None)

    def clear(self) -> None:
        """There is no connection any more."""
        self._unsent.clear()

    def send_on(self) -> None:
        """Send up to the first request that has to wait for room. Sending one may call this again."""
        if self._sending:
            return
        self._sending = True
        try:
            while self._unsent:
                id, request = self._unsent[0]
                if self._requests.get(id) is request and not self._sent(id, request):
                    return
                self._unsent.popleft()
        finally:
            self._sending = False

    def _sent(self, id: int, request: FrameWaiter) -> bool:
        """True if a request needs no more looking after. One that cannot be sent fails alone."""
        try:
            return request.again()
        except WalError as error:
            self.forget(id)
            request.failed(error)
            return True
