"""Repair keeps the longest undamaged beginning, copies first, and explains before it does anything."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

import pytest

import walsvc
from tests.forked import run_walsvc
from walsvc import Corruption


async def make_log(path: Path) -> None:
    async with walsvc.open(path, segment_bytes=65536) as log:
        for start in range(1, 481, 60):
            await asyncio.gather(*(log.append(b"%d" % lsn * 200) for lsn in range(start, start + 60)))


def segments(path: Path) -> list[Path]:
    return sorted(path.glob("*.wal"))


def repair(path: Path, *options: str) -> subprocess.CompletedProcess[bytes]:
    return run_walsvc("repair", path, *options)


def tree(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir() if file.name != "LOCK"}


async def read(path: Path) -> list[int]:
    async with walsvc.open(path) as log:
        records = [record async for record in log.read()]
        assert all(record.payload == b"%d" % record.lsn * 200 for record in records)
        result = await log.append(b"goes on")
        assert result.lsn == (records[-1].lsn + 1 if records else log.first_lsn)
        return [record.lsn for record in records]


async def check_repair(path: Path, expected_to: int) -> None:
    before = tree(path)
    dry = repair(path, "--json")
    assert dry.returncode == 3, dry.stderr
    plan = json.loads(dry.stdout)
    assert plan["keep_to"] == expected_to
    assert plan["reasons"]
    assert tree(path) == before, "a dry run changed something"
    done = repair(path, "--apply", "--json")
    assert done.returncode == 0, done.stderr
    copy = Path(json.loads(done.stdout)["copy"])
    assert tree(copy) == before
    assert await read(path) == list(range(plan["keep_from"], expected_to + 1))
    again = repair(path)
    assert (again.returncode, again.stdout) == (0, b"nothing to repair\n")


async def test_undamaged_log_needs_no_repair(tmp_path):
    await make_log(tmp_path / "log")
    before = tree(tmp_path / "log")
    assert repair(tmp_path / "log", "--apply").stdout == b"nothing to repair\n"
    assert tree(tmp_path / "log") == before
    assert not list(tmp_path.glob("*.before-repair-*"))


async def test_damaged_payload_in_the_middle(tmp_path):
    path = tmp_path / "log"
    await make_log(path)
    middle = segments(path)[2]
    data = bytearray(middle.read_bytes())
    data[20_000] ^= 1
    middle.write_bytes(data)
    async with walsvc.open(path, read_only=True) as log:
        with pytest.raises(Corruption) as caught:
            async for _ in log.read():
                pass
    assert caught.value.lsn is not None
    await check_repair(path, caught.value.lsn - 1)


async def test_missing_segment_in_the_middle(tmp_path):
    path = tmp_path / "log"
    await make_log(path)
    gone = segments(path)[3]
    gone.unlink()
    await check_repair(path, int(gone.stem, 16) - 1)


async def test_missing_last_segment(tmp_path):
    path = tmp_path / "log"
    await make_log(path)
    gone = segments(path)[-1]
    gone.unlink()
    with pytest.raises(Corruption):
        await walsvc.open(path)
    await check_repair(path, int(gone.stem, 16) - 1)


async def test_damaged_header_of_the_newest_segment(tmp_path):
    path = tmp_path / "log"
    await make_log(path)
    newest = segments(path)[-1]
    data = bytearray(newest.read_bytes())
    data[100] ^= 16
    newest.write_bytes(data)
    await check_repair(path, int(newest.stem, 16) - 1)


async def test_missing_first_segments_keep_the_rest(tmp_path):
    path = tmp_path / "log"
    await make_log(path)
    async with walsvc.open(path, read_only=True) as log:
        end = log.next_lsn - 1
    segments(path)[0].unlink()
    with pytest.raises(Corruption):
        await walsvc.open(path)
    await check_repair(path, end)


async def test_first_segment_unreadable_is_refused_and_nothing_changes(tmp_path):
    path = tmp_path / "log"
    await make_log(path)
    segments(path)[0].write_bytes(bytes(65536))
    before = tree(path)
    refused = repair(path, "--apply")
    assert refused.returncode == 3
    assert b"backup" in refused.stderr
    assert tree(path) == before


def test_no_log_is_a_path_error_and_creates_nothing(tmp_path):
    refused = repair(tmp_path / "none", "--apply")
    assert refused.returncode == 5
    assert not (tmp_path / "none").exists()
