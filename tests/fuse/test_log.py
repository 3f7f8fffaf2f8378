"""A log on FUSE, where Linux drops RWF_DSYNC of some writes: what is acknowledged has had its FSYNC request."""

from __future__ import annotations

import asyncio
import errno
from contextlib import suppress
from pathlib import Path

import pytest

import walsvc
from tests.disks import REAL_DISKS
from tests.fuse.mount import mounted, needs_fuse
from walsvc import DurabilityLost, NoSpace, Strict

pytestmark = needs_fuse


@pytest.mark.parametrize("disk", REAL_DISKS)
@pytest.mark.parametrize(
    ("direct", "double_write"),
    [(None, "off"), (None, "buffered"), (None, "direct"), (False, "off"), (False, "buffered")],
)
async def test_what_is_acknowledged_is_synced(
    tmp_path: Path, disk: str, direct: bool | None, double_write: str
) -> None:
    with mounted(tmp_path) as fuse:
        layout = "pad" if double_write == "off" else "pack"
        options = {"disk": disk, "direct": direct, "layout": layout, "double_write": double_write}
        async with walsvc.open(fuse.path / "log", segment_bytes=1 << 16, **options) as wal:
            assert wal.stats().sync_method == "fdatasync"
            assert "not known to keep it on FUSE" in wal.stats().disk_reason
            assert wal.stats().direct is (direct is None)
            for _ in range(30):
                answer = await wal.append(b"x" * 3000, mode=Strict)
                assert f"data log/{answer.segment_id:016x}.wal" not in fuse.volatile()
            assert wal.stats().rotations > 1
            await wal.writer.core.tail.spares.settle()  # one that is cut short has no durable name, nor a record
        assert [each for each in fuse.volatile() if not each.endswith("LOCK")] == [], (
            "seals, spares, names, the double-write file"
        )
        async with walsvc.open(fuse.path / "log", read_only=True) as log:
            assert len([record async for record in log.read()]) == 30


@pytest.mark.parametrize("disk", REAL_DISKS)
@pytest.mark.parametrize("direct", [None, False])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
async def test_full_device_below_a_prepared_segment_fails_the_log(
    tmp_path: Path, disk: str, direct: bool | None, code: int
) -> None:
    """A thin device may have no room for what was allocated: the record's write was refused, so its LSN is given."""
    with mounted(tmp_path) as fuse:
        wal = await walsvc.open(fuse.path / "log", disk=disk, direct=direct)
        first = await wal.append(b"first")
        operation = "fsync" if direct is False else "write"  # through the page cache the write itself finds its page
        fuse.fail(operation, errno=code, suffix=".wal", times=1000)
        answers = await asyncio.gather(*(wal.append(b"refused") for _ in range(3)), return_exceptions=True)
        for answer in answers:
            assert isinstance(answer, DurabilityLost)
            assert not isinstance(answer, NoSpace)
            assert answer.errno == code
        fuse.heal()
        with pytest.raises(DurabilityLost):
            wal.append(b"later")
        with suppress(DurabilityLost):
            await wal.close()
        async with walsvc.open(fuse.path / "log", disk=disk, direct=direct) as wal:
            there = [record.payload async for record in wal.read()]
            assert there[: first.lsn] == [b"first"]
            assert (await wal.append(b"again")).lsn == len(there) + 1
