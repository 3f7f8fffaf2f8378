"""Power cuts at every operation while topics are written, consumed under both deliveries, held and reclaimed."""

from __future__ import annotations

import pytest

from .sampling import of_campaign
from .topics import explore_topics


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", of_campaign(range(3), 1))
def test_acknowledgements_holds_and_counts_survive_power_cuts(seed: int) -> None:
    outcomes = explore_topics(seed).outcomes
    assert len(outcomes) > 20
