"""inspect: what it says of segments and groups is what is in the files."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from walsvc.bench import machine

from .conftest import Cli


def test_one_segment(walsvc: Cli, log: Path) -> None:
    told = json.loads(walsvc.good("inspect", log, "--json"))
    (segment,) = told["segments"]
    assert (told["first_lsn"], told["next_lsn"], told["closed"], told["writer_pid"]) == (1, 101, True, None)
    assert (segment["name"], segment["state"]) == (f"{1:016x}.wal", "active")
    assert (segment["first_lsn"], segment["last_lsn"], segment["records"]) == (1, 100, 100)
    assert segment["payload_bytes"] == sum(len(b"record %d" % n) for n in range(1, 101))
    assert 0 < segment["used_bytes"] <= segment["file_bytes"] == (log / segment["name"]).stat().st_size
    assert segment["error"] is None


def test_segments_follow_each_other(walsvc: Cli, long_log: Path) -> None:
    told = json.loads(walsvc.good("inspect", long_log, "--json"))
    segments = told["segments"]
    assert len(segments) > 3
    assert [each["state"] for each in segments] == ["sealed"] * (len(segments) - 1) + ["active"]
    assert [each["ordinal"] for each in segments] == list(range(1, len(segments) + 1))
    for before, after in itertools.pairwise(segments):
        assert before["successor"] == after["first_lsn"] == before["last_lsn"] + 1
    assert sum(each["records"] for each in segments) == 500
    assert sorted(each["name"] for each in told["spares"]) == sorted(each.name for each in long_log.glob("*.spare"))


def test_groups_lie_one_behind_the_other(walsvc: Cli, long_log: Path) -> None:
    told = json.loads(walsvc.good("inspect", long_log, "--groups", "--json"))
    groups = told["groups"]
    assert sum(group["records"] for group in groups) == 500
    for segment in told["segments"]:
        own = [group for group in groups if group["segment"] == segment["first_lsn"]]
        assert len(own) == segment["groups"]
        assert "snapshot" in own[0]["flags"]
        for before, after in itertools.pairwise(own):
            assert after["offset"] == before["offset"] + before["group_bytes"]
            assert after["first_lsn"] == before["first_lsn"] + before["records"]
        assert own[-1]["offset"] + own[-1]["group_bytes"] == segment["used_bytes"]


def test_plain_text_is_one_row_per_file(walsvc: Cli, long_log: Path) -> None:
    lines = walsvc.good("inspect", long_log).decode().splitlines()
    for file in (*long_log.glob("*.wal"), *long_log.glob("*.spare")):
        assert sum(line.startswith(file.name) for line in lines) == 1
    assert "LSN 1 to 500" in lines[-1]
    assert "closed in order" in lines[-1]
    grouped = walsvc.good("inspect", long_log, "--groups").decode()
    assert "snapshot" in grouped
    assert "seal" in grouped


def test_a_log_cut_at_its_end_ends_where_the_next_segment_begins(walsvc: Cli, log: Path) -> None:
    walsvc.good("truncate", log, "--after", 60)
    walsvc.good("append", log, "-q", stdin=b"new\n")
    told = json.loads(walsvc.good("inspect", log, "--json"))
    assert told["next_lsn"] == 62
    assert [each["last_lsn"] for each in told["segments"]] == [60, 61]


def test_a_live_writer_is_named(walsvc: Cli, log: Path) -> None:
    writer = walsvc.writer(log)
    assert machine.lock_holder(str(log)) == writer.pid
    told = json.loads(walsvc.good("inspect", log, "--json"))
    assert (told["writer_pid"], told["closed"], told["next_lsn"]) == (writer.pid, False, 102)
    assert f"process {writer.pid} has it open" in walsvc.good("inspect", log).decode()
    writer.stdin.close()
    assert writer.wait(timeout=120) == 0
    assert machine.lock_holder(str(log)) is None


def test_a_damaged_header_is_shown_and_the_rest_as_well(walsvc: Cli, long_log: Path) -> None:
    first, second = sorted(long_log.glob("*.wal"))[:2]
    with first.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff")
    finished = walsvc("inspect", long_log, "--json")
    assert finished.returncode == 3
    assert first.name.encode() in finished.stderr
    segments = json.loads(finished.stdout)["segments"]
    assert (segments[0]["state"], segments[0]["first_lsn"]) == ("damaged", None)
    assert segments[0]["error"]
    assert (segments[1]["state"], segments[1]["name"]) == ("sealed", second.name)


def flip(path: Path) -> None:
    """One byte of a payload."""
    data = bytearray(path.read_bytes())
    data[20_000] ^= 1
    path.write_bytes(data)


def zero(path: Path) -> None:
    """A block."""
    data = bytearray(path.read_bytes())
    data[16384:20480] = bytes(4096)
    path.write_bytes(data)


def cut(path: Path) -> None:
    """The end of the file."""
    with path.open("r+b") as file:
        file.truncate(40960)


@pytest.mark.parametrize("number", [0, 2, -2])
@pytest.mark.parametrize("harm", [flip, zero, cut])
def test_damage_inside_a_sealed_segment_is_shown_as_such(
    walsvc: Cli, long_log: Path, harm: Callable[[Path], None], number: int
) -> None:
    victim = sorted(long_log.glob("*.wal"))[number]
    harm(victim)
    finished = walsvc("inspect", long_log, "--json")
    assert finished.returncode == 3
    assert finished.stderr.startswith(b"walsvc: ")
    told = json.loads(finished.stdout)
    states = {each["name"]: each["state"] for each in told["segments"]}
    assert states.pop(victim.name) == "damaged"
    assert set(states.values()) == {"sealed", "active"}
    assert sum(each["error"] is not None for each in told["segments"]) == 1
    assert re.search(rf"^{victim.name} +damaged", walsvc("inspect", long_log).stdout.decode(), re.M)


@pytest.mark.parametrize("number", [0, 2, -1])
def test_segment_that_is_missing_ends_with_3(walsvc: Cli, long_log: Path, number: int) -> None:
    victim = sorted(long_log.glob("*.wal"))[number]
    victim.unlink()
    finished = walsvc("inspect", long_log, "--json")
    assert finished.returncode == 3
    told = json.loads(finished.stdout)
    assert {each["state"] for each in told["segments"]} <= {"sealed", "active"}
    assert told["missing"] == ([victim.name] if number else [])
    assert told["errors"]
    assert number == 0 or re.search(rf"^{victim.name} +missing", walsvc("inspect", long_log).stdout.decode(), re.M)


def test_spare_alone_is_no_log(walsvc: Cli, log: Path) -> None:
    log.joinpath(f"{2:016x}.spare").write_bytes(bytes(65536))
    for segment in log.glob("*.wal"):
        segment.unlink()
    assert "Hint: " in walsvc.bad(5, "inspect", log)
    assert "Hint: " in walsvc.bad(5, "inspect", log, "--json")


def test_log_ids_of_the_double_write_file_are_as_the_log_s(walsvc: Cli, log: Path) -> None:
    log.joinpath("double-write").touch()
    walsvc.good("append", log, "-q", stdin=b"x\n")
    told = json.loads(walsvc.good("inspect", log, "--json"))
    assert {each["log_id"] for each in told["double_write"]} == {told["log_id"]}


@pytest.mark.parametrize("after", [500, 250, 0])
def test_cut_log_is_not_damaged(walsvc: Cli, long_log: Path, after: int) -> None:
    walsvc.good("truncate", long_log, "--after", after)
    walsvc.good("append", long_log, "-q", stdin=b"new\n")
    walsvc.good("inspect", long_log)
    walsvc.good("truncate", long_log, "--before", after + 1)
    walsvc.good("inspect", long_log)
