"""Running a scenario in a process of its own: what it does to limits, filters and forks must not outlive it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

Script = Callable[..., str]


@pytest.fixture
def run_script() -> Script:
    """Runs Python source with arguments and gives what it printed; its failure is the test's, with its traceback."""

    def run(source: str, *arguments: object) -> str:
        command = [sys.executable, "-W", "error", "-c", source, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
