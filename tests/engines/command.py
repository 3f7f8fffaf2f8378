"""`walsvc archive` in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.forked import ROOT, SECONDS


def run_archive(*arguments: object, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run it to its end; `environment` is added to this process's."""
    return subprocess.run(
        [sys.executable, "-m", "walsvc.cli", "archive", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
    )
