"""The rate at which the clients of one token may ask: a bucket that refills steadily and holds one second's worth, shared by all connections of
the token (a token bucket, as in RFC 2697). A request is never refused for what it is itself: it may overdraw the bucket, and the next ones wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from walsvc.service.server.auth import Grant

WHY = "rate"


class Reading(Protocol):
    """A connection that can be read from, or not."""

    def pause_reading(self, why: str) -> None:
        """Read nothing from there, for this reason."""

    def resume_reading(self, *why: str) -> None:
        """These reasons are gone."""


class Rates:
    """The buckets of a server's tokens.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[
            tuple[str, str], tuple[float, float]
        ] = {}  # (token's name, unit): level, and when it was that

    def pause(self, grant: Grant) -> float:
        """Seconds until the next request of a token may come; 0: at once."""
        return max(
            self._wait(grant, "requests", grant.requests_per_second), self._wait(grant, "bytes", grant.bytes_per_second)
        )

    def spend(self, grant: Grant, requests: int, size: int) -> float:
        """Count requests with so many bytes; returns `pause`."""
        self._spend(grant, "requests", grant.requests_per_second, requests)
        self._spend(grant, "bytes", grant.bytes_per_second, size)
        return self.pause(grant)

    def hold_back(self, grant: Grant | None, connection: Reading, requests: int, size: int) -> None:
        """Count what came on a connection, and read on there only when the rate of its token allows more."""
        if grant is not None and grant.limited and (pause := self.spend(grant, requests, size)) > 0:
            connection.pause_reading(WHY)
            asyncio.get_running_loop().call_later(pause, connection.resume_reading, WHY)

    def _wait(self, grant: Grant, unit: str, rate: float | None) -> float:
        return 0.0 if rate is None else max(-self._level(grant, unit, rate) / rate, 0.0)

    def _level(self, grant: Grant, unit: str, rate: float) -> float:
        now = self._clock()
        level, at = self._buckets.get((grant.name, unit), (rate, now))
        level = min(level + (now - at) * rate, rate)
        self._buckets[grant.name, unit] = (level, now)
        return level

    def _spend(self, grant: Grant, unit: str, rate: float | None, count: int) -> None:
        if rate is not None:
            self._buckets[grant.name, unit] = (self._level(grant, unit, rate) - count, self._clock())
