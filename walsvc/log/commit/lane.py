"""Lane: the short way of an append into the filling group. Two implementations, equal by test: this one, which is the
specification, and _intake.c, which is taken where it was built.

Plain bytes that fit take it: check, make an Ack, put payload and Ack into the group's lists, and call `wake()` once a group. A
Relaxed record gets an Ack with its answer, and `arm()` is called instead. Everything else goes to `slow(...)`.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from threading import get_ident
from typing import TYPE_CHECKING, Any

from walsvc.keywords import unexpected_keyword
from walsvc.log.commit.ack import Ack, extension
from walsvc.log.commit.group import Labels
from walsvc.log.commit.payload import NO_TYPE
from walsvc.model import AppendResult, Mode, Relaxed, Strict

Slow = Callable[..., Ack[AppendResult]]


class Filled:
    """The filling group, as `PythonLane.fill` is told of it."""

    __slots__ = ("begin", "first_lsn", "labels", "payloads", "segment_id", "topics", "waiters")

    def __init__(  # noqa: PLR0917 - as `fill` is called
        self,
        payloads: list[bytes],
        waiters: list[Any],
        labels: dict[int, Labels],
        topics: Container[int],
        first_lsn: int,
        segment_id: int,
        begin: int,
    ) -> None:
        self.payloads: list[bytes] = payloads
        self.waiters: list[Any] = waiters
        self.labels: dict[int, Labels] = labels
        self.topics: Container[int] = topics
        self.first_lsn: int = first_lsn
        self.segment_id: int = segment_id
        self.begin: int = begin


class Most:
    """Bytes of a payload, and records of a group, at most."""

    __slots__ = ("record_bytes", "records")

    def __init__(self, record_bytes: int, records: int) -> None:
        self.record_bytes: int = record_bytes
        self.records: int = records


class PythonLane:
    """The way in.

    Args:
        new_ack: makes the answer of an append.
        accepted: makes the answer of a Relaxed one: accepted(lsn, segment_id, offset, length).
        check: raises what makes a call wrong; asked once a group.
        wake: told once a group that somebody waits for it.
        arm: told that a Relaxed record is in the group, unless it is `wanted` or `armed`.
        slow: takes what is not plain, or does not fit: slow(payload, mode, type, attributes, topic, expected, dedupe).
        record_bytes_max, records_max: of a payload; of a group.
        length_bytes: index bytes of a record without labels.

    Attributes:
        room: bytes that the group may still take; negative: nothing is taken without a closer look.
        limit: bytes that its records and their index may take.
        cost: bytes of index that each of its records takes.
        wanted: somebody waits for the group.
        armed: Relaxed records become durable in time, or need not.
    """

    def __init__(
        self,
        *,
        new_ack: Callable[[], Any],
        accepted: Callable[[int, int, int, int], Any],
        check: Callable[[], None],
        wake: Callable[[], None],
        arm: Callable[[], None],
        slow: Slow,
        record_bytes_max: int,
        records_max: int,
        length_bytes: int,
    ) -> None:
        self._new_ack = new_ack
        self._accepted = accepted
        self._arm = arm
        self._thread = get_ident()
        self._most = Most(record_bytes_max, records_max)
        self._length_bytes = length_bytes
        self._check = check
        self._wake = wake
        self._slow = slow
        self.wanted: bool = False
        self.armed: bool = False
        self.room: int = -1
        self.limit: int = -1
        self.cost = length_bytes
        self._filled = Filled([], [], {}, (), 0, 0, 0)

    def fill(  # noqa: PLR0917 - C takes no names
        self,
        payloads: list[bytes],
        waiters: list[Any],
        labels: dict[int, Labels],
        topics: Container[int],
        first_lsn: int,
        segment_id: int,
        begin: int,
        /,
    ) -> None:
        """Say what the filling group is made of, and where it stands.

        Args:
            payloads, waiters, labels: of the group; empty.
            topics: numbers of those that its segment's summary has a row for.
            first_lsn, segment_id: of the group.
            begin: offset of its first record in the segment.
        """
        self._filled = Filled(payloads, waiters, labels, topics, first_lsn, segment_id, begin)

    def append(  # noqa: PLR0917  keywords only would make each call dearer
        self,
        payload: bytes | bytearray | memoryview,
        mode: Mode = Strict,  # not keyword-only: CPython looks up each absent keyword-only argument in a dict
        type: int = NO_TYPE,
        attributes: Mapping[str, Any] | None = None,
        expected: int | None = None,
        dedupe: str | None = None,
        **unknown: Any,
    ) -> Ack[AppendResult]:
        """See TakesRecords.append."""
        for name in unknown:
            raise unexpected_keyword(self.append, name)
        if (
            payload.__class__ is bytes
            and (mode is Strict or mode is Relaxed)
            and type is NO_TYPE
            and attributes is None
            and expected is None
            and dedupe is None
            and self._fits(len(payload))
            and get_ident() == self._thread
        ):
            ack = self._take(payload, mode, None)
            if ack is not None:
                return ack
        return self._slow(payload, mode, type, attributes, None, expected, dedupe)

    def append_labelled(
        self, payload: Any, labels: Labels | None, topic: str, mode: Mode, type: int, /
    ) -> Ack[AppendResult]:
        """Append a record with a topic and perhaps a type; `labels` has both once the topic's number is known."""
        if (
            payload.__class__ is bytes
            and (mode is Strict or mode is Relaxed)
            and get_ident() == self._thread
            and labels is not None
            and self.cost > self._length_bytes  # the group has labels
            and labels.topic in self._filled.topics  # the segment's summary has its row
            and self._fits(len(payload))
        ):
            ack = self._take(payload, mode, labels)
            if ack is not None:
                return ack
        return self._slow(payload, mode, type, None, topic, None, None)

    def _fits(self, length: int) -> bool:
        """True if a payload may go into the group as it is."""
        return (
            self.room - length - self.cost >= 0
            and length <= self._most.record_bytes
            and len(self._filled.payloads) < self._most.records
        )

    def _take(self, payload: bytes, mode: Mode, labels: Labels | None) -> Ack[AppendResult] | None:
        """Put a plain record into the group, which it has fitted so far; None: the group has changed meanwhile."""
        if not self.wanted:
            self._check()  # costs a system call in CPython 3.11
        group = self._filled
        length, payloads, index = len(payload), group.payloads, len(group.payloads)
        if not self._fits(length):  # the check may run anything, and so may the collector
            return None
        ack = self._ack_for(length, mode)
        labelled = labels is None or self.cost > self._length_bytes
        if self._filled is not group or len(payloads) != index or not self._fits(length) or not labelled:
            return None
        try:
            if labels is not None:
                group.labels[index] = labels
            payloads.append(payload)
            group.waiters.append(ack if mode is Strict else None)
            self.room -= length + self.cost
            if mode is Strict:
                if not self.wanted:
                    self.wanted = True
                    self._wake()
            elif not self.wanted and not self.armed:
                self._arm()
        except BaseException:  # of a signal handler
            self.mend()
            raise
        return ack

    def _ack_for(self, length: int, mode: Mode) -> Ack[AppendResult]:
        """The answer for the next record of the group."""
        ack: Ack[AppendResult]
        if mode is Strict:
            ack = self._new_ack()
        else:
            group, index = self._filled, len(self._filled.payloads)
            offset = group.begin + self.limit - self.room - self.cost * index
            ack = self._accepted(group.first_lsn + index, group.segment_id, offset, length)
        return ack

    def mend(self) -> None:
        """Put right what an exception has cut short. For the subclass."""


if TYPE_CHECKING:
    Lane = PythonLane
else:
    compiled = extension("_intake")
    Lane = PythonLane if compiled is None else compiled.Lane
