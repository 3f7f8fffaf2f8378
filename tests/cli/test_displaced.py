"""Commands that write, beside a writer whose lock file somebody has removed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Cli


def removed(lock: Path) -> None:
    lock.unlink()


def replaced(lock: Path) -> None:
    lock.with_name("new").write_bytes(b"")
    os.replace(lock.with_name("new"), lock)


@pytest.mark.parametrize("change", [removed, replaced])
def test_no_command_that_writes_goes_in_beside_a_writer(walsvc: Cli, log: Path, change: Callable[[Path], None]) -> None:
    writer = walsvc.writer(log)
    change(log / "LOCK")
    for verb in (
        ("append", log),
        ("truncate", log, "--before", "2"),
        ("compact", log),
        ("purge", log, "--key", "k"),
        ("repair", log, "--apply"),
        ("migrate", log, "--apply"),
        ("consumers", "rm", log, "billing"),
    ):
        walsvc.bad(4, *verb)
    assert f"process {writer.pid}".encode() in walsvc.good("migrate", log)
