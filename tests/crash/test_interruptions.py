"""A sample of the campaign in tests/crash/interruptions.py: an exception of a signal handler at lines drawn at random.

Whatever the line, the call is whole, or taken back, or the log fails; nobody waits for ever, the log can be closed and opened
again, and what was acknowledged is there.
"""

from __future__ import annotations

import random
import time

import pytest

from .interruptions import Alarm, CtrlC, moments, raised_at

SAMPLE = 50  # of some 4,000 moments; each takes about 50 ms


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")  # cut short before its first line
def test_exception_at_lines_drawn_at_random_hangs_nothing_and_loses_nothing():
    seed = time.time_ns() & 0xFFFFFFFF
    print(f"seed {seed}")
    for nth in (drawn := random.Random(seed)).sample(moments(), SAMPLE):
        raised_at(nth, drawn.choice((CtrlC, Alarm)))
