"""Samples of the campaigns of replication and archive, and that what they look for would be found."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.engines.archive_campaign import in_a_directory
from tests.engines.cluster import WHY_NO_SERVER, shared_cluster
from tests.engines.copied import payload_of
from tests.engines.replication_campaign import campaign
from tests.engines.told import Copy, Outcome, Told, compare_with_whole
from walsvc import Record


@pytest.mark.skipif(bool(WHY_NO_SERVER), reason=WHY_NO_SERVER or "it is there")
def test_writer_that_was_replaced_takes_nothing_along_that_the_replica_was_said_to_have(tmp_path: Path) -> None:
    outcome = asyncio.run(campaign(shared_cluster(), ("former",), tmp_path, 3, 0.0))
    assert outcome.bad == 0, outcome
    assert outcome.faults == {"former": 1}
    assert outcome.kept > 20


def test_writer_whose_disk_is_lost_takes_nothing_along_that_the_archive_was_said_to_have(tmp_path: Path) -> None:
    pytest.importorskip("obstore", reason="the archive needs obstore (walsvc[archive])")
    outcome = asyncio.run(in_a_directory(("disk",), tmp_path, 3, 0.0))
    assert outcome.bad == 0, outcome
    assert outcome.faults == {"disk": 1}
    assert outcome.kept > 20


ROWS = [
    ["put", 1, 4, [[1, 0], [2, 1], [3, 2], [4, 3]]],
    ["try purge", 0, 4, [2]],
    ["purge", 1, 4, [2]],
    ["try ack", 0, 4, "reader", 1],
    ["ack", 1, 4, "reader", 1],
    ["try ack", 0, 4, "workers", 3],
    ["ack", 0, 4, "workers", 3],
    ["put", 0, 5, [[5, 4]]],
    ["try cut", 0, 5, 4],
    ["cut", 0, 5, 4],
    ["put", 0, 6, [[5, 5]]],
]


def copy_of(
    tags: dict[int, int], *, first: int = 1, next: int = 6, position: int = 2, done: tuple[int, ...] = (3,)
) -> Copy:
    """A copy with these records, by LSN."""
    records = {lsn: Record(lsn, payload_of(1, tag), 1, None, 0, {}) for lsn, tag in tags.items()}
    return Copy(first, next, records, {lsn: (1, tag) for lsn, tag in tags.items()}, position, set(done))


RIGHT = {1: 0, 3: 2, 4: 3, 5: 5}
WRONG = {
    "lost": [copy_of({1: 0, 3: 2, 5: 5}), copy_of(RIGHT, first=2)],
    "moved": [copy_of({1: 2, 3: 0, 4: 3, 5: 5})],
    "doubled": [copy_of({**RIGHT, 6: 5}, next=7)],
    "undead": [copy_of({**RIGHT, 2: 1}), copy_of({**RIGHT, 6: 4}, next=7)],
    "gaps": [copy_of(RIGHT, next=9)],
    "undone": [copy_of(RIGHT, position=1), copy_of(RIGHT, done=())],
    "overdone": [copy_of(RIGHT, position=8), copy_of(RIGHT, done=(3, 4))],
}


def told(directory: Path) -> Told:
    """A journal of ROWS."""
    journal = directory / "journal"
    journal.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    made = Told()
    made.begin(1, journal)
    return made


@pytest.mark.parametrize("kind", WRONG)
def test_campaigns_find_what_is_wrong_with_a_copy(kind: str, tmp_path: Path) -> None:
    for copy in WRONG[kind]:
        outcome = Outcome()
        told(tmp_path).compare(copy, outcome)
        assert getattr(outcome, kind) > 0, (copy, outcome)


def test_campaigns_take_a_copy_that_is_right_as_far_as_it_goes(tmp_path: Path) -> None:
    outcome = Outcome()
    told(tmp_path).compare(copy_of(RIGHT), outcome)
    told(tmp_path).compare(copy_of({1: 0, 3: 2, 4: 3}, next=5, done=()), outcome)  # the last records are of mode Strict
    told(tmp_path).compare(copy_of({1: 0, 3: 2, 4: 3, 5: 4}), outcome)  # before the cut
    told(tmp_path).compare(
        copy_of({1: 0, 2: 1}, next=3, position=1, done=()), outcome, known=0
    )  # made before all of it
    assert outcome.bad == 0, outcome
    assert outcome.kept == 3 + 3 + 3 + 0


def test_campaigns_hold_a_copy_against_the_files_of_the_log() -> None:
    outcome = Outcome()
    compare_with_whole(copy_of(RIGHT), copy_of({**RIGHT, 6: 6}, next=7), outcome)
    assert outcome.bad == 0
    compare_with_whole(copy_of({1: 0, 3: 2, 4: 3, 6: 5}), copy_of(RIGHT), outcome)
    assert outcome.moved == 1
