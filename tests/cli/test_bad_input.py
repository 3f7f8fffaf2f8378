"""Bad input: one line, an exit code by class, and nothing changed on disk."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from crc32c import crc32c

from .conftest import Cli

READING = (["cat"], ["tail"], ["inspect"], ["verify"])
WRITING = (["append"], ["truncate", "--before", "1"])
Contents = Callable[[Path], dict[str, bytes]]


def call(walsvc: Cli, code: int, verb: list[str], path: object) -> str:
    return walsvc.bad(code, verb[0], path, *verb[1:], stdin=b"x\n")


@pytest.mark.parametrize("verb", [*READING, WRITING[1]])
def test_a_path_that_is_not_there(walsvc: Cli, tmp_path: Path, verb: list[str]) -> None:
    line = call(walsvc, 5, verb, tmp_path / "missing")
    assert str(tmp_path / "missing") in line
    assert "Hint: " in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", [*READING, *WRITING])
def test_a_file_instead_of_a_directory(walsvc: Cli, tmp_path: Path, verb: list[str]) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    line = call(walsvc, 5, verb, tmp_path / "file")
    assert str(tmp_path / "file") in line
    assert "Hint: " in line
    assert (tmp_path / "file").read_bytes() == b"mine"


@pytest.mark.parametrize("verb", READING)
def test_a_directory_without_a_log(walsvc: Cli, tmp_path: Path, verb: list[str]) -> None:
    (tmp_path / "notes.txt").write_bytes(b"mine")
    assert "Hint: " in call(walsvc, 5, verb, tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("verb", [*READING, *WRITING])
def test_a_foreign_file_named_like_a_segment(walsvc: Cli, tmp_path: Path, verb: list[str], contents: Contents) -> None:
    path = tmp_path / "log"
    path.mkdir()
    (path / f"{1:016x}.wal").write_bytes(b"not ours" * 10_000)
    before = contents(path)
    line = call(walsvc, 3, verb, path)
    assert f"{1:016x}.wal" in line
    assert contents(path) == before


@pytest.mark.parametrize("verb", [*READING, *WRITING])
def test_a_newer_format(walsvc: Cli, log: Path, verb: list[str], contents: Contents) -> None:
    segment = log / f"{1:016x}.wal"
    data = bytearray(segment.read_bytes())
    struct.pack_into("<HH", data, 8, 2, 2 ^ 0xFFFF)  # version and its complement
    struct.pack_into("<I", data, 4092, crc32c(bytes(data[:4092])))
    segment.write_bytes(data)
    before = contents(log)
    line = call(walsvc, 6, verb, log)
    assert "Hint: " in line
    assert contents(log) == before


@pytest.mark.parametrize("verb", WRITING)
def test_a_locked_log(walsvc: Cli, log: Path, verb: list[str]) -> None:
    holder = walsvc.start("append", log)
    assert holder.stdin is not None
    assert holder.stdout is not None
    holder.stdin.write(b"held\n")
    holder.stdin.flush()
    assert holder.stdout.readline() == b"101\n"
    line = call(walsvc, 4, verb, log)
    assert "Hint: " in line
    holder.stdin.close()
    assert holder.wait(timeout=120) == 0
    assert walsvc.good("cat", log).splitlines()[-1] == b"held"


@pytest.mark.parametrize("verb", [*READING, *WRITING])
def test_no_permission(powerless_walsvc: Cli, log: Path, verb: list[str], contents: Contents) -> None:
    before = contents(log)
    log.chmod(0)
    try:
        line = call(powerless_walsvc, 5, verb, log)
    finally:
        log.chmod(0o755)
    assert "Hint: " in line
    assert contents(log) == before


def test_reading_a_log_without_permission_to_write_it(powerless_walsvc: Cli, log: Path, contents: Contents) -> None:
    before = contents(log)
    for file in log.iterdir():
        file.chmod(0o444)
    log.chmod(0o555)
    try:
        assert powerless_walsvc.good("cat", log, "--stop", "2") == b"record 1\n"
        assert powerless_walsvc.good("verify", log).startswith(b"ok: ")
        assert "Hint: " in call(powerless_walsvc, 5, ["append"], log)
    finally:
        log.chmod(0o755)
    assert contents(log) == before


def test_a_place_where_nothing_may_be_created(powerless_walsvc: Cli, tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        assert "Hint: " in call(powerless_walsvc, 5, ["append"], tmp_path / "log")
    finally:
        tmp_path.chmod(0o755)


def test_an_input_file_that_is_not_there_creates_no_log(walsvc: Cli, tmp_path: Path) -> None:
    line = walsvc.bad(5, "append", tmp_path / "log", "--file", tmp_path / "missing")
    assert line.startswith("walsvc: --file: No such file or directory")
    assert str(tmp_path / "missing") in line
    assert "Hint: " in line
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize("verb", [*READING, *WRITING, ["repair"], ["backup", "copy"]])
def test_a_key_file_that_is_not_there_is_told_by_its_option(walsvc: Cli, log: Path, verb: list[str]) -> None:
    line = call(walsvc, 5, [*verb, "--key-file", "missing"], log)
    assert line.startswith("walsvc: --key-file: No such file or directory [missing]")
    assert "Hint: check the option, or the environment variable WALSVC_KEY_FILE" in line


@pytest.mark.parametrize("verb", [*READING, ["append"], ["repair"]])
def test_a_file_that_may_not_be_read_is_named(powerless_walsvc: Cli, log: Path, verb: list[str]) -> None:
    (segment,) = log.glob("*.wal")
    segment.chmod(0)
    try:
        line = call(powerless_walsvc, 5, verb, log)
    finally:
        segment.chmod(0o644)
    assert str(segment) in line
    assert "Hint: check owner and mode" in line


@pytest.mark.parametrize("verb", ["backup", "restore"])
@pytest.mark.parametrize("inside", ["sub", "sub/sub", "../log/sub"])
def test_a_copy_inside_the_log_is_refused(walsvc: Cli, log: Path, verb: str, inside: str, contents: Contents) -> None:
    before = contents(log)
    assert "inside the log itself" in walsvc.bad(5, verb, log, f"{log}/{inside}")
    assert contents(log) == before
    assert not (log / "sub").exists()


def test_a_bad_disk_name_in_the_environment(walsvc: Cli, tmp_path: Path) -> None:
    finished = walsvc("append", tmp_path / "log", environment={"WALSVC_DISK": "tape"})
    assert finished.returncode == 2
    assert finished.stderr.startswith(b"walsvc: WALSVC_DISK='tape'")
    assert not (tmp_path / "log").exists()


def test_options_out_of_bounds(walsvc: Cli, tmp_path: Path) -> None:
    line = walsvc.bad(2, "append", tmp_path / "log", "--segment-bytes", 17)
    assert "segment_bytes=17" in line
    assert not (tmp_path / "log").exists()


def test_hints_are_for_the_command_line(walsvc: Cli, log: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"k1 {'A' * 43}=\n")
    keys.chmod(0o600)
    walsvc.good("append", tmp_path / "secret", "-q", "--key-file", keys, stdin=b"x\n")
    lines = [
        walsvc.bad(12, "cat", tmp_path / "secret"),
        walsvc.bad(5, "cat", tmp_path / "none"),
        walsvc.bad(2, "truncate", log, "--before", 1000),
        walsvc.bad(2, "truncate", log, "--after", 1000),
        walsvc.bad(7, "cat", log, "--start", 1) if walsvc.good("truncate", log, "--before", 9) else "",
    ]
    for line in lines:
        assert "Hint: " in line
        assert not re.search(r"=True|KeyRing|\(\)|first_lsn|next_lsn", line.partition("Hint: ")[2]), line
    assert "--key-file" in lines[0]
