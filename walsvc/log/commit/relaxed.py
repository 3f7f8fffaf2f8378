"""The timer of Relaxed records: they become durable within `relaxed_interval`, whoever asks."""

from __future__ import annotations

import asyncio
from functools import partial

from walsvc.config import WalConfig
from walsvc.log.commit.health import Health
from walsvc.log.commit.placement import Placement
from walsvc.log.commit.whole import whole
from walsvc.tasks import TWICE


class RelaxedTimer:
    """Has the filling group committed in time. Loop thread only."""

    def __init__(self, config: WalConfig, placement: Placement, health: Health) -> None:
        self._interval = config.relaxed_interval
        self._placement = placement
        self._intake = placement.intake
        self._health = health
        self._timers: list[asyncio.TimerHandle] = []  # two, see TWICE
        self._round = 0
        self._intake.armed = config.relaxed_interval is None

    def arm(self) -> None:
        """Relaxed records wait for at most half the interval, which leaves the other half for the write itself."""
        if self._interval is not None and not self._timers and not self._intake.wanted:
            self._round += 1
            call_later = partial(self._health.loop.call_later, self._interval / 2, self._due, self._round)
            self._timers = [call_later() for _ in TWICE]
            self._intake.armed = True

    @whole("committing what is relaxed")
    def _due(self, number: int) -> None:
        if number != self._round or not self._timers:
            return
        self._timers = []
        self._intake.armed = False
        if not self._placement.group.empty and self._health.failure is None:
            self._intake.want()

    def stop(self) -> None:
        """The log is closed."""
        for timer in self._timers:
            timer.cancel()
