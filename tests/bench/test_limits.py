"""bench limits: verdicts, and a whole run with next to nothing to do."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import walsvc
from bench import crowd, device, extents, first, limits, load, rates, targets
from bench.environment import TOP, Environment, Results, Spread, load_results
from bench.plan import Plan
from bench.targets import Point, Target, Verdict
from walsvc.config import KIB, MIB, WalConfig

TINY = Plan(
    rounds=1,
    seconds=0.02,
    replay_records=2_000,
    replay_bytes=4 * MIB,
    long_log_bytes=4 * MIB,
    short_log_bytes=MIB,
    memory_appends=2_000,
    segments=12,
    topics=20,
)
AT_MOST = Target("P1", "what", 1.5, True, "us", "limit")
AT_LEAST = Target("P2", "what", 0.75, False, "records/s", "limit")


@pytest.mark.parametrize(
    ("target", "points", "met"),
    [
        (AT_MOST, [Point(15, 10)], True),
        (AT_MOST, [Point(15.1, 10)], False),
        (AT_LEAST, [Point(7.5, 10)], True),
        (AT_LEAST, [Point(7.4, 10)], False),
        (AT_LEAST, [Point(1, 10), Point(8, 10), Point(9, 10)], True),  # the median counts
        (AT_LEAST, [Point(1, 10), Point(2, 10), Point(9, 10)], False),
        (AT_LEAST, [], None),
    ],
)
def test_a_target_is_met_by_the_median_of_the_ratios(target: Target, points: list[Point], met: bool | None) -> None:
    verdict = Verdict(target, points)
    assert verdict.met is met
    if points:
        ratio = verdict.ratio
        assert ratio is not None
        assert ratio.low <= ratio.median <= ratio.high


@pytest.mark.parametrize(("target", "held", "of_three"), [(AT_MOST, 12 / 22, 10 / 20), (AT_LEAST, 27 / 37, 12 / 22)])
def test_on_a_shared_machine_the_quiet_rounds_of_each_side_are_held_against_each_other(
    target: Target, held: float, of_three: float
) -> None:
    ours, limits = list(range(10, 30)), [20 + (number * 7) % 20 for number in range(20)]  # in another order
    points = [Point(*pair) for pair in zip(ours, limits, strict=True)]
    assert Verdict(target, points, shared=True).held == pytest.approx(held)
    assert Verdict(target, [Point(10, 21), Point(12, 20), Point(11, 22)], shared=True).held == of_three
    assert Verdict(target, points).held == Verdict(target, points).ratio.median  # type: ignore[union-attr]


def test_nothing_is_judged_on_a_memory_backed_file_system() -> None:
    assert Verdict(AT_LEAST, [Point(9, 10)], durable=False).met is None


def test_a_spread_is_median_least_and_greatest() -> None:
    assert Spread.of([3.0, 1.0, 2.0]) == (2.0, 1.0, 3.0)


@pytest.fixture
def little_to_prepare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "FILLER_BYTES", 2 * MIB)
    monkeypatch.setattr(device, "FILE_BYTES", 2 * MIB)
    monkeypatch.setattr(extents, "SEEKS", 5)
    monkeypatch.setattr(extents, "LAG_SEGMENT", 64 * KIB)
    monkeypatch.setattr(rates, "CURVE_TASKS", (1, 8))
    monkeypatch.setattr(first, "COMMIT", "0" * 40)
    monkeypatch.setattr(crowd, "TASKS", 8)


@pytest.mark.usefixtures("little_to_prepare")
async def test_a_run_measures_every_target_and_leaves_nothing_behind(tmp_path: Path) -> None:
    place, out = tmp_path / "place", tmp_path / "out"
    place.mkdir()
    environment = Environment.of(str(place))
    results = Results(str(out), "limits", environment)
    said: list[str] = []
    config = WalConfig(segment_bytes=MIB)
    outcome = await limits.run(str(place), TINY, config, environment=environment, results=results, tick=said.append)
    everything = {value.id for value in vars(targets).values() if isinstance(value, Target)}
    assert {verdict.target.id for verdict in outcome.verdicts} == everything
    assert {f"P{number}" for number in range(1, 13)} == {name.rstrip("abcd") for name in everything}
    for verdict in outcome.verdicts:
        if verdict.met is None and verdict.durable:
            assert verdict.note, f"{verdict.target.id} was left out without a reason"
    assert said
    assert [name for name in os.listdir(place) if name.startswith("part")] == []
    lines = load_results(str(out), "limits")
    assert len(lines) == len(everything) + 2
    for line in lines:
        assert json.loads(json.dumps(line)) == line
        assert {"kind", "durable", "environment", "plan", "backend", "bare_device"} <= set(line)
        assert {"run", "commit", "file_system", "device", "loop", "machine", "walsvc"} <= set(line["environment"])
        assert {"kernel", "cpu", "cpus", "python"} <= set(line["environment"]["machine"])
        assert {"disk", "disk_reason", "direct", "block_bytes", "sync_method"} == set(line["backend"])
        assert line["durable"] is not environment.memory_backed
    curve = [line for line in lines if "curve" in line]
    assert [line["curve"] for line in curve] == [1, 8]
    assert all(0 < line["latency_us"]["p50"] <= line["latency_us"]["p999"] for line in curve)
    assert all(line["group_records_mean"] <= line["curve"] for line in curve)


async def test_cpu_of_an_append_is_that_of_the_walsvc_in_a_tree(tmp_path: Path) -> None:
    assert await first.cpu_us(TOP, str(tmp_path), WalConfig(), 2, 0.02) > 0
    (tmp_path / "walsvc.py").write_text("raise SystemExit(3)")
    with pytest.raises(OSError, match="ended with 3"):
        await first.cpu_us(str(tmp_path), str(tmp_path), WalConfig(), 2, 0.02)


async def test_a_measurement_whose_time_is_over_at_once_is_one_operation_a_task(tmp_path: Path) -> None:
    async with walsvc.open(tmp_path) as log:
        assert (await load.ceiling(3, 0)).operations == 3
        assert (await load.appends(log, b"x", 3, 0)).operations == 3
        assert (await load.batches(log, [b"x"], 4, 0)).operations == 4
        assert len(await load.latencies(log, b"x", 0)) == 1
        assert len(await load.lags(0)) == 1
        assert await extents.topic_append_us(log, 2, 0) > 0


@pytest.mark.usefixtures("little_to_prepare")
async def test_a_run_that_fails_leaves_no_log_open(tmp_path: Path) -> None:
    def tick(name: str) -> None:
        if name.startswith("P2"):
            raise BrokenPipeError(name)

    environment = Environment.of(str(tmp_path))
    results = Results(str(tmp_path / "out"), "limits", environment)
    with pytest.raises(BrokenPipeError) as caught:
        await limits.run(str(tmp_path), TINY, WalConfig(), environment=environment, results=results, tick=tick)
    async with walsvc.open(tmp_path / "part-0" / "rates") as log:
        assert log.next_lsn > 1
    assert caught.tb is not None  # which keeps the frames


def test_an_environment_in_memory_is_called_not_durable(tmp_path: Path) -> None:
    environment = Environment("run", "1", None, "tmpfs", "none", True, "asyncio", {})
    warning = environment.warning()
    assert warning is not None
    assert warning.startswith("NOT DURABLE")
    results = Results(str(tmp_path), "limits", environment)
    results.add(target="P1")
    assert load_results(str(tmp_path), "limits")[0]["durable"] is False


def test_the_newest_results_are_taken(tmp_path: Path) -> None:
    for run in ("20260101T000000Z", "20270101T000000Z", "20260601T000000Z"):
        environment = Environment(run, "1", None, "ext4", "/dev/x", False, "asyncio", {})
        Results(str(tmp_path), "limits", environment).add(target=run)
    assert load_results(str(tmp_path), "limits")[0]["target"] == "20270101T000000Z"
    assert load_results(str(tmp_path), "compare") == []
    assert load_results(str(tmp_path / "missing"), "limits") == []
