"""The targets P1 to P12 and how a measurement is held against them. Each is a ratio of two things measured in turn."""

from __future__ import annotations

import operator
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bench.environment import Spread


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked for.

    Attributes:
        id: "P1" to "P12", with a letter where one of them asks for several things.
        what: in words.
        need: the ratio that the median of the rounds must reach.
        at_most: the ratio must not be above `need`; otherwise not below it.
        unit: of `ours` and `limit`.
        limit: what `ours` is divided by, in words.
    """

    id: str
    what: str
    need: float
    at_most: bool
    unit: str
    limit: str

    def says(self) -> str:
        """The bound in words."""
        times = "" if self.need == 1 else f"{self.need:g} x "
        return f"{'<=' if self.at_most else '>='} {times}{self.limit}"


class Point(NamedTuple):
    """One round of one target."""

    ours: float
    limit: float


@dataclass(slots=True)
class Verdict:
    """A target with what was measured.

    `note` says what was left out or made smaller. Where not `durable` (a memory-backed file system) nothing is judged. Where `shared`
    other programs take the processors and the device for moments, and a moment hits one side of a ratio: the rounds are many and
    short, and the tenth best of each side is held against the other's.
    """

    target: Target
    points: list[Point] = field(default_factory=list)
    note: str = ""
    durable: bool = True
    shared: bool = False

    @property
    def held(self) -> float | None:
        """What is held against the target: the median of the ratios, or the ratio of the quiet rounds."""
        if not self.points or self.ratio is None:
            return None
        if not self.shared:
            return self.ratio.median
        ours, limit = (self._quiet(values) for values in zip(*self.points, strict=True))
        return ours / limit

    def _quiet(self, values: Iterable[float]) -> float:
        """The value that a tenth of the rounds was better than, or the best of a few."""
        ordered = sorted(values, reverse=not self.target.at_most)
        return ordered[len(ordered) // 10]

    @property
    def ratio(self) -> Spread | None:
        """Of the rounds; None when nothing was measured."""
        return Spread.of(ours / limit for ours, limit in self.points) if self.points else None

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None when nothing was measured, or nothing durable."""
        if (held := self.held) is None or not self.durable:
            return None
        reaches: Callable[[float, float], bool] = operator.le if self.target.at_most else operator.ge
        return reaches(held, self.target.need)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        ratio = self.ratio
        return {
            "target": self.target.id,
            "what": self.target.what,
            "need": self.target.need,
            "at_most": self.target.at_most,
            "unit": self.target.unit,
            "limit_is": self.target.limit,
            "ours": [point.ours for point in self.points],
            "limit": [point.limit for point in self.points],
            "ratio": None if ratio is None else ratio._asdict(),
            "held": self.held,
            "shared": self.shared,
            "met": self.met,
            "note": self.note,
        }


Verdicts = AsyncIterator[Verdict]

P1 = Target("P1", "1 task, p50 of an append", 1.20, True, "us", "floor(4 KiB)")
P2 = Target("P2", "64 tasks", 0.75, False, "records/s", "64 / (floor + 64 / ceiling(64))")
P3A = Target("P3a", "1,024 tasks, uvloop", 1.2, False, "records/s", "ceiling(1,024)")
P3B = Target("P3b", "1,024 tasks, asyncio", 1.6, False, "records/s", "ceiling(1,024)")
P4A = Target("P4a", "append_batch of 256, 1 task", 1.0, False, "records/s", "1.5 M/s")
P4B = Target("P4b", "append_batch of 256, 4 tasks", 1.0, False, "records/s", "4 M/s")
P5A = Target("P5a", "64 tasks, 64 KiB, recycled segments", 0.85, False, "B/s", "device loop at the same write size")
P5B = Target("P5b", "64 tasks, 64 KiB, fresh log", 0.5, False, "B/s", "device loop at the same write size")
P6A = Target("P6a", "replay of 128 B, async for", 1.0, False, "records/s", "0.5 M/s")
P6B = Target("P6b", "replay of 128 B, batched", 1.0, False, "records/s", "2 M/s")
P6C = Target("P6c", "replay of 16 KiB", 0.70, False, "B/s", "plain sequential reading")
P7 = Target("P7", "opening a clean log of 10 GiB", 2.0, True, "ms", "opening one of 100 MiB")
P8A = Target("P8a", "memory over 10 M appends", 1.0, True, "MiB", "8 MiB of growth after the first tenth")
P8B = Target("P8b", "page cache while 4 GiB are written", 1.0, True, "MiB", "16 MiB of growth")
P9 = Target("P9", "loop lag p99.9, 1,024 tasks, rotations, gc as it comes", 1.0, True, "us", "5 ms")
P10 = Target("P10", "p99.9 of appends through rotations", 3.0, True, "us", "their p50")
P11A = Target("P11a", "append beside 10,000 segments, p50", 1.25, True, "us", "beside 10 segments")
P11B = Target("P11b", "seek among 10,000 segments, p50", 1.25, True, "us", "among 10 segments")
P11C = Target("P11c", "append to one of 100,000 topics, p50", 1.25, True, "us", "to the only one")
P11D = Target("P11d", "seek in one of 100,000 topics, p50", 1.25, True, "us", "in the only one")
P12A = Target("P12a", "CPU of one append, 1 task", 0.45, True, "us", "the first version's")
P12B = Target("P12b", "CPU of one append, 64 tasks", 0.45, True, "us", "the first version's")
P12C = Target("P12c", "CPU of one append, 1,024 tasks", 0.45, True, "us", "the first version's")
