"""Verbs on a packed log: they leave its layout as it is, and say what the double-write file holds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from walsvc import open as open_log

from .conftest import Cli


@pytest.fixture
async def packed(tmp_path: Path) -> Path:
    """A packed log with the records b"record 1" to b"record 20", closed in order."""
    async with open_log(tmp_path / "packed", layout="pack", double_write="buffered", segment_bytes=65536) as log:
        for number in range(1, 21):
            await log.append(b"record %d" % number)
    return tmp_path / "packed"


async def test_verbs_that_write_leave_a_packed_log_packed(walsvc: Cli, packed: Path) -> None:
    assert walsvc.good("append", packed, stdin=b"new\n") == b"21\n"
    assert walsvc.good("truncate", packed, "--before", 6) == b"dropped 5 records; kept: LSN 6 to 21\n"
    assert walsvc.good("truncate", packed, "--after", 20) == b"dropped 1 record; kept: LSN 6 to 20\n"
    told = json.loads(walsvc.good("inspect", packed, "--json"))
    assert {each["align"] for each in told["segments"]} == {64}
    assert len(told["double_write"]) == 3
    assert b"double-write holds the groups at offset " in walsvc.good("inspect", packed)
    assert json.loads(walsvc.good("verify", packed, "--json"))["clean"]
    assert walsvc.good("tail", packed, "-n", 1) == b"record 20\n"


async def test_packed_log_that_was_restored_without_its_double_write_file_gets_one(walsvc: Cli, packed: Path) -> None:
    walsvc.good("backup", packed, packed.parent / "backup")
    walsvc.good("restore", packed.parent / "backup", packed.parent / "restored")
    assert not (packed.parent / "restored" / "double-write").exists()
    assert walsvc.good("append", packed.parent / "restored", stdin=b"new\n") == b"21\n"
    assert (packed.parent / "restored" / "double-write").exists()


async def test_padded_log_keeps_its_double_write_file(walsvc: Cli, tmp_path: Path) -> None:
    async with open_log(tmp_path / "log", double_write="buffered") as log:
        await log.append(b"a")
    assert walsvc.good("append", tmp_path / "log", stdin=b"new\n") == b"2\n"
    assert (tmp_path / "log" / "double-write").exists()
    told = json.loads(walsvc.good("doctor", tmp_path / "log", "--json"))
    assert told["double_write_bytes"] == (tmp_path / "log" / "double-write").stat().st_size
    assert b"double-write" in walsvc.good("doctor", tmp_path / "log")
    shutil.rmtree(tmp_path / "log")
    told = json.loads(walsvc.good("doctor", tmp_path, "--json"))
    assert told["double_write_bytes"] is None


def test_bench_shows_the_price_and_the_space_saved(walsvc: Cli, tmp_path: Path) -> None:
    told = {}
    for layout, double_write in (("pad", "off"), ("pack", "buffered")):
        arguments = ["--records", 300, "--tasks", 1, "--layout", layout, "--double-write", double_write, "--json"]
        told[layout] = json.loads(walsvc.good("bench", "run", tmp_path, *arguments))
        assert (told[layout]["layout"], told[layout]["double_write"]) == (layout, double_write)
    assert told["pad"]["log_bytes"] == told["pad"]["written_bytes"]
    assert told["pack"]["log_bytes"] < told["pad"]["log_bytes"] / 10
    assert told["pack"]["syncs"] == 600 > told["pad"]["syncs"]
    assert "needs double_write" in walsvc.bad(2, "bench", "run", tmp_path, "--layout", "pack")
