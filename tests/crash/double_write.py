"""What the double-write file is worth: the exploration of crashes in layout pack with it, and with it bypassed.

    python -m tests.crash.double_write --states 10000 [--bypass]

With it no acknowledged record may be lost. Bypassed (by a patch that only tests can apply: the options refuse such a log),
the same exploration must find losses, or it could not have failed in the first place.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from unittest import mock

from walsvc.disk.base import Write
from walsvc.errors import Corruption
from walsvc.log.commit.double_write import DoubleWrite

from .explorer import Effort, Explorer, Tally
from .model import Violation
from .plan import Plan

EFFORT = Effort(lives=2, steps=15, states=10, recovery_share=0.002, recovery_states=3, kill_share=0.01)


@contextlib.contextmanager
def bypassed() -> Iterator[None]:
    """Write to the log at once, and never to a slot."""

    def submit(self: DoubleWrite, write: Write, *_: Any, **__: Any) -> None:
        self._disk.submit(write)

    with mock.patch.object(DoubleWrite, "submit", submit):
        yield


def explore(first_seed: int, states: int, effort: Effort = EFFORT) -> Tally:
    """Explore seed after seed until so many distinct states were seen. Raises what the explorer raises."""
    with closing(Explorer(effort, Plan.draw_double_write)) as explorer:
        seed = first_seed
        while len(explorer.tally.states) < states:
            try:
                explorer.explore(seed)
            except BaseException as error:
                error.add_note(f"replay: python -m tests.crash.explore --seed {seed} --count 1 --double-write")
                raise
            seed += 1
        return explorer.tally


def losses(seeds: range, effort: Effort = EFFORT) -> list[str]:
    """For each seed that finds damage with the double-write file bypassed, what it found first."""
    found = []
    with bypassed():
        for seed in seeds:
            with closing(Explorer(effort, Plan.draw_double_write)) as explorer:
                try:
                    explorer.explore(seed)
                except (Violation, Corruption) as error:
                    found.append(f"seed {seed}: {type(error).__name__}: {error}")
    return found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash.double_write", description=__doc__)
    parser.add_argument("--states", type=int, default=10_000, help="distinct crash states (default 10,000)")
    parser.add_argument("--seed", type=int, default=1, help="first seed")
    parser.add_argument("--bypass", action="store_true", help="without the slots: losses must be found")
    options = parser.parse_args()
    began = time.monotonic()
    if options.bypass:
        found = losses(range(options.seed, options.seed + 10))
        print("\n".join(found))
        print(f"damage found by {len(found)} of 10 seeds in {time.monotonic() - began:.0f} s")
        raise SystemExit(0 if found else 1)
    print(f"no violation: {explore(options.seed, options.states)} in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
