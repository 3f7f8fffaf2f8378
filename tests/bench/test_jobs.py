"""bench jobs: workers at a queue of walsvc's server and at a Redis stream, in turns."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bench import jobs
from bench.environment import Environment, Results, load_results
from bench.jobs import Beside, Plan, Turn


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed (scripts/setup.sh)")
@pytest.mark.timeout(120)
async def test_workers_of_both_do_jobs_in_turns(tmp_path: Path) -> None:
    place, results = tmp_path / "place", Results(str(tmp_path / "results"), "jobs", Environment.of(str(tmp_path)))
    place.mkdir()
    ticks: list[str] = []
    plan = Plan(workers=1, at_once=(2,), size=10, jobs=20_000, seconds=0.2, rounds=1, loop="asyncio")
    measured = await jobs.run(str(place), plan, results=results, tick=ticks.append)
    assert [(each.at_once, each.way) for each in measured] == [(2, "tasks"), (2, "batches")]
    assert all(turn.per_s > 0 for each in measured for turn in (*each.ours, *each.theirs))
    assert len(load_results(str(tmp_path / "results"), "jobs")) == len(ticks) == 2
    assert not list(place.iterdir())


def test_ratios_are_taken_from_turns_beside_each_other() -> None:
    beside = Beside(1, "tasks", [Turn(200, 10, 10), Turn(300, 10, 20)], [Turn(100, 30, 30), Turn(100, 10, 20)])
    assert beside.ratio == (2.5, 2.0, 3.0)
    assert beside.cpu_ratio == (2.0, 1.0, 3.0)
