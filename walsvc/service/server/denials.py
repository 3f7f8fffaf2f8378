"""Denials: how fast clients are told that they may not come in. A client that is turned away costs as much as a dozen appends, and one that
guesses tokens, or has a wrong one and no patience, comes again at once. So above a rate that no honest mistake reaches, the answer waits
(as PostgreSQL's auth_delay has it, here for all clients together), and nothing is read from there meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from walsvc.service.server.rates import Bucket

PER_SECOND = 64.0  # denials, and so many at once
DELAY_MAX_SECONDS = 5.0


class Denials:
    """A bucket of answers that refills steadily.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._bucket = Bucket(PER_SECOND, clock())

    def delay(self) -> float:
        """Seconds after which one more client is to be told; 0: at once."""
        delay = self._bucket.spend(1, PER_SECOND, self._clock())
        self._bucket.level = max(self._bucket.level, -DELAY_MAX_SECONDS * PER_SECOND)
        return min(delay, DELAY_MAX_SECONDS)

    async def wait(self) -> None:
        """Wait until one more client is to be told."""
        if (delay := self.delay()) > 0:
            await asyncio.sleep(delay)
