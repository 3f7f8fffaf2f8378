"""`walsvc archive` in a process of its own."""

from __future__ import annotations

import subprocess

from tests.forked import run_walsvc


def run_archive(*arguments: object, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run it to its end; `environment` is added to this process's."""
    return run_walsvc("archive", *arguments, stdin="", text=True, environment=environment)
