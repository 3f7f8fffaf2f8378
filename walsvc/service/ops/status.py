"""The status of a server, as values; /status, /metrics and the status page all show one Snapshot.

Taking one never waits for a disk; see walsvc.metrics.looking.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from walsvc.metrics.looking import Counting, LogStatus, fresh, look
from walsvc.service.ops.space import SpaceWatch
from walsvc.service.server.status import ServerStatus, StatusSource


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A server and its logs at Unix time `at_ns`; `reasons`: why it is not ready, empty when it is; `warnings`: what will make it so
    unless somebody does something, and `short` the namespaces whose device has little space left."""

    at_ns: int
    server: ServerStatus
    logs: tuple[LogStatus, ...]

    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    short: frozenset[str] = frozenset()


class Observer:
    """Takes snapshots of one server."""

    def __init__(self, source: StatusSource, space: SpaceWatch | None = None) -> None:
        self._source = source
        self._space = space
        self._counts: dict[str, Counting] = {}

    async def snapshot(self) -> Snapshot:
        """The status as it is now, lags as of the last half second where the disk allows."""
        logs = dict(self._source.logs)
        self._counts = {
            name: known if (known := self._counts.get(name)) is not None and known.log is log else Counting(log)
            for name, log in logs.items()
        }
        await fresh(list(self._counts.values()))
        server = self._source.status()
        found = tuple(look(name, log, self._counts[name], server.copies.get(name, {})) for name, log in logs.items())
        short = frozenset[str]() if self._space is None else self._space.short
        return Snapshot(time.time_ns(), server, found, tuple(self.reasons()), tuple(self.warnings()), short)

    def warnings(self) -> list[str]:
        """Troubles that will stop the server unless an operator acts, one line each."""
        return [] if self._space is None else self._space.warnings

    def reasons(self) -> list[str]:
        """Why the server is not ready, one line each, empty when it is: its own reason, and the logs that have failed."""
        server = self._source.status()
        found = [] if server.ready else [server.reason or "the server does not say why"]
        found += [trouble.text for trouble in server.troubles if trouble.text not in found]
        for namespace, log in self._source.logs.items():
            failed = log.stats().failed
            if failed and not any(failed in each for each in found):
                found.append(f"log {namespace or log.path!r} has failed: {failed}")
        return found

    async def close(self) -> None:
        """Stop counting."""
        counting = [task for each in self._counts.values() if (task := each.task) is not None]
        for task in counting:
            task.cancel()
        await asyncio.gather(*counting, return_exceptions=True)
