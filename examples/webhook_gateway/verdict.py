"""Compares what the senders were told with what the log holds. Pure: outcomes and records in, a verdict out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from load import Outcome

EXAMPLES_MAX = 5  # of each kind of fault, kept for the report


@dataclass
class Fault:
    """One kind of difference: how often, and the first few in words."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, example: str) -> None:
        self.count += 1
        if self.count <= EXAMPLES_MAX:
            self.examples.append(example)


@dataclass
class Verdict:
    """`answered` events against the log's `records`; `unknown` ones may be there (`unknown_present`) or not."""

    answered: int = 0
    intact: int = 0
    unknown: int = 0
    unknown_present: int = 0
    records: int = 0
    missing: Fault = field(default_factory=Fault)
    altered: Fault = field(default_factory=Fault)
    doubled: Fault = field(default_factory=Fault)
    misplaced: Fault = field(default_factory=Fault)
    unordered: Fault = field(default_factory=Fault)
    foreign: Fault = field(default_factory=Fault)
    gaps: Fault = field(default_factory=Fault)

    def faults(self) -> dict[str, Fault]:
        """Every kind of fault by its name for a reader."""
        return {
            "answered but missing": self.missing,
            "other bytes than posted": self.altered,
            "stored twice": self.doubled,
            "not at the answered LSN": self.misplaced,
            "out of a client's order": self.unordered,
            "never posted": self.foreign,
            "gaps in the LSNs": self.gaps,
        }

    @property
    def good(self) -> bool:
        return not any(fault.count for fault in self.faults().values())


def identity(payload: bytes) -> tuple[int, int] | None:
    """The client and its sequence number in an event, or None where it is no event of ours."""
    try:
        event = json.loads(payload)
        return int(event["client"]), int(event["seq"])
    except (ValueError, KeyError, TypeError):
        return None


def compare(outcomes: Iterable[Outcome], records: Iterable[tuple[int, bytes]]) -> Verdict:
    """The verdict over one run. `records` are (LSN, payload) in the order in which the log returns them."""
    verdict = Verdict()
    posted = {(outcome.client, outcome.seq): outcome for outcome in outcomes}
    seen: set[tuple[int, int]] = set()
    last_seq: dict[int, int] = {}
    expected_lsn = 1
    for lsn, payload in records:
        verdict.records += 1
        if lsn != expected_lsn:
            verdict.gaps.add(f"LSN {lsn} where {expected_lsn} was expected")
        expected_lsn = lsn + 1
        key = identity(payload)
        outcome = posted.get(key) if key else None
        if key is None or outcome is None:
            verdict.foreign.add(f"LSN {lsn}: {payload[:80]!r}")
            continue
        client, seq = key
        name = f"event {client}-{seq} at LSN {lsn}"
        if key in seen:
            verdict.doubled.add(name)
            continue
        seen.add(key)
        if seq < last_seq.get(client, 0):
            verdict.unordered.add(f"{name} after {client}-{last_seq[client]}")
        last_seq[client] = seq
        if payload != outcome.body:
            verdict.altered.add(name)
        if outcome.lsn and outcome.lsn != lsn:
            verdict.misplaced.add(f"{name}, answered LSN {outcome.lsn}")
        verdict.intact += bool(outcome.lsn) and payload == outcome.body and outcome.lsn == lsn
        verdict.unknown_present += not outcome.lsn
    for key, outcome in posted.items():
        verdict.answered += bool(outcome.lsn)
        verdict.unknown += not outcome.lsn
        if outcome.lsn and key not in seen:
            verdict.missing.add(f"event {key[0]}-{key[1]}, answered LSN {outcome.lsn}")
    return verdict
