"""A signal handler raises at any line of the log's own code: a campaign, run by hand.

`python -W ignore -m tests.crash.interruptions [STEP]` tries every STEPth moment (1: all) with KeyboardInterrupt and with an
exception of the program's own, and prints what ended badly. docs/RELIABILITY.md has the figures of one run. What
tests/log/test_interrupted.py covers ends well at every line; elsewhere some moments still hang the caller.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import walsvc.log
from walsvc.disk.sim import SimDevice

from .grid import CtrlC, Ledger, PatientLoop, Program, drive, on_device

CODE = str(Path(walsvc.log.__file__).parent)
LINES_MIN = 400  # places in the code of the log that the program passes
Place = tuple[str, int]


class Alarm(Exception):
    """What a program's own handler may raise, for a timeout."""


class Lines:
    """Counts the lines that run in the log's code while `armed`; raises at the nth of them."""

    def __init__(self, nth: int = 0, error: Callable[[], BaseException] = Alarm) -> None:
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
        return self._line if frame.f_code.co_filename.startswith(CODE) else None

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
    program = Program(on_device(device), Ledger(), interruption=(CtrlC, Alarm), during=lines.arm)
    before = sys.gettrace()
    try:
        drive(program, loop)
    finally:
        sys.settrace(before)
        loop.close()
    return program


def moments() -> list[int]:
    """At which lines to raise: each place in the code when it is passed for the first and for the last time."""
    lines = Lines()
    program = run(lines)
    assert program.told == []
    first: dict[Place, int] = {}
    last: dict[Place, int] = {}
    for number, place in enumerate(lines.places, start=1):
        first.setdefault(place, number)
        last[place] = number
    assert len(first) > LINES_MIN, "the program misses the code that it is for"
    return sorted({*first.values(), *last.values()})


def raised_at(nth: int, error: type[BaseException]) -> None:
    """Run the program with an exception at a line; the place is noted on what goes wrong."""
    lines = Lines(nth, error)
    try:
        run(lines)
    except BaseException as broken:
        file, line = lines.places[-1]
        broken.add_note(f"{error.__name__} at line event {nth}: {file}:{line}")
        raise


def main() -> None:
    """Both exceptions at every STEPth moment."""
    places = moments()[:: int(sys.argv[1]) if len(sys.argv) > 1 else 1]
    bad = 0
    for error in (CtrlC, Alarm):
        for nth in places:
            try:
                raised_at(nth, error)
            except Exception as broken:
                bad += 1
                print(f"{type(broken).__name__}: {broken} {broken.__notes__}")
    print(f"{2 * len(places)} moments, {bad} ended badly")


if __name__ == "__main__":
    main()
