"""The double-write file on real disks: what is restored, what the options say, what stays behind."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

import walsvc
from tests.disks import REAL_DISKS
from walsvc import BadOption, WalConfig
from walsvc.log.offline.backup import copy_log
from walsvc.log.offline.verify import verify

NAME = "double-write"


async def payloads(path: Path, **options: object) -> list[bytes]:
    async with walsvc.open(path, read_only=True, **options) as log:
        return [record.payload async for record in log.read()]


def segment(path: Path) -> Path:
    return max(path.glob("*.wal"))


def spoil(path: Path, offset: int, length: int) -> None:
    """Put noise into a file."""
    file = os.open(path, os.O_WRONLY)
    os.pwrite(file, b"\xa5" * length, offset)
    os.fsync(file)
    os.close(file)


@pytest.mark.parametrize("double_write", ["direct", "buffered"])
@pytest.mark.parametrize("layout", ["pad", "pack"])
@pytest.mark.parametrize("disk", REAL_DISKS)
async def test_damaged_end_is_restored(tmp_path, disk, layout, double_write):
    path = tmp_path / "log"
    options = {"layout": layout, "double_write": double_write, "disk": disk, "segment_bytes": 1 << 20}
    acked = [b"%d" % number * 100 for number in range(30)]
    async with walsvc.open(path, **options) as log:
        if double_write == "direct" and not log.stats().direct:
            pytest.skip("no O_DIRECT here")
        for payload in acked:
            result = await log.append(payload)
        stats = log.stats()
        assert (stats.layout, stats.double_write, stats.double_write_uncovered) == (layout, double_write, 0)
        assert stats.syncs == 2 * stats.groups
    start = result.offset - result.offset % 4096 if layout == "pack" else result.offset
    spoil(segment(path), start, result.offset + 50 - start)
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    assert await payloads(path) == acked  # a reader lays it over and writes nothing
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before
    await copy_log(path, str(tmp_path / "copy"), sparse=True)
    assert await payloads(tmp_path / "copy") == acked
    verdict = await verify(path)
    assert [finding.kind for finding in verdict.findings] == ["restored_from_double_write"]
    assert not verdict.errors
    async with walsvc.open(path, **options) as log:
        assert [finding.kind for finding in log.report.findings] == ["restored_from_double_write"]
        assert [record.payload async for record in log.read()] == acked
    (path / NAME).unlink()
    assert await payloads(path) == acked  # it stands in the log itself again


@pytest.mark.parametrize("layout", ["pad", "pack"])
async def test_damaged_end_of_an_encrypted_log_is_restored(tmp_path, layout):
    path, keys = tmp_path / "log", walsvc.KeyRing(current=("k1", bytes(range(32))))
    options = {"layout": layout, "double_write": "buffered", "keys": keys}
    acked = [b"%d" % number * 30 for number in range(20)]
    async with walsvc.open(path, **options) as log:
        for payload in acked:
            result = await log.append(payload)
    assert not any(payload in (path / NAME).read_bytes() for payload in acked[10:])
    spoil(segment(path), result.offset, 9)
    assert await payloads(path, keys=keys) == acked
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    with pytest.raises(walsvc.MissingKey):
        await walsvc.open(path, layout=layout, double_write="buffered")
    assert {file.name: file.read_bytes() for file in path.iterdir() if file.name != "LOCK"} == {
        name: data for name, data in before.items() if name != "LOCK"
    }
    async with walsvc.open(path, **options) as log:
        assert [finding.kind for finding in log.report.findings] == ["restored_from_double_write"]
        assert [record.payload async for record in log.read()] == acked


async def test_pack_takes_less_room_than_pad(tmp_path):
    taken = {}
    for layout in ("pad", "pack"):
        async with walsvc.open(tmp_path / layout, layout=layout, double_write="buffered", max_group_records=1) as log:
            await asyncio.gather(*(log.append(bytes(100)) for _ in range(200)))
            taken[layout] = log.stats().log_bytes
    assert taken["pack"] < taken["pad"] / 10


async def test_file_goes_when_it_is_not_wanted_any_more(tmp_path):
    async with walsvc.open(tmp_path, double_write="buffered") as log:
        await log.append(b"a")
        assert (tmp_path / NAME).exists()
    (tmp_path / "double-write.new").write_bytes(b"left behind by a crash")
    async with walsvc.open(tmp_path) as log:
        await log.append(b"b")
        assert log.stats().double_write == "off"
    assert await payloads(tmp_path) == [b"a", b"b"]
    assert not list(tmp_path.glob("double-write*"))


async def test_direct_needs_a_direct_log(tmp_path):
    with pytest.raises(BadOption, match="page cache"):
        await walsvc.open(tmp_path / "new", direct=False, double_write="direct")
    assert [file.name for file in (tmp_path / "new").iterdir()] in ([], ["LOCK"])
    async with walsvc.open(tmp_path / "old", direct=False, segment_bytes=65536) as log:
        await log.append(b"a")
    before = {file.name: file.read_bytes() for file in (tmp_path / "old").glob("*.wal")}
    with pytest.raises(BadOption, match="page cache"):
        await walsvc.open(tmp_path / "old", direct=False, double_write="direct")
    assert {file.name: file.read_bytes() for file in (tmp_path / "old").glob("*.wal")} == before


async def test_file_of_a_log_that_has_gone_is_of_no_use_to_a_new_one(tmp_path):
    options = {"layout": "pack", "double_write": "buffered"}
    async with walsvc.open(tmp_path, **options) as log:
        await log.append(b"of the old log")
    for file in tmp_path.glob("*.wal"):
        file.unlink()
    for file in tmp_path.glob("*.spare"):
        file.unlink()
    for opening in range(2):
        async with walsvc.open(tmp_path, **options) as log:
            assert not log.report.findings
            assert log.next_lsn == opening + 1
            await log.append(b"of the new log")


@pytest.mark.parametrize("value", ["on", True, None, "Direct", ""])
def test_unknown_values_are_refused(value):
    with pytest.raises(BadOption, match="double_write"):
        WalConfig(double_write=value)
