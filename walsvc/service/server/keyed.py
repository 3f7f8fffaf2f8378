"""One at a time for each key: a lock that is there for as long as somebody holds it or waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


@dataclass(slots=True)
class CountedLock:
    """A lock, and how many hold it or wait for it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    wanted: int = 0


class KeyedLocks(Generic[K]):
    """A lock for each key. Nothing is kept of a key that nobody asks for. Loop thread only."""

    __slots__ = ("_locks",)

    def __init__(self) -> None:
        self._locks: dict[K, CountedLock] = {}

    def __len__(self) -> int:
        return len(self._locks)

    def held(self, key: K) -> bool:
        """True if somebody has the key's turn."""
        found = self._locks.get(key)
        return found is not None and found.lock.locked()

    @asynccontextmanager
    async def turn(self, key: K) -> AsyncIterator[None]:
        """Wait for the turn of a key."""
        found = self._locks.setdefault(key, CountedLock())
        found.wanted += 1
        try:
            async with found.lock:
                yield
        finally:
            found.wanted -= 1
            if not found.wanted:
                del self._locks[key]

    async def keep(self, until: float) -> None:
        """Take every turn that somebody has or waits for, and never give it back; what is not free before `until`, in the loop's time, is
        left."""
        for found in list(self._locks.values()):
            try:
                async with asyncio.timeout_at(until):
                    await found.lock.acquire()
            except TimeoutError:
                continue
