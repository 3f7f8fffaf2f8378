"""Help, version, exit codes: what a person or a script meets first."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.forked import ROOT
from walsvc.cli import exits
from walsvc.errors import (
    BadOption,
    BadPayload,
    Closed,
    Corruption,
    DurabilityLost,
    Locked,
    NoSpace,
    PathError,
    RecordTooLarge,
    Truncated,
    UnsupportedFormat,
    WalError,
    WalTimeout,
)

from .conftest import Cli

VERBS = (
    "append", "cat", "tail", "top", "topics", "consumers", "inspect", "verify", "repair", "backup", "restore", "doctor", "truncate",
    "purge", "retain", "compact", "migrate", "serve", "health", "archive", "version", "bench",
)  # fmt: skip
# Each of these costs tens of milliseconds; together they would break the promise that help answers at once.
COSTLY = ("rich", "asyncio", "msgpack", "crc32c", "uvloop", "aiofiles", "cffi", "json")
# What typer brings is not counted: importlib.metadata, and with it json from CPython 3.13 on.
LOOK = """
import importlib.metadata, sys
brought = set(sys.modules)
from walsvc.cli.main import main
sys.argv = ["walsvc", *{arguments!r}]
try:
    main()
finally:
    print("LOADED", *[name for name in set(sys.modules) - brought if name in {costly!r} or name.startswith("walsvc.log")])
"""


@pytest.mark.parametrize("arguments", [["--help"], ["append", "--help"], ["bench", "run", "-h"]])
def test_help_imports_nothing_costly(arguments: list[str]) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", LOOK.format(arguments=arguments, costly=COSTLY)],
        capture_output=True, text=True, cwd=ROOT, timeout=120, check=True,
    )  # fmt: skip
    assert "Usage: walsvc" in finished.stdout
    assert finished.stdout.rstrip().splitlines()[-1] == "LOADED"


def test_help_names_every_verb_and_exit_code(walsvc: Cli) -> None:
    text = walsvc.good("--help").decode()
    for verb in VERBS:
        assert re.search(rf"^  {verb}\b", text, re.M), verb
    flat = " ".join(text.split())
    for code, meaning in exits.MEANING.items():
        assert f"{code} {meaning}" in flat


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(walsvc: Cli, verb: str) -> None:
    assert f"Usage: walsvc {verb}" in walsvc.good(verb, "--help").decode()


def test_documentation_has_the_same_exit_codes() -> None:
    text = (ROOT / "docs" / "CLI.md").read_text()
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \|", text, re.M)
    assert {int(code): meaning.strip() for code, meaning in rows} == exits.MEANING


@pytest.mark.parametrize("verb", VERBS)
def test_documentation_has_every_verb(verb: str) -> None:
    assert re.search(rf"^## `walsvc {verb}", (ROOT / "docs" / "CLI.md").read_text(), re.M)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (WalError("x"), 1),
        (Closed("x"), 1),
        (DurabilityLost("x", errno=5), 1),
        (RecordTooLarge("x"), 1),
        (WalTimeout("x"), 1),
        (BadOption("x"), 2),
        (BadPayload("x"), 2),
        (Corruption("x"), 3),
        (Locked("x"), 4),
        (PathError("x"), 5),
        (UnsupportedFormat("x"), 6),
        (Truncated("x"), 7),
        (NoSpace("x", errno=28), 8),
        (FileNotFoundError(2, "x"), 5),
        (OSError(28, "x"), 8),
        (OSError(5, "x"), 1),
    ],
)
def test_exit_code_by_class(error: BaseException, code: int) -> None:
    assert exits.code_of(error) == code


def test_version_both_ways(walsvc: Cli) -> None:
    assert re.fullmatch(rb"walsvc \S+\n", walsvc.good("--version"))
    assert walsvc.good("version") == walsvc.good("--version")
    told = json.loads(walsvc.good("version", "--json"))
    assert told["python"] == sys.version.split()[0]
    assert told["crc32c"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["appendd", "x"],
        ["append"],
        ["cat", "x", "--format", "xml"],
        ["tail", "x", "-n", "-1"],
        ["truncate", "x"],
        ["truncate", "x", "--before", "1", "--after", "2"],
        ["append", "x", "--batch", "0"],
        ["append", "x", "--whole", "--json"],
        ["bench", "run", "x", "--mode", "eventual"],
    ],
)
def test_wrong_usage_is_exit_2_and_creates_nothing(walsvc: Cli, tmp_path: Path, arguments: list[str]) -> None:
    finished = walsvc(*[str(tmp_path / "x") if each == "x" else each for each in arguments])
    assert finished.returncode == exits.USAGE
    assert finished.stdout == b""
    assert b"Usage: walsvc" in finished.stderr
    assert not (tmp_path / "x").exists()


def test_bare_command_shows_help(walsvc: Cli) -> None:
    finished = walsvc()
    assert b"Usage: walsvc" in finished.stdout + finished.stderr
