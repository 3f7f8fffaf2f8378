"""The labels that the appends of a frame share, and the appends that wait for room to be sent."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from walsvc.model import Mode, Quorum, Relaxed, Strict
from walsvc.service.wire.frames import QUORUM, RELAXED, STRICT, Batch
from walsvc.service.wire.protocol import encode

MODES: dict[Mode, int] = {Strict: STRICT, Relaxed: RELAXED, Quorum: QUORUM}


class FrameLabels:
    """The labels that all appends of a frame share."""

    __slots__ = ("attributes", "dedupe", "expected", "mode", "topic", "type")

    def __init__(
        self,
        mode: int = STRICT,
        topic: str | None = None,
        type: int = 0,
        attributes: bytes = b"",
        *,
        expected: int | None = None,
        dedupe: str | None = None,
    ) -> None:
        self.mode: int = mode
        self.topic: str | None = topic
        self.type: int = type
        self.attributes: bytes = attributes
        self.expected: int | None = expected
        self.dedupe: str | None = dedupe

    @property
    def alone(self) -> bool:
        """True if the frame has one record: the server decides for a frame as a whole."""
        return self.expected is not None or self.dedupe is not None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FrameLabels) and self._fields() == other._fields()

    def _fields(self) -> tuple[Any, ...]:
        return self.mode, self.topic, self.type, self.attributes, self.expected, self.dedupe

    __hash__: ClassVar[None] = None  # type: ignore[assignment]


PLAIN = FrameLabels()


def question(id: int, seq: int, done: int, since: int, mode: int) -> bytes:
    """A frame that asks for the answer to a request that was sent before and cannot be sent again: a batch of nothing under its
    number. The server answers with what it knows of that, or else, without parts, that nothing of it was written."""
    return encode(Batch(id, seq, done, since, mode, None, 0, True, []))


class Unsent:
    """An entry of the queue: an append, or a batch that waits for its turn (whose payload is None)."""

    __slots__ = ("deadline", "future", "labels", "payload", "size")

    def __init__(self, payload: bytes | None, labels: FrameLabels, size: int, future: asyncio.Future[Any]) -> None:
        self.payload: bytes | None = payload
        self.labels: FrameLabels = labels
        self.size: int = size
        self.future: asyncio.Future[Any] = future
        self.deadline: float | None = None
