"""Every combination of what recovery can see, against the table in the module's head."""

from __future__ import annotations

import itertools
import re

from walsvc.log.recover import verdict
from walsvc.log.recover.verdict import After, End, Last, Verdict, decide

COMBINATIONS = list(itertools.product(End, Last, After, (False, True)))
HARMLESS = {Verdict.COMPLETE, Verdict.CLEAN, Verdict.UNCLEAN, Verdict.TORN_TAIL, Verdict.DROP_SUCCESSOR}


def table() -> list[tuple[str, str, str, str, str]]:
    assert verdict.__doc__ is not None
    rows = re.findall(r"^\| \d+ +\| (\w+) +\| (\w+) +\| (\w+) +\| (\w+) +\| (\w+) +\|", verdict.__doc__, re.MULTILINE)
    assert len(rows) == 10
    return rows


def fits(cell: str, name: str) -> bool:
    return cell in ("any", name) or (cell == "other" and name != "SEAL")


def test_every_combination_is_decided_as_the_table_says():
    used = set()
    for end, last, after, evidence in COMBINATIONS:
        for number, (end_cell, last_cell, after_cell, evidence_cell, result) in enumerate(table()):
            said = "yes" if evidence else "no"
            if fits(end_cell, end.name) and fits(last_cell, last.name) and fits(after_cell, after.name):
                if evidence_cell not in ("any", said):
                    continue
                assert decide(end, last, after, evidence=evidence).name == result
                used.add(number)
                break
        else:
            raise AssertionError(f"no rule for {end}, {last}, {after}, evidence={evidence}")
    assert used == set(range(10)), "a rule that nothing reaches"


def test_proof_of_durability_is_never_harmless():
    for end, last, after, evidence in COMBINATIONS:
        if (evidence or after is After.PROVEN) and after is not After.ADJOINING:
            assert decide(end, last, after, evidence=evidence) not in HARMLESS


def test_without_any_proof_a_log_always_opens():
    """After a pure power cut nothing refuses to open: only a seal, evidence or a newer format may."""
    for end, last, after in itertools.product((End.NOTHING, End.TORN), (Last.ORDINARY, Last.CLOSE), After):
        if after is not After.PROVEN:
            assert decide(end, last, after, evidence=False) in HARMLESS


def test_a_sealed_segment_without_its_successor_never_passes_for_the_end():
    for end, evidence in itertools.product((End.NOTHING, End.TORN), (False, True)):
        assert decide(end, Last.SEAL, After.NONE, evidence=evidence) not in HARMLESS
