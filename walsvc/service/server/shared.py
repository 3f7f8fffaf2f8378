"""Shared: the parts that all connections of a server use. The Server makes it and hands it down; it knows none of its users."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable

from walsvc.api import Log
from walsvc.errors import Backpressure, WalError
from walsvc.service.server.auth import EVERYBODY, Grant, Tokens
from walsvc.service.server.budget import Budget
from walsvc.service.server.denials import Denials
from walsvc.service.server.large import Large
from walsvc.service.server.limits import Limits
from walsvc.service.server.namespaces import Logs
from walsvc.service.server.quota import Quota
from walsvc.service.server.rates import Rates
from walsvc.service.server.roster import Roster
from walsvc.service.server.state import consumer_count, has_consumer
from walsvc.service.server.turns import Turns
from walsvc.service.wire.codes import code_of

logger: logging.Logger = logging.getLogger("walsvc.service")


class Counts:
    """Counters since the server started.

    Attributes:
        requests: by kind.
        errors: that were answered, by class.
        rejected: connections that the server has ended, by reason.
        received_bytes: on all connections.
    """

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.received_bytes = 0

    def reject(self, name: str, error: WalError, reason: str) -> None:
        """Note that a connection is ended by the server."""
        if reason != "stopping":
            self.rejected[reason] += 1
            logger.warning("%s: connection ended: %s: %s", name, code_of(error), error)


Name = tuple[Log, str | None, str]  # of a consumer: its log, its topic, what it is called there


class ClosingConsumers:
    """Consumers that are being closed since their connection is gone. Their names are free only then.

    Args:
        turns: of the loop, in which a slice is ended of what connections have left.
    """

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._tasks: dict[asyncio.Future[None], Name | None] = {}
        self._of_names: dict[Name, list[asyncio.Future[None]]] = {}
        self._untold: set[asyncio.Future[None]] = set()  # of connections that have not told yet what they leave

    def tell(self, tell: Callable[[], None], units: int) -> None:
        """Call `tell`, which calls `later` for all that a connection leaves, in this turn of the loop or in one of the next."""
        waiting = asyncio.get_running_loop().create_future()
        self._untold.add(waiting)
        self.add(waiting, None)

        def go_on() -> None:
            self._untold.discard(waiting)
            try:
                tell()
            finally:
                waiting.set_result(None)

        self._turns.clear(go_on, units)

    def later(self, end: Callable[[], asyncio.Task[None] | None], name: Name | None, units: int) -> None:
        """Call `end` in this turn of the loop or in one of the next. A consumer's name may be in use until the task that it returns has ended."""
        waiting = asyncio.get_running_loop().create_future()
        self.add(waiting, name)

        def go_on() -> None:
            try:
                if (task := end()) is not None:
                    self.add(task, name)
            finally:
                waiting.set_result(None)

        self._turns.clear(go_on, units)

    def add(self, task: asyncio.Future[None], name: Name | None) -> None:
        """A consumer's name may be in use until `task` has ended: whoever opens it again waits for that. None: it is no consumer.
        Idempotent."""
        if task in self._tasks:
            return
        self._tasks[task] = name
        if name is not None:
            self._of_names.setdefault(name, []).append(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Future[None]) -> None:
        name = self._tasks.pop(task)
        if name is not None:
            tasks = self._of_names[name]
            tasks.remove(task)
            if not tasks:
                del self._of_names[name]
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.warning("closing a consumer: %s", error)

    async def free(self, name: Name) -> None:
        """Wait until a name is free."""
        while tasks := self._untold or self._of_names.get(name):
            await asyncio.wait(list(tasks))

    async def done(self, timeout: float | None = None) -> None:
        """Wait until all of them are free, or for so many seconds."""
        loop = asyncio.get_running_loop()
        end = None if timeout is None else loop.time() + timeout
        while self._tasks:  # an end that was put off has a task of its own by then
            left = None if end is None else end - loop.time()
            if left is not None and left <= 0:
                return
            await asyncio.wait(list(self._tasks), timeout=left)


class Places:
    """A limit of what all connections have together.

    Args:
        most: how many there may be.
        what: they are called; the limit is this with "_total".

    Attributes:
        used: how many there are.
    """

    def __init__(self, most: int, what: str) -> None:
        self.used = 0
        self._most = most
        self._what = what

    def refusal(self) -> Backpressure | None:
        """The error of one more; None: there is room."""
        if self.used < self._most:
            return None
        return Backpressure(
            f"{self._most} {self._what} are open on all connections together",
            expected=f"at most {self._most}",
            hint=f"try again later, or start the server with a higher limit of {self._what}_total",
        )


class Shared:
    """See the head of this file.

    Attributes:
        limits: of each client.
        logs: by namespace.
        roster: the connections.
        budget: every byte that is held for them.
        tokens: who may do what, as of this moment; None: everybody may do everything.
        holds, consumers: how many names a log may have, and all of them.
        rates: how fast tokens may ask.
        turns: what is done for whom in a turn of the loop.
        large: batches that wait for their turn, so that appends of others come between them.
        streams, calls: how many there may be on all connections.
        counts: what has happened.
        closing: consumers whose names are not free yet.
        denials: how fast clients are turned away.
    """

    def __init__(self, limits: Limits, *, logs: Logs, roster: Roster, budget: Budget, tokens: Tokens | None) -> None:
        self.limits = limits
        self.logs = logs
        self.roster = roster
        self.budget = budget
        self.tokens = tokens
        opened = logs.all_open
        self.holds: Quota = Quota(
            *(limits.holds, limits.holds_total, "holds", opened),
            count=lambda log: len(log.holds()),
            has=lambda log, key: key[1] in log.holds(),
        )
        self.consumers: Quota = Quota(
            *(limits.consumers, limits.consumers_total, "consumers", opened), count=consumer_count, has=has_consumer
        )
        self.rates: Rates = Rates()
        self.turns: Turns = Turns()
        bytes_max = min(limits.pending_bytes, limits.pending_total_bytes) // 2
        self.large: Large = Large(max(limits.pending_total_bytes // 2 // bytes_max, 1), bytes_max)
        self.streams: Places = Places(limits.streams_total, "streams")
        self.calls: Places = Places(limits.calls_total, "calls")
        self.counts: Counts = Counts()
        self.closing: ClosingConsumers = ClosingConsumers(self.turns)
        self.denials: Denials = Denials()

    @property
    def opened(self) -> int:
        """Connections, with the streams, calls and appends that are open on them."""
        return len(self.roster) + self.streams.used + self.calls.used + self.budget.asked

    def grant(self, token: str | None) -> Grant | None:
        """The rights of a token; None: there is no such token."""
        return EVERYBODY if self.tokens is None else self.tokens.grant(token)
