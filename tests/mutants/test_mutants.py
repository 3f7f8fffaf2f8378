"""Every planted bug is found by a test; see catalogue.py, and `python -m tests.mutants` for the table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from .catalogue import MUTANTS, Mutant
from .nursery import ROOT, Nursery

COUNT_MIN = 24
PLANTED = MUTANTS[::3]  # `make mutants` plants all


@pytest.fixture(name="nursery", scope="module")
def fixture_nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """One copy for all tests of a process."""
    with closing(Nursery(Path(tmp_path_factory.mktemp("mutants")))) as nursery:
        yield nursery


def test_killers_pass_in_the_copy_without_a_mutant(nursery: Nursery) -> None:
    """Else a kill would show nothing."""
    assert nursery.check(PLANTED) == ""


def test_mutants_are_many_and_have_names_of_their_own() -> None:
    assert len(PLANTED) >= COUNT_MIN
    assert max(Counter(mutant.name for mutant in MUTANTS).values()) == 1


def test_text_of_every_mutant_is_still_in_the_source() -> None:
    rotten = [
        (each.name, file, old)
        for each in MUTANTS
        for file, old, _ in each.edits
        if (ROOT / file).read_text().count(old) != 1
    ]
    assert rotten == []


@pytest.mark.parametrize("mutant", PLANTED, ids=lambda mutant: mutant.name)
def test_mutant_is_killed(nursery: Nursery, mutant: Mutant) -> None:
    outcome = nursery.run(mutant)
    assert outcome.killer is not None, outcome.reason or "it survived"
