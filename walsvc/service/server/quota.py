"""How many holds and consumers a served log may have: each is remembered in the log for good, and in every new segment."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from walsvc.api import Log
from walsvc.errors import Backpressure


class Quota:
    """A limit of names in each log. A name counts from the step in which it is asked for.

    Args:
        most: how many there may be.
        what: they are called, and the limit too.
        count: how many a log has.
        has: whether a log has one.
    """

    def __init__(
        self, most: int, what: str, count: Callable[[Log], int], has: Callable[[Log, tuple[str | None, str]], bool]
    ) -> None:
        self._most = most
        self._what = what
        self._count = count
        self._has = has
        self._taking: dict[Log, list[tuple[str | None, str]]] = {}

    @contextlib.contextmanager
    def taking(self, log: Log, topic: str | None, name: str) -> Iterator[None]:
        """Take a name while the block makes it, if it is a new one. Raises Backpressure where there are too many."""
        key, taking = (topic, name), self._taking.setdefault(log, [])
        if self._count(log) + len(taking) >= self._most and self._full(log, taking) and not self._has(log, key):
            self._forget(log)
            raise Backpressure(
                f"the log has {self._most} {self._what}",
                path=log.path,
                expected=f"at most {self._most}",
                hint=f"delete some, or start the server with a higher limit of {self._what}",
            )
        taking.append(key)
        try:
            yield
        finally:
            taking.remove(key)
            self._forget(log)

    def _full(self, log: Log, taking: list[tuple[str | None, str]]) -> bool:
        """The same exactly: a name may be in the log before its block has ended."""
        return self._count(log) + sum(not self._has(log, each) for each in taking) >= self._most

    def _forget(self, log: Log) -> None:
        if not self._taking.get(log):
            self._taking.pop(log, None)
