"""A copy of the project in which one bug at a time is planted, and the tests that must notice run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from .catalogue import Mutant

ROOT = Path(__file__).resolve().parents[2]
WITH_A_TWIN = "walsvc/format/group.py"  # what it encodes is what _encode.c encodes
TIMEOUT_S = 30  # for a test that a mutant may hang; the slowest killer takes 3 s alone
PATIENCE_S = 600  # for a test without a mutant: only against hangs
REASON = re.compile(r"^E +(?![-+?\s])(.*(?:Error|Failed|Corruption|Deadlock|assert)\b.*)", re.MULTILINE)
FAILED = re.compile(r"^FAILED (\S+)", re.MULTILINE)
COPIED = ("walsvc", "tests", "pyproject.toml")
PYTEST = ["-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "pytest_asyncio.plugin", "-p", "pytest_timeout"]


class Outcome(NamedTuple):
    """What became of a mutant. `killer` is None when it survived; `reason` is what the test, or pytest, said."""

    mutant: Mutant
    killer: str | None
    seconds: float
    reason: str = ""


class Nursery:
    """The copy. Plants by replacing text, so a mutant whose text is gone is an error and not a silent success."""

    def __init__(self, directory: Path) -> None:
        self.root = directory
        for name in COPIED:
            source, target = ROOT / name, directory / name
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)

    def check(self, mutants: Iterable[Mutant]) -> str:
        """Run all killers on the unchanged copy; empty if they pass, else what pytest said."""
        where = self._python("-c", "import walsvc; print(walsvc.__file__)").stdout
        if not where.startswith(str(self.root)):
            return f"the copy would not be tested: walsvc is {where}"
        killers = sorted({killer for mutant in mutants for killer in mutant.killers})
        done = self._python(*PYTEST, f"--timeout={PATIENCE_S}", *killers)
        return "" if done.returncode == 0 else done.stdout + done.stderr

    def run(self, mutant: Mutant) -> Outcome:
        """Plant one bug, run its killers, take it out again."""
        texts: dict[Path, str] = {}
        for name, old, new in mutant.edits:
            text = texts.get(self.root / name) or (self.root / name).read_text()
            if (count := text.count(old)) != 1:
                return Outcome(mutant, None, 0.0, f"its text occurs {count} times in {name}")
            texts[self.root / name] = text.replace(old, new)
        originals = {file: file.read_text() for file in texts}
        started = time.monotonic()
        try:
            for file, text in texts.items():
                self._write(file, text)
            arguments = (*PYTEST, f"--timeout={TIMEOUT_S}", *mutant.killers)
            core = (
                {"WALSVC_CORE": "python"} if mutant.file == WITH_A_TWIN else {}
            )  # else the compiled twin runs, without the bug
            done = self._python(*arguments, patience=4 * TIMEOUT_S, PYTHONDONTWRITEBYTECODE="1", **core)
        except subprocess.TimeoutExpired:  # asyncio may have swallowed what pytest-timeout raised in a callback
            return Outcome(mutant, None, time.monotonic() - started, "its killer hung beyond its timeout")
        finally:
            for file, text in originals.items():
                self._write(file, text)
        seconds = time.monotonic() - started
        failed = FAILED.search(done.stdout)
        if done.returncode == 1 and failed is not None:
            return Outcome(mutant, failed.group(1), seconds, reason(done.stdout))
        # any other code is no kill: nothing was collected, or the mutant cannot even be imported
        said = "" if done.returncode == 0 else f"pytest ended with {done.returncode}: {done.stdout[-300:]}"
        return Outcome(mutant, None, seconds, said)

    def _write(self, file: Path, text: str) -> None:
        """Two versions of equal length within one second would share the compiled one: remove it."""
        file.write_text(text)
        for compiled in (file.parent / "__pycache__").glob(f"{file.stem}.*.pyc"):
            compiled.unlink()

    def _python(
        self, *arguments: str, patience: float = 3 * PATIENCE_S, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the interpreter on the copy, on nothing but the copy. A test that hangs fails by pytest's own timeout."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "COV"))}
        values = {**inherited, "PYTHONPATH": str(self.root), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **environment}
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.root,
            env=values,
            capture_output=True,
            text=True,
            timeout=patience,
            check=False,
        )


def reason(output: str) -> str:
    """The last error that pytest printed: the one that the test ended with, where others led to it."""
    return next(reversed(REASON.findall(output)), "")
