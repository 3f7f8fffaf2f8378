"""Lane: the short way of an append into the filling group. Two implementations, equal by test: this one, which is the
specification, and _intake.c, which is taken where it was built.

Plain bytes that fit take it: check, make an Ack, put payload and Ack into the group's lists, and call `wake()` once a group.
Everything else goes to `slow(...)`.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from threading import get_ident
from typing import TYPE_CHECKING, Any

from walsvc.log.commit.ack import Ack, extension
from walsvc.log.commit.group import Labels
from walsvc.log.commit.payload import NO_TYPE
from walsvc.model import AppendResult, Mode, Strict

Slow = Callable[..., Ack[AppendResult]]


class PythonLane:
    """The way in.

    Args:
        new_ack: makes the answer of an append.
        check: raises what makes a call wrong; asked once a group.
        wake: told once a group that somebody waits for it.
        slow: takes what is not plain, or does not fit: slow(payload, mode, type, attributes, topic, expected).
        record_bytes_max, records_max: of a payload; of a group.
        length_bytes: index bytes of a record without labels.

    Attributes:
        room: bytes that the group may still take; negative: nothing is taken without a closer look.
        limit: bytes that its records and their index may take.
        cost: bytes of index that each of its records takes.
        wanted: somebody waits for the group.
    """

    def __init__(
        self,
        *,
        new_ack: Callable[[], Any],
        check: Callable[[], None],
        wake: Callable[[], None],
        slow: Slow,
        record_bytes_max: int,
        records_max: int,
        length_bytes: int,
    ) -> None:
        self._new_ack = new_ack
        self._thread = get_ident()
        self._record_bytes_max = record_bytes_max
        self._records_max = records_max
        self._length_bytes = length_bytes
        self._check = check
        self._wake = wake
        self._slow = slow
        self.wanted = False
        self.room = self.limit = -1
        self.cost = length_bytes
        self._payloads: list[bytes] = []
        self._waiters: list[Any] = []
        self._labels: dict[int, Labels] = {}
        self._topics: Container[int] = ()

    def fill(
        self, payloads: list[bytes], waiters: list[Any], labels: dict[int, Labels], topics: Container[int], /
    ) -> None:
        """Say what the filling group is made of.

        Args:
            payloads, waiters, labels: of the group; empty.
            topics: numbers of those that its segment's summary has a row for.
        """
        self._payloads, self._waiters, self._labels, self._topics = payloads, waiters, labels, topics

    def append(
        self,
        payload: bytes | bytearray | memoryview,
        mode: Mode = Strict,  # not keyword-only: CPython looks up each absent keyword-only argument in a dict
        type: int = NO_TYPE,
        attributes: Mapping[str, Any] | None = None,
        expected: int | None = None,
    ) -> Ack[AppendResult]:
        """See WalWriter.append."""
        if (
            payload.__class__ is bytes
            and mode is Strict
            and type is NO_TYPE
            and attributes is None
            and expected is None
        ):
            length = len(payload)
            if (
                self.room - length - self.cost >= 0
                and length <= self._record_bytes_max
                and len(self._payloads) < self._records_max
                and get_ident() == self._thread
            ):
                if not self.wanted:
                    self._check()  # costs a system call in CPython 3.11, so once for each group
                    if not self._fits(length):  # the check may run anything
                        return self._slow(payload, mode, type, attributes, None, expected)
                ack: Ack[AppendResult] = self._new_ack()
                try:
                    self._payloads.append(payload)
                    self._waiters.append(ack)
                    self.room -= length + self.cost
                    if not self.wanted:
                        self.wanted = True
                        self._wake()
                except BaseException:  # of a signal handler
                    self.mend()
                    raise
                return ack
        return self._slow(payload, mode, type, attributes, None, expected)

    def append_labelled(self, payload: Any, labels: Labels | None, topic: str) -> Ack[AppendResult]:
        """Append a plain record to a topic; `labels` once its number is known."""
        if labels is not None and payload.__class__ is bytes:
            length = len(payload)
            if (
                self.room - length - self.cost >= 0
                and self.cost > self._length_bytes  # the group has labels
                and labels.topic in self._topics  # the segment's summary has its row
                and length <= self._record_bytes_max
                and len(self._payloads) < self._records_max
                and get_ident() == self._thread
            ):
                if not self.wanted:
                    self._check()
                    if not self._fits(length):
                        return self._slow(payload, Strict, NO_TYPE, None, topic, None)
                ack: Ack[AppendResult] = self._new_ack()
                try:
                    self._labels[len(self._payloads)] = labels
                    self._payloads.append(payload)
                    self._waiters.append(ack)
                    self.room -= length + self.cost
                    if not self.wanted:
                        self.wanted = True
                        self._wake()
                except BaseException:
                    self.mend()
                    raise
                return ack
        return self._slow(payload, Strict, NO_TYPE, None, topic, None)

    def _fits(self, length: int) -> bool:
        """Whether a payload may go into the group as it is."""
        return self.room - length - self.cost >= 0 and len(self._payloads) < self._records_max

    def mend(self) -> None:
        """Put right what an exception has cut short. For the subclass."""


if TYPE_CHECKING:
    Lane = PythonLane
else:
    compiled = extension("_intake")
    Lane = PythonLane if compiled is None else compiled.Lane
