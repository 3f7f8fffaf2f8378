"""bench plot: from result lines to pictures, and a page that needs no other file."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bench.environment import Environment, Results, load_results
from tests.installed import needs

needs("matplotlib")
ON_DISK = Environment("20260101T000000Z", "1", "abc", "ext4", "/dev/vda", False, "uvloop", {"kernel": "Linux 6"})
IN_MEMORY = Environment("20260101T000000Z", "1", "abc", "tmpfs", "none", True, "uvloop", {"kernel": "Linux 6"})


@pytest.fixture(name="draw")
def fixture_draw() -> Callable[[str, str], list[str]]:
    from bench.page import draw

    return draw


@pytest.fixture(name="figures")
def fixture_figures() -> ModuleType:
    from bench import figures

    return figures


def peer(name: str, tasks: int, per_s: float, **more: Any) -> dict[str, Any]:
    return {
        "peer": name,
        "peer_kind": "go",
        "tasks": tasks,
        "per_s": [per_s, per_s * 2],
        "size": 256,
        "rounds": 2,
        **more,
    }


def write_results(directory: Path, environment: Environment) -> None:
    compared = Results(str(directory), "compare", environment)
    for tasks in (1, 64, 1024):
        compared.add(**peer("walsvc", tasks, 9_000.0 * tasks, peer_kind="walsvc"))
        compared.add(**peer("limit", tasks, 10_000.0 * tasks))
        compared.add(**peer("etcd wal", tasks, 5_000.0))
        compared.add(**peer("lmdb", tasks, 4_000.0, peer_kind="python", collected=False))
        compared.add(**peer("lmdb", tasks, 4_000.0 * tasks, peer_kind="python", collected=True))
    compared.add(peer="kaya-wal, Strict", skipped="cargo is not <installed>")
    limits = Results(str(directory), "limits", environment)
    spread = {"median": 0.5, "low": 0.4, "high": 0.6}
    target = {"what": "1 task", "need": 1.1, "at_most": True, "unit": "us", "limit_is": "floor"}
    limits.add(target="P1", ratio=spread, held=0.5, met=True, **target)
    limits.add(target="P11c", ratio=None, held=None, met=None, **target)
    for tasks in (1, 64):
        latency = {"p50": 100.0, "p99": 200.0, "p999": 900.0, "max": 1000.0}
        limits.add(
            curve=tasks,
            records_per_s=8e3 * tasks,
            limit_per_s=9e3 * tasks,
            ceiling_per_s=1e6,
            floor_us=80.0,
            latency_us=latency,
            group_records_mean=tasks,
            group_records_max=tasks,
        )
    growth = Results(str(directory), "growth", environment)
    for axis in ("length_bytes", "segments", "payload_bytes"):
        for value in (1, 1000):
            cost = {"open_us": 9e4, "append_us": 9e1, "appends_per_s_64": 1e5, "seek_us": 3e2, "memory_bytes": 6e6}
            growth.add(axis=axis, value=value, **cost)


def test_everything_is_drawn_and_the_page_needs_nothing_else(
    tmp_path: Path, draw: Callable[[str, str], list[str]]
) -> None:
    write_results(tmp_path / "results", ON_DISK)
    written = draw(str(tmp_path / "results"), str(tmp_path / "plots"))
    assert [Path(path).name for path in written] == [
        "throughput.png",
        "targets.png",
        "curve.png",
        "growth.png",
        "index.html",
    ]
    for path in written[:-1]:
        assert Path(path).read_bytes().startswith(b"\x89PNG\r\n")
    page = Path(written[-1]).read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|href)="([^"]{0,30})', page)
    assert len(sources) == 4
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "kaya-wal, Strict: cargo is not &lt;installed&gt;" in page
    assert "Not durable" not in page


def test_the_page_says_when_nothing_was_durable(tmp_path: Path, draw: Callable[[str, str], list[str]]) -> None:
    write_results(tmp_path / "results", IN_MEMORY)
    written = draw(str(tmp_path / "results"), str(tmp_path / "plots"))
    assert Path(written[-1]).read_text(encoding="utf-8").count("Not durable") == 4


def test_newest_results_are_those_of_the_very_kind(tmp_path: Path) -> None:
    for name in ("compare-20260101T000000Z", "compare-20260201T000000Z", "compare-service-20260301T000000Z"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"name": name}))
    assert load_results(str(tmp_path), "compare") == [{"name": "compare-20260201T000000Z"}]
    assert load_results(str(tmp_path), "compare-service") == [{"name": "compare-service-20260301T000000Z"}]
    assert load_results(str(tmp_path), "growth") == []


def test_without_results_it_says_what_to_run(tmp_path: Path, draw: Callable[[str, str], list[str]]) -> None:
    with pytest.raises(FileNotFoundError, match="make bench"):
        draw(str(tmp_path), str(tmp_path / "plots"))


def test_the_fastest_configuration_of_a_peer_is_drawn_but_a_collector_of_ours_stands_alone(figures: ModuleType) -> None:
    lines = [
        peer("a", 1, 10.0, configuration="slow", collected=False),
        peer("a", 1, 20.0, configuration="fast", collected=False),
        peer("a", 1, 90.0, configuration="ours", collected=True),
    ]
    best = figures.best_configurations(lines)
    assert [line["configuration"] for line in best["a"]] == ["fast"]
    assert [line["configuration"] for line in best["a behind a collector"]] == ["ours"]


@pytest.mark.parametrize("shares", [[], [0.5], [0.1, 0.1, 0.1], [0.98, 0.99, 1.0], [0.2, 0.21, 0.9, 0.99, 0.995]])
def test_labels_do_not_overlap_and_stay_inside(figures: ModuleType, shares: list[float]) -> None:
    places = figures.spread_out(shares)
    assert len(places) == len(shares)
    assert all(place <= 1.0 for place in places)
    gaps = [after - before for before, after in pairwise(places)]
    assert all(gap >= figures.LABEL_GAP - 1e-9 for gap in gaps)
