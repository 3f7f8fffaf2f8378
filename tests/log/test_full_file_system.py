"""A log on a real file system that is full: see crash/test_full_device.py for more of it, on a simulated one."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

import walsvc
from tests.mounts import KINDS, mounted
from walsvc.errors import NoSpace

RESTARTS = 12


def fill(path: Path) -> None:
    """Write until there is no room, the last bytes one by one."""
    with path.open("wb", buffering=0) as file:
        for size in (65_536, 4096, 512, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass


@pytest.mark.parametrize("kind", KINDS)
async def test_log_on_a_full_file_system_opens_truncates_and_acknowledges(tmp_path: Path, kind: str) -> None:
    with mounted(kind, tmp_path / "mounted", 4) as place:
        options = {"segment_bytes": 1 << 16}
        async with walsvc.open(place / "log", **options) as log:
            for _ in range(40):
                last = (await log.append(bytes(3000))).lsn
        fill(place / "ballast")
        for turn in range(1, RESTARTS + 1):
            async with walsvc.open(place / "log", **options) as log:
                assert log.next_lsn == last + 1
                consumer = await log.consumer("billing")
                assert (await consumer.next()).lsn == turn
                await consumer.ack(turn)
                await consumer.close()
                await log.truncate_before(turn)
                if turn == 1:
                    with pytest.raises(NoSpace):
                        for _ in range(40):
                            last = (await log.append(bytes(3000))).lsn
        async with walsvc.open(place / "log", **options) as log:
            assert [record.lsn async for record in log.read()] == list(range(RESTARTS, last + 1))
        os.unlink(place / "ballast")
        async with walsvc.open(place / "log", **options) as log:
            for _ in range(40):
                last = (await log.append(bytes(3000))).lsn
            assert log.next_lsn == last + 1
