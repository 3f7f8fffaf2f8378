"""What the world around a log does to it, on every disk: a campaign, run by hand.

`python -m tests.crash.outside [STEP [FIRST]]` cancels, at every STEPth turn of the loop (1: all), every task that is not the
program's; and refuses a thread, at every start of one, and all after it. docs/RELIABILITY.md has the figures of one run;
tests/crash/test_outside.py runs a sample.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest

import walsvc
from tests.disks import WHY_NO_URING
from walsvc.api import Log
from walsvc.config import KIB
from walsvc.disk.sim import SimDevice
from walsvc.errors import Closed, DurabilityLost

from .grid import Ledger, PatientLoop, Program, drive, on_device

HANGS_SECONDS = 60.0  # far beyond what a program of this size takes on a busy machine
Disk = Literal["sim", "threads", "uring"]
DISKS: tuple[Disk, ...] = ("sim", "threads") if WHY_NO_URING else ("sim", "threads", "uring")
FORESEEN = (DurabilityLost, Closed, asyncio.CancelledError)


class Case(NamedTuple):
    """What is done, when it is due for the nth time."""

    disk: Disk
    what: Literal["cancel", "refuse"]
    nth: int


class Cancelling(asyncio.BaseEventLoop):
    """Mixed into a loop that at its nth turn, counted while `armed`, cancels every task that is not the program's."""

    nth: int = 0
    armed: bool = False
    armed_turns: int = 0
    cancelled: int = 0

    def arm(self, armed: bool) -> None:
        """For Program.during."""
        self.armed = armed

    def _run_once(self) -> None:
        super()._run_once()  # type: ignore[misc]
        self.armed_turns += self.armed
        if self.armed and self.armed_turns == self.nth:
            for task in asyncio.all_tasks(self):
                if not getattr(task.get_coro(), "__qualname__", "").startswith("Program."):
                    task.cancel()
                    self.cancelled += 1


class SimulatedLoop(Cancelling, PatientLoop):
    """Simulated time."""


class RealLoop(Cancelling, asyncio.SelectorEventLoop):
    """asyncio's own."""


class Refusing:
    """Lets no thread start from the nth on, counted while `armed`."""

    def __init__(self, patch: pytest.MonkeyPatch, nth: int) -> None:
        self.armed = False
        self.starts = 0
        start = threading.Thread.start

        def refused(thread: threading.Thread) -> None:
            self.starts += self.armed
            if self.armed and 0 < nth <= self.starts:
                raise RuntimeError("can't start new thread")
            start(thread)

        patch.setattr(threading.Thread, "start", refused)

    def arm(self, armed: bool) -> None:
        """For Program.during."""
        self.armed = armed


@contextmanager
def opening_on(disk: Disk) -> Iterator[Any]:
    """Opens a log of small segments again and again."""
    if disk == "sim":
        yield on_device(SimDevice(1))
        return
    with tempfile.TemporaryDirectory(prefix="walsvc-") as place:

        async def opening() -> Log:
            return await walsvc.open(
                Path(place, "log"),
                disk=disk,
                segment_bytes=64 * KIB,
                max_group_bytes=16 * KIB,
                max_pending_bytes=64 * KIB,
            )

        yield opening


def tried(case: Case) -> tuple[list[BaseException], int]:
    """Run the program; what it was told, and how often it was due."""
    loop = SimulatedLoop() if case.disk == "sim" else RealLoop()
    with pytest.MonkeyPatch.context() as patch, opening_on(case.disk) as opening:
        refusing = Refusing(patch, case.nth)
        loop.nth = case.nth if case.what == "cancel" else 0
        during = loop.arm if case.what == "cancel" else refusing.arm
        program = Program(opening, Ledger(), interruption=(asyncio.CancelledError,), during=during, at_close=True)
        try:
            if case.disk != "sim":
                loop.call_later(HANGS_SECONDS, loop.stop)
            drive(program, loop)
            assert all(isinstance(error, FORESEEN) for error in program.told), program.told
            if case.what == "refuse":
                assert program.told == [], "a log goes on with the threads that it has"
        except BaseException as broken:
            broken.add_note(str(case))
            raise
        finally:
            loop.close()
    return program.told, loop.armed_turns if case.what == "cancel" else refusing.starts


def combinations(step: int) -> list[Case]:
    """All of them; of turns, every `step`th. The usual program tells how many there are, which differs a little on real disks."""
    cases = []
    for disk in DISKS:
        told, turns = tried(Case(disk, "cancel", 0))
        assert told == []
        cases += [Case(disk, "cancel", nth) for nth in range(1, turns + 1, step)]
        if disk != "sim":
            cases += [Case(disk, "refuse", nth) for nth in range(1, max(tried(Case(disk, "refuse", 0))[1], 1) + 1)]
    return cases


def main() -> None:
    """See the head of this file."""
    logging.disable()
    step, first = [*map(int, sys.argv[1:]), *(1, 0)[len(sys.argv) - 1 :]]
    bad, cases = 0, combinations(step)[first:]
    failed = 0
    for case in cases:
        try:
            failed += any(isinstance(error, DurabilityLost) for error in tried(case)[0])
        except Exception as broken:
            bad += 1
            print(f"{type(broken).__name__}: {broken} {broken.__notes__}", flush=True)
    counts = ", ".join(f"{sum(case.disk == disk for case in cases)} on {disk}" for disk in DISKS)
    print(f"{len(cases)} cases ({counts}), {failed} ended a log with DurabilityLost, {bad} ended badly")


if __name__ == "__main__":
    main()
