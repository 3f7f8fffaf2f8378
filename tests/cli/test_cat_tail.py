"""cat and tail: what is printed, in which form, and beside a live writer."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest

from .conftest import Cli


def test_range(walsvc: Cli, log: Path) -> None:
    assert walsvc.good("cat", log, "--start", 3, "--stop", 5) == b"record 3\nrecord 4\n"
    assert walsvc.good("cat", log, "--start", 100) == b"record 100\n"
    assert walsvc.good("cat", log, "--start", 101) == b""


def test_unbuffered_standard_output_gets_every_byte_too(walsvc: Cli, long_log: Path) -> None:
    finished = walsvc("cat", long_log, environment={"PYTHONUNBUFFERED": "1"})
    assert finished.stdout == walsvc.good("cat", long_log)
    assert len(finished.stdout.splitlines()) == 500


def test_hex(walsvc: Cli, log: Path) -> None:
    assert walsvc.good("cat", log, "--stop", 2, "--format", "hex") == b"record 1".hex().encode() + b"\n"


def test_json_lines_can_be_parsed_by_any_tool(walsvc: Cli, log: Path) -> None:
    rows = [json.loads(line) for line in walsvc.good("cat", log, "--format", "json").splitlines()]
    assert [row["lsn"] for row in rows] == list(range(1, 101))
    assert [row["payload"] for row in rows] == [f"record {n}" for n in range(1, 101)]
    assert set(rows[0]) == {"lsn", "timestamp", "type", "topic", "attributes", "payload"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", rows[0]["timestamp"])
    assert (rows[0]["type"], rows[0]["topic"], rows[0]["attributes"]) == (0, None, {})


def test_json_of_bytes_that_are_no_text(walsvc: Cli, tmp_path: Path) -> None:
    walsvc.good("append", tmp_path / "log", "-q", stdin=b"\xff\x00\n\xc3\xa9\n")
    rows = [json.loads(line) for line in walsvc.good("cat", tmp_path / "log", "--format", "json").splitlines()]
    assert base64.b64decode(rows[0]["payload"]["base64"]) == b"\xff\x00"
    assert rows[1]["payload"] == "é"


def test_tail_counts_from_the_end(walsvc: Cli, log: Path) -> None:
    assert walsvc.good("tail", log) == b"".join(b"record %d\n" % n for n in range(91, 101))
    assert walsvc.good("tail", log, "-n", 1) == b"record 100\n"
    assert walsvc.good("tail", log, "-n", 0) == b""
    assert len(walsvc.good("tail", log, "-n", 1000).splitlines()) == 100


def test_cat_works_beside_a_live_writer(walsvc: Cli, tmp_path: Path) -> None:
    writer = walsvc.start("append", tmp_path / "log")
    assert writer.stdin is not None
    assert writer.stdout is not None
    writer.stdin.write(b"first\n")
    writer.stdin.flush()
    assert writer.stdout.readline() == b"1\n"
    assert walsvc.good("cat", tmp_path / "log") == b"first\n"
    assert walsvc.good("tail", tmp_path / "log") == b"first\n"
    assert writer.poll() is None


def test_tail_follows_a_live_writer(walsvc_on_both_loops: Cli, tmp_path: Path) -> None:
    walsvc = walsvc_on_both_loops
    writer = walsvc.start("append", tmp_path / "log")
    assert writer.stdin is not None
    assert writer.stdout is not None
    writer.stdin.write(b"zero\none\n")
    writer.stdin.flush()
    assert [writer.stdout.readline(), writer.stdout.readline()] == [b"1\n", b"2\n"]
    reader = walsvc.start("tail", tmp_path / "log", "-f", "-n", 1)
    assert reader.stdout is not None
    assert reader.stdout.readline() == b"one\n"
    for number in range(3, 8):
        writer.stdin.write(b"record %d\n" % number)
        writer.stdin.flush()
        assert reader.stdout.readline() == b"record %d\n" % number
    assert reader.poll() is None


@pytest.fixture
def labelled(walsvc: Cli, tmp_path: Path) -> Path:
    """30 records: types 0 to 2, tenants 0 to 4, every tenth of topic "t", the last one of a required type."""
    import asyncio

    import walsvc as library

    async def write() -> None:
        async with library.open(tmp_path / "labelled") as log:
            for number in range(1, 31):
                to = log.topic("t") if number % 10 == 0 else log
                type = 0x8007 if number == 30 else number % 3
                await to.append(b"%d" % number, type=type, attributes={"tenant": number % 5, "name": "ab"[number % 2]})

    asyncio.run(write())
    return tmp_path / "labelled"


def test_only_what_is_wanted(walsvc: Cli, labelled: Path) -> None:
    def numbers(*options: object, verb: str = "cat") -> list[int]:
        return list(map(int, walsvc.good(verb, labelled, *options).split()))

    assert numbers("--topic", "t") == [10, 20, 30]
    assert numbers("--where", "tenant=3") == [3, 8, 13, 18, 23, 28]
    assert numbers("--where", "tenant=3", "--where", "tenant=4", "--where", "name=a") == [4, 8, 14, 18, 24, 28]
    assert numbers("--where", 'name="b"', "--stop", 4) == [1, 3]
    assert numbers("--type", 1, "--type", 2, "--stop", 6) == [1, 2, 4, 5]
    assert numbers("--type", 1, "--where", "tenant=1") == [1, 16]
    assert numbers("--since", "2020-01-01") == list(range(1, 31))
    assert numbers("--until", "2020-01-01T00:00:00+02:00") == []
    assert numbers("--where", "tenant=0", "-n", 2, verb="tail") == [25, 30]
    assert numbers("--where", "tenant=9", "-n", 2, verb="tail") == []
    finished = walsvc("cat", labelled, "--type", 1)
    assert finished.returncode == 6
    assert finished.stdout.split()[-1] == b"28"
    assert b"0x8007" in finished.stderr
    for wrong in (("--since", "yesterday"), ("--where", "tenant"), ("--type", 70_000)):
        assert walsvc("cat", labelled, *wrong).returncode == 2


def test_cat_reverse_prints_the_newest_record_first(walsvc: Cli, tmp_path: Path) -> None:
    walsvc.good("append", tmp_path / "log", stdin=b"a\nb\nc\n")
    assert walsvc.good("cat", tmp_path / "log", "--reverse", "--stop", 3) == b"b\na\n"
