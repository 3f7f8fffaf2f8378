"""An installation with the base dependencies only: links to their packages in a directory of its own, and nothing else to be found."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from tests.forked import ROOT

BASE = ("aiofiles", "cffi", "_cffi_backend", "crc32c", "msgpack")


def install(directory: Path) -> Path:
    """Fill `directory` with walsvc and its base dependencies."""
    directory.mkdir()
    (directory / "walsvc").symlink_to(ROOT / "walsvc")
    for name in BASE:
        spec = importlib.util.find_spec(name)
        assert spec is not None, name
        assert spec.origin is not None, name
        place = Path(spec.origin)
        place = place.parent if place.name == "__init__.py" else place
        (directory / place.name).symlink_to(place)
    return directory


def run(installation: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run this Python on the installation, without its own site-packages."""
    command = [sys.executable, "-S", *arguments]
    values = {**os.environ, "PYTHONPATH": str(installation), "PYTHONSAFEPATH": "1", **environment}
    return subprocess.run(command, env=values, capture_output=True, text=True, check=False, timeout=120)
