"""truncate: records go from either end, and stay gone."""

from __future__ import annotations

import json
from pathlib import Path

import walsvc as library

from .conftest import Cli


def test_before(walsvc: Cli, log: Path) -> None:
    assert walsvc.good("truncate", log, "--before", 41) == b"dropped 40 records; kept: LSN 41 to 100\n"
    assert walsvc.good("cat", log).splitlines()[0] == b"record 41"
    line = walsvc.bad(7, "cat", log, "--start", 40)
    assert "Hint: " in line


def test_after_and_then_append_continues_the_lsns(walsvc: Cli, log: Path) -> None:
    told = json.loads(walsvc.good("truncate", log, "--after", 60, "--json"))
    assert told == {"first_lsn": 1, "next_lsn": 61, "records": 60, "dropped": 40}
    assert walsvc.good("append", log, stdin=b"new\n") == b"61\n"
    assert walsvc.good("tail", log, "-n", 2) == b"record 60\nnew\n"


def test_everything(walsvc: Cli, log: Path) -> None:
    assert walsvc.good("truncate", log, "--before", 101) == b"dropped 100 records; kept: none, the next LSN is 101\n"
    assert walsvc.good("cat", log) == b""
    assert walsvc.good("append", log, stdin=b"new\n") == b"101\n"


def test_truncating_no_log_creates_none(walsvc: Cli, tmp_path: Path) -> None:
    assert "Hint: " in walsvc.bad(5, "truncate", tmp_path / "log", "--before", 1)
    assert not (tmp_path / "log").exists()


async def test_what_is_held_goes_by_force_or_after_its_release(walsvc: Cli, log: Path) -> None:
    async with library.open(log) as opened:
        await opened.hold("nightly copy", 11)
    line = walsvc.bad(2, "truncate", log, "--before", 41)
    assert "Hint: walsvc consumers release PATH 'nightly copy', or --force" in line
    assert walsvc.good("truncate", log, "--before", 21, "--force") == b"dropped 20 records; kept: LSN 21 to 100\n"
    assert "nobody called 'another'" in walsvc.bad(2, "consumers", "release", log, "another")
    assert walsvc.good("consumers", "list", log, "--json") == walsvc.good("consumers", "ls", log, "--json")
    (held,) = json.loads(walsvc.good("consumers", "ls", log, "--json"))["holds"].values()
    told = json.loads(walsvc.good("consumers", "release", log, "nightly copy", "--json"))
    assert told == {"name": "nightly copy", "released": held}
    assert json.loads(walsvc.good("consumers", "list", log, "--json"))["holds"] == {}
    walsvc.good("truncate", log, "--before", 41)
    assert walsvc("truncate", log, "--after", 50, "--force").returncode == 2


async def test_of_one_topic(walsvc: Cli, tmp_path: Path) -> None:
    path = tmp_path / "topics"
    async with library.open(path) as opened:
        for number in range(10):
            await opened.topic("ab"[number % 2]).append(b"%d" % number)
    said = walsvc.good("truncate", path, "--topic", "a", "--before", 6)
    assert said == b"dropped 3 records of topic 'a'; kept: LSN 7 to 9\n"
    told = json.loads(walsvc.good("truncate", path, "--topic", "a", "--before", 11, "--json"))
    assert told == {"topic": "a", "first_lsn": None, "last_lsn": None, "records": 0, "dropped": 2}
    assert walsvc.good("cat", path) == b"1\n3\n5\n7\n9\n"
    for wrong in (["--topic", "a"], ["--topic", "a", "--after", 3], ["--topic", "b", "--before", 12]):
        assert walsvc("truncate", path, *wrong).returncode == 2
    assert walsvc.good("cat", path) == b"1\n3\n5\n7\n9\n"


async def test_limits_of_a_topic_are_set_shown_and_lifted(walsvc: Cli, tmp_path: Path) -> None:
    path = tmp_path / "topics"
    async with library.open(path) as opened:
        for number in range(10):
            await opened.topic("ab"[number % 2]).append(b"%d" % number)
    assert walsvc.good("retain", path, "--topic", "a") == b"topic 'a' keeps everything\n"
    said = walsvc.good("retain", path, "--topic", "a", "--records", 2, "--seconds", 3600)
    assert said == b"topic 'a' keeps 2 records and 3600 s at most\n"
    assert walsvc.good("cat", path, "--topic", "a") == b"6\n8\n"
    told = json.loads(walsvc.good("retain", path, "--topic", "a", "--bytes", 5, "--json"))
    assert told == {"topic": "a", "records": None, "bytes": 5, "seconds": None}
    for wrong in (["--records", 0], ["--lift", "--bytes", 1], ["--seconds", 0]):
        assert walsvc("retain", path, "--topic", "a", *wrong).returncode == 2
    assert json.loads(walsvc.good("retain", path, "--topic", "a", "--json"))["bytes"] == 5
    assert walsvc.good("retain", path, "--topic", "a", "--lift") == b"topic 'a' keeps everything\n"
