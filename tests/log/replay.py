"""Random logs with types, topics, labels and a clock that jumps; and what a filter must give, by looking at every record."""

from __future__ import annotations

import asyncio
import datetime
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from hypothesis import strategies as st

from walsvc.api import Log
from walsvc.config import WalConfig
from walsvc.disk.sim import SimDevice, SimDisk
from walsvc.format import index
from walsvc.model import Record
from walsvc.opening import open_on

START_NS = 1_700_000_000_000_000_000
SECOND = 1_000_000_000
SMALL_ROWS = mock.patch.object(index, "MIB", 8192)  # a row of the index every 8 KiB instead of every MiB
TOPICS = (None, "a", "b")
TYPES = (0, 0, 7, 300, 0x8001)


class One(NamedTuple):
    """A record to append."""

    type: int
    topic: str | None
    attributes: dict[str, Any] | None
    size: int


VALUES = st.one_of(st.integers(0, 3), st.sampled_from(["x", "y" * 70, None, True, 1.5, [1]]))
ONES = st.builds(
    One,
    st.sampled_from(TYPES),
    st.sampled_from(TOPICS),
    st.none() | st.dictionaries(st.sampled_from(["tenant", "shard"]), VALUES, max_size=2),
    st.sampled_from([0, 10, 300, 9000, 90_000]),
)
GROUPS = st.lists(st.tuples(st.integers(-3, 5), st.lists(ONES, min_size=1, max_size=4)), max_size=12)


class Clock:
    """A wall clock that is set by hand, to whole seconds."""

    def __init__(self) -> None:
        self.now = START_NS

    def __call__(self) -> int:
        return self.now


def moment(seconds: float) -> datetime.datetime:
    """A moment on the clock's scale."""
    return datetime.datetime.fromtimestamp(START_NS // SECOND + seconds, datetime.UTC)


def damage(file: Path, offset: int) -> None:
    """Change one byte of a file."""
    with file.open("r+b") as handle:
        handle.seek(offset)
        byte = handle.read(1)
        handle.seek(offset)
        handle.write(bytes([byte[0] ^ 0xFF]))
        handle.flush()
        os.fsync(handle.fileno())


async def fill(log: Log, clock: Clock, groups: list[tuple[int, list[One]]]) -> None:
    """Append each group at its time, all records of it at once."""
    log.writer.core.tail.clock = clock
    for step, ones in groups:
        clock.now += step * SECOND
        await asyncio.gather(
            *(
                (log if one.topic is None else log.topic(one.topic)).append(
                    bytes(one.size), type=one.type, attributes=one.attributes
                )
                for one in ones
            )
        )


async def open_sim(device: SimDevice, **options: Any) -> Any:
    """A log of small segments on a simulated device."""
    defaults = {"segment_bytes": 262_144, "max_group_bytes": 65_536}
    return await open_on(
        SimDisk(device, lock=not options.get("read_only")), WalConfig.of(None, {**defaults, **options})
    )


def expected(records: list[Record], wanted: Mapping[str, Any]) -> tuple[list[Record], int | None]:
    """What reading gives, and the LSN at which it stops since the type there is required and not known."""
    found = []
    for record in records:
        passes = (
            wanted.get("topic") in {None, record.topic}
            and (wanted.get("since") is None or record.timestamp_ns >= wanted["since"].timestamp() * SECOND)
            and (wanted.get("until") is None or record.timestamp_ns < wanted["until"].timestamp() * SECOND)
            and all(
                label in record.attributes
                and record.attributes[label] in (values if isinstance(values, (list, set)) else [values])
                for label, values in (wanted.get("where") or {}).items()
            )
        )
        types = wanted.get("types")
        if not passes:
            continue
        if types is None or record.type in types:
            found.append(record)
        elif record.type >= 0x8000:
            return found, record.lsn
    return found, None
