"""docs/RELIABILITY.md names tests: each must exist, and no line of the list of faults may be missing."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from tests.mutants.catalogue import MUTANTS

TESTS = Path(__file__).parent
DOCUMENT = (TESTS.parent / "docs" / "RELIABILITY.md").read_text()
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")
ROW = re.compile(r"^\| (\d+) \| (.+?) \| (.+) \|$", re.MULTILINE)
FAULTS = 70
DEFECTS = 17


@cache
def names_in(file: str) -> frozenset[str]:
    """Names of the test functions of a file, found without running it."""
    tree = ast.parse((TESTS / file).read_text())
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(node.name for node in functions if node.name.startswith("test_"))


def section(title: str) -> str:
    """The text below a heading of the second level."""
    _, found, rest = DOCUMENT.partition(f"\n## {title}\n")
    assert found, f"no section {title!r}"
    return rest.partition("\n## ")[0]


def test_every_test_that_the_document_names_exists() -> None:
    named = NAMED.findall(DOCUMENT)
    assert len(named) > FAULTS
    assert [f"{file}::{test}" for file, test in named if test not in names_in(file)] == []


def test_every_mention_of_a_test_is_one_that_is_checked() -> None:
    assert len(re.findall(r"::test_", DOCUMENT)) == len(NAMED.findall(DOCUMENT))


def test_every_fault_has_a_row_and_a_test() -> None:
    rows = {int(number): tests for number, _, tests in ROW.findall(section("Which fault, which test"))}
    assert list(rows) == list(range(1, FAULTS + 1))
    assert [number for number, tests in rows.items() if not NAMED.search(tests)] == []


def test_every_defect_of_others_has_a_test_under_its_name() -> None:
    named = {test for _, test in NAMED.findall(section("Defects of others"))}
    assert len(named) == DEFECTS


def test_number_of_planted_bugs_is_right() -> None:
    assert f"each of {len(MUTANTS)} bugs" in DOCUMENT


def test_files_that_the_document_links_to_exist() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", DOCUMENT)
    assert links
    assert [link for link in links if not (TESTS.parent / "docs" / link).exists()] == []
    files = re.findall(r"`(tests/[\w/]+(?:\.py)?)`", DOCUMENT)
    assert [file for file in files if not (TESTS.parent / file).exists()] == []
