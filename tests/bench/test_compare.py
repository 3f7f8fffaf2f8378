"""bench compare with peers made of a few lines of shell: turns, ratios, and everything that can go wrong with a peer."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import compare, device, peers
from bench.compare import Comparison
from bench.environment import Environment, Results, load_results
from bench.peers import OURS, PEERS, Peer, Workshop
from walsvc.config import MIB

ANSWER = '{"appends": %d, "seconds": 0.5, "p50_us": 10.0, "p99_us": 20.0}'
SOURCES = Path(__file__).parents[2] / "bench" / "peers"


def program(path: Path, body: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """Ours does 100 appends in half a second."""
    script = tmp_path / "peers" / "python" / OURS.program
    script.parent.mkdir(parents=True)
    script.write_text(f"print({ANSWER % 100!r})\n")
    return Workshop.at(str(tmp_path / "peers"))


@pytest.fixture(autouse=True)
def little_to_prepare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "FILE_BYTES", MIB)
    monkeypatch.setattr(compare, "LIMIT_SECONDS", 0.01)


async def run(workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *bodies: str) -> Any:
    """Compare with one peer for each body of a shell program; (table, result lines)."""
    monkeypatch.setattr(compare, "PEERS", tuple(Peer(f"peer {n}", "", "go", f"peer-{n}") for n in range(len(bodies))))
    for number, body in enumerate(bodies):
        if body:
            program(Path(workshop.environment) / "bin" / f"peer-{number}", body)
    place = tmp_path / "place"
    place.mkdir()
    results = Results(str(tmp_path / "out"), "compare", Environment.of(str(place)))
    comparison = Comparison(tasks=(1, 2), seconds=0.1, rounds=2)
    table = await compare.run(str(place), workshop, comparison, results=results, tick=lambda _: None)
    assert os.listdir(place) == [] or set(os.listdir(place)) == {"device"}
    return table, load_results(str(tmp_path / "out"), "compare")


async def test_each_peer_gets_its_turns_beside_ours(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, lines = await run(workshop, tmp_path, monkeypatch, f"echo '{ANSWER % 20}'", f"echo '{ANSWER % 400}'")
    for tasks in (1, 2):
        assert table.turns["peer 0", tasks].per_s == [40.0, 40.0]
        assert table.ours[tasks].per_s == [200.0] * 4
        assert table.ratio("peer 0", tasks) == (5.0, 5.0, 5.0)
        assert table.ratio("peer 1", tasks) == (0.25, 0.25, 0.25)
    assert table.skipped == {}
    assert {(line["peer"], line["tasks"]) for line in lines} == {
        (name, tasks) for name in ("peer 0", "peer 1", "walsvc", "limit") for tasks in (1, 2)
    }


async def test_a_missing_peer_is_named_with_its_reason(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, lines = await run(workshop, tmp_path, monkeypatch, "", f"echo '{ANSWER % 20}'")
    assert "install.sh" in table.skipped["peer 0"]
    assert ("peer 1", 1) in table.turns
    assert [line["peer"] for line in lines if "skipped" in line] == ["peer 0"]


async def test_a_failing_peer_is_named_and_the_others_go_on(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, _ = await run(
        workshop,
        tmp_path,
        monkeypatch,
        "echo no such thing >&2; exit 3",
        f"echo '{ANSWER % 0}'",
        f"echo '{ANSWER % 20}'",
    )
    assert table.skipped["peer 0"] == "ended with 3: no such thing"
    assert "no append was answered" in table.skipped["peer 1"]
    assert table.turns["peer 2", 2].per_s == [40.0, 40.0]


async def test_a_peer_that_hangs_is_ended_with_its_children(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "START_SECONDS", 0.5)
    left = tmp_path / "child"
    table, _ = await run(workshop, tmp_path, monkeypatch, f"sleep 600 & echo $! > {left}; wait")
    assert "no answer within" in table.skipped["peer 0"]
    assert not runs(int(left.read_text()))


def runs(process: int) -> bool:
    """Whether a process is there and is no zombie."""
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return False
    return "\nState:\tZ" not in status


def test_service_is_compared_with_servers_and_with_the_embedded_log() -> None:
    comparison = Comparison(service=True)
    assert comparison.ours is peers.SERVED
    assert [peer.name for peer in comparison.peers()] == ["walsvc", "Redis streams", "NATS JetStream"]
    assert [peer.name for peer in Comparison(service=True, only=frozenset({"Redis streams"})).peers()] == [
        "walsvc",
        "Redis streams",
    ]


def test_what_a_service_does_not_reach_is_named() -> None:
    table = compare.Table((1, 64), peers.SERVED.label)
    server = next(peer for peer in PEERS if peer.kind == "server")
    for peer, tasks, ours, theirs in ((server, 1, 119, 100), (server, 64, 399, 100), (peers.EMBEDDED, 64, 1, 100)):
        table.peers[peer.label] = peer
        table.beside[peer.label, tasks] = compare.Turns([ours])
        table.turns[peer.label, tasks] = compare.Turns([theirs])
    assert [line.split(" at ")[1] for line in compare.unmet(table, service=True)] == [
        "1 tasks, asked for 1.2 x",
        "64 tasks, asked for 4 x",
    ]
    table.beside[server.label, 1], table.beside[server.label, 64] = compare.Turns([120]), compare.Turns([400])
    assert compare.unmet(table, service=True) == []


def test_how_much_is_asked_of_each_kind_of_peer() -> None:
    python = next(peer for peer in PEERS if peer.kind == "python" and not peer.collected)
    collected = next(peer for peer in PEERS if peer.kind == "python" and peer.collected)
    go = next(peer for peer in PEERS if peer.kind == "go")
    asked = [
        [compare.need(peer, tasks, service=False) for tasks in (1, 8, 64, 1024)] for peer in (python, collected, go)
    ]
    assert asked == [[1, 1, 5, 5], [1, 1, 1, 1], [1, 1, 1, 1]]
    assert compare.need(next(peer for peer in PEERS if peer.kind == "server"), 2000, service=True) == 10


def test_a_directory_without_peers_is_said_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no peers here"):
        Workshop.at(str(tmp_path))


def test_reasons_of_the_installer_are_passed_on(tmp_path: Path) -> None:
    (tmp_path / "python").mkdir()
    (tmp_path / "python" / OURS.program).touch()
    (tmp_path / ".env").mkdir()
    (tmp_path / ".env" / "missing").write_text("go\tgo is not installed\n")
    workshop = Workshop.at(str(tmp_path))
    assert {workshop.absence(peer) for peer in PEERS if peer.kind == "go"} == {"go is not installed"}


@pytest.mark.skipif(not SOURCES.is_dir(), reason="only in a checkout")
@pytest.mark.parametrize("peer", [OURS, peers.SERVED, peers.NAIVE], ids=lambda peer: peer.label)
async def test_our_own_programs_answer(peer: Peer, tmp_path: Path) -> None:
    comparison = Comparison(seconds=0.1)
    answer = await compare.once(str(tmp_path), Workshop.at(str(SOURCES)), comparison, peer, 8)
    assert answer["appends"] >= 8
    assert 0 < answer["p50_us"] <= answer["p99_us"]
    assert answer["seconds"] >= 0.1


@pytest.mark.skipif(not SOURCES.is_dir(), reason="only in a checkout")
def test_every_peer_has_its_program() -> None:
    workshop = Workshop.at(str(SOURCES))
    for peer in (OURS, peers.SERVED, *PEERS):
        command = workshop.command(peer)
        if peer.kind not in ("rust", "go"):
            assert os.path.isfile(command[1]), command
        if peer.kind in ("walsvc", "naive"):
            assert command[0] == sys.executable
