"""Power cuts at every operation while topics are deleted, truncated, compacted and made again: see tests/crash/going.py."""

from __future__ import annotations

import pytest

from .going import explore_going
from .sampling import of_campaign


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", of_campaign([1, 4], 1))
def test_power_cuts_keep_what_was_told_of_topics_that_go(seed: int) -> None:
    outcomes = explore_going(seed, steps=4).outcomes
    assert len(outcomes) > 4
    assert sum(outcomes.values()) > 40
