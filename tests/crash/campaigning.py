"""Campaigns of faults, in which each case is tried and what it told is counted by the row that it belongs to; and of seeds, for a while."""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from .moments import Explored

Case = TypeVar("Case")


def campaign(cases: Sequence[Case], row_of: Callable[[Case], str], told_of: Callable[[Case], set[str]]) -> None:
    """Try every STEP-th case from FIRST on, which are the arguments of this process; print what ends badly, and at last what was told.

    Args:
        cases: all of them.
        row_of: the row that counts a case.
        told_of: tries a case; returns the names of the errors that were told. Raises, with a note, what ends badly.
    """
    logging.disable()  # each fault is told there as well
    step, first = [*map(int, sys.argv[1:]), *(1, 0)[len(sys.argv) - 1 :]]
    chosen = cases[first::step]
    rows: dict[str, Counter[str]] = {}
    bad = 0
    for case in chosen:
        row = rows.setdefault(row_of(case), Counter())
        try:
            row.update(told_of(case) or ["nobody"])
        except Exception as broken:
            bad += 1
            print(f"{type(broken).__name__}: {broken} {broken.__notes__}", flush=True)
    for name, row in rows.items():
        print(f"{name}: {dict(row)}")
    print(f"{len(chosen)} combinations, {bad} ended badly")


def explore_for_a_while(explore: Callable[[int, int], Explored]) -> None:
    """Explore seed after seed until the time is over. The arguments of this process are SECONDS, STEPS and perhaps the first seed.

    Args:
        explore: takes a seed and a number of steps. Raises what is wrong.
    """
    seconds, steps, seed = float(sys.argv[1]), int(sys.argv[2]), int((*sys.argv[3:], 0)[0])
    started, images, seeds = time.monotonic(), 0, 0
    states: set[str] = set()
    while time.monotonic() - started < seconds:
        explored = explore(seed + seeds, steps)
        images += explored.outcomes.total()
        states |= explored.states
        seeds += 1
        print(
            f"{seeds} seeds from {seed} on, {images} images, {len(states)} distinct states, nothing wrong", flush=True
        )
