"""Alarm: one timer for many deadlines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from walsvc.log.commit.health import Health


class Alarm:
    """Calls `ring` at the earliest time that it was set to. Loop thread only."""

    def __init__(self, health: Health, ring: Callable[[], None]) -> None:
        self._health = health
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None
        self._at = 0.0  # uvloop makes a plain Handle of a time that is over, which has no when()

    def set(self, at: float) -> None:
        """Ring at this time of the loop, or before it where that was set already."""
        if self._timer is None or self._timer.cancelled() or at < self._at:
            self.stop()
            self._at = at
            self._timer = self._health.loop.call_at(at, self._due)

    def _due(self) -> None:
        with self._health.whole("looking at deadlines"):
            self._timer = None
            self._ring()

    def stop(self) -> None:
        """Do not ring any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
