"""The free-space alarm: said well before appends meet NoSpace, by log line, metric, /readyz and the status page.

It asks each log's own disk, so for a log in a JetStream stream it is the account's limit that counts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from walsvc.api import Log
from walsvc.metrics.looking import free_bytes_of

LOOK_SECONDS = 5.0  # between two looks
SEGMENTS = 8  # by default the alarm comes while so many segments still fit
BACK = 1.1  # and it is over only when there is so much more, or a log on the edge would say so all day
logger: logging.Logger = logging.getLogger("walsvc.service")


class SpaceWatch:
    """Watches the free space of each log's device. Loop thread only.

    Args:
        logs: gives the open logs by namespace.
        alarm_bytes: the alarm is given below that; None: SEGMENTS times the log's segment_bytes; 0: never.
    """

    def __init__(self, logs: Callable[[], Mapping[str, Log]], alarm_bytes: int | None = None) -> None:
        self._logs = logs
        self._alarm_bytes = alarm_bytes
        self._short: dict[str, str] = {}

    @property
    def warnings(self) -> list[str]:
        """One line for each log with too little space, as of the last look."""
        return list(self._short.values())

    @property
    def short(self) -> frozenset[str]:
        """Namespaces of the logs with too little space."""
        return frozenset(self._short)

    async def look(self) -> None:
        """Look once."""
        logs = dict(self._logs())
        self._short = {name: line for name, line in self._short.items() if name in logs}
        for name, log in logs.items():
            limit = SEGMENTS * log.config.segment_bytes if self._alarm_bytes is None else self._alarm_bytes
            free = await free_bytes_of(log)
            if free is None:
                continue
            if free < limit:
                line = f"log {name or log.path!r} has {free} bytes of space left, fewer than {limit}"
                if name not in self._short:
                    logger.warning(
                        "%s: truncate, reclaim or compact it, or enlarge the device, before appends get NoSpace", line
                    )
                self._short[name] = line
            elif name in self._short and free >= limit * BACK:
                del self._short[name]
                logger.info("log %r has space again: %d bytes", name or log.path, free)

    async def watch(self) -> None:
        """Look at regular times, until it is cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)
