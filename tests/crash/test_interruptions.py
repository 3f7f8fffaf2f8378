"""A sample of the campaign in tests/crash/interruptions.py: an exception of a signal handler at lines drawn at random.

Whatever the line, the call is whole, or taken back, or the log fails; nobody waits for ever, the log can be closed and opened
again, and what was acknowledged is there.
"""

from __future__ import annotations

import random
import time

import pytest

from .grid import Program
from .interruptions import CODE, Alarm, CtrlC, moments, raised_at
from .working import Working

SAMPLE = {
    Program: 40,
    Working: 10,
}  # of some thousand moments each, tried for the first and the last time that a line is passed


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")  # cut short before its first line
@pytest.mark.parametrize("kind", CODE, ids=lambda kind: kind.__name__)
def test_exception_at_lines_drawn_at_random_hangs_nothing_and_loses_nothing(kind):
    seed = time.time_ns() & 0xFFFFFFFF
    print(f"seed {seed}")
    for nth in (drawn := random.Random(seed)).sample(moments(kind), SAMPLE[kind]):
        raised_at(nth, drawn.choice((CtrlC, Alarm)), kind)
