"""A disk that is dropped without close, while its loop lives: it lets everything go, after its writes were answered."""

from __future__ import annotations

import asyncio
import gc
import os
import weakref
from pathlib import Path

import pytest

from tests.disk.fake_ring import FakeRing
from tests.disks import REAL_DISKS
from tests.waiting import until
from walsvc.config import WalConfig
from walsvc.disk.base import Disk, Write
from walsvc.disk.choose import open_disk
from walsvc.disk.directory import Directory
from walsvc.disk.uring import UringDisk

BLOCK = 4096


async def opened(path: Path, disk: str) -> Disk:
    return await open_disk(path, config=WalConfig(disk=disk), loop=asyncio.get_running_loop(), exclusive=True)


@pytest.mark.parametrize("kind", REAL_DISKS)
@pytest.mark.parametrize("waits", [True, False])
async def test_dropped_disk_answers_its_write_and_releases_the_lock(tmp_path: Path, kind: str, waits: bool) -> None:
    disk = await opened(tmp_path, kind)
    await disk.allocate("a.wal", 1 << 16)
    file = await disk.open_file("a.wal")
    view = disk.buffer(BLOCK)
    view[:] = b"x" * BLOCK
    answer: asyncio.Future[OSError | None] = asyncio.get_running_loop().create_future()
    disk.submit(Write(file, 0, view, lambda write, error: answer.set_result(error)))
    alive = weakref.ref(disk)
    if waits:
        assert await answer is None
    del disk, view
    gc.collect()
    assert await answer is None
    while alive() is not None:  # the thread may be about to let go
        await asyncio.sleep(0)
        gc.collect()
    again = await opened(tmp_path, kind)
    assert (await again.read("a.wal", 0, 2)) == b"xx"
    await again.close()


async def test_ring_that_is_collected_in_another_thread_is_given_back_by_the_loop(tmp_path: Path) -> None:
    loop, ring = asyncio.get_running_loop(), FakeRing()
    descriptor = os.open(tmp_path, os.O_RDONLY)
    directory = Directory(str(tmp_path), descriptor, lock=None, direct=False, block_bytes=BLOCK)
    owned = [UringDisk(directory, loop=loop, dsync=True, reason="test", make_ring=lambda: ring)]
    owned.append(owned)  # type: ignore[arg-type] # only the collector lets it go
    del directory, owned
    await asyncio.to_thread(gc.collect)
    await until(lambda: ring.closed, 0)
    assert not loop.remove_reader(ring.event), "the loop must not watch a descriptor that somebody else may have by now"
