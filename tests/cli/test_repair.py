"""repair: explains and changes nothing, or copies first and keeps the undamaged beginning."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Cli

Contents = Callable[[Path], dict[str, bytes]]


def damage_third_segment(path: Path) -> int:
    """Flip a bit in the first group with records; returns the segment's first LSN."""
    victim = sorted(path.glob("*.wal"))[2]
    data = bytearray(victim.read_bytes())
    data[8192 + 200] ^= 1
    victim.write_bytes(data)
    return int(victim.stem, 16)


def test_nothing_to_repair(walsvc: Cli, log: Path, contents: Contents) -> None:
    before = contents(log)
    assert walsvc.good("repair", log) == b"nothing to repair\n"
    assert contents(log) == before


def test_dry_run_explains_and_changes_nothing(walsvc: Cli, long_log: Path, contents: Contents) -> None:
    first_lost = damage_third_segment(long_log)
    before = contents(long_log)
    finished = walsvc("repair", long_log, "--json")
    told = json.loads(finished.stdout)
    assert finished.returncode == 3
    assert (told["keep_from"], told["keep_to"], told["applied"], told["copy"]) == (1, first_lost - 1, False, None)
    assert contents(long_log) == before
    assert [each.name for each in long_log.parent.iterdir()] == [long_log.name]


def test_apply_keeps_the_beginning_and_a_copy_of_everything(walsvc: Cli, long_log: Path, contents: Contents) -> None:
    first_lost = damage_third_segment(long_log)
    before = contents(long_log)
    told = json.loads(walsvc.good("repair", long_log, "--apply", "--json"))
    assert contents(Path(told["copy"])) == before
    assert b"\nok: LSN 1 to %d;" % (first_lost - 1) in walsvc.good("verify", long_log)
    assert walsvc.good("append", long_log, stdin=b"new\n") == b"%d\n" % first_lost
    assert walsvc.good("tail", long_log, "-n", 2) == b"%-1000d\nnew\n" % (first_lost - 1)


def test_no_log_and_a_locked_one(walsvc: Cli, log: Path, tmp_path: Path) -> None:
    assert "Hint: " in walsvc.bad(5, "repair", tmp_path / "missing", "--apply")
    assert not (tmp_path / "missing").exists()
    walsvc.writer(log)
    walsvc.bad(4, "repair", log, "--apply")


def everything(path: Path) -> dict[str, tuple[bytes, int]]:
    """Bytes and time of change of every file, LOCK as well."""
    return {each.name: (each.read_bytes(), each.stat().st_mtime_ns) for each in path.iterdir()}


@pytest.mark.parametrize("verb", ["repair", "migrate"])
@pytest.mark.parametrize("lock", [True, False])
def test_dry_run_touches_no_file(walsvc: Cli, log: Path, verb: str, lock: bool) -> None:
    if not lock:
        (log / "LOCK").unlink()
    before = everything(log)
    walsvc.good(verb, log)
    assert everything(log) == before


@pytest.mark.parametrize("verb", ["repair", "migrate"])
def test_dry_run_beside_a_writer_says_that_there_is_one(walsvc: Cli, log: Path, verb: str) -> None:
    writer = walsvc.writer(log)
    assert f"process {writer.pid} has it open for writing".encode() in walsvc.good(verb, log)
    writer.stdin.close()
    assert writer.wait(timeout=120) == 0


@pytest.mark.parametrize("verb", ["repair", "migrate"])
def test_dry_run_needs_no_permission_to_write(powerless_walsvc: Cli, log: Path, verb: str) -> None:
    for file in log.iterdir():
        file.chmod(0o444)
    log.chmod(0o555)
    try:
        assert powerless_walsvc.good(verb, log).startswith(b"nothing to ")
    finally:
        log.chmod(0o755)


def repaired(walsvc: Cli, path: Path) -> int:
    """Plan, repair, and check that the log is what the plan said, and goes on; returns the last LSN kept."""
    plan = json.loads(walsvc("repair", path, "--json").stdout)
    assert plan["reasons"]
    done = json.loads(walsvc.good("repair", path, "--apply", "--json"))
    assert {name: done[name] for name in ("keep_from", "keep_to", "grow")} == {
        name: plan[name] for name in ("keep_from", "keep_to", "grow")
    }
    records = [json.loads(line)["lsn"] for line in walsvc.good("cat", path, "--format", "json").splitlines()]
    assert records == list(range(plan["keep_from"], plan["keep_to"] + 1))
    walsvc.good("verify", path)
    assert walsvc.good("append", path, stdin=b"new\n") == b"%d\n" % (plan["keep_to"] + 1)
    assert walsvc.good("repair", path) == b"nothing to repair\n"
    return int(plan["keep_to"])


