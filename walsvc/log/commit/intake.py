"""Intake: the filling group, and the short way into it.

Owns the group that takes records at this moment and how many bytes it may still take. It decides nothing else: once a group it
calls `wake()`, since somebody waits for it, and whatever does not fit, or is not the plain case, goes to `slow(...)`.

Invariants, which hold whenever another line of Python may run, that of a signal handler included:

* `payloads` and `waiters` of the group are equally long; what an exception left behind in the middle is taken back.
* `limit - room` is what the group's records and their index take.
* Where `wanted` is True, a wake-up is on its way or a completion will take the group along.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from itertools import repeat
from threading import get_ident
from typing import Any

from walsvc.config import WalConfig
from walsvc.format.group import GROUP_HEADER_BYTES, LENGTH_BYTES
from walsvc.log.commit.ack import Ack
from walsvc.log.group import Group, Labels
from walsvc.log.payload import NO_TYPE
from walsvc.model import AppendResult, Mode, Strict

Slow = Callable[..., Ack[AppendResult]]


class Intake:
    """The filling group of one writer.

    Args:
        config: its options.
        group: to begin with.
        new_ack: makes the answer of an append.
        check: raises what makes a call wrong; asked once a group.
        wake: told once a group that somebody waits for it.
        slow: takes what is not plain, or does not fit: slow(payload, mode, type, attributes, topic).

    Attributes:
        group: it takes records now.
        wanted: somebody waits for it.
        room: bytes that it may still take; negative: nothing is taken without a closer look.
        limit: bytes that its records and their index may take.
        cost: bytes of index that each of its records takes.
    """

    def __init__(
        self,
        config: WalConfig,
        group: Group,
        *,
        new_ack: Callable[[], Any],
        check: Callable[[], None],
        wake: Callable[[], None],
        slow: Slow,
    ) -> None:
        self._new_ack = new_ack
        self._thread = get_ident()
        self._record_bytes_max = config.max_record_bytes
        self._records_max = config.max_group_records
        self._check = check
        self._wake = wake
        self._slow = slow
        self.group = group
        self.wanted = False
        self.room = self.limit = -1
        self.cost = LENGTH_BYTES
        self._payloads: list[bytes] = group.payloads
        self._waiters: list[Any] = group.waiters
        self._topics: Container[int] = ()

    # ---- appending

    def append(
        self,
        payload: bytes | bytearray | memoryview,
        mode: Mode = Strict,  # not keyword-only: CPython looks up each absent keyword-only argument in a dict
        type: int = NO_TYPE,
        attributes: Mapping[str, Any] | None = None,
    ) -> Ack[AppendResult]:
        """See WalWriter.append."""
        if payload.__class__ is bytes and mode is Strict and type is NO_TYPE and attributes is None:
            length = len(payload)
            room = self.room - length - self.cost
            if (
                room >= 0
                and length <= self._record_bytes_max
                and len(self._payloads) < self._records_max
                and get_ident() == self._thread
            ):
                first = not self.wanted
                if first:
                    self._check()  # costs a system call in CPython 3.11, so once for each group
                ack: Ack[AppendResult] = self._new_ack()
                try:
                    self._payloads.append(payload)
                    self._waiters.append(ack)
                    self.room = room
                    if first:
                        self.wanted = True
                        self._wake()
                except BaseException:  # of a signal handler
                    self._mend()
                    raise
                return ack
        return self._slow(payload, mode, type, attributes, None)

    def append_labelled(self, payload: Any, labels: Labels | None, topic: str) -> Ack[AppendResult]:
        """Append a plain record to a topic; `labels` once its number is known."""
        if labels is not None and payload.__class__ is bytes:
            length = len(payload)
            room = self.room - length - self.cost
            if (
                room >= 0
                and self.cost > LENGTH_BYTES  # the group has labels
                and labels.topic in self._topics  # the segment's summary has its row
                and length <= self._record_bytes_max
                and len(self._payloads) < self._records_max
                and get_ident() == self._thread
            ):
                first = not self.wanted
                if first:
                    self._check()
                ack: Ack[AppendResult] = self._new_ack()
                try:
                    self.group.labels[len(self._payloads)] = labels
                    self._payloads.append(payload)
                    self._waiters.append(ack)
                    self.room = room
                    if first:
                        self.wanted = True
                        self._wake()
                except BaseException:
                    self._mend()
                    raise
                return ack
        return self._slow(payload, Strict, NO_TYPE, None, topic)

    def _mend(self) -> None:
        """Take back what is there by halves; what is whole stays, and is woken for."""
        count = min(len(self._payloads), len(self._waiters))
        del self._payloads[count:], self._waiters[count:]
        for index in [each for each in self.group.labels if each >= count]:
            del self.group.labels[index]
        if self.room >= 0:  # else it was shut meanwhile
            self.room = self.limit - sum(map(len, self._payloads)) - self.cost * count
        if self.wanted:
            self._wake()

    # ---- for the queue

    def add(
        self,
        payloads: Sequence[bytes],
        waiter: Any,
        *,
        need: int,
        cost: int,
        labels: Labels | None,
    ) -> tuple[int, int]:
        """Put records into the group; the caller has seen that they fit, and fails the log if this is cut short.

        Args:
            payloads: of the records.
            waiter: of the only one; None: nobody waits for a single record.
            need: bytes that they take, what dearer labels cost the records before included.
            cost: bytes of index for each record of the group from now on.
            labels: of each one.

        Returns:
            The index of the first one in the group, and its offset in the segment.
        """
        group, index = self.group, len(self._payloads)
        offset = group.offset + GROUP_HEADER_BYTES + self.filled_bytes - self.cost * index
        self.room -= need
        self.cost = cost
        if labels is not None:
            group.labels.update(zip(range(index, index + len(payloads)), repeat(labels)))
        self._payloads.extend(payloads)
        if waiter is None:
            self._waiters.extend([None] * len(payloads))
        else:
            self._waiters.append(waiter)
        return index, offset

    @property
    def filled_bytes(self) -> int:
        """Bytes of records and index in the group."""
        return self.limit - self.room

    def allow(self, limit: int) -> None:
        """Let the group take `limit` bytes in all; negative: nothing without a closer look."""
        filled = self.filled_bytes
        self.limit, self.room = (limit, limit - filled) if limit >= 0 else (filled - 1, -1)

    def start(self, group: Group, topics: Container[int]) -> None:
        """Fill another group; `allow` must follow.

        Args:
            group: empty.
            topics: numbers of those that its segment's summary has a row for.
        """
        self.group = group
        self._payloads = group.payloads
        self._waiters = group.waiters
        self._topics = topics
        self.cost = LENGTH_BYTES
        self.wanted = False
        self.limit = self.room = -1

    def want(self) -> None:
        """Somebody waits for the group."""
        try:
            self.wanted = True
            self._wake()
        except BaseException:  # of a signal handler, perhaps between the two
            self._wake()
            raise

    def want_no_more(self) -> None:
        """Nobody waits for the group, which is empty."""
        self.wanted = False

    def shut(self) -> None:
        """Take nothing more: the log has failed, or this is a forked child's copy of it."""
        self.allow(-1)
