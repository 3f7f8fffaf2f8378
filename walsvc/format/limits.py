"""Limits of topics: how much of a topic is kept, durably, until it is said otherwise. Pure.

    !limits    bin    rows of 28 bytes, little-endian; a change adds its rows, of which the last one of a topic counts
        topic u32      number of the topic
        records u64    the newest ones that are kept, at most; 0: no limit
        bytes u64      payload bytes of the records that are kept, at most; 0: no limit
        seconds f64    age of the records that are kept, at most; 0.0: no limit. Without any limit the topic has none any more

An older version would drop them with its first snapshot, hence the required key.
"""

from __future__ import annotations

import struct
import sys
from typing import NamedTuple

from walsvc.errors import BadOption
from walsvc.format.group import BadGroup
from walsvc.model import is_lsn

KEY = "!limits"
ROW: struct.Struct = struct.Struct("<IQQd")
LIMIT_MAX = (1 << 63) - 1


class TopicLimits(NamedTuple):
    """How much of a topic is kept; None: without limit.

    Attributes:
        records: the newest ones that are kept, at most.
        bytes: payload bytes of the records that are kept, at most.
        seconds: age of the records that are kept, at most.
    """

    records: int | None = None
    bytes: int | None = None
    seconds: float | None = None

    def check(self) -> TopicLimits:
        """The same. BadOption for a limit that cannot be."""
        for name, value in (("records", self.records), ("bytes", self.bytes)):
            if value is not None and (not is_lsn(value) or not 1 <= value <= LIMIT_MAX):
                raise BadOption(f"retain({name}={value!r}) is no limit", hint="an integer, 1 or more; None: no limit")
        seconds = self.seconds
        if seconds is None:
            return self
        number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
        if not (number and 0 < seconds <= sys.float_info.max):
            raise BadOption(f"retain(seconds={seconds!r}) is no limit", hint="a number above 0; None: no limit")
        return self._replace(seconds=float(seconds))


NO_LIMITS = TopicLimits()


def row_of(topic: int, limits: TopicLimits) -> bytes:
    """The row that says a topic's limits."""
    return ROW.pack(topic, limits.records or 0, limits.bytes or 0, limits.seconds or 0.0)


def apply(state: dict[int, TopicLimits], data: bytes) -> None:
    """Take note of encoded rows. Raises BadGroup if they are cut."""
    if len(data) % ROW.size:
        raise BadGroup("the rows of topics' limits are cut")
    for topic, records, size, seconds in ROW.iter_unpack(data):
        limits = TopicLimits(records or None, size or None, seconds or None)
        state.pop(topic, None)
        if limits != NO_LIMITS:
            state[topic] = limits


def encode(state: dict[int, TopicLimits]) -> bytes:
    """All rows, for a snapshot."""
    return b"".join(row_of(topic, limits) for topic, limits in state.items())
