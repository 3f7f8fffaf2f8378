"""What is released is whole: `make wheels` builds it and tries it; here is what needs no compiler and no index."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.forked import ROOT

OF_THE_REPOSITORY = (".ci/", ".dockerignore", ".gitignore")


def run(*command: str, **environment: str) -> str:
    values = {**os.environ, **environment}
    done = subprocess.run(command, cwd=ROOT, env=values, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(not (ROOT / ".git").exists() or shutil.which("git") is None, reason="no git repository")
def test_sdist_has_every_file_of_the_repository_and_nothing_else_and_its_links_are_absolute(tmp_path: Path) -> None:
    place = ("--egg-base", str(tmp_path), "sdist", "--formats=tar", "--dist-dir", str(tmp_path))
    run(sys.executable, "setup.py", "-q", "egg_info", *place, WALSVC_REPOSITORY="https://example.org/log")
    with tarfile.open(next(tmp_path.glob("*.tar"))) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()} - {""}
        info = next(name for name in sdist.getnames() if name.count("/") == 1 and name.endswith("PKG-INFO"))
        metadata = sdist.extractfile(info).read().decode()  # type: ignore[union-attr]
    tracked = {
        name
        for name in run("git", "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
        if not name.startswith(OF_THE_REPOSITORY)
    }
    assert tracked - names == set()
    added = {name for name in names - tracked if not (ROOT / name).is_dir()}
    assert {name for name in added if not name.startswith("walsvc.egg-info")} <= {"PKG-INFO", "setup.cfg"}
    assert "Project-URL: Source, https://example.org/log" in metadata
    assert "](https://example.org/log/blob/main/docs/FORMAT.md)" in metadata
    assert re.findall(r"\]\((?!https?://|#)[^)]*", metadata) == []


@pytest.mark.parametrize("script", sorted((ROOT / "scripts").glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_shell(script: Path) -> None:
    run("sh", "-n", str(script))


def test_first_program_of_a_release_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", str(ROOT / "scripts" / "first.py")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout.startswith("1000 records, disk "), done.stderr


def test_every_document_has_its_place_in_the_site() -> None:
    yaml = pytest.importorskip("yaml")
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    pages = [page for part in nav for value in part.values() for page in (value if isinstance(value, list) else [part])]
    named = {name for page in pages for name in page.values()}
    made = {"index.md", "reference.md", "decisions/index.md"}  # by scripts/pages.py
    assert named - made == {path.name for path in (ROOT / "docs").glob("*.md")}


@pytest.mark.parametrize("workflow", sorted((ROOT / ".github" / "workflows").glob("*.yml")), ids=lambda path: path.name)
def test_workflows_call_what_there_is(workflow: Path) -> None:
    yaml = pytest.importorskip("yaml")
    jobs = yaml.safe_load(workflow.read_text())["jobs"]
    commands = "\n".join(step.get("run", "") for job in jobs.values() for step in job["steps"])
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)", commands)) <= targets
    assert [path for path in re.findall(r"\bscripts/\S+", commands) if not (ROOT / path).exists()] == []
