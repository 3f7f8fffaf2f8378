"""Replication: a task beside an open log that ships every committed group, as it is on disk, to a JetStream stream.

The log never waits for it. What is not shipped yet stays in the log, by the hold "replica"; after an outage, a restart or a
kill the task looks at what the stream ends with, finds that group in the log, and goes on behind it. The stream takes each
message at one place or not at all (jetstream/publish.py), so there is no gap in it, and nothing twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from walsvc.disk.base import TakenOver
from walsvc.engines.jetstream.connect import Refused
from walsvc.engines.jetstream.durability import Durability
from walsvc.engines.jetstream.options import PAUSE_SECONDS, Address, JetStreamOptions, parse_replica
from walsvc.engines.replication.session import LEAVE_SECONDS, ShippingSession
from walsvc.errors import Closed, Corruption, DurabilityLost, NoSpace, ReplicaLost, WalError
from walsvc.log.commit.replicated import Replicated
from walsvc.log.read.pins import REPLICA_HOLD
from walsvc.tasks import begin_task

if TYPE_CHECKING:
    from walsvc.api import Log

RETRY_SECONDS_MAX = 5.0
CLOSE_SECONDS = 5.0  # closing the log waits so long for the replica, and for no more than a part of the time there is:
CLOSE_SHARE = 0.25  # the connection needs some to end, and the log for its last sync
logger: logging.Logger = logging.getLogger("walsvc.replication")


async def start(log: Log, url: str) -> None:
    """Begin to replicate an open log to the stream at `url`, until the log is closed; returns when what is there now is held.

    Raises:
        BadOption: the address.
    """
    await Replication(log, *parse_replica(url)).start()


class Replication:
    """Ships a log's groups as long as it runs: one connection after another, each a ShippingSession."""

    def __init__(self, log: Log, address: Address, options: JetStreamOptions) -> None:
        self._log = log
        self._address = address
        self._options = options
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self.durability: Durability | None = None  # what an acknowledgement of the stream is worth
        self.ending: bool = False
        self._warned: set[str] = set()  # since it was connected
        self.moved: asyncio.Event = asyncio.Event()  # set whenever that, or the state, has changed
        self.replicated: Replicated = Replicated(str(address), 0)

    async def start(self) -> None:
        """Hold what is there, and begin."""
        log, replicated = self._log, self.replicated
        replicated.behind_bytes = self._behind_bytes
        replicated.on_rewind = self._wake.set
        log.writer.core.attach(replicated)
        log.writer.core.catalog.when_durable(self._wake.set)
        if REPLICA_HOLD not in log.holds():
            with contextlib.suppress(Closed, NoSpace):  # a sealed log takes no hold; without room it is made later
                await log.hold(REPLICA_HOLD, log.first_lsn)
        self._task = begin_task(self._run())
        self._task.add_done_callback(self._ended)
        replicated.shipping = self

    async def close(self, timeout: float | None) -> None:
        """Give the replica CLOSE_SECONDS (at most CLOSE_SHARE of `timeout`) to get what is durable, unless it is down, then
        end. Callers that still wait get Closed. Idempotent."""
        assert self._task is not None, "close() before start()"
        target, replicated = self._log.writer.core.catalog.mark, self.replicated
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS if timeout is None else min(timeout * CLOSE_SHARE, CLOSE_SECONDS)):
                while replicated.mark < target and not self._task.done() and not replicated.down:
                    self.moved.clear()
                    await self.moved.wait()
        self.ending = True
        while not self._task.done():
            # once more after a while: up to CPython 3.11 wait_for loses a cancellation that meets its result
            self._task.cancel()
            await asyncio.wait([self._task], timeout=LEAVE_SECONDS)
        self._log.writer.core.catalog.when_durable(None)
        self.replicated.close()

    def _behind_bytes(self) -> int:
        """Bytes that are durable and not shipped, at most: of full segments it counts the whole file."""
        now, there, sizes = self._log.writer.core.catalog.mark, self.replicated.mark, self._log.writer.view.sizes
        if now[:2] == there[:2]:
            return now.offset - there.offset
        between = sum(size for each, size in sizes.items() if there.segment < each < now.segment)
        return max(sizes.get(there.segment, 0) - there.offset, 0) + between + now.offset

    # ---- life

    async def _run(self) -> None:
        from nats.errors import Error

        pause = PAUSE_SECONDS
        while True:
            session = ShippingSession(self._log, self, self._wake)
            try:
                await session.run(self._address, self._options)
            except ReplicaLost as error:
                self._lose(error)
                return
            except (Corruption, TakenOver) as error:
                self._lose(lost_by(error, str(self._address)))
                return
            except (Closed, DurabilityLost) as error:
                self.replicated.ended = error
                self._say(f"stopped: {error.message}")
                return
            except Refused as error:  # no outage; but somebody may change what is wrong
                pause = RETRY_SECONDS_MAX
                self._say(f"down: {error.message}")
                self._warn(error, error.message, pause)
                self.replicated.lose(lost_by(error, str(self._address)))
            except (WalError, OSError, Error) as error:
                pause = PAUSE_SECONDS if session.connected else min(pause * 2, RETRY_SECONDS_MAX)
                message = error.message if isinstance(error, WalError) else str(error)
                self._say(f"down: {message}")
                self._warn(error, message, pause)
            await asyncio.sleep(pause)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Tell the callers that wait why the task has ended, a cancellation from outside included."""
        if self.ending:
            return
        error = asyncio.CancelledError("cancelled from outside") if task.cancelled() else task.exception()
        if error is not None:
            logger.error("%s: replication ended", self._address, exc_info=error)
            self._lose(lost_by(error, str(self._address)))
        self.replicated.ended = self.replicated.ended or self.replicated.lost

    def accept(self) -> None:
        """Forget earlier refusals: the stream was taken over."""
        self.replicated.lost = None
        self._warned.clear()

    def _warn(self, error: Exception, message: str, pause: float) -> None:
        """Log what a session has ended with, once for each reason."""
        if message not in self._warned:
            self._warned.add(message)
            logger.warning("%s: tried again in %g s, and from then on: %s", self._address, pause, error)

    def _say(self, state: str) -> None:
        self.replicated.words = lambda: state
        self.moved.set()

    def _lose(self, error: ReplicaLost) -> None:
        logger.error("replication stopped: %s", error)
        self.replicated.lose(error)
        self.moved.set()


def lost_by(error: BaseException, path: str) -> ReplicaLost:
    """The ReplicaLost for the error that has ended the task."""
    if isinstance(error, TakenOver):
        hint = "one log replicates to a stream; open this one again if the other is to give way"
        return ReplicaLost(f"somebody else writes to the replica's stream: {error.strerror}", path=path, hint=hint)
    if isinstance(error, Refused):
        message = f"the replica is refused: {error.message}"
        return ReplicaLost(message, path=path, expected=error.expected, actual=error.actual, hint=error.hint)
    if isinstance(error, Corruption):
        damage = f"{error.message} [{error.where}]"
        return ReplicaLost(f"replication met damage: {damage}", path=path, hint=error.hint)
    return ReplicaLost(f"replication ended: {error!r}", path=path, hint="report this; opening the log again goes on")
