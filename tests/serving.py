"""Servers in processes of their own, for tests that kill them."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from tests.forked import ROOT


async def served(place: Path, *options: str) -> asyncio.subprocess.Process:
    """A server of the log `place`/log at the socket `place`/s, which listens already."""
    command = ("-m", "walsvc.cli", "serve", "--data", str(place / "log"), "--unix", str(place / "s"), *options)
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stdout is not None
    assert await process.stdout.readline(), f"the server has ended with {await process.wait()}: {command}"
    return process
