"""Entries of the queue: an append with all that it asks for, and the change of metadata that goes with it."""

from __future__ import annotations

from array import array
from typing import Any, Protocol

from walsvc.format.producers import Request
from walsvc.log.commit.group import Labels
from walsvc.model import Mode


class Joining(Protocol):
    """A change of metadata that is to be in the same group as something else: both are durable, or none is."""

    def change(self) -> dict[str, Any]:
        """The change, from the state at that moment. It may be asked for more than once. Raises a WalError where the whole is
        to be refused."""

    def accepted(self) -> None:
        """It is in a group and in the metadata: true from this step on."""


class QueuedAppend:
    """An append that is being accepted, or waits in the queue for room."""

    __slots__ = (
        "batch",
        "dedupe",
        "expected",
        "future",
        "joining",
        "labels",
        "lengths",
        "mode",
        "payloads",
        "request",
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
    ) -> None:
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
        self.lengths: array[int] | None = lengths  # of the payloads, and their sum, where the caller has measured them
        self.size: int = sum(map(len, payloads)) if size is None else size