@pytest.mark.parametrize("length", [40960, 40961, 9000])
def test_only_segment_that_was_cut_is_kept_as_far_as_it_goes(walsvc: Cli, tmp_path: Path, length: int) -> None:
    path = tmp_path / "log"
    for first in range(3):
        walsvc.good("append", path, "-q", stdin=b"".join(b"%-500d\n" % n for n in range(20 * first, 20 * first + 20)))
    (segment,) = path.glob("*.wal")
    os.truncate(segment, length)
    walsvc.bad(3, "cat", path)
    walsvc.bad(3, "append", path, stdin=b"x\n")
    finished = walsvc("repair", path)
    assert finished.returncode == 3
    assert b"shorter than it was made" in finished.stdout
    assert (repaired(walsvc, path) > 0) == (length > 9000)


@pytest.mark.parametrize("number", [0, 2, -2, -1])
@pytest.mark.parametrize("length", [40000, 16384])
def test_segment_that_was_cut_in_the_middle(walsvc: Cli, long_log: Path, number: int, length: int) -> None:
    segments = sorted(long_log.glob("*.wal"))
    os.truncate(segments[number], length)
    keep_to = repaired(walsvc, long_log)
    assert keep_to >= int(segments[number].stem, 16) - 1
    assert number == -1 or keep_to < int(segments[number + 1 if number + 1 else -1].stem, 16)


def test_cut_that_took_nothing_but_zeros_loses_nothing(walsvc: Cli, log: Path) -> None:
    (segment,) = log.glob("*.wal")
    used = json.loads(walsvc.good("inspect", log, "--json"))["segments"][0]["used_bytes"]
    os.truncate(segment, used)
    assert repaired(walsvc, log) == 100


def test_two_repairs_within_a_second_have_copies_of_their_own(walsvc: Cli, tmp_path: Path) -> None:
    path, copies = tmp_path / "log", set()
    for _ in range(3):
        walsvc.good("append", path, "-q", stdin=b"x\n")
        segment = max(path.glob("*.wal"))
        os.truncate(segment, segment.stat().st_size - 4096)
        copies.add(json.loads(walsvc.good("repair", path, "--apply", "--json"))["copy"])
    assert len(copies) == 3


@pytest.mark.parametrize("flags", [[], ["--apply"]])
def test_directory_in_the_place_of_a_segment_is_refused_before_anything_is_changed(
    walsvc: Cli, long_log: Path, flags: list[str]
) -> None:
    victim = sorted(long_log.glob("*.wal"))[3]
    victim.unlink()
    before = everything(long_log)
    victim.mkdir()
    assert victim.name in walsvc.bad(5, "repair", long_log, *flags)
    victim.rmdir()
    assert everything(long_log) == before
    assert [each.name for each in long_log.parent.iterdir()] == [long_log.name]


def test_renamed_and_foreign_segments_are_told_by_their_names(walsvc: Cli, long_log: Path, log: Path) -> None:
    first, second, third = sorted(long_log.glob("*.wal"))[:3]
    second.rename(long_log / "swap")
    third.rename(second)
    told = walsvc("repair", long_log).stdout.decode()
    assert f"its own name would be {third.name}" in told
    second.rename(third)
    shutil.copy(third, second)
    assert f"its own name would be {third.name}" in walsvc("repair", long_log).stdout.decode()
    (long_log / "swap").rename(second)
    shutil.copy(first, log / f"{101:016x}.wal")
    assert f"its own name would be {first.name}" in walsvc("repair", log).stdout.decode()
    assert walsvc.good("repair", long_log) == b"nothing to repair\n"


def test_torn_group_that_the_double_write_file_restores_needs_no_repair(walsvc: Cli, tmp_path: Path) -> None:
    code = (
        "import asyncio, walsvc, os\n"
        "async def main():\n"
        f"    log = await walsvc.open({str(tmp_path / 'log')!r}, layout='pack', double_write='buffered')\n"
        "    for n in range(9): await log.append(b'%d' % n)\n"
        "    os._exit(0)\n"
        "asyncio.run(main())\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    path = tmp_path / "log"
    held = json.loads(walsvc.good("inspect", path, "--groups", "--json"))
    (segment,), last = path.glob("*.wal"), held["groups"][-1]
    with segment.open("r+b") as file:  # the last block: its newest group reached the disk, the one before it did not
        file.seek(held["groups"][-2]["offset"] + 70)
        file.write(b"torn")
    assert last["records"] == 1
    assert len(walsvc.good("cat", path).splitlines()) == 9
    assert walsvc.good("repair", path) == b"nothing to repair\n"
