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


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed (scripts/setup.sh)")
@pytest.mark.timeout(120)
async def test_workers_at_an_empty_queue_say_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plan = Plan(workers=2, size=10, jobs=0, seconds=5.0, loop="asyncio")
    assert await jobs.turn(str(tmp_path), jobs.redis_queue, plan, 1, jobs.TASKS) is None
    assert "Traceback" not in capfd.readouterr().err


async def test_a_turn_whose_queue_ran_empty_is_made_again_with_twice_the_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int]] = []
    ticks: list[str] = []

    async def turn(place: str, queue: jobs.Queue, plan: Plan, at_once: int, way: jobs.Way) -> Turn | None:
        asked.append((queue.__name__, plan.jobs))
        return None if plan.jobs < 400 else Turn(1, 1, 1)

    monkeypatch.setattr(jobs, "turn", turn)
    results = Results(str(tmp_path), "jobs", Environment.of(str(tmp_path)))
    (measured,) = await jobs.run("", Plan(at_once=(1,), jobs=100, rounds=1), results=results, tick=ticks.append)
    assert asked == [("walsvc_queue", each) for each in (100, 200, 400)] + [("redis_queue", 400)]
    assert (measured.ours, measured.theirs) == ([Turn(1, 1, 1)], [Turn(1, 1, 1)])
    assert ticks[1:] == [f"the queue ran empty: {each} jobs from now on" for each in (200, 400)]


def test_ratios_are_taken_from_turns_beside_each_other() -> None:
    beside = Beside(1, "tasks", [Turn(200, 10, 10), Turn(300, 10, 20)], [Turn(100, 30, 30), Turn(100, 10, 20)])
    assert beside.ratio == (2.5, 2.0, 3.0)
    assert beside.cpu_ratio == (2.0, 1.0, 3.0)
