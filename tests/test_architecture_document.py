"""docs/ARCHITECTURE.md and docs/GLOSSARY.md name files, classes and functions: each must be where they say."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
LINK = re.compile(r"\]\((\.\./walsvc/[^)#]+)\)")
NAME = re.compile(r"`([A-Za-z_]+(?:\.[A-Za-z_]+)?)`")


@pytest.mark.parametrize("document", ["ARCHITECTURE.md", "GLOSSARY.md"])
def test_files_that_a_document_links_exist(document: str) -> None:
    links = LINK.findall((DOCS / document).read_text())
    assert len(links) > 20
    assert [link for link in links if not (DOCS / link).exists()] == []


def test_names_beside_a_link_are_in_the_linked_files() -> None:
    text = (DOCS / "ARCHITECTURE.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and LINK.search(line)]
    checked, missing = 0, []
    for row in rows:
        where = row.rsplit("|", 2)[1]
        files = [DOCS / link for link in LINK.findall(where)]
        source = "\n".join(path.read_text() for path in files if path.is_file())
        for name in NAME.findall(where) if files else ():
            checked += 1
            *owner, last = name.split(".")
            found = re.search(rf"\b(?:def|class) {last}\b|^{last} = ", source, re.MULTILINE)
            if not found or (owner and not re.search(rf"\bclass {owner[0]}\b", source)):
                missing.append((name, [path.name for path in files]))
    assert checked > 25
    assert missing == []


def test_a_payload_makes_at_most_ten_stops() -> None:
    stops = re.findall(r"^\| (\d+)\. ", (DOCS / "ARCHITECTURE.md").read_text(), re.MULTILINE)
    assert [int(stop) for stop in stops] == list(range(1, len(stops) + 1))
    assert 5 <= len(stops) <= 10


def test_every_contract_for_imports_is_listed() -> None:
    contracts = tomllib.loads((DOCS.parent / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    listed = (DOCS / "ARCHITECTURE.md").read_text().partition("## Contracts")[2]
    assert re.findall(r"^- (.*)$", listed, re.MULTILINE) == [each["name"] for each in contracts]
