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


class Bucket:
    """A bucket that is full at first.

    Attributes:
        level: what is in it; below 0 it is overdrawn.
        at: when it was that, in seconds of the caller's clock.
    """

    __slots__ = ("at", "level")

    def __init__(self, rate: float, now: float) -> None:
        self.level: float = rate
        self.at: float = now

    def spend(self, count: float, rate: float, now: float) -> float:
        """Take so much out of it; returns the seconds until it is not overdrawn any more, 0: it is not."""
        self.level = min(self.level + (now - self.at) * rate, rate) - count
        self.at = now
        return max(-self.level / rate, 0.0)


class Rates:
    """The buckets of a server's tokens.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[tuple[str, str], Bucket] = {}  # by the token's name and the unit

    def pause(self, grant: Grant) -> float:
        """Seconds until the next request of a token may come; 0: at once."""
        return self.spend(grant, 0, 0)

    def spend(self, grant: Grant, requests: int, size: int) -> float:
        """Count requests with so many bytes; returns `pause`."""
        return max(
            self._spend(grant, "requests", grant.requests_per_second, requests),
            self._spend(grant, "bytes", grant.bytes_per_second, size),
        )

    def hold_back(self, grant: Grant | None, connection: Reading, requests: int, size: int) -> None:
        """Count what came on a connection, and read on there only when the rate of its token allows more."""
        if grant is not None and grant.limited and (pause := self.spend(grant, requests, size)) > 0:
            connection.pause_reading(WHY)
            asyncio.get_running_loop().call_later(pause, connection.resume_reading, WHY)

    def _spend(self, grant: Grant, unit: str, rate: float | None, count: int) -> float:
        if rate is None:
            return 0.0
        now = self._clock()
        bucket = self._buckets.get((grant.name, unit))
        if bucket is None:
            bucket = self._buckets[grant.name, unit] = Bucket(rate, now)
        return bucket.spend(count, rate, now)
