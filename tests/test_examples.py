"""The examples run as a reader would run them, and the demonstration's verdict finds every kind of loss."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}  # the examples run elsewhere, and walsvc need not be installed
GATEWAY = ROOT / "examples" / "webhook_gateway"


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_embed_answers_lsns_that_survive_a_restart(tmp_path: Path) -> None:
    out = run(ROOT / "examples" / "embed.py", cwd=tmp_path)
    assert "the log holds 100 records" in out


def test_kvstore_replays_and_compacts_without_bringing_old_values_back(tmp_path: Path) -> None:
    out = run(ROOT / "examples" / "kvstore.py", cwd=tmp_path)
    assert "restarted: 98 keys, key 1 = b'new', key 2 = None" in out


def test_gateway_killed_twice_loses_no_answered_event(tmp_path: Path) -> None:
    out = run(GATEWAY / "run.py", "--clients", 40, "--seconds", 2, cwd=tmp_path)
    assert "OK: all" in out
    assert "0 answered but missing" in out
    assert len(list((tmp_path / "demo-data").iterdir())) == 1


@pytest.fixture
def verdict(monkeypatch: pytest.MonkeyPatch):
    """The demonstration's modules import each other as scripts do: by their plain names."""
    monkeypatch.syspath_prepend(str(GATEWAY))
    import verdict

    return verdict


def body(client: int, seq: int, text: str = "line") -> bytes:
    return json.dumps({"client": client, "seq": seq, "event": text}).encode()


def outcomes(verdict):
    """Two clients with two answered events each, and one event of client 2 whose answer never came."""
    answered = {(1, 1): 1, (2, 1): 2, (1, 2): 3, (2, 2): 4, (2, 3): 0}
    return [verdict.Outcome(client, seq, body(client, seq), lsn, 0, 0, 0) for (client, seq), lsn in answered.items()]


GOOD = [(1, body(1, 1)), (2, body(2, 1)), (3, body(1, 2)), (4, body(2, 2))]


def test_verdict_is_good_with_and_without_the_unanswered_event(verdict) -> None:
    without = verdict.compare(outcomes(verdict), GOOD)
    assert (without.good, without.answered, without.intact, without.unknown, without.unknown_present) == (
        True,
        4,
        4,
        1,
        0,
    )
    with_it = verdict.compare(outcomes(verdict), [*GOOD, (5, body(2, 3))])
    assert (with_it.good, with_it.intact, with_it.unknown_present) == (True, 4, 1)


@pytest.mark.parametrize(
    ("records", "fault"),
    [
        (GOOD[:3], "answered but missing"),
        ([*GOOD[:3], (4, body(2, 2, "lime"))], "other bytes than posted"),
        ([*GOOD, (5, body(1, 1))], "stored twice"),
        ([GOOD[0], (2, body(1, 2)), (3, body(2, 1)), GOOD[3]], "not at the answered LSN"),
        ([(1, body(1, 2)), (2, body(2, 1)), (3, body(1, 1)), GOOD[3]], "out of a client's order"),
        ([*GOOD, (5, b"noise")], "never posted"),
        ([*GOOD, (5, body(3, 1))], "never posted"),
        ([*GOOD, (6, body(2, 3))], "gaps in the LSNs"),
    ],
)
def test_verdict_names_the_fault(verdict, records: list[tuple[int, bytes]], fault: str) -> None:
    found = verdict.compare(outcomes(verdict), records)
    assert not found.good
    assert found.faults()[fault].count >= 1
    assert found.faults()[fault].examples
