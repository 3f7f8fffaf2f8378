"""Denials: how fast clients are told that they may not come in. A client that is turned away costs as much as a dozen appends, and who
guesses tokens, or has a wrong one and no patience, comes again at once. So above a rate that no honest mistake reaches, the answer waits
(as PostgreSQL's auth_delay has it, here for all clients together), and nothing is read from there meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable

PER_SECOND = 64.0  # denials, and so many at once
DELAY_MAX_SECONDS = 5.0


class Denials:
    """A bucket of answers that refills steadily.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._level = PER_SECOND
        self._at = clock()

    def delay(self) -> float:
        """Seconds after which one more client is to be told; 0: at once."""
        now = self._clock()
        self._level = min(self._level + (now - self._at) * PER_SECOND, PER_SECOND)
        self._at = now
        delay = min(max(1 - self._level, 0.0) / PER_SECOND, DELAY_MAX_SECONDS)
        self._level = max(self._level - 1, -DELAY_MAX_SECONDS * PER_SECOND)
        return delay
