"""A sample of the campaign in tests/crash/system_calls.py: a system call of a real disk fails, drawn at random.

Nobody waits for ever, nothing acknowledged is lost or altered, and where no data is at stake the log goes on.
"""

from __future__ import annotations

import errno
import os
import random
import time
from pathlib import Path
from typing import Literal

import pytest

import walsvc
from tests.disks import REAL_DISKS, WHY_NO_URING

from .every_errno import ERRNOS
from .system_calls import DISKS, Case, tried

SAMPLE = 2  # of some 1,000 combinations on each; each takes about 0.2 s, twice


@pytest.mark.parametrize("disk", DISKS)
def test_system_call_that_fails_drawn_at_random_hangs_nothing_and_loses_nothing(disk: str) -> None:
    if disk.startswith("uring") and WHY_NO_URING:
        pytest.skip(WHY_NO_URING)
    seed = time.time_ns() & 0xFFFFFFFF
    print(f"seed {seed}")
    drawn = random.Random(seed)
    for name in drawn.sample(DISKS[disk], SAMPLE):
        told, count = tried(Case(disk, name, 0, errno.EIO))
        assert told == []
        if count:
            tried(Case(disk, name, drawn.randint(1, count), drawn.choice(ERRNOS)))


@pytest.mark.parametrize("disk", ["threads fdatasync", "uring"])
def test_sync_that_fails_for_a_shortage_ends_the_log(disk: str) -> None:
    """It is never tried again: what it was to make durable may be lost by then."""
    if disk == "uring" and WHY_NO_URING:
        pytest.skip(WHY_NO_URING)
    name = "fdatasync" if disk.startswith("threads") else "reap"
    for number in (errno.ENOMEM, errno.EMFILE):
        told, _ = tried(Case(disk, name, 3, number))
        assert {error.errno for error in told} == {number}


@pytest.mark.parametrize("disk", REAL_DISKS)
async def test_descriptor_that_closes_with_an_error_keeps_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: Literal["threads", "uring"]
) -> None:
    log = await walsvc.open(tmp_path, disk=disk)
    await log.append(b"x")
    close, closed = os.close, []

    def failing(file: int) -> None:
        close(file)
        closed.append(file)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "close", failing)
    await log.close()
    monkeypatch.undo()
    assert len(closed) >= 4, "the segment, the directory, and both locks"
    async with walsvc.open(tmp_path, disk=disk) as log:
        assert log.durable_lsn == 1
