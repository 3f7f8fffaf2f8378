"""Entries of the queue: an append with all that it asks for, and the change of metadata that goes with it."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from walsvc.format.producers import Request
from walsvc.log.commit.group import Labels
from walsvc.model import Mode


class Joining(Protocol):
    """A change of metadata that is to be in the same group as something else: both are durable, or none is."""

    def change(self) -> dict[str, Any]:
        """The change, from the state at that moment. It may be asked for more than once. Raises a WalError where the whole is
        to be refused."""

    def accepted(self) -> None:
        """Take note that the change is in a group and in the metadata."""


class Joined:
    """A Joining of two functions."""

    __slots__ = ("accepted", "change")

    def __init__(self, change: Callable[[], dict[str, Any]], accepted: Callable[[], None]) -> None:
        self.change: Callable[[], dict[str, Any]] = change
        self.accepted: Callable[[], None] = accepted


class Expected(NamedTuple):
    """A condition: what a topic, or (None) the log, must end with."""

    topic: str | None
    lsn: int


class Labelled(NamedTuple):
    """Topic and labels of one record of a transaction."""

    topic: str | None
    labels: Labels | None


class QueuedAppend:
    """An append that is being accepted, or waits in the queue for room."""

    __slots__ = (
        "batch",
        "conditions",
        "dedupe",
        "expected",
        "future",
        "joining",
        "labels",
        "lengths",
        "mode",
        "payloads",
        "request",
        "rows",
        "size",
        "topic",
    )

    def __init__(
        self,
        payloads: list[bytes],
        mode: Mode,
        labels: Labels | None,
        *,
        batch: bool,
        future: Any,
        topic: str | None = None,
        request: Request | None = None,
        joining: Joining | None = None,
        expected: int | None = None,
        lengths: array[int] | None = None,
        size: int | None = None,
        dedupe: str | None = None,
        rows: Sequence[Labelled] | None = None,
        conditions: Sequence[Expected] = (),
        own: Mapping[int, Labels] | None = None,
    ) -> None:
        if own:  # labels of some records of a batch, by index: then each record gets its row
            rows = [Labelled(topic, own.get(index)) for index in range(len(payloads))]
            conditions = () if expected is None else (Expected(topic, expected),)
            topic = expected = None
        self.payloads: list[bytes] = payloads
        self.mode: Mode = mode
        self.labels: Labels | None = labels
        self.batch: bool = batch
        self.future: Any = future  # an Ack, or an asyncio.Future for append_nowait and turns
        self.topic: str | None = topic  # by name: it gets its number when its first record is accepted
        self.request: Request | None = request  # of an idempotent producer: remembered with the records, in their group
        self.joining: Joining | None = joining
        self.expected: int | None = expected  # LSN that its topic, or the log, must end with; None: any
        self.dedupe: str | None = dedupe  # caller's key, of a single record
        self.rows: Sequence[Labelled] | None = rows  # instead of `topic` and `labels`, for each payload
        self.conditions: Sequence[Expected] = conditions  # more of them
        self.lengths: array[int] | None = lengths  # of the payloads, and their sum, where the caller has measured them
        self.size: int = sum(map(len, payloads)) if size is None else size

    @property
    def topics(self) -> Sequence[str]:
        """Names of the topics that its records go to, each once."""
        if self.rows is None:
            return () if self.topic is None else (self.topic,)
        return list(dict.fromkeys(row.topic for row in self.rows if row.topic is not None))
