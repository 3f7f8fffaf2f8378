"""Power cuts at every operation of a program with queues, transactions and all ways in which records go: tests/crash/everything.py."""

from __future__ import annotations

import pytest

from .everything import explore_everything


@pytest.mark.timeout(300)
def test_power_cuts_keep_what_was_told_where_everything_is_mixed() -> None:
    outcomes = explore_everything(seed=5, steps=5).outcomes
    assert len(outcomes) > 4
    assert sum(outcomes.values()) > 80
