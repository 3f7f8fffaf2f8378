"""A few seconds of what `python -m tests.topics.bounded` does for ten minutes."""

from __future__ import annotations

from .bounded import BOUND_BYTES, campaign


def test_consumed_log_stays_within_its_bound(tmp_path):
    most, records, openings = campaign(str(tmp_path), 3.0, open_seconds=1.0, records_min=BOUND_BYTES // 500)
    assert openings >= 3
    assert records * 1000 > BOUND_BYTES, "more was written than may be held"
    assert most <= BOUND_BYTES
