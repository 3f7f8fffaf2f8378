"""purge, compact and migrate from the shell."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

import walsvc
from walsvc.cli import exits

from .conftest import Cli


@pytest.fixture
def log_path(tmp_path: Path) -> str:
    """A log of some segments: records of users 1 to 3, by number, in topics a and b."""

    async def write() -> None:
        async with walsvc.open(tmp_path / "log", segment_bytes=65536) as log:
            for number in range(60):
                where = log.topic("ab"[number % 2])
                await where.append(b"%d" % number * 1000, attributes={"key": number % 3, "user": f"u{number % 3}"})

    asyncio.run(write())
    return str(tmp_path / "log")


def lsns(walsvc_: Cli, path: str) -> list[int]:
    lines = walsvc_.good("cat", path, "--format", "json").splitlines()
    return [json.loads(line)["lsn"] for line in lines]


def size(path: str) -> int:
    return sum(each.stat().st_size for each in Path(path).glob("*.wal"))


def test_purge_then_compact_hides_and_gives_back(walsvc: Cli, log_path: str) -> None:
    assert b"below LSN 61: key=1" in walsvc.good("purge", log_path, "--key", "1")
    told = json.loads(walsvc.good("purge", log_path, "--where", "user=u2", "--topic", "a", "--before", "31", "--json"))
    assert told == {"labels": {"user": "u2"}, "topic": "a", "before": 31}
    left = lsns(walsvc, log_path)
    assert left == [
        lsn for lsn in range(1, 61) if (lsn - 1) % 3 != 1 and not ((lsn - 1) % 3 == 2 and lsn % 2 and lsn < 31)
    ]
    before = size(log_path)
    told = json.loads(walsvc.good("compact", log_path, "--json"))
    assert told["freed_bytes"] > 0
    assert told["bytes"] == before - told["freed_bytes"]
    assert lsns(walsvc, log_path) == left
    assert walsvc.good("verify", log_path)
    assert b"freed 0 B" in walsvc.good("compact", log_path)


def test_text_and_number_are_two_keys(walsvc: Cli, log_path: str) -> None:
    walsvc.good("purge", log_path, "--key", '"1"')
    assert len(lsns(walsvc, log_path)) == 60
    walsvc.good("purge", log_path, "--key", "1")
    assert len(lsns(walsvc, log_path)) == 40


def test_single_records_and_all_but_the_newest(walsvc: Cli, log_path: str) -> None:
    assert walsvc.good("purge", log_path, "--lsn", 3, "--lsn", 4) == b"hidden: 2 records\n"
    told = json.loads(walsvc.good("purge", log_path, "--lsn", 5, "--lsn", 6, "--topic", "a", "--json"))
    assert told == {"topic": "a", "records": 1}
    assert walsvc.good("purge", log_path, "--topic", "b", "--keep", 2) == b"hidden: 27 records\n"
    assert walsvc.good("purge", log_path, "--topic", "a", "--before", 50) == b"hidden: 23 records\n"
    assert lsns(walsvc, log_path) == [51, 53, 55, 57, 58, 59, 60]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--lsn", "1", "--key", "1"],
        ["--keep", "1"],
        ["--lsn", "1", "--before", "3"],
        ["--topic", "a"],
        ["--before", "3"],
        [],
    ],
)
def test_ways_to_purge_that_do_not_go_together_are_refused(walsvc: Cli, log_path: str, arguments: list[str]) -> None:
    assert walsvc("purge", log_path, *arguments).returncode == exits.USAGE
    assert len(lsns(walsvc, log_path)) == 60


@pytest.mark.parametrize(
    "arguments", [["--key", "1", "--where", "a=b"], ["--where", "ab"], ["--key", "1", "--before", "99"]]
)
def test_wrong_usage_of_purge_changes_nothing(walsvc: Cli, log_path: str, arguments: list[str]) -> None:
    before = {path.name: path.read_bytes() for path in Path(log_path).glob("*.wal")}
    assert walsvc("purge", log_path, *arguments).returncode == exits.USAGE
    if "--before" not in arguments:  # that one opens the log to see
        assert {path.name: path.read_bytes() for path in Path(log_path).glob("*.wal")} == before


@pytest.mark.parametrize("verb", [["purge", "--key", "1"], ["compact"], ["migrate"]])
def test_no_log_is_made_where_there_is_none(walsvc: Cli, tmp_path: Path, verb: list[str]) -> None:
    assert walsvc(verb[0], str(tmp_path / "none"), *verb[1:]).returncode == exits.PATH
    assert not (tmp_path / "none").exists()


def test_migrate_has_nothing_to_do_in_a_present_log(walsvc: Cli, log_path: str) -> None:
    files = {path.name: path.read_bytes() for path in Path(log_path).glob("*.wal")}
    assert b"nothing to migrate" in walsvc.good("migrate", log_path)
    told = json.loads(walsvc.good("migrate", log_path, "--apply", "--json"))
    assert told["segments"] == []
    assert told["present"] == len(files)
    assert {path.name: path.read_bytes() for path in Path(log_path).glob("*.wal")} == files


def test_present_version_tells_an_older_log_to_be_migrated(walsvc: Cli, log_path: str) -> None:
    path = min(Path(log_path).glob("*.wal"))
    data = bytearray(path.read_bytes())
    data[8:12] = b"\0\0\xff\xff"
    path.write_bytes(data)
    newest = max(Path(log_path).glob("*.wal"))
    data = bytearray(newest.read_bytes())
    data[8:12] = b"\0\0\xff\xff"
    newest.write_bytes(data)
    finished = walsvc("cat", log_path)
    assert finished.returncode == exits.FORMAT
    assert b"walsvc migrate" in finished.stderr
    assert walsvc("migrate", log_path).returncode == exits.FORMAT
