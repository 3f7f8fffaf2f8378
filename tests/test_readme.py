"""What the README and the guide show works: their Python runs, links lead somewhere, make targets exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}  # the examples run elsewhere, and walsvc need not be installed
README = ROOT / "README.md"
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), ROOT / "examples" / "README.md"]
SHOWN = "".join(
    path.read_text()
    for path in (README, *(ROOT / "docs" / f"{name}.md" for name in ("GUIDE", "COOKBOOK", "COMING_FROM")))
)
BLOCKS = re.findall(r"^```python\n(.*?)^```", SHOWN, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_python_example_of_the_readme_runs(number: int, tmp_path: Path) -> None:
    script = tmp_path / "example.py"
    script.write_text(BLOCKS[number])
    done = subprocess.run(
        [sys.executable, "-W", "error", script],
        cwd=tmp_path,
        check=False,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def test_readme_is_short_and_begins_with_a_program() -> None:
    lines = README.read_text().splitlines()
    assert len(lines) <= 150
    assert lines.index("```python") < 10
    assert len(BLOCKS) > 5


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_to_files(document: Path) -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#\s]+)", document.read_text())
    missing = [link for link in links if not (document.parent / link).exists()]
    assert not missing


def test_make_targets_that_the_readme_names_exist() -> None:
    named = set(re.findall(r"(?:`|^)make ([a-z]+)", README.read_text(), flags=re.MULTILINE))
    known = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert {"demo", "test"} <= named
    assert named <= known


def test_verbs_that_the_readme_shows_exist() -> None:
    shown = set(re.findall(r"^walsvc ([a-z]+)", SHOWN, flags=re.MULTILINE))
    done = subprocess.run(
        [sys.executable, "-m", "walsvc.cli", "--help"], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    known = set(re.findall(r"^  ([a-z]+) ", done.stdout, flags=re.MULTILINE))
    assert shown <= known
    assert {"append", "cat", "doctor"} <= shown
