"""Answers: the callers that wait for a group."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable, Sequence
from typing import Any

from walsvc.log.commit.results import BatchResult, Part
from walsvc.model import AppendResult


class Answers:
    """The callers that wait for one group. Each is answered once, with its result or with an error.

    Attributes:
        waiters: one entry for each record; None where no caller waits for that very record (Relaxed, or part of a batch).
        batches: whole batches of the group, and their futures.
        told: called with sync_us before any caller is answered.
        barriers: futures, with the values that they get when the group is durable.
    """

    __slots__ = ("barriers", "batches", "told", "waiters")

    def __init__(self) -> None:
        self.waiters: list[Any] = []
        self.batches: list[tuple[Part, asyncio.Future[Sequence[AppendResult]]]] = []
        self.told: list[Callable[[int], None]] = []
        self.barriers: list[tuple[asyncio.Future[Any], Any]] = []

    def give(self, waker: Any, place: tuple[int, int, int], lengths: array[int], sync_us: int) -> None:
        """Answer every caller: the group is durable. `waker.wake()` then wakes them.

        Args:
            waker: see walsvc.log.commit.ack.
            place: LSN, segment and offset of the first record.
            lengths: of the payloads.
            sync_us: microseconds that the write and its sync took.
        """
        for tell in self.told:
            tell(sync_us)
        if self.waiters:
            waker.settle(self.waiters, *place, lengths, sync_us)
        self.waiters.clear()  # a result that its task has taken then dies at once, in memory that is still in the cache
        for part, ack in self.batches:
            waker.give(ack, BatchResult([part], durable=True, sync_us=sync_us))
        for barrier, value in self.barriers:
            if not barrier.done():
                barrier.set_result(value)

    def fail(self, error: Callable[[], BaseException]) -> int:
        """Give every caller an error of its own; returns how many were told."""
        told = 0
        futures: list[asyncio.Future[Any] | None] = [*self.waiters]
        futures += [future for _, future in self.batches]
        futures += [barrier for barrier, _ in self.barriers]
        for future in futures:
            if future is not None and not future.done():
                future.set_exception(error())
                told += 1
        return told
