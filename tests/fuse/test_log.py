"""A log on FUSE, where Linux drops RWF_DSYNC of some writes: what is acknowledged has had its FSYNC request."""

from __future__ import annotations

from pathlib import Path

import pytest

import walsvc
from tests.disks import REAL_DISKS
from tests.fuse.mount import mounted, needs_fuse
from walsvc import Strict

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
        assert [each for each in fuse.volatile() if not each.endswith("LOCK")] == [], (
            "seals, spares, names, the double-write file"
        )
        async with walsvc.open(fuse.path / "log", read_only=True) as log:
            assert len([record async for record in log.read()]) == 30
