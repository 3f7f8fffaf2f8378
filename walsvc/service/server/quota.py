"""How many holds and consumers a served log may have, and all open logs together: each is remembered in its log for good, and in every
new segment."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator

from walsvc.api import Log
from walsvc.errors import Backpressure

Key = tuple[str | None, str]  # topic, or None, and name


class Quota:
    """A limit of names in each log, and in all that are open. A name counts from the step in which it is asked for.

    Args:
        most, most_total: how many there may be, in one log and in all.
        what: they are called, and the limit too; that of all is this with "_total".
        logs: that are open.
        count: how many a log has.
        has: whether a log has one.
    """

    def __init__(
        self,
        most: int,
        most_total: int,
        what: str,
        logs: Callable[[], Iterable[Log]],
        *,
        count: Callable[[Log], int],
        has: Callable[[Log, Key], bool],
    ) -> None:
        self._most = most
        self._most_total = most_total
        self._what = what
        self._logs = logs
        self._count = count
        self._has = has
        self._taking: dict[Log, list[Key]] = {}

    @contextlib.contextmanager
    def taking(self, log: Log, topic: str | None, name: str) -> Iterator[None]:
        """Take a name while the block makes it, if it is a new one. Raises Backpressure where there are too many."""
        key = (topic, name)
        if not self._has(log, key) and (refusal := self._refusal(log)) is not None:
            raise refusal
        taking = self._taking.setdefault(log, [])
        taking.append(key)
        try:
            yield
        finally:
            taking.remove(key)
            self._forget(log)

    def _refusal(self, log: Log) -> Backpressure | None:
        """The error of one more name; None: there is room."""
        if self._reaches([log], self._most):
            return self._error(f"the log has {self._most} {self._what}", self._what, self._most, log.path)
        if self._reaches(self._logs(), self._most_total):
            words = f"all open logs together have {self._most_total} {self._what}"
            return self._error(words, f"{self._what}_total", self._most_total, None)
        return None

    def _reaches(self, logs: Iterable[Log], most: int) -> bool:
        """True if these logs have so many. A name may be in its log before its block has ended: those are looked at near the limit."""
        there, coming = 0, []
        for log in logs:
            there += self._count(log)
            coming += [(log, key) for key in self._taking.get(log, ())]
        return there + len(coming) >= most and there + sum(not self._has(*each) for each in coming) >= most

    def _error(self, words: str, limit: str, most: int, path: str | None) -> Backpressure:
        hint = f"delete some, or start the server with a higher limit of {limit}"
        return Backpressure(words, path=path, expected=f"at most {most}", hint=hint)

    def _forget(self, log: Log) -> None:
        if not self._taking.get(log):
            self._taking.pop(log, None)
