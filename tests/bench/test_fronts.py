"""bench fronts: each front of the server beside others, in turns."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bench import fronts
from bench.environment import Environment, Results, load_results
from bench.fronts import Beside, Plan, Turn

NEEDED = ("redis-server", "redis-benchmark")


@pytest.mark.skipif(not all(map(shutil.which, NEEDED)), reason="Redis is not installed (scripts/setup.sh)")
@pytest.mark.timeout(120)
async def test_each_client_asks_the_servers_in_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fronts, "FIRST_COUNT", 500)
    place, results = tmp_path / "place", Results(str(tmp_path / "results"), "fronts", Environment.of(str(tmp_path)))
    place.mkdir()
    ticks: list[str] = []
    plan = Plan(at_once=2, pipelines=(4,), size=10, seconds=0.1, rounds=1, loop="asyncio")
    measured = await fronts.run(str(place), plan, results=results, tick=ticks.append)
    assert [(each.client, each.other) for each in measured] == [
        ("redis-benchmark, pipelines of 4", "Redis"),
        ("redis-py", "Redis"),
        ("HTTP POST", "aiohttp"),
        ("HTTP POST", "aiohttp and an embedded append"),
    ]
    assert all(turn.per_s > 0 for each in measured for turn in (*each.ours, *each.theirs))
    assert len(ticks) == 7
    assert len(load_results(str(tmp_path / "results"), "fronts")) == 4


def test_ratios_are_taken_from_turns_beside_each_other() -> None:
    beside = Beside("a client", "another", [Turn(200, 10), Turn(300, 20)], [Turn(100, 30), Turn(100, 10)])
    assert beside.ratio == (2.5, 2.0, 3.0)
    assert beside.cpu_ratio == (1.75, 0.5, 3.0)
