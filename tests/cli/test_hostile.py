"""Names and values from anywhere: a terminal shows them as escapes, JSON holds them as they are, and no traceback appears."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import walsvc as library
from tests.forked import run_walsvc
from walsvc.cli import runner
from walsvc.cli.logs import LogLines
from walsvc.errors import WalError
from walsvc.visible import visible, visible_json

from .conftest import Cli

NAME = "a\x1b[31mb\ac\u202ed\ne\x7f\x9b\u200b"
SHOWN = r"a\x1b[31mb\x07c\u202ed\ne\x7f\x9b\u200b"
STEERING = {
    *map(chr, range(32)),
    "\x7f",
    *map(chr, range(0x80, 0xA0)),
    *"\u200b\u200e\u2028\u202a\u202e\u2066\ufeff",
} - {"\n"}


@pytest.fixture
def named(tmp_path: Path) -> Path:
    """A log whose directory, topic, consumer, holder and label have a hostile name."""

    async def make() -> None:
        async with library.open(tmp_path / NAME) as log:
            topic = log.topic(NAME)
            await topic.append(b"x", attributes={NAME: NAME})
            await topic.consumer(NAME)
            await log.hold(NAME, 1)

    asyncio.run(make())
    return tmp_path / NAME


def test_names_are_shown_as_escapes_everywhere(walsvc: Cli, named: Path) -> None:
    calls: list[tuple[Any, ...]] = [
        ("topics", named),
        ("consumers", "ls", named),
        ("truncate", named, "--before", 2),
        ("cat", f"{named}2"),
        ("cat", named, "--since", NAME),
        ("cat", named, NAME),
        ("cat", f"wal://h?{NAME}"),
        (NAME,),
        (f"--{NAME}",),
        ("backup", named, f"{named}3"),
        ("archive", "push", named, f"{named}4"),
        ("archive", "ls", f"{named}4", "--log", NAME),
        ("serve", "--data", named, "--unix", f"{named}/none/s", "--check"),
        ("purge", named, "--where", f"{NAME}={NAME}"),
        ("consumers", "release", named, f"{NAME}?"),
        ("consumers", "rm", named, NAME, "--topic", NAME),
        ("health", NAME),
    ]
    for call in calls:
        ended = walsvc(*call)
        text = (ended.stdout + ended.stderr).decode()
        assert set(text) & STEERING == set(), (call, text)
        assert "1b[31m" in text or (call[0] == "cat" and "wal://" in call[1]), (call, text)
    assert SHOWN in walsvc.good("topics", named).decode()


def test_json_holds_names_as_they_are(walsvc: Cli, named: Path) -> None:
    told = walsvc.good("topics", named, "--json").decode()
    assert json.loads(told)["topics"][0]["topic"] == NAME
    record = walsvc.good("cat", named, "--json").decode()
    assert (json.loads(record)["topic"], json.loads(record)["attributes"]) == (NAME, {NAME: NAME})
    assert set(told + record) & STEERING == set()


def test_terminal_that_knows_only_ascii(walsvc: Cli, tmp_path: Path) -> None:
    walsvc.good("append", tmp_path / "log", "--topic", "é", "-q", stdin=b"x\n")
    ascii_only = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    for arguments, expected in (
        (["topics"], rb"\xe9"),
        (["topics", "--json"], rb"\u00e9"),
        (["cat", "--topic", "ü"], b""),
    ):
        ended = subprocess.run(
            [sys.executable, "-m", "walsvc.cli", arguments[0], tmp_path / "log", *arguments[1:]],
            capture_output=True, check=False, timeout=120, env={**os.environ, **ascii_only},
        )  # fmt: skip
        assert (ended.returncode, ended.stderr) == (0, b"")
        assert expected in ended.stdout


def test_log_lines_and_errors_are_one_line_each() -> None:
    record = logging.LogRecord("walsvc", logging.WARNING, "", 0, "client %s", (NAME,), None)
    assert LogLines("%(levelname)s %(message)s").format(record) == f"WARNING client {SHOWN}"
    assert str(WalError(NAME, path=NAME, hint=NAME)) == f"{SHOWN} [{SHOWN}]. Hint: {SHOWN}"


@given(st.text())
def test_what_is_shown_steers_nothing_and_json_keeps_its_value(text: str) -> None:
    assert set(visible(text)) & {*STEERING, "\n"} == set()
    assert visible(visible(text)) == visible(text)
    shown = visible_json(json.dumps(text, ensure_ascii=False))
    assert json.loads(shown) == json.loads(json.dumps(text))
    assert set(shown) & STEERING == set()


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (MemoryError(), "out of memory"),
        (KeyError("what nobody expects"), "report this line"),
    ],
)
def test_what_no_verb_expects_is_one_line_without_a_traceback(
    error: Exception, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert runner.report_unexpected(error) == 1
    line = capsys.readouterr().err
    assert says in line
    assert line.count("\n") == 1


REFUSED = """
import threading
def start(self): raise RuntimeError("can't start new thread")
threading.Thread.start = start
"""


@pytest.mark.parametrize("verb", ["append", "cat", "verify", "topics", "backup", "archive", "serve"])
def test_thread_that_is_refused_is_one_line(log: Path, tmp_path: Path, verb: str) -> None:
    more = {
        "backup": [log, tmp_path / "copy"],
        "archive": ["push", log, tmp_path / "store"],
        "serve": ["--data", log, "--unix", tmp_path / "s"],
    }
    ended = run_walsvc(verb, *more.get(verb, [log]), stdin=b"x\n", before=REFUSED)
    assert ended.returncode != 0
    assert b"Traceback" not in ended.stderr
    assert ended.stderr.count(b"\n") == 1, ended.stderr


def test_files_that_are_no_text_are_told(walsvc: Cli, log: Path, tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(bytes(range(256)))
    (tmp_path / "noise").chmod(0o600)
    noise = tmp_path / "noise"
    serve = ("serve", "--check", "--data", log, "--unix", tmp_path / "s")
    for call in (
        ("cat", log, "--key-file", noise),
        (*serve, "--token-file", noise),
        (*serve, "--config", noise),
        (*serve, "--key-file", noise),
        (*serve, "--tls-cert", noise, "--listen", "127.0.0.1:0"),
        (*serve, "--listen", "a..b:1"),
        (*serve, "--http", "[::1:1"),
        (*serve, "--set", "segment_bytes=" + "9" * 5000),
    ):
        walsvc.bad(2, *call)
    for call in (
        ("cat", "unix:///none", "--ca", noise),
        ("cat", f"unix:///none?token_file={noise}"),
        ("cat", "wals://127.0.0.1:1", "--ca", noise),
    ):
        assert walsvc(*call).returncode in (2, 5)
    ended = walsvc("cat", "unix:///none", environment={"WALSVC_TOKEN": "a\udcff"})
    assert (ended.returncode, ended.stderr.count(b"\n")) == (2, 1)
    ended = walsvc(*serve, environment={"WALSVC_TOKEN": "a" * 20 + "\udcff"})
    assert (ended.returncode, ended.stderr.count(b"\n")) == (2, 1)


def test_archive_where_nothing_is_archived_is_an_error(walsvc, tmp_path) -> None:
    for place in (tmp_path, tmp_path / "none"):
        said = walsvc.bad(2, "archive", "ls", f"file://{place}")
        assert "nothing is archived at this URL" in said
    assert not (tmp_path / "none").exists()
