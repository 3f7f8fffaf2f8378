"""ext4 that turns read-only after an error, as it does with errors=remount-ro: its logs can be read, and not be written."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

import walsvc
from tests.disks import REAL_DISKS
from tests.fuse.device import mounted_device, needs_device
from walsvc.errors import DurabilityLost, PathError

pytestmark = needs_device


@pytest.mark.parametrize("disk", REAL_DISKS)
async def test_log_on_ext4_that_turned_read_only_is_read_and_not_written(tmp_path: Path, disk: str) -> None:
    with mounted_device(tmp_path, "ext4", "-o", "errors=remount-ro") as (point, _, device):
        trigger = Path("/sys/fs/ext4", os.path.basename(device), "trigger_fs_error")
        if not os.access(trigger, os.W_OK):
            pytest.skip(f"no {trigger} here")
        wal = await walsvc.open(point / "log", disk=disk, segment_bytes=1 << 16)
        for _ in range(40):
            await wal.append(b"x" * 3000)
        await asyncio.to_thread(trigger.write_text, "tests make it turn read-only")
        with pytest.raises(DurabilityLost):
            while True:
                await wal.append(b"y" * 3000)
        lsn = wal.durable_lsn
        await wal.close()
        for direct in (None, False):
            async with walsvc.open(point / "log", read_only=True, direct=direct) as log:
                assert len([record async for record in log.read()]) >= lsn >= 40
        with pytest.raises(PathError) as caught:
            await walsvc.open(point / "log", disk=disk)
        assert caught.value.errno == errno.EROFS
        assert "read_only=True" in str(caught.value.hint)
