"""Line: the connection as its parts see it. Requests, calls and streams speak through it, whatever is behind it."""

from __future__ import annotations

from typing import Protocol

from walsvc.errors import WalError
from walsvc.service.server.budget import Share
from walsvc.service.server.turns import Pace
from walsvc.service.wire.frames import Frame, State


class Line(Protocol):
    """The server's end of one connection.

    Attributes:
        share: its share of what the server holds.
        pace: how much was done for it of late.
        leaving: it is over, and nothing is answered any more.
    """

    leaving: bool
    share: Share
    pace: Pace

    @property
    def name(self) -> str:
        """Of the client, for the server's log."""

    @property
    def state(self) -> State:
        """The log's state now, as every answer carries it."""

    @property
    def stuck(self) -> bool:
        """The client does not read what was sent."""

    def claim(self, id: int) -> bool:
        """Take an id for a request, a call or a stream; False: one has it."""

    def send(self, frame: Frame) -> None:
        """Let a frame leave."""

    def answer_error(self, id: int, error: WalError) -> None:
        """Answer a request or a stream with an error."""

    def fail(self, error: BaseException) -> None:
        """End the connection: something went wrong that is nobody's request."""

    def hold_back(self) -> None:
        """Hear nothing more of the client: its batch waits for its turn."""

    def let_on(self) -> None:
        """Hear it again."""

    async def writable(self) -> None:
        """Wait until the client takes bytes and the server has room for them, or the connection is gone."""

    def flush(self) -> None:
        """Write what has been collected."""
