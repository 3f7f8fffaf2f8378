"""How much of a campaign is tried: in `make test` a sample, other places each time; in `make soak` all of it.

A sample is every nth place from one on that is drawn afresh, so it is spread over the whole, and many runs see all. Whatever fails
names its place, and WALSVC_CAMPAIGN=whole tries all of them.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TypeVar

WHOLE = os.environ.get("WALSVC_CAMPAIGN") == "whole"
T = TypeVar("T")


def sampled(places: Iterable[T], one_in: int) -> list[T]:
    """Every place of a whole campaign, else one in so many of them."""
    if WHOLE:
        return list(places)
    first = random.SystemRandom().randrange(one_in)
    print(f"a sample: one place in {one_in}, from number {first} on")
    return list(islice(places, first, None, one_in))


def of_campaign(seeds: Sequence[T], few: int) -> Sequence[T]:
    """All seeds of a whole campaign, else the last few: the same in all test processes, which must collect the same tests."""
    return seeds if WHOLE else seeds[-few:]


def leap(one_in: int) -> int:
    """How far it is to the next place of a sample of which one does not know the end; one in so many on average."""
    return 1 if WHOLE else random.SystemRandom().randint(1, 2 * one_in - 1)


def share(count: int, one_in: int) -> int:
    """So many of a whole campaign are how many of its sample."""
    return count if WHOLE else count // one_in
