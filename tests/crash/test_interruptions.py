"""A sample of the campaign in tests/crash/interruptions.py: an exception of a signal handler at lines drawn at random.

Whatever the line, the call is whole, or taken back, or the log fails; nobody waits for ever, the log can be closed and opened
again, and what was acknowledged is there.
"""

from __future__ import annotations

import inspect
import random
import time

import pytest

from walsvc.log.commit.batch import Batch
from walsvc.topics.hub import Hub

from .grid import Program
from .interruptions import CODE, Alarm, CtrlC, Lines, moments, raised_at, run
from .sampling import sampled, share
from .working import Working

SAMPLE = {
    Program: share(40, 2),
    Working: share(10, 2),
}  # of some thousand moments each, tried for the first and the last time that a line is passed


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")  # cut short before its first line
@pytest.mark.parametrize("kind", CODE, ids=lambda kind: kind.__name__)
def test_exception_at_lines_drawn_at_random_hangs_nothing_and_loses_nothing(kind):
    seed = time.time_ns() & 0xFFFFFFFF
    print(f"seed {seed}")
    for nth in (drawn := random.Random(seed)).sample(moments(kind), SAMPLE[kind]):
        raised_at(nth, drawn.choice((CtrlC, Alarm)), kind)


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_exception_between_the_placing_of_a_group_of_a_batch_and_its_sending_does_not_hang_closing():
    source, start = inspect.getsourcelines(Batch._put)
    run(lines := Lines(Program))
    file, placing = inspect.getfile(Batch), next(i for i, line in enumerate(source) if "placement.place(" in line)
    behind = range(start + placing + 1, start + len(source))
    passed = [nth for nth, place in enumerate(lines.places, start=1) if place[0] == file and place[1] in behind]
    assert len({lines.places[nth - 1] for nth in passed}) >= 5, (
        "the placing, the filling, the sending, and what is told"
    )
    for nth in sampled(passed, 3):
        raised_at(nth, CtrlC)


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_exception_while_a_shared_consumer_begins_work_does_not_hang_its_closing():
    source, start = inspect.getsourcelines(Hub._start)
    run(lines := Lines(Working))
    file = inspect.getfile(Hub)
    first = [
        lines.places.index((file, line)) + 1
        for line in range(start + 1, start + len(source))
        if (file, line) in lines.places
    ]
    assert len(first) == len(source) - 1
    for nth in first:
        raised_at(nth, CtrlC, Working)
