"""The process ends in the middle: by SIGKILL, or its event loop is closed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.disks import REAL_DISKS

from .sigkill import campaign

PENDING = """
import asyncio, gc, sys
import walsvc
waiters = []
async def main(path, disk):
    log = await walsvc.open(path, disk=disk, segment_bytes=65536, max_pending_bytes=65536)
    await log.append(b"answered")
    waiters.extend(log.append(bytes(6000)) for _ in range(50))
    waiters.append(asyncio.create_task(wait(waiters[-1])))
    await asyncio.sleep(0)
async def wait(future):
    await future
def end(loop, ending):
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        if ending == "cancelled":
            task.cancel()
        else:
            task._log_destroy_pending = False
    if ending == "cancelled":
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        assert waiters[-1].done()
    loop.close()
loop = asyncio.new_event_loop()
loop.run_until_complete(main(sys.argv[1], sys.argv[2]))
end(loop, sys.argv[3])
waiters.clear()
del loop
async def again(path, disk):
    for _ in range(500):  # the lock goes with the last call of the old log that is still in a thread
        gc.collect()
        try:
            log = await walsvc.open(path, disk=disk, segment_bytes=65536)
            break
        except walsvc.Locked:
            await asyncio.sleep(0.01)
    async with log:
        records = [record.payload async for record in log.read()]
        assert records[0] == b"answered"
        assert set(records[1:]) <= {bytes(6000)}
        print(len(records))
asyncio.run(again(sys.argv[1], sys.argv[2]))
"""


@pytest.mark.parametrize("ending", ["cancelled", "dropped"])
@pytest.mark.parametrize("disk", REAL_DISKS)
def test_loop_closed_with_appends_pending_harms_nobody(tmp_path: Path, disk: str, ending: str) -> None:
    """Writes are in flight and appends wait for room when the loop goes: no crash, no hang, and the log opens again."""
    command = [sys.executable, "-X", "faulthandler", "-c", PENDING, str(tmp_path / "log"), disk, ending]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert 1 <= int(done.stdout) <= 51


@pytest.mark.parametrize("layout", ["pad", "pack-buffered"])
@pytest.mark.parametrize("disk", REAL_DISKS)
def test_sigkill_at_random_loses_nothing_acknowledged(tmp_path: Path, disk: str, layout: str) -> None:
    assert campaign(disk, 6 if layout == "pad" else 3, 1, tmp_path, layout) == 0
