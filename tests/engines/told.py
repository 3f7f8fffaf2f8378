"""The records and changes that a copy of a log must hold, by the journals of the processes that have written it (copied.py)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.engines.copied import JOBS, opening, tag_of
from walsvc import Record

Tag = tuple[int, int]  # run, and number in it


@dataclass
class Outcome:
    """The counts of a campaign. From `lost` to `errors` everything must be 0."""

    faults: dict[str, int] = field(default_factory=dict)
    copies: int = 0
    kept: int = 0  # records that the writers were told the copy has
    changes: int = 0  # acknowledgements, truncations and purges that a copy had to show
    records: int = 0  # in all copies
    lost: int = 0
    moved: int = 0
    changed: int = 0
    doubled: int = 0
    undead: int = 0
    gaps: int = 0
    undone: int = 0
    overdone: int = 0
    errors: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def __add__(self, other: Outcome) -> Outcome:
        """Both together."""
        ours, theirs = vars(self), vars(other)
        sums = {name: value + theirs[name] for name, value in ours.items() if name != "faults"}
        faults = {name: self.faults.get(name, 0) + other.faults.get(name, 0) for name in {*self.faults, *other.faults}}
        return Outcome(faults=faults, **sums)

    def short(self) -> dict[str, object]:
        """The numbers that grow, and those that should not."""
        numbers = {name: value for name, value in asdict(self).items() if isinstance(value, int) and value}
        return {**numbers, "bad": self.bad}

    @property
    def bad(self) -> int:
        """How much went wrong."""
        wrong = (self.lost, self.moved, self.changed, self.doubled, self.undead, self.gaps, self.undone, self.overdone)
        return sum(wrong) + len(self.errors)


@dataclass
class Copy:
    """The contents of a copy.

    Attributes:
        first, next: its LSNs.
        records: by LSN.
        tags: of the records, by LSN; a record that nobody has appended has none.
        position: of the consumer `reader`; 0: there is none.
        done: LSNs in the topic of jobs that `workers` have done.
    """

    first: int
    next: int
    records: dict[int, Record]
    tags: dict[int, Tag]
    position: int
    done: set[int]


async def copy_in(path: Path) -> Copy:
    """The contents of the log in a directory."""
    async with opening(path) as log:
        records = {record.lsn: record async for record in log.read()}
        tags = {}
        for lsn, record in records.items():
            try:
                tags[lsn] = tag_of(record)
            except ValueError:
                continue
        positions = {(each.topic, each.name): each.position for each in await log.consumers()}
        metadata = log.writer.core.metadata
        below = positions.get((JOBS, "workers"), 0)
        window = metadata.queues.get(f"{metadata.topics.get(JOBS)}/workers")
        done = {
            lsn
            for lsn, record in records.items()
            if record.topic == JOBS and (lsn < below or (window is not None and window.covers(lsn)))
        }
        return Copy(log.first_lsn, log.next_lsn, records, tags, positions.get((None, "reader"), 0), done)


class Demand:
    """The demands of the journals' rows on one copy.

    Attributes:
        must: the record that has to stand at an LSN.
        gone: records that a cut has taken away.
        hidden: LSNs that a purge has taken away.
        missing: LSNs at which nothing may be read, since somebody began to purge them.
        first: lowest and highest LSN with which the copy may begin.
        position: of `reader`, at least.
        done: what `workers` have done for certain.
        begun: what they have begun to acknowledge.
        changes: how many rows were found to hold, besides those of records.
    """

    def __init__(self, base: Copy | None, newest: Tag) -> None:
        self._newest = newest  # in the copy
        self.must: dict[int, Tag] = {} if base is None else dict(base.tags)
        self._placed = dict(self.must)  # the same and those of which nothing is certain
        self._cutting: set[Tag] = set()
        self.gone: set[Tag] = set()
        self.hidden: set[int] = set()
        self.missing: set[int] = set()
        self.first = (1, 1)
        self.position = 0
        self.done: set[int] = set()
        self.changes = 0
        if base is not None:
            self.missing = set(range(base.first, base.next)) - base.records.keys()
            self.first, self.position, self.done = (base.first, base.first), base.position, set(base.done)
        self.begun: set[int] = set(self.done)

    def apply(self, run: int, row: list[Any], *, sure: bool) -> None:
        """Take one row after the other, in their order. `sure`: what it says to be kept was so before the copy was begun."""
        kind, kept, tag, *values = row
        kept = kept and sure
        if kind.startswith("try"):
            self._begin(kind[4:], values)
        elif kind == "put":
            placed = {lsn: (run, number) for lsn, number in values[0]}
            self._placed |= placed
            if kept or self._newest >= (run, tag):
                self.must |= placed
        elif kept or self._newest >= (run, tag):
            self.changes += 1
            self._hold(kind, values)

    def _begin(self, kind: str, values: list[Any]) -> None:
        """A change may have been made from now on."""
        if kind == "drop":
            self._keep(lambda lsn: lsn >= values[0])
            self.first = self.first[0], max(self.first[1], values[0])
        elif kind == "purge":
            self._keep(lambda lsn: lsn not in values[0])
            self.missing |= set(values[0])
        elif kind == "cut":
            self._cutting = {tag for lsn, tag in self._placed.items() if lsn > values[0]}
            self._keep(lambda lsn: lsn <= values[0])
            self.hidden = {lsn for lsn in self.hidden if lsn <= values[0]}
            self.done = {lsn for lsn in self.done if lsn <= values[0]}
            self.position = min(self.position, values[0] + 1)
        elif values[0] == "workers":
            self.begun.add(values[1])

    def _keep(self, wanted: Any) -> None:
        self.must = {lsn: tag for lsn, tag in self.must.items() if wanted(lsn)}
        self._placed = {lsn: tag for lsn, tag in self._placed.items() if wanted(lsn)}

    def _hold(self, kind: str, values: list[Any]) -> None:
        """A change is in the copy."""
        if kind == "drop":
            self.first = values[0], self.first[1]
        elif kind == "purge":
            self.hidden |= set(values[0])
        elif kind == "cut":
            self.gone |= self._cutting
            self.missing = {lsn for lsn in self.missing if lsn <= values[0]}
            self.begun = {lsn for lsn in self.begun if lsn <= values[0]}
        elif kind == "ack" and values[0] == "reader":
            self.position = max(self.position, values[1] + 1)
        elif kind == "ack":
            self.done.add(values[1])
        elif kind == "kept":
            self.must |= {lsn: tag for lsn, tag in self._placed.items() if lsn < values[0]}


class Told:
    """The journals since the log was last made of a copy.

    Attributes:
        base: that copy; None: the log began empty.
    """

    def __init__(self, base: Copy | None = None) -> None:
        self.base = base
        self._journals: list[tuple[int, Path]] = []

    def begin(self, run: int, journal: Path) -> None:
        """The next process writes this journal."""
        self._journals.append((run, journal))

    def rows(self) -> Iterable[tuple[int, list[Any]]]:
        """Whatever was written down."""
        for run, journal in self._journals:
            for line in journal.read_text().split("\n")[:-1] if journal.exists() else ():
                yield run, json.loads(line)

    def count(self) -> int:
        """How many rows there are by now."""
        return sum(1 for _ in self.rows())

    def compare(self, copy: Copy, outcome: Outcome, known: int | None = None) -> None:
        """Hold a copy against all that was told.

        Args:
            copy: what it holds.
            outcome: takes what was found.
            known: how many rows there were before the copy was begun; None: all. By the later ones it may have changed.
        """
        demand = Demand(self.base, max(copy.tags.values(), default=(0, 0)))
        for number, (run, row) in enumerate(self.rows()):
            demand.apply(run, row, sure=known is None or number < known)
        outcome.copies += 1
        outcome.kept += len(demand.must)
        outcome.changes += demand.changes
        outcome.records += len(copy.records)
        tags = Counter(copy.tags.values())
        outcome.changed += len(copy.records) - len(copy.tags)
        outcome.doubled += sum(times - 1 for times in tags.values())
        outcome.lost += sum(tag not in tags for tag in demand.must.values())
        outcome.moved += sum(tag in tags and copy.tags.get(lsn) != tag for lsn, tag in demand.must.items())
        outcome.undead += len(demand.gone & tags.keys()) + len(demand.hidden & copy.records.keys())
        outcome.undead += copy.first < demand.first[0]
        outcome.lost += copy.first > demand.first[1]
        outcome.gaps += len(set(range(copy.first, copy.next)) - copy.records.keys() - demand.missing)
        present = {lsn for lsn in demand.done if lsn in copy.records and lsn >= copy.first}
        outcome.undone += len(present - copy.done) + (copy.position < demand.position)
        outcome.overdone += len(copy.done - demand.begun) + (copy.position > copy.next)


def compare_with_whole(copy: Copy, whole: Copy, outcome: Outcome) -> None:
    """Hold a copy against the files of the log, which may have more: each record is the same, and at the same LSN, in both."""
    there = {tag: whole.records[lsn] for lsn, tag in whole.tags.items()}
    for lsn, tag in copy.tags.items():
        outcome.moved += tag in there and there[tag] != copy.records[lsn]
