"""Reading and following over a connection: the server sends ahead what there is credit for; a reader goes on where it was."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from walsvc.errors import Closed, WalError, copy_of
from walsvc.log.read.cuts import FAR
from walsvc.model import Record
from walsvc.service.client.call import encoded
from walsvc.service.client.session import Session
from walsvc.service.wire.codes import error_of
from walsvc.service.wire.columns import cost_of, records_of
from walsvc.service.wire.frames import Cancel, Credit, End, Error, Frame, Open, Records, Result
from walsvc.service.wire.protocol import encode
from walsvc.service.wire.window import Window

Hides = Callable[[Record], bool]


class RemoteStream:
    """The receiving half of a stream "read" or "follow".

    Attributes:
        following: LSN from which on nothing was received yet.
        hidden: what was purged or cut since records were taken last, as tests of a record.
    """

    def __init__(self, session: Session, what: str, args: dict[str, Any]) -> None:
        self._session = session
        self._what = what
        self._args = args
        self._id = session.new_id()
        self._received: deque[tuple[list[Record], int]] = deque()
        self._window = Window(session.config.read_ahead_bytes)
        self._error: WalError | None = None
        self._ended = False
        self._opened = False
        self._waiter: asyncio.Future[None] | None = None
        self.following: int | None = args.get("start")
        self.hidden: list[Hides] = []
        encoded(Open(self._id, what, args, self._window.size))  # what cannot be sent is said before anything is
        session.begin(self._id, self)

    # ---- from the session

    def received(self, frame: Frame) -> None:
        """RESULT first, then RECORDS, and END or ERROR at last."""
        if isinstance(frame, Records):
            records = records_of(frame)
            cost = cost_of(records)
            self._received.append((records, cost))
            self._window.take(cost)
            self.following = records[-1].lsn + 1
        elif isinstance(frame, Result):
            self._open(frame.value, frame.state[1])
        elif isinstance(frame, End):
            self._finish(None)
        elif isinstance(frame, Error):
            self._finish(error_of(frame.code, frame.message, frame.fields))
        self._wake()

    def _open(self, bounds: dict[str, int], next_lsn: int) -> None:
        """Settle the beginning and the end at the first opening, also for openings after a lost connection; later only cuts move
        them."""
        if not self._opened:
            self._opened = True
            self.following = bounds.get("start", self.following)
            if self._what == "read" and self._args.get("stop") is None:
                self._args = {**self._args, "stop": bounds.get("stop", next_lsn)}
        elif self.following is not None and bounds.get("start", FAR) < self.following:
            self.cut(bounds["start"])
        elif self._what == "read":
            self._stop_at(bounds.get("stop", FAR))

    def again(self) -> bool:
        """Begin, or go on behind what was received."""
        start = self._args.get("start") if self.following is None else self.following
        args = {**self._args, "start": start}
        self._session.put(encode(Open(self._id, self._what, args, self._window.renewed())))
        return True

    def lost(self) -> None:
        """It will be opened again."""

    def failed(self, error: WalError) -> None:
        """No connection in time; or closed, which for who follows is an end and no error."""
        ended = isinstance(error, Closed) and self._what == "follow"
        self._finish(None if ended else self._session.unreachable(error, "reading cannot go on"))
        self._wake()

    def _finish(self, error: WalError | None) -> None:
        self._error = error
        self._ended = True
        self._session.requests.pop(self._id, None)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # ---- to the reader

    async def take(self) -> list[Record]:
        """The records that came next, at least one; empty at the end. Raises the error that ended the stream."""
        records: list[Record] = []
        while not records:
            while not self._received:
                if self._ended:
                    if self._error is not None:
                        raise copy_of(self._error)
                    return []
                self._waiter = self._session.loop.create_future()
                await self._waiter
            records, cost = self._received.popleft()
            if (granted := self._window.taken(cost)) and not self._ended:
                self._session.put(encode(Credit(self._id, granted)))
        self.hidden.clear()
        return records

    def cut(self, end: int) -> None:
        """The log was cut before LSN `end`: what was received from there on is void."""
        if self._what == "read":
            self._stop_at(end)
        if self.following is not None and end < self.following:
            self.following = end
            self.purged(lambda record: record.lsn >= end)

    def _stop_at(self, end: int) -> None:
        stop = self._args.get("stop")
        self._args = {**self._args, "stop": end if stop is None else min(stop, end)}

    def purged(self, hidden: Hides) -> None:
        """Some of what was received is hidden now; who has taken some of it looks at `hidden`."""
        self.hidden.append(hidden)
        self._received = deque(
            ([each for each in records if not hidden(each)], cost) for records, cost in self._received
        )

    def close(self) -> None:
        """Give it up; nothing happens where it has ended."""
        if not self._ended:
            self._finish(None)
            self._session.put(encode(Cancel(self._id)))
            self._wake()


class Follower:
    """A "follow" for its reader. When the log is closed it still gives what was durable by then, as the embedded log does.

    Attributes:
        reading: its reader waits for records at this moment.
    """

    def __init__(self, session: Session, args: dict[str, Any], left: Callable[[], None]) -> None:
        self._session = session
        self._args = args
        self._left = left
        self._streams = deque([RemoteStream(session, "follow", args)])
        self._finishing = False
        self.reading: bool = False

    @property
    def hidden(self) -> list[Hides]:
        """See RemoteStream."""
        return self._streams[0].hidden if self._streams else []

    async def take(self) -> list[Record]:
        """The next records; empty at the end."""
        self.reading = True
        try:
            while self._streams:
                if records := await self._streams[0].take():
                    return records
                self._streams.popleft()
            return []
        except Closed:
            return []
        finally:
            self.reading = False
            self._left()

    def finish(self) -> None:
        """Give what is durable now, and no more."""
        if self._streams and not self._finishing:
            self._finishing = True
            following, durable = self._streams[0].following, self._session.state[2]
            self._streams[0].close()
            if following is None or following <= durable:
                args = {**self._args, "start": following, "stop": durable + 1}
                self._streams.append(RemoteStream(self._session, "read", args))

    def cut(self, end: int) -> None:
        """See RemoteStream.cut."""
        for stream in self._streams:
            stream.cut(end)

    def purged(self, hidden: Hides) -> None:
        """Some of what was received is hidden now."""
        for stream in self._streams:
            stream.purged(hidden)

    def close(self) -> None:
        """Give it up."""
        for stream in self._streams:
            stream.close()
        self._streams.clear()
