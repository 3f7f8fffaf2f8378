"""A sample of the campaign in tests/crash/every_errno.py: an operation, a call and an error number drawn at random.

Nobody waits for ever, nothing acknowledged is lost or altered, and where no data is at stake the log goes on.
"""

from __future__ import annotations

import random
import time

from .every_errno import ERRNOS, HARMLESS, combinations, told_of

SAMPLE = 24  # of some 7,000 combinations; each takes about 60 ms


def test_every_operation_and_error_number_is_among_the_combinations() -> None:
    drawn = combinations()
    assert {each.errno for each in drawn} == set(ERRNOS)
    assert set(HARMLESS) < {each.operation for each in drawn}
    assert len(drawn) == len(set(drawn)) > 5_000


def test_operation_that_fails_with_an_errno_drawn_at_random_hangs_nothing_and_loses_nothing() -> None:
    seed = time.time_ns() & 0xFFFFFFFF
    print(f"seed {seed}")
    for planted in random.Random(seed).sample(combinations(), SAMPLE):
        told_of(planted)
