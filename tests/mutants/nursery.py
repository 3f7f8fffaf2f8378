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
from .forking import Forks

ROOT = Path(__file__).resolve().parents[2]
WITH_A_TWIN = "walsvc/format/group.py"  # what it encodes is what _encode.c encodes
TIMEOUT_S = 30  # for a test that a mutant may hang; the slowest killer takes 3 s alone
PATIENCE_S = 600  # for a test without a mutant: only against hangs
REASON = re.compile(r"^E +(?![-+?\s])(.*(?:Error|Failed|Corruption|Deadlock|assert)\b.*)", re.MULTILINE)
FAILED = re.compile(r"^FAILED (\S+)", re.MULTILINE)
COPIED = ("walsvc", "tests", "pyproject.toml")
PYTEST = ["-x", "-q", "-p", "no:cacheprovider", "-p", "pytest_asyncio.plugin", "-p", "pytest_timeout"]


class Outcome(NamedTuple):
    """What became of a mutant. `killer` is None when it survived; `reason` is what the test, or pytest, said."""

    mutant: Mutant
    killer: str | None
    seconds: float
    reason: str = ""


class Nursery:
    """The copy. Plants by replacing text, so a mutant whose text is gone is an error and not a silent success."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "copy"
        self.root.mkdir()
        for name in COPIED:
            source, target = ROOT / name, self.root / name
            if source.is_dir():
                # with the compiled modules: they go by the source's time, which is copied
                shutil.copytree(source, target)
            else:
                shutil.copy(source, target)
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "COV"))}
        self._environment = {**inherited, "PYTHONPATH": str(self.root), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        self._output = directory / "output"
        self._forks = Forks(self.root, self._environment)

    def close(self) -> None:
        """End what runs the tests."""
        self._forks.close()

    def check(self, mutants: Iterable[Mutant]) -> str:
        """Run a killer of each file on the unchanged copy; empty if they pass, else what pytest said. All of them pass where the
        copy comes from, or the suite is red there: what may differ is what a file imports and reads."""
        command = [sys.executable, "-c", "import walsvc; print(walsvc.__file__)"]
        where = subprocess.check_output(command, cwd=self.root, env=self._environment, text=True)
        if not where.startswith(str(self.root)):
            return f"the copy would not be tested: walsvc is {where}"
        killers = {killer.partition("::")[0]: killer for mutant in mutants for killer in mutant.killers}.values()
        code, said = self._pytest(f"--timeout={PATIENCE_S}", *killers, patience=3 * PATIENCE_S, compiles=True)
        return "" if code == 0 else said

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
            # where a module has a compiled twin, that would run, without the bug
            core = {"WALSVC_CORE": "python"} if mutant.file == WITH_A_TWIN else {}
            arguments = (f"--timeout={TIMEOUT_S}", *mutant.killers)
            code, told = self._pytest(*arguments, patience=4 * TIMEOUT_S, compiles=False, **core)
        finally:
            for file, text in originals.items():
                self._write(file, text)
        seconds = time.monotonic() - started
        if code is None:  # asyncio may have swallowed what pytest-timeout raised in a callback
            return Outcome(mutant, None, seconds, "its killer hung beyond its timeout")
        failed = FAILED.search(told)
        if code == 1 and failed is not None:
            return Outcome(mutant, failed.group(1), seconds, reason(told))
        # any other code is no kill: nothing was collected, or the mutant cannot even be imported
        said = "" if code == 0 else f"pytest ended with {code}: {told[-300:]}"
        return Outcome(mutant, None, seconds, said)

    def _write(self, file: Path, text: str) -> None:
        """Two versions of equal length within one second would share the compiled one: remove it."""
        file.write_text(text)
        for compiled in (file.parent / "__pycache__").glob(f"{file.stem}.*.pyc"):
            compiled.unlink()

    def _pytest(self, *arguments: str, patience: float, compiles: bool, **environment: str) -> tuple[int | None, str]:
        """Run pytest on the copy, on nothing but the copy: its exit code, None where it hung, and what it printed."""
        code = self._forks.run(
            [*PYTEST, *arguments], self._output, patience, compiles=compiles, environment=environment
        )
        return code, self._output.read_text(errors="replace")


def reason(output: str) -> str:
    """The last error that pytest printed: the one that the test ended with, where others led to it."""
    return next(reversed(REASON.findall(output)), "")
