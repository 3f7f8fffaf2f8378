"""A ring behind the binding of walsvc.disk.ring whose completions the test decides on."""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass

from walsvc.disk.ring import QUEUE_FULL, SYNC_BIT


@dataclass
class Submission:
    """One `Ring.write` as the disk asked for it."""

    file: int
    data: bytes
    offset: int
    token: int
    linked: bool


class FakeRing:
    """Takes writes and holds them until `complete` says how each ended.

    Attributes:
        submissions: all that were queued, in order.
        outcomes: what the next calls of `write` and `flush` answer; 0 once it is empty.
        backlog: what `unsubmitted` answers.
        waits: called by `wait`, which the disk uses only to drain.
    """

    def __init__(self, slots: int = 8) -> None:
        self.event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.slots = slots
        self.submissions: list[Submission] = []
        self.outcomes: deque[int] = deque()
        self.backlog = 0
        self.flushes = 0
        self.closed = 0
        self.waits = self._no_waiting
        self._completions: deque[tuple[int, int]] = deque()

    def _no_waiting(self) -> None:
        raise AssertionError("the disk waits for a completion that will not come")

    def pin(self, view: memoryview) -> object:
        return memoryview(view)

    def write(self, file: int, pinned: object, length: int, offset: int, token: int, linked: bool) -> int:  # noqa: PLR0917
        assert not self.closed
        assert isinstance(pinned, memoryview)
        assert len(pinned) == length
        outcome = self.outcomes.popleft() if self.outcomes else 0
        if outcome != QUEUE_FULL:
            self.submissions.append(Submission(file, bytes(pinned), offset, token, linked))
        return outcome

    def flush(self) -> int:
        assert not self.closed
        self.flushes += 1
        return self.outcomes.popleft() if self.outcomes else 0

    def unsubmitted(self) -> int:
        return self.backlog

    def reap(self) -> list[tuple[int, int]]:
        assert not self.closed
        try:
            os.eventfd_read(self.event)
        except BlockingIOError:
            pass
        taken, self._completions = list(self._completions), deque()
        return taken

    def wait(self) -> None:
        if not self._completions:
            self.waits()

    def close(self) -> None:
        self.closed += 1
        os.close(self.event)

    def complete(self, index: int, result: int | None = None, *, sync: bool = False) -> None:
        """Post a completion for the submission `index`: all bytes written, or 0 for a sync, unless `result` is given."""
        submission = self.submissions[index]
        if result is None:
            result = 0 if sync else len(submission.data)
        self._completions.append((submission.token * 2 + (SYNC_BIT if sync else 0), result))
        os.eventfd_write(self.event, 1)

    def complete_pair(self, index: int, written: int | None = None, synced: int | None = None) -> None:
        """Post both completions of a linked write."""
        self.complete(index, written)
        self.complete(index, synced, sync=True)
