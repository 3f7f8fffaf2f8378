"""What only a real disk shows: O_DIRECT, flat page cache, flat memory and descriptors, a reader beside a writer."""

from __future__ import annotations

import asyncio
import ctypes
import hashlib
import mmap
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import walsvc
from tests.disks import REAL_DISKS
from walsvc import Closed, Truncated
from walsvc.disk.doctor import probe


def resident_bytes(file: Path) -> int:
    """Bytes of a file that are in the page cache, by mincore(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    length = file.stat().st_size
    with file.open("rb") as handle, mmap.mmap(handle.fileno(), length, mmap.MAP_SHARED, mmap.PROT_READ) as mapped:
        pages = (ctypes.c_ubyte * ((length + 4095) // 4096))()
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
        address = libc.mmap(None, length, mmap.PROT_READ, mmap.MAP_SHARED, handle.fileno(), 0)
        assert libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(length), pages) == 0
        libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(length))
        assert len(mapped) == length
    return sum(page & 1 for page in pages) * 4096


@pytest.mark.parametrize("disk", REAL_DISKS)
async def test_thousand_small_groups_read_back_byte_for_byte(tmp_path, disk):
    """nodedb-wal's issue 164: padding that is not framed, so replay saw only the first group of an O_DIRECT log."""
    payloads = [b"%d:" % number + hashlib.sha256(b"%d" % number).digest() for number in range(1000)]
    async with walsvc.open(tmp_path / "log", disk=disk, max_group_records=1) as log:
        await asyncio.gather(*map(log.append, payloads))
        assert log.stats().groups == 1000
    async with walsvc.open(tmp_path / "log", disk=disk) as log:
        assert [record.payload async for record in log.read()] == payloads


@pytest.mark.parametrize("disk", REAL_DISKS)
async def test_page_cache_stays_flat_where_direct_works(tmp_path, disk):
    async with walsvc.open(tmp_path / "log", disk=disk, segment_bytes=8 << 20) as log:
        if not log.stats().direct:
            pytest.skip("this file system does not take O_DIRECT: " + str(probe(str(tmp_path))))
        for _ in range(24):
            await asyncio.gather(*(log.append(bytes(64 << 10)) for _ in range(16)))
        assert log.stats().written_bytes > 24 << 20
        count = 0
        async for record in log.read():
            count += len(record.payload)
        assert count == 24 << 20
        cached = sum(resident_bytes(file) for file in (tmp_path / "log").glob("*.wal"))
        assert cached < 1 << 20


@pytest.mark.parametrize("disk", REAL_DISKS)
async def test_descriptors_and_memory_stay_flat_over_many_groups_and_rotations(tmp_path, disk):
    async with walsvc.open(tmp_path / "log", disk=disk, segment_bytes=1 << 20) as log:

        async def some(rounds: int) -> tuple[int, int]:
            for _ in range(rounds):
                await asyncio.gather(*(log.append(bytes(1000)) for _ in range(200)))
                await log.truncate_before(max(1, log.durable_lsn - 500))
            return len(os.listdir("/proc/self/fd")), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

        descriptors, memory = await some(30)
        later_descriptors, later_memory = await some(60)
        assert later_descriptors <= descriptors + 1
        assert later_memory - memory < 8 << 10  # KiB
        assert log.stats().segments <= 4


async def test_recycled_segments_never_bring_old_records_back(tmp_path):
    async with walsvc.open(tmp_path / "log", segment_bytes=65536) as log:
        for round_number in range(40):
            await asyncio.gather(*(log.append(b"%04d" % round_number * 100) for _ in range(40)))
            await log.truncate_before(log.next_lsn - 20)
        inodes = {file.inode() for file in os.scandir(tmp_path / "log")}  # a spare may be renamed meanwhile
        assert len(inodes) < 8, "files are recycled"
        first, following = log.first_lsn, log.next_lsn
    for _ in range(3):
        async with walsvc.open(tmp_path / "log", segment_bytes=65536) as log:
            assert (log.first_lsn, log.next_lsn) == (first, following)
            assert [record.payload async for record in log.read()] == [b"0039" * 100] * 20


WRITER = """
import asyncio, sys, walsvc
async def main():
    async with walsvc.open(sys.argv[1], segment_bytes=65536) as log:
        for number in range(400):
            await asyncio.gather(*(log.append(b"%d" % (number * 10 + i) + bytes(300)) for i in range(10)))
            if number == 0: print("begun", flush=True)
asyncio.run(main())
"""


@pytest.mark.parametrize("disk", REAL_DISKS)
async def test_read_only_log_follows_a_writer_in_another_process(tmp_path, disk):
    path = tmp_path / "log"
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, env={**os.environ, "WALSVC_DISK": disk}
    )
    assert writer.stdout is not None
    await asyncio.to_thread(writer.stdout.readline)
    expected = 1
    async with walsvc.open(path, read_only=True) as log:
        with pytest.raises(Closed):
            log.append(b"no")
        with pytest.raises(Closed):
            await log.truncate_before(1)
        async for record in log.follow(start=1):
            assert record.lsn == expected
            assert record.payload.rstrip(b"\0") == b"%d" % (record.lsn - 1)
            expected += 1
            if record.lsn == 4000:
                break
        assert log.next_lsn == 4001
    assert await asyncio.to_thread(writer.wait) == 0
    writer.stdout.close()


async def test_reader_that_truncation_overtakes_gets_truncated(tmp_path):
    async with walsvc.open(tmp_path / "log", segment_bytes=65536) as log:
        for _ in range(30):
            await asyncio.gather(*(log.append(bytes(1000)) for _ in range(30)))
        reader = log.read()
        assert (await anext(reader)).lsn == 1
        await log.truncate_before(800)
        with pytest.raises(Truncated) as caught:
            async for _ in reader:
                pass
        assert caught.value.hint


async def test_space_of_truncated_segments_is_given_back(tmp_path):
    async with walsvc.open(tmp_path / "log", segment_bytes=65536) as log:
        for _ in range(50):
            await asyncio.gather(*(log.append(bytes(1000)) for _ in range(40)))
        before = sum(file.stat().st_size for file in (tmp_path / "log").iterdir())
        await log.truncate_before(log.next_lsn)
        after = sum(file.stat().st_size for file in (tmp_path / "log").iterdir())
        assert before > 30 * 65536
        assert after <= 5 * 65536
