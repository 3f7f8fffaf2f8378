"""Small real file systems of their own. They need root, and mkfs of the kind; tests skip where either is missing."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

KINDS = ("tmpfs", "ext4")


def run(*command: str | os.PathLike[str]) -> None:
    """Run a command; the test is skipped where it cannot be done here."""
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError as error:
        pytest.skip(f"{error.filename} is not installed")
    if done.returncode:
        pytest.skip(f"{command[0]} failed: {done.stderr.decode(errors='replace').strip()}")


@contextlib.contextmanager
def mounted(kind: str, place: Path, mib: int) -> Iterator[Path]:
    """An empty file system of `mib` MiB at the directory `place`, which is made."""
    place.mkdir()
    if kind == "tmpfs":
        run("mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", place)
    else:
        image = place.with_name(f"{place.name}.{kind}")
        with image.open("xb") as file:
            file.truncate(mib << 20)
        run(f"mkfs.{kind}", "-q", image)
        run("mount", "-o", "loop", image, place)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)
