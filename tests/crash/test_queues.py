"""Shared consumers, their acknowledgements and dead letters, at every operation of the disk: see tests/crash/queues.py."""

from __future__ import annotations

import pytest

from tests.crash.queues import explore_queues


@pytest.mark.filterwarnings(
    "ignore:coroutine .* was never awaited:RuntimeWarning"
)  # the power went before its first line
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [2, 10])
def test_power_cuts_keep_what_workers_were_told(seed: int) -> None:
    outcomes = explore_queues(seed, steps=5)
    assert len(outcomes) > 4
    assert sum(outcomes.values()) > 150
