"""repair: explains and changes nothing, or copies first and keeps the undamaged beginning."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

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
    writer = walsvc.start("append", log)
    assert writer.stdin is not None
    assert writer.stdout is not None
    writer.stdin.write(b"x\n")
    writer.stdin.flush()
    assert writer.stdout.readline() == b"101\n"
    walsvc.bad(4, "repair", log, "--apply")
