"""A message that is published, and what JetStream answers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

Done = Callable[[OSError | None], None]


class Sent:
    """A message on its way."""

    __slots__ = ("acknowledged", "base", "data", "done", "sent_at", "sequence")

    def __init__(self, sequence: int, base: int, data: bytes, done: Done) -> None:
        self.sequence: int = sequence
        self.base: int = base
        self.data: bytes = data
        self.done: Done = done
        self.acknowledged: bool = False
        self.sent_at: float = time.monotonic()


def sequence_acknowledged(answer: bytes) -> int | None:
    """The sequence at which a message was stored; None for any other answer."""
    acknowledgement = json.loads(answer or b"{}")
    sequence: int | None = None if "error" in acknowledgement else acknowledgement.get("seq")
    return sequence
