"""bench run: the measuring code against a log, and the verb against its promises."""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from walsvc import Mode, Relaxed, Strict
from walsvc.bench.measure import Durations, Percentiles, Workload, measure
from walsvc.cli.main import app
from walsvc.disk.doctor import MEMORY_FILE_SYSTEMS, mount_of
from walsvc.errors import BadOption

from .conftest import Cli


def test_percentiles_are_nearest_rank() -> None:
    seed = random.randrange(1 << 32)
    generator = random.Random(seed)
    durations = Durations()
    values = sorted(generator.randrange(100, 10_000_000) for _ in range(150_001))
    for value in generator.sample(values, len(values)):
        durations.note(value)
    found = durations.percentiles()
    for share, told in ((0.5, found.p50), (0.99, found.p99), (0.999, found.p999), (1.0, found.max)):
        exact = values[math.ceil(share * len(values)) - 1] / 1000
        assert exact - 0.1 <= told <= exact, (seed, share)


def test_percentiles_of_nothing() -> None:
    assert Durations().percentiles() == Percentiles(p50=0.0, p99=0.0, p999=0.0, max=0.0)


@pytest.mark.parametrize("mode", [Strict, Relaxed])
@pytest.mark.parametrize("batch", [1, 16])
async def test_a_run_by_count_does_exactly_that(tmp_path: Path, mode: Mode, batch: int) -> None:
    workload = Workload(tasks=8, payload_bytes=100, mode=mode, batch=batch, records=320)
    outcome = await measure(str(tmp_path / "log"), workload)
    assert outcome.records == 320
    assert outcome.syncs >= 1
    assert outcome.written_bytes >= 320 * 100
    assert 0 < outcome.latency_us.p50 <= outcome.latency_us.p99 <= outcome.latency_us.p999 <= outcome.latency_us.max
    assert outcome.records_per_s > 0
    assert 1 <= outcome.group_records_mean <= outcome.group_records_max
    assert outcome.memory_backed == (mount_of(str(tmp_path))[0] in MEMORY_FILE_SYSTEMS)
    assert outcome.loop == type(asyncio.get_running_loop()).__module__.partition(".")[0]


async def test_a_run_by_time_ends_and_counts_every_record(tmp_path: Path) -> None:
    outcome = await measure(str(tmp_path / "log"), Workload(tasks=4, seconds=0.2))
    assert outcome.seconds >= 0.2
    assert outcome.records > 0


@pytest.mark.parametrize("wrong", [{"tasks": 0}, {"batch": 0}, {"payload_bytes": -1}, {"seconds": 0.0}, {"records": 0}])
def test_a_workload_that_makes_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadOption):
        Workload(**wrong)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_json_has_every_figure_and_nothing_is_left_behind(tmp_path: Path, loop: str) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    arguments = ["bench", "run", str(tmp_path), "--records", "200", "--tasks", "10", "--loop", loop, "--json"]
    finished = CliRunner().invoke(app, arguments)
    assert finished.exit_code == 0, finished.output
    told = json.loads(finished.stdout)
    assert told["loop"] == loop
    assert told["records"] == 200
    assert set(told["latency_us"]) == {"p50", "p99", "p999", "max"}
    assert {"syncs", "group_records_mean", "group_records_max", "disk", "page_cache_bytes", "loop_lag_us"} <= set(told)
    assert told["machine"]["kernel"].startswith("Linux")
    assert told["durable"] is not told["memory_backed"]
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_in_memory_is_said_to_be_one(walsvc: Cli) -> None:
    if mount_of("/dev/shm")[0] != "tmpfs" or not os.access("/dev/shm", os.W_OK):
        pytest.skip("/dev/shm is no writable tmpfs here")
    text = walsvc.good("bench", "run", "/dev/shm", "--records", 10, "--tasks", 2).decode()
    assert "NOT DURABLE" in text
    assert "tmpfs" in text
    told = json.loads(walsvc.good("bench", "run", "/dev/shm", "--records", 10, "--tasks", 2, "--json"))
    assert (told["memory_backed"], told["durable"]) == (True, False)


def test_a_place_that_is_not_there_is_named(walsvc: Cli, tmp_path: Path) -> None:
    said = walsvc.bad(5, "bench", "run", tmp_path / "nowhere")
    assert f"a log: No such file or directory [{tmp_path / 'nowhere'}]. Hint: check the path" in said


def test_figures_for_people(walsvc: Cli, tmp_path: Path) -> None:
    text = walsvc.good("bench", "run", tmp_path, "--seconds", 0.1, "--disk", "threads").decode()
    for word in ("throughput", "p99.9", "syncs", "records per sync", "page cache", "loop lag", "threads"):
        assert word in text


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_sigterm_leave_nothing_behind(
    walsvc: Cli, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    process = walsvc.start("bench", "run", tmp_path, "--seconds", 60)
    while process.poll() is None and not list(tmp_path.glob("walsvc-bench-*/*.wal")):
        pass
    process.send_signal(number)
    assert process.wait(timeout=120) == code
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_not_there(walsvc: Cli, tmp_path: Path) -> None:
    assert "missing" in walsvc.bad(5, "bench", "run", tmp_path / "missing")
