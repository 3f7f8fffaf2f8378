"""Every system call of the real disks fails at every call with every error number: a campaign, run by hand.

`python -m tests.crash.system_calls [STEP [FIRST]]` tries every STEPth combination (1: all), from number FIRST on, on the `threads`
disk and on io_uring, in a temporary directory, and prints what the callers were told. A call is replaced in this process: by one
that raises, or, of io_uring, by a submission or a completion that says so. docs/RELIABILITY.md has the figures of one run;
tests/crash/test_system_calls.py runs a sample.
"""

from __future__ import annotations

import asyncio
import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest

import walsvc
from tests.disks import WHY_NO_URING
from walsvc.api import Log
from walsvc.config import KIB
from walsvc.disk import choose
from walsvc.disk.ring import KernelRing
from walsvc.errors import DurabilityLost

from .campaigning import campaign
from .every_errno import ERRNOS, SHORT, SPACE
from .grid import Ledger, Program

HANGS_SECONDS = 60.0  # far beyond what a program of this size takes on a busy machine
PUT_OFF = frozenset({errno.EINTR, errno.EAGAIN})  # of a write: nothing of it was done, and the disk tries again
OF_OS: dict[str, frozenset[int]] = {
    "open": SHORT,
    "scandir": SHORT,
    "stat": SHORT,
    "fstat": SHORT,
    "posix_fallocate": SHORT | SPACE,
    "pwrite": SHORT | SPACE,
    "preadv": SHORT,
    "rename": SHORT,
    "unlink": SHORT,
    "close": SHORT,
    "pwritev": PUT_OFF,
    "fdatasync": frozenset(),
    "fsync": frozenset(),
}
"""Calls of the module os, and what no log ends of. A sync that failed ends it, whatever the reason."""
OF_URING: dict[str, frozenset[int]] = {"flush": frozenset({errno.EAGAIN}), "reap": PUT_OFF}
"""Likewise: io_uring_enter, and what a completion says."""


DISKS = {
    "threads": tuple(OF_OS),
    "threads fdatasync": ("pwritev", "fdatasync"),
    "uring": (*OF_OS, *OF_URING),
    "uring fdatasync": tuple(OF_URING),
}
"""The disk, and how it syncs where that is not RWF_DSYNC; and what it calls."""


class Case(NamedTuple):
    """The nth call of a name fails on a disk."""

    disk: str
    name: str
    nth: int
    errno: int

    @property
    def harmless(self) -> bool:
        """Whether no data is at stake."""
        if self.disk == "uring fdatasync" and self.name == "reap":
            return False  # it may be the sync that says so
        return self.errno in (OF_URING if self.name in OF_URING else OF_OS)[self.name]


class Broken:
    """Counts the calls of a name while `armed`; the nth fails."""

    def __init__(self, patch: pytest.MonkeyPatch, case: Case) -> None:
        self.calls = 0
        self.armed = False
        self._case = case
        patch.setattr(choose, "dsync_wins", lambda *_: not case.disk.endswith("fdatasync"))
        if case.name in OF_URING:
            original = getattr(KernelRing, case.name)
            patch.setattr(KernelRing, case.name, lambda ring: self._of_ring(original, ring))
        else:
            original = getattr(os, case.name)
            patch.setattr(os, case.name, lambda *args, **named: self._of_os(original, args, named))

    def arm(self, armed: bool) -> None:
        """For Program.during."""
        self.armed = armed

    def _due(self) -> bool:
        if self.armed:
            self.calls += 1
        return self.armed and self.calls == self._case.nth

    def _of_os(self, original: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if not self._due():
            return original(*args, **named)
        if self._case.name == "close":
            original(*args, **named)  # the descriptor is gone, whatever close(2) says
        raise OSError(self._case.errno, os.strerror(self._case.errno))

    def _of_ring(self, original: Callable[[KernelRing], Any], ring: KernelRing) -> Any:
        if self._case.name == "flush":
            return -self._case.errno if self._due() else original(ring)
        done = original(ring)
        if done and self._due():
            done = [(done[0][0], -self._case.errno), *done[1:]]
        return done


def run(path: Path, broken: Broken, disk: Literal["threads", "uring"]) -> list[BaseException]:
    """The whole program; returns what it was told."""

    async def opening() -> Log:
        return await walsvc.open(
            path, disk=disk, segment_bytes=64 * KIB, max_group_bytes=16 * KIB, max_pending_bytes=64 * KIB
        )

    async def main() -> list[BaseException]:
        program = Program(opening, Ledger(), during=broken.arm, at_close=True)
        async with asyncio.timeout(HANGS_SECONDS):
            await program.run()
        return program.told

    return asyncio.run(main())


def tried(case: Case) -> tuple[list[BaseException], int]:
    """Run the program with one call failing; what it was told, and how many such calls it made."""
    with tempfile.TemporaryDirectory(prefix="walsvc-") as place, pytest.MonkeyPatch.context() as patch:
        broken = Broken(patch, case)
        try:
            told = run(Path(place) / "log", broken, "threads" if case.disk.startswith("threads") else "uring")
            if case.harmless:
                assert not any(isinstance(error, DurabilityLost) for error in told), "no data was at stake"
        except BaseException as wrong:
            wrong.add_note(f"{case} ({errno.errorcode.get(case.errno)})")
            raise
    return told, broken.calls


def combinations() -> list[Case]:
    """All of them, as far as the usual program goes: how often it does a call differs a little from run to run."""
    cases = []
    for disk, names in DISKS.items():
        if disk.startswith("uring") and WHY_NO_URING:
            continue
        for name in names:
            told, count = tried(Case(disk, name, 0, errno.EIO))
            assert told == []
            cases += [Case(disk, name, nth, number) for number in ERRNOS for nth in range(1, count + 1)]
    return cases


def row_of(case: Case) -> str:
    """The row of the campaign that counts it."""
    return f"{case.disk} {case.name} {errno.errorcode[case.errno]}"


def told_of(case: Case) -> set[str]:
    """The names of the errors that were told."""
    return {type(error).__name__ for error in tried(case)[0]}


if __name__ == "__main__":
    campaign(combinations(), row_of, told_of)
