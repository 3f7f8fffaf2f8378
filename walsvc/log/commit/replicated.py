"""The progress of a log's replica, and the callers that wait for it. Loop thread only; the engine that replicates moves it.

Records are counted by LSN, changes of metadata, which have none, by their place in the log.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeVar, cast

from walsvc.errors import Closed, ReplicaLost, Truncated, WalError, closed_log, copy_of
from walsvc.log.commit.ack import Waker
from walsvc.log.commit.catalog import BEGINNING, EVERYTHING, Mark
from walsvc.tasks import TWICE

Answer = TypeVar("Answer")  # an Ack or an asyncio.Future


class Shipping(Protocol):
    """An engine's task that ships the log's groups to its replica."""

    async def close(self, timeout: float | None) -> None:
        """Let the replica have what is durable, for a part of `timeout` seconds (None: a few seconds), then end."""


class Waiters:
    """Futures that each wait until a number, or a mark, is reached. Those that are over are swept out now and then."""

    def __init__(self) -> None:
        self._tickets = itertools.count()
        self._heap: list[tuple[Any, int, asyncio.Future[Any], Any]] = []
        self._kept = 0  # that were left at the last sweep

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, at: Any, future: asyncio.Future[Any], value: Any) -> None:
        """Let a future have `value` once `at` is reached."""
        if len(self._heap) > 2 * self._kept + 100:
            self._keep([each for each in self._heap if not each[2].done()])
            self._kept = len(self._heap)
        heapq.heappush(self._heap, (at, next(self._tickets), future, value))

    def reach(self, to: Any) -> None:
        """Answer those that wait for `to` or less."""
        while self._heap and self._heap[0][0] <= to:
            _, _, future, value = self._heap[0]
            if not future.done():
                future.set_result(value)
            heapq.heappop(self._heap)

    def end(self, error_for: Callable[[Any], WalError], above: Any = -1) -> None:
        """Give an error to those that wait for more than `above`."""
        for at, _, future, _ in self._heap:
            if at > above and not future.done():
                future.set_exception(error_for(at))
        self._keep([each for each in self._heap if each[0] <= above])

    def move(self, to: Any) -> None:
        """Let all wait for `to` instead."""
        self._keep([(to, *each) for _, *each in self._heap])

    def _keep(self, waiters: list[Any]) -> None:
        heapq.heapify(waiters)
        self._heap = waiters


class Replicated:
    """The replica of a log, and the callers that wait for it.

    Attributes:
        path: of the replica, for messages.
        lsn: every record up to it is stored there.
        mark: everything up to it is stored there, changes of metadata included.
        rewinds: how often truncate_after has taken records back that may have been stored there.
        words: function that says how it is: "connecting", "current", "catching up", "down: ...", "stopped: ...".
        behind_bytes: function that gives how many bytes, at most, are durable here and not stored there.
        lost: why the replica no longer follows the log; None while it does.
        ended: why the engine that ships to it has ended though the log is open; None while it runs.
        on_rewind: called after a truncate_after.
        shipping: what ships the log's groups to it, if something beside the log does. It ends with the log.
    """

    def __init__(self, path: str, lsn: int) -> None:
        self.path = path
        self.lsn: int = lsn
        self.mark: Mark = BEGINNING
        self.rewinds: int = 0
        self.words: Callable[[], str] = lambda: "connecting"
        self.behind_bytes: Callable[[], int] = lambda: 0
        self.lost: ReplicaLost | None = None
        self.ended: WalError | None = None
        self.on_rewind: Callable[[], None] = lambda: None
        self.shipping: Shipping | None = None
        self._loop = asyncio.get_running_loop()
        self._closed: Closed | None = None
        self._waiters = Waiters()
        self._changes = Waiters()

    @property
    def state(self) -> str:
        """The replica's state, as `words` says at this moment; or "lost: ...", "stopped"."""
        if self.lost is not None:
            return f"lost: {self.lost.message}"
        return self.words() if self._closed is None else "stopped"

    @property
    def down(self) -> bool:
        """Its servers cannot be reached, and are tried again."""
        return self.words().startswith("down")

    # ---- for those who append and wait

    def check(self) -> None:
        """Raise what makes waiting vain: ReplicaLost, Closed."""
        if (error := self.lost or self._closed) is not None:
            raise copy_of(error)

    def wait(self, lsn: int) -> asyncio.Future[int]:
        """A future that gets `lsn` once the replica has that record."""
        self.check()
        future: asyncio.Future[int] = self._loop.create_future()
        self._wait(lsn, future, lsn)
        return future

    def wait_changes(self, changed: Mark) -> asyncio.Future[None]:
        """A future for when the replica has every change of metadata up to a mark. Where truncate_after comes in between, the state
        after it counts."""
        self.check()
        future: asyncio.Future[None] = self._loop.create_future()
        if changed <= self.mark:
            future.set_result(None)
        else:
            self._changes.add(changed, future, None)
        return future

    def after(self, stored: Answer) -> Answer:
        """The future that gets the answer of the append `stored` once the replica has its records, too: an Ack for an Ack, a future for a
        future. Cancelling it cancels the append, which takes back what was not accepted yet."""
        waiting: Any = stored
        answer: Any = self._loop.create_future() if isinstance(stored, asyncio.Future) else Waker(self._loop).ack()
        stored_once = partial(self._stored, [answer])
        for _ in TWICE:
            waiting.add_done_callback(stored_once)
        answer.add_done_callback(lambda done: waiting.cancel() if done.cancelled() else None)
        return cast("Answer", answer)

    def _stored(self, untold: list[asyncio.Future[Any]], stored: asyncio.Future[Any]) -> None:
        if not untold:
            return
        answer = untold[0]
        if stored.cancelled():
            answer.cancel()
        elif (error := stored.exception()) is not None:
            if not answer.done():
                answer.set_exception(error)
        elif not answer.done():
            result = stored.result()
            self._wait(last_lsn(result), answer, result)
        untold.clear()

    def _wait(self, lsn: int, future: asyncio.Future[Any], value: Any) -> None:
        if lsn <= self.lsn:
            future.set_result(value)
        elif (error := self.lost or self._closed) is not None:
            future.set_exception(self._unfulfilled(error, lsn))
        else:
            self._waiters.add(lsn, future, value)

    # ---- for the engine, and for the writer

    def advance(self, lsn: int, mark: Mark = EVERYTHING) -> None:
        """The replica has every record up to `lsn`, and everything up to `mark`; by default, all that is durable."""
        self.lsn, self.mark = max(self.lsn, lsn), max(self.mark, mark)
        self._waiters.reach(self.lsn)
        self._changes.reach(self.mark)

    def stand(self, lsn: int, mark: Mark) -> None:
        """The replica was looked at, and ends there."""
        self.mark = mark
        self.advance(lsn, mark)

    def rewind(self, lsn: int, changed: Mark) -> None:
        """The log ends with record `lsn`, and `changed` is the end of its segment that tells so: whoever waits for a later record waits
        for what was dropped."""
        self.rewinds += 1
        self.lsn, self.mark = min(self.lsn, lsn), BEGINNING
        self._changes.move(changed)
        self._waiters.end(
            lambda at: Truncated("truncate_after dropped the record before it was replicated", path=self.path, lsn=at),
            lsn,
        )
        self.on_rewind()

    def lose(self, error: ReplicaLost) -> None:
        """The replica does not follow the log any more: nobody waits for it, now or later."""
        self.lost = error
        self._end_waiting(error)

    def close(self) -> None:
        """The log is being closed: nobody waits any more."""
        self._closed = closed_log(self.path)
        self.dismiss()

    def dismiss(self) -> None:
        """Give Closed to every caller that waits."""
        self._end_waiting(self._closed or Closed("the log is being closed", path=self.path))

    def _end_waiting(self, error: WalError) -> None:
        self._waiters.end(lambda lsn: self._unfulfilled(error, lsn))
        self._changes.end(lambda _: self._unfulfilled(error, None), BEGINNING)

    def _unfulfilled(self, error: WalError, lsn: int | None) -> WalError:
        """The error for somebody whose record (None: change of metadata) is durable here and not known to be there."""
        what = "change" if lsn is None else "record"
        if isinstance(error, Closed):
            message = f"the log was closed before the replica had the {what}, which is durable here"
            return Closed(message, path=self.path, lsn=lsn, hint="opened with replicate= again, it is replicated")
        message = f"the {what} is durable here, but not replicated: {error.message}"
        return ReplicaLost(
            message, path=self.path, lsn=lsn, expected=error.expected, actual=error.actual, hint=error.hint
        )


def last_lsn(result: Any) -> int:
    """LSN of the last record of an answer to an append or a batch; 0 for an empty batch."""
    if hasattr(result, "lsn"):
        return int(result.lsn)
    return max((place.first_lsn + place.records - 1 for place in result.places), default=0)
