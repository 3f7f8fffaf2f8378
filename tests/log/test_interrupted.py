"""An exception between two lines of the way in, as the handler of a signal raises it: Ctrl-C, a timeout by SIGALRM.

Afterwards every answer still belongs to its own payload, or the log has failed and says so; nobody waits for ever.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from linecache import getline
from types import FrameType
from typing import Any

import pytest

import walsvc
from tests.crash.sampling import leap
from walsvc import Relaxed, WalConfig, WalError
from walsvc.disk.sim import SimDevice, SimDisk, run_sim
from walsvc.log.commit.lane import Lane, PythonLane
from walsvc.opening import open_on

INSIDE = ("/walsvc/log/commit/", "/walsvc/log/writer.py")
NOWHERE = ("try:", "self._waker.wake()  # last: a woken task may do anything at once")
"""CPython runs a handler when a call has returned: never at a `try`, nor between the end of its body and what its `finally` does."""
EACH_OPCODE = ("/walsvc/log/commit/intake.py", "/walsvc/log/commit/lane.py")


class Interrupted(BaseException):
    """What the handler raises; no Exception, as KeyboardInterrupt."""


class Interruption:
    """Raises at the nth line (in the intake: at the nth opcode) of the code under test."""

    def __init__(self, nth: int) -> None:
        self.left = nth
        self.raised = False

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        name = frame.f_code.co_filename
        if not any(part in name for part in INSIDE):
            return None
        opcodes = name.endswith(EACH_OPCODE)
        frame.f_trace_opcodes = opcodes
        if event == ("opcode" if opcodes else "line") and getline(name, frame.f_lineno or 0).strip() not in NOWHERE:
            self.left -= 1
            if self.left == 0:
                self.raised = True
                sys.settrace(None)
                raise Interrupted
        return self

    def during(self, call: Callable[[], Any]) -> Any:
        before = sys.gettrace()
        sys.settrace(self)
        try:
            return call()
        finally:
            sys.settrace(before)


CALLS: dict[str, Callable[[walsvc.Log, bytes], Any]] = {
    "append": lambda log, payload: log.append(payload),
    "append to a busy log": lambda log, payload: log.append(payload),
    "relaxed": lambda log, payload: log.append(payload, mode=Relaxed),
    "typed": lambda log, payload: log.append(payload, type=7),
    "topic": lambda log, payload: log.topic("known").append(payload),
    "new topic": lambda log, payload: log.topic("new").append(payload),
    "batch": lambda log, payload: log.append_batch([payload, payload]),
    "completion": lambda log, payload: log.append(payload),
    "no room in the group": lambda log, payload: log.append(payload + bytes(5990)),
}


def interrupt_answers(log: Any, interruption: Interruption) -> None:
    """Interrupt what follows from an answer of the disk, instead of a call; not in front of the first line that can be kept."""
    device_submit = log.writer.segments.disk.submit

    def submit(write):
        done = write.done
        write.done = lambda *answer: interruption.during(lambda: done(*answer))
        device_submit(write)

    log.writer.segments.disk.submit = submit
    interruption.left += 1


@pytest.mark.parametrize("kind", CALLS)
def test_exception_at_any_line_of_an_append_shifts_no_answer(kind):
    ended = []

    async def main(nth: int) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        device = SimDevice(1)
        log = await open_on(SimDisk(device), WalConfig(segment_bytes=1 << 20, max_group_bytes=6000))
        await log.topic("known").append(b"0")
        kept: list[tuple[bytes, asyncio.Future[Any]]] = []

        def add(payload: bytes, call: Callable[[], Any]) -> None:
            try:
                kept.append((payload, call()))
            except WalError:
                assert log.stats().failed

        if kind != "append":
            for number in range(3):
                payload = b"before %d" % number
                add(payload, lambda payload=payload: log.append(payload))
        interruption = Interruption(nth)
        try:
            if kind == "completion":
                kept.append((b"hit", log.append(b"hit")))
                interrupt_answers(log, interruption)
            else:
                kept.append((b"hit", interruption.during(lambda: CALLS[kind](log, b"hit"))))
        except Interrupted:
            pass
        for number in range(5):
            payload = b"after %d" % number
            add(payload, lambda payload=payload: log.append(payload))
            add(payload, lambda payload=payload: log.topic("known").append(payload))
        answers = await asyncio.wait_for(asyncio.gather(*(each for _, each in kept), return_exceptions=True), 60)
        failed = log.stats().failed
        await asyncio.gather(log.close(), return_exceptions=True)
        async with await open_on(SimDisk(device), WalConfig()) as log:
            there = {record.lsn: record.payload async for record in log.read()}
        for (payload, _), answer in zip(kept, answers, strict=True):
            if isinstance(answer, BaseException):
                assert failed
                assert isinstance(answer, WalError)
                continue
            for each in [answer] if isinstance(answer, walsvc.AppendResult) else answer:
                if each.durable or not failed:
                    assert there[each.lsn].rstrip(b"\0") == payload
        ended.append(interruption.raised)

    nth = 0
    while not ended or ended[-1]:
        nth += leap(2 if nth < 60 else 10)
        run_sim(main, nth)
    in_c = Lane is not PythonLane and kind in {
        "append to a busy log",
        "relaxed",
        "topic",
    }  # one call, which no handler interrupts
    assert in_c or nth > 33, "the call has fewer lines than that?"
