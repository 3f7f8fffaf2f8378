"""Campaigns of faults, in which each case is tried and what it told is counted by the row that it belongs to; and of seeds, for a while."""

from __future__ import annotations

import argparse
import itertools
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
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


def seeds_parser(prog: str, description: str) -> argparse.ArgumentParser:
    """A command that tries seed after seed, for a time or so many; see `seeds_from`."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (default 60)")
    parser.add_argument("--seed", type=int, default=None, help="first seed (default: the clock's); then one more each")
    parser.add_argument("--count", type=int, default=None, help="so many seeds instead of a time")
    return parser


def first_of(options: argparse.Namespace) -> int:
    """The first seed that the options ask for, which is said."""
    first = int(time.time()) if options.seed is None else int(options.seed)
    print(f"seeds from {first} on", flush=True)
    return first


def seeds_from(first: int, options: argparse.Namespace) -> Iterator[int]:
    """The seeds that the options ask for, one after the other."""
    started = time.monotonic()
    for seed in itertools.count(first):
        asked = (
            seed - first < options.count if options.count is not None else time.monotonic() - started < options.seconds
        )
        if not asked:
            return
        yield seed
