"""doctor: facts that can be checked from outside, and advice where there is something to say."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

import pytest

from walsvc.disk.doctor import mount_of, probe

from .conftest import Cli


def test_json_is_the_probe(walsvc: Cli, tmp_path: Path) -> None:
    told = json.loads(walsvc.good("doctor", tmp_path, "--json"))
    found = probe(str(tmp_path))
    assert told["kernel"] == platform.release()
    assert told["path"] == str(tmp_path)
    assert told["filesystem"] == mount_of(str(tmp_path))[0]
    assert (told["direct"], told["block_bytes"]) == (found.direct, found.block_bytes)
    assert (told["uring"], told["chosen"]) == (found.uring, found.chosen)
    assert set(told["sync_us"]) == set(found.sync_us)
    assert all(us > 0 for us in told["sync_us"].values())
    assert told["free_bytes"] > 0
    assert list(tmp_path.iterdir()) == []


def test_text_says_what_was_found_and_why(walsvc: Cli, tmp_path: Path) -> None:
    text = walsvc.good("doctor", tmp_path).decode()
    for word in ("kernel", "file system", "free space", "O_DIRECT", "io_uring", "sync by", "backend", " us "):
        assert word in text
    assert text.splitlines()[-1].startswith(("-> ", "Nothing to improve."))


def test_a_place_that_is_not_there_yet_is_looked_at_from_above(walsvc: Cli, tmp_path: Path) -> None:
    assert json.loads(walsvc.good("doctor", tmp_path / "a" / "b", "--json"))["path"] == str(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_beside_a_live_writer(walsvc: Cli, log: Path) -> None:
    writer = walsvc.writer(log)
    assert b"backend" in walsvc.good("doctor", log)
    writer.stdin.write(b"y\n")
    writer.stdin.close()
    assert writer.stdout.readline() == b"102\n"
    assert writer.wait(timeout=120) == 0


def test_memory_is_called_memory(walsvc: Cli) -> None:
    if mount_of("/dev/shm")[0] != "tmpfs" or not os.access("/dev/shm", os.W_OK):
        pytest.skip("/dev/shm is no writable tmpfs here")
    assert b"NOT DURABLE: tmpfs lives in memory." in walsvc.good("doctor", "/dev/shm")


def test_a_file_is_no_place(walsvc: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    assert "Hint: " in walsvc.bad(5, "doctor", tmp_path / "file")


def test_the_environment_is_mentioned(walsvc: Cli, tmp_path: Path) -> None:
    finished = walsvc("doctor", tmp_path, environment={"WALSVC_DISK": "threads"})
    assert b"WALSVC_DISK=threads overrides the choice" in finished.stdout
