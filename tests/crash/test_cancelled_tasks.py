"""All tasks that are not the program's are cancelled from outside, at any turn of the loop."""

from __future__ import annotations

import asyncio
import sys

import pytest

from walsvc.disk.sim import SimDevice
from walsvc.errors import Closed, DurabilityLost

from .grid import Ledger, PatientLoop, Program, drive, on_device

STEP = 2
CANCELLED_MIN = 20


class CancellingLoop(PatientLoop):
    """A loop that at its nth turn, counted while `armed`, cancels every task that is not the program's."""

    def __init__(self, nth: int) -> None:
        super().__init__()
        self.armed_turns = 0
        self.cancelled: list[str] = []
        self.armed = False
        self._nth = nth

    def arm(self, armed: bool) -> None:
        """For Program.during."""
        self.armed = armed

    def _run_once(self) -> None:
        super()._run_once()
        if not self.armed:
            return
        self.armed_turns += 1
        if self.armed_turns == self._nth:
            for task in asyncio.all_tasks(self):
                code = task.get_coro()
                if not getattr(code, "__qualname__", "").startswith("Program."):
                    task.cancel()
                    self.cancelled.append(repr(task))


def cancelled_at(nth: int) -> tuple[CancellingLoop, Program]:
    """Run the program and cancel what is under way beside it at the nth turn."""
    loop = CancellingLoop(nth)
    device = SimDevice(1)
    program = Program(
        on_device(device), Ledger(), interruption=(asyncio.CancelledError,), during=loop.arm, at_close=True
    )
    try:
        drive(program, loop)
    finally:
        loop.close()
    return loop, program


def test_all_tasks_cancelled_from_outside_at_any_turn_hang_nothing_and_take_nothing() -> None:
    usual, program = cancelled_at(0)
    assert program.told == []
    met = 0
    for nth in range(1, usual.armed_turns + 1, STEP):
        loop = None
        try:
            loop, program = cancelled_at(nth)
        except BaseException as broken:
            broken.add_note(f"cancelled at turn {nth} of {usual.armed_turns}")
            raise
        met += bool(loop.cancelled)
        foreseen = (DurabilityLost, Closed, asyncio.CancelledError)
        assert all(isinstance(error, foreseen) for error in program.told), f"turn {nth}: {program.told}"
    assert met > CANCELLED_MIN, "nothing was under way that could be cancelled"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with CPython 3.12")
def test_eager_tasks_change_nothing() -> None:
    loop = PatientLoop()
    loop.set_task_factory(asyncio.eager_task_factory)
    program = Program(on_device(SimDevice(1)), Ledger())
    try:
        drive(program, loop)
    finally:
        loop.close()
    assert program.told == []
