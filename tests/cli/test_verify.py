"""verify: every kind of damage is found with its place; what is no damage is told and forgiven; nothing is changed."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from walsvc.config import WalConfig
from walsvc.disk.base import Disk
from walsvc.disk.sim import SimDevice, SimDisk
from walsvc.errors import Corruption, PathError
from walsvc.keyring import Keys
from walsvc.log.offline.verify import verify
from walsvc.log.recover.looking import find
from walsvc.opening import open_on

from .conftest import Cli

Contents = Callable[[Path], dict[str, bytes]]


def verdict(walsvc: Cli, path: Path, code: int) -> dict[str, Any]:
    finished = walsvc("verify", path, "--json")
    assert finished.returncode == code, finished
    assert finished.stderr.count(b"\n") == (code != 0), finished
    told: dict[str, Any] = json.loads(finished.stdout)
    assert told["ok"] == (code == 0)
    return told


def groups(walsvc: Cli, path: Path) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads(walsvc.good("inspect", path, "--groups", "--json"))["groups"]
    return listed


def flip(file: Path, offset: int, bit: int = 0) -> None:
    data = bytearray(file.read_bytes())
    data[offset] ^= 1 << bit
    file.write_bytes(data)


async def test_a_reading_error_is_its_own_error_and_not_the_end_of_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    device = SimDevice(seed=1)

    async def opened(*_: object, **__: object) -> SimDisk:
        return SimDisk(device, lock=False)

    monkeypatch.setattr("walsvc.log.offline.inspect.open_disk", opened)
    async with await open_on(SimDisk(device), WalConfig(segment_bytes=65536)) as log:
        for _ in range(120):
            await log.append(bytes(1000))
    assert (await verify("sim")).clean
    reads = 0

    def note(_: int, name: str) -> None:
        nonlocal reads
        reads += name == "read"

    device.on_operation = note
    await verify("sim")
    device.on_operation = None
    assert reads > 10
    for nth in range(1, reads + 1):
        device.fail("read", nth=nth, errno=errno.EIO)
        with pytest.raises(PathError) as caught:
            await verify("sim")
        assert caught.value.errno == errno.EIO
    assert (await verify("sim")).clean


async def test_what_looks_damaged_only_once_is_a_log_on_the_move(
    monkeypatch: pytest.MonkeyPatch, long_log: Path
) -> None:
    looks = 0

    async def found_moving(disk: Disk, keys: Keys) -> object:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise Corruption("a segment is missing", segment=17)
        return await find(disk, keys)

    monkeypatch.setattr("walsvc.log.offline.verify.find", found_moving)
    assert (await verify(long_log)).clean
    assert looks == 2


def test_a_clean_log(walsvc: Cli, long_log: Path, contents: Contents) -> None:
    before = contents(long_log)
    told = verdict(walsvc, long_log, 0)
    assert (told["clean"], told["findings"], told["records"], told["next_lsn"]) == (True, [], 500, 501)
    assert told["segments"] == len(list(long_log.glob("*.wal")))
    assert walsvc.good("verify", long_log).startswith(b"ok: LSN 1 to 500; ")
    assert contents(long_log) == before


def test_a_flipped_bit_in_an_old_segment_that_opening_does_not_read(
    walsvc: Cli, long_log: Path, contents: Contents
) -> None:
    victim = next(group for group in groups(walsvc, long_log) if group["records"])
    flip(long_log / f"{victim['segment']:016x}.wal", victim["offset"] + 200)
    before = contents(long_log)
    (finding,) = verdict(walsvc, long_log, 3)["findings"]
    assert (finding["kind"], finding["fatal"]) == ("corruption", True)
    assert (finding["segment"], finding["offset"]) == (victim["segment"], victim["offset"])
    assert finding["lsn"] == victim["first_lsn"]
    line = walsvc.bad(3, "verify", long_log)
    assert f"segment {victim['segment']:016x}.wal, offset {victim['offset']}, LSN {victim['first_lsn']}" in line
    assert contents(long_log) == before


def test_a_flipped_bit_at_the_end_of_a_closed_log(walsvc: Cli, log: Path) -> None:
    victim = next(group for group in groups(walsvc, log) if group["records"])
    flip(log / f"{1:016x}.wal", victim["offset"] + 200, bit=7)
    (finding,) = verdict(walsvc, log, 3)["findings"]
    assert (finding["segment"], finding["offset"]) == (1, victim["offset"])


def test_every_damage_is_told_not_only_the_first(walsvc: Cli, long_log: Path) -> None:
    listed = [group for group in groups(walsvc, long_log) if group["records"]]
    segments = sorted({group["segment"] for group in listed})
    victims = [next(group for group in listed if group["segment"] == segment) for segment in segments[:3]]
    for victim in victims:
        flip(long_log / f"{victim['segment']:016x}.wal", victim["offset"] + 130)
    found = verdict(walsvc, long_log, 3)["findings"]
    assert [(each["segment"], each["offset"]) for each in found] == [(v["segment"], v["offset"]) for v in victims]


def test_a_missing_segment_in_the_middle(walsvc: Cli, long_log: Path) -> None:
    victim = sorted(long_log.glob("*.wal"))[1]
    victim.unlink()
    found = verdict(walsvc, long_log, 3)["findings"]
    assert all(each["fatal"] for each in found)
    assert any("missing" in each["message"] for each in found)


def test_a_missing_last_segment(walsvc: Cli, long_log: Path) -> None:
    sorted(long_log.glob("*.wal"))[-1].unlink()
    found = verdict(walsvc, long_log, 3)["findings"]
    assert any("missing" in each["message"] for each in found)


def test_a_segment_copied_under_another_name(walsvc: Cli, long_log: Path) -> None:
    names = sorted(long_log.glob("*.wal"))
    shutil.copy(names[0], names[1])
    found = verdict(walsvc, long_log, 3)["findings"]
    assert any(each["segment"] == int(names[1].stem, 16) for each in found)


@pytest.mark.parametrize("kept", [100, 4096 + 64])
def test_a_segment_cut_short(walsvc: Cli, long_log: Path, kept: int) -> None:
    victim = sorted(long_log.glob("*.wal"))[1]
    with victim.open("r+b") as file:
        file.truncate(kept)
    found = verdict(walsvc, long_log, 3)["findings"]
    assert any(each["segment"] == int(victim.stem, 16) for each in found)


def test_a_segment_cut_behind_its_seal_is_told_by_whoever_reads_it(walsvc: Cli, long_log: Path) -> None:
    victim = sorted(long_log.glob("*.wal"))[1]
    seal = [group for group in groups(walsvc, long_log) if group["segment"] == int(victim.stem, 16)][-1]
    end = seal["offset"] + seal["group_bytes"]
    with victim.open("r+b") as file:
        file.truncate(end)
    (finding,) = verdict(walsvc, long_log, 3)["findings"]
    assert (finding["kind"], finding["segment"], finding["offset"]) == ("corruption", int(victim.stem, 16), end)
    assert "shorter than it was made" in walsvc.bad(3, "cat", long_log)
    assert b"shorter than it was made" in walsvc("repair", long_log).stdout


def test_a_kill_leaves_an_unclean_close_and_no_damage(walsvc: Cli, tmp_path: Path) -> None:
    writer = walsvc.start("append", tmp_path / "log")
    assert writer.stdin is not None
    assert writer.stdout is not None
    writer.stdin.write(b"x\n")
    writer.stdin.flush()
    assert writer.stdout.readline() == b"1\n"
    live = verdict(walsvc, tmp_path / "log", 0)
    assert (live["writer_pid"], live["findings"]) == (writer.pid, [])
    writer.kill()
    writer.wait(timeout=120)
    told = verdict(walsvc, tmp_path / "log", 0)
    assert (told["clean"], told["writer_pid"], told["next_lsn"]) == (False, None, 2)
    assert [(each["kind"], each["fatal"]) for each in told["findings"]] == [("unclean_close", False)]


def test_a_torn_tail_is_told_and_no_damage(walsvc: Cli, tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = walsvc.start("append", path)
    assert writer.stdin is not None
    assert writer.stdout is not None
    for number in (b"1\n", b"2\n"):
        writer.stdin.write(b"x" * 1000 + b"\n")
        writer.stdin.flush()
        assert writer.stdout.readline() == number
    writer.kill()
    writer.wait(timeout=120)
    # The kill came after the acknowledgement, but a bit of the last group stands for a write that did not get through:
    # nothing in the log says that it had been durable.
    last = groups(walsvc, path)[-1]
    flip(path / f"{1:016x}.wal", last["offset"] + 500)
    told = verdict(walsvc, path, 0)
    (finding,) = told["findings"]
    assert (finding["kind"], finding["offset"], finding["lsn"]) == ("torn_tail", last["offset"], 2)
    assert "torn_tail" in walsvc.good("verify", path).decode()


def test_verify_beside_a_writer_that_rotates_and_truncates(walsvc: Cli, tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = walsvc.start("append", path, "--segment-bytes", 65536)
    assert writer.stdin is not None
    assert writer.stdout is not None
    for turn in range(5):
        writer.stdin.write((b"x" * 1000 + b"\n") * 100)
        writer.stdin.flush()
        for lsn in range(turn * 100 + 1, turn * 100 + 101):
            assert writer.stdout.readline() == b"%d\n" % lsn
        told = verdict(walsvc, path, 0)
        assert told["next_lsn"] == (turn + 1) * 100 + 1
