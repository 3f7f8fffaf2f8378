"""A signal handler raises at any line of the log's own code: a campaign, run by hand.

`WALSVC_CORE=python python -W ignore -m tests.crash.interruptions [STEP [FIRST]]` tries every STEPth moment (1: all), from number
FIRST on, with KeyboardInterrupt and with an exception of the program's own, and prints what ended badly, with the number to go on
from: of a program that appends, and of one that works with topics and consumers. docs/RELIABILITY.md has the figures of one run;
tests/crash/test_interruptions.py runs a sample.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import walsvc
from walsvc.disk.sim import SimDevice

from .grid import CtrlC, Ledger, PatientLoop, Program, drive, on_device
from .working import Working

PACKAGE = Path(walsvc.__file__).parent
CODE: dict[type[Program], tuple[str, ...]] = {
    Program: (str(PACKAGE / "log"), str(PACKAGE / "tasks.py")),
    Working: (str(PACKAGE / "topics"), *(str(PACKAGE / "format" / name) for name in ("dedupe.py", "queues.py"))),
}
"""A program, and whose lines are counted while it runs."""
LINES_MIN = 400  # places in that code that the program passes
PROGRESS = 500  # moments between two lines that say how far the campaign is
Place = tuple[str, int]


class Alarm(Exception):
    """What a program's own handler may raise, for a timeout."""


class Lines:
    """Counts the lines that run in the log's code while `armed`; raises at the nth of them."""

    def __init__(self, kind: type[Program] = Program, nth: int = 0, error: Callable[[], BaseException] = Alarm) -> None:
        self.kind = kind
        self.armed = False
        self.places: list[Place] = []
        self._nth = nth
        self._error = error

    def arm(self, armed: bool) -> None:
        """For Program.during."""
        self.armed = armed
        sys.settrace(self if armed else None)

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        """See sys.settrace; calls of other code are not followed."""
        return self._line if frame.f_code.co_filename.startswith(CODE[self.kind]) else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line" and self.armed:
            self.places.append((frame.f_code.co_filename, frame.f_lineno))
            if len(self.places) == self._nth:
                self.armed = False
                raise self._error()
        return self._line


def run(lines: Lines) -> Program:
    """The whole program with lines counted."""
    loop = PatientLoop()
    loop.set_exception_handler(lambda *_: None)  # a handler's exception in a callback is told there
    device = SimDevice(1)
    program = lines.kind(on_device(device), Ledger(), interruption=(CtrlC, Alarm), during=lines.arm, at_close=True)
    before = sys.gettrace()
    gc.disable()  # what the run before left behind would end in this one, and its lines would count
    try:
        drive(program, loop)
    finally:
        sys.settrace(before)
        loop.close()
        del loop
        gc.enable()
        gc.collect()
    return program


def moments(kind: type[Program] = Program) -> list[int]:
    """At which lines to raise: each place in the code when it is passed for the first and for the last time."""
    lines = Lines(kind)
    program = run(lines)
    assert program.told == []
    first: dict[Place, int] = {}
    last: dict[Place, int] = {}
    for number, place in enumerate(lines.places, start=1):
        first.setdefault(place, number)
        last[place] = number
    assert len(first) > LINES_MIN, "the program misses the code that it is for"
    return sorted({*first.values(), *last.values()})


def raised_at(nth: int, error: type[BaseException], kind: type[Program] = Program) -> None:
    """Run the program with an exception at a line; the place is noted on what goes wrong."""
    lines = Lines(kind, nth, error)
    try:
        run(lines)
    except BaseException as broken:
        file, line = lines.places[-1]
        broken.add_note(f"{error.__name__} at line event {nth}: {file}:{line}")
        raise


def campaign(step: int, first: int = 0) -> Iterator[str]:
    """Try both exceptions at every `step`th moment; yields what ends badly, and how far it is."""
    tries = [(nth, error, kind) for kind in CODE for nth in moments(kind)[::step] for error in (CtrlC, Alarm)]
    bad = 0
    for number, (nth, error, kind) in enumerate(tries[first:], first):
        if number % PROGRESS == 0:
            yield f"moment {number} of {len(tries)}"
        try:
            raised_at(nth, error, kind)
        except Exception as broken:
            bad += 1
            yield f"{type(broken).__name__}: {broken} {broken.__notes__}"
    yield f"{len(tries) - first} moments, {bad} ended badly"


def main() -> None:
    """See the head of this file."""
    for line in campaign(*map(int, sys.argv[1:])):
        print(line, flush=True)


if __name__ == "__main__":
    main()
