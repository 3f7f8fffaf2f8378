"""A file system on a block device that tests can stop: ext4 or XFS on a loop device over a file on FUSE."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fuse.mount import WHY_NO_FUSE, Fuse, mounted

TOOLS = {"losetup": "mount", "mount": "mount", "mkfs.ext4": "e2fsprogs", "mkfs.xfs": "xfsprogs"}
IMAGE_BYTES = 320 << 20  # XFS takes no less than 300 MiB; the file is sparse
MAKE = {"ext4": ["mkfs.ext4", "-q", "-F"], "xfs": ["mkfs.xfs", "-q", "-f"]}


def why_no_device() -> str:
    """Empty where a loop device can be tried."""
    if WHY_NO_FUSE:
        return WHY_NO_FUSE
    if os.geteuid() != 0:
        return "only root may mount"
    missing = {package for tool, package in TOOLS.items() if shutil.which(tool) is None}
    if missing:
        return f"as root: apt-get install {' '.join(sorted(missing))}"
    return "" if os.path.exists("/dev/loop-control") else "no loop devices here"


WHY_NO_DEVICE = why_no_device()
needs_device = pytest.mark.skipif(bool(WHY_NO_DEVICE), reason=WHY_NO_DEVICE or "it can be tried")


def run(*command: str) -> str:
    """What a command prints; skips where the system does not allow it."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "not permitted" in done.stderr or "ermission denied" in done.stderr:
        pytest.skip(f"{command[0]}: {done.stderr.strip()}")
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout.strip()


@contextmanager
def mounted_device(directory: Path, kind: str, *options: str) -> Iterator[tuple[Path, Fuse, str]]:
    """Mount a new file system of that kind: (mount point, the FUSE file system below it, loop device)."""
    with mounted(directory) as fuse:
        image = fuse.path / "image"
        with image.open("wb") as file:
            file.truncate(IMAGE_BYTES)
        device = run("losetup", "--find", "--show", str(image))
        try:
            run(*MAKE[kind], device)
            point = directory / "device"
            point.mkdir()
            run("mount", *options, device, str(point))
            try:
                yield point, fuse, device
            finally:
                fuse.go_on()
                run("umount", str(point))
        finally:
            run("losetup", "--detach", device)
