"""bench sessions: topics that come and go cost what lives."""

from __future__ import annotations

from pathlib import Path

from bench import sessions
from bench.environment import Environment, Results, load_results
from walsvc.config import KIB, WalConfig


async def test_topics_that_are_over_cost_nothing_and_those_that_are_kept_do(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sessions, "AFTER_BYTES", 512 * KIB)
    monkeypatch.setattr(sessions, "RECORD_BYTES", 400)
    place, results = tmp_path / "place", Results(str(tmp_path / "results"), "sessions", Environment.of(str(tmp_path)))
    place.mkdir()
    config = WalConfig(disk="threads", segment_bytes=64 * KIB)
    ticks: list[str] = []
    costs = await sessions.run(str(place), 600, config, results=results, tick=ticks.append, live=100)
    assert [cost.way for cost in costs] == ["truncated", "deleted", "kept"]
    truncated, deleted, kept = costs
    for cost in (truncated, deleted):
        assert cost.written_bytes < kept.written_bytes
        assert cost.after_bytes < 1.5 * sessions.AFTER_BYTES < kept.after_bytes
    assert truncated.log_bytes < deleted.log_bytes <= kept.log_bytes
    assert len(load_results(str(tmp_path / "results"), "sessions")) == len(ticks) == 3
    assert not list(place.iterdir())
