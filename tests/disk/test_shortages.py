"""EMFILE, ENFILE, ENOMEM and EAGAIN at every system call of the cold half, and no memory for a buffer: an answer each, nothing is
left behind, and the same call goes through afterwards. Also what a device says that turned read-only, and other block sizes."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import walsvc
from tests.disks import REAL_DISKS
from tests.fuse.mount import mounted, needs_fuse
from walsvc.config import WalConfig
from walsvc.disk import measure, posix
from walsvc.disk.base import Disk
from walsvc.disk.choose import open_disk
from walsvc.disk.directory import Directory
from walsvc.disk.mapped import cached_pages
from walsvc.errors import BadOption, DurabilityLost, PathError

SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)
CALLS = ["open", "fsync", "fdatasync", "pwrite", "preadv", "posix_fallocate", "fstatvfs", "scandir", "rename", "unlink"]
BLOCK = 4096


class Failing:
    """Lets the nth system call of the disk's threads fail; counts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = self.count = 0
        self.number = 0
        for name in CALLS:
            monkeypatch.setattr(os, name, self.wrapped(getattr(os, name)))

    def wrapped(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def instead(*args: Any, **kwargs: Any) -> Any:
            if threading.current_thread().name == "walsvc-disk":
                self.count += 1
                if self.count == self.left:
                    raise OSError(self.number, os.strerror(self.number))
            return call(*args, **kwargs)

        return instead

    def plan(self, nth: int, number: int) -> None:
        self.left, self.count, self.number = nth, 0, number


STEPS: list[tuple[str, Callable[[Disk], Awaitable[object]]]] = [
    ("allocate", lambda disk: disk.allocate("a.wal", 1 << 16)),
    ("write", lambda disk: disk.write("a.wal", 0, b"x" * BLOCK)),
    ("sync", lambda disk: disk.sync("a.wal")),
    ("list", lambda disk: disk.list()),
    ("read", lambda disk: disk.read("a.wal", 100, 10)),
    ("read_into", lambda disk: disk.read_into("a.wal", 0, disk.buffer(BLOCK))),
    ("rename", lambda disk: disk.rename("a.wal", "b.wal")),
    ("sync_directory", lambda disk: disk.sync_directory()),
    ("free_bytes", lambda disk: disk.free_bytes()),
    ("remove", lambda disk: disk.remove("b.wal")),
]


async def outcome(step: Awaitable[object]) -> OSError | None:
    """How it ended."""
    try:
        await step
    except OSError as error:
        return error
    return None


@pytest.mark.parametrize("kind", REAL_DISKS)
@pytest.mark.parametrize("direct", [None, False])
@pytest.mark.parametrize("number", SHORTAGES)
async def test_shortage_at_any_system_call_is_an_answer_and_the_next_try_goes_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, direct: bool | None, number: int
) -> None:
    config = WalConfig(disk=kind, direct=direct)
    disk = await open_disk(tmp_path, config=config, loop=asyncio.get_running_loop(), exclusive=True)
    failing = Failing(monkeypatch)
    failed: list[str] = []
    for name, step in STEPS:
        for nth in itertools.count(1):
            before = sorted(os.listdir(tmp_path))
            failing.plan(nth, number)
            error = await outcome(step(disk))
            if error is None:
                assert failing.count < nth, f"{name} said nothing of call {nth}"
                break
            assert error.errno == number
            assert sorted(os.listdir(tmp_path)) == before
            failed.append(name)
    failing.plan(0, 0)
    assert set(failed) == {name for name, _ in STEPS}
    await disk.close()


@pytest.mark.parametrize("kind", REAL_DISKS)
async def test_no_memory_for_a_buffer_is_told_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    shown: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: shown.append(context))
    wal = await walsvc.open(tmp_path, disk=kind)
    await wal.append(b"before")

    def none(length: int) -> memoryview:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    with monkeypatch.context() as patched:
        patched.setattr(posix, "aligned_buffer", none)
        with pytest.raises(MemoryError, match="no memory for a buffer"):
            wal.writer.core.disk.buffer(1 << 20)
        with pytest.raises(DurabilityLost) as caught:
            await wal.append(b"x" * (3 << 20))
        assert caught.value.errno == errno.ENOMEM
    await wal.close()
    assert shown == []
    async with walsvc.open(tmp_path) as wal:
        assert [record.payload async for record in wal.read()] == [b"before"]


async def test_log_of_small_blocks_opens_with_defaults_where_the_device_takes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        wal = await walsvc.open(tmp_path, block_bytes=512, direct=True)
    except BadOption as error:
        pytest.skip(f"no blocks of 512 bytes here: {error}")
    await wal.append(b"x")
    await wal.close()
    for disk in ("auto", "threads"):
        async with walsvc.open(tmp_path, disk=disk) as wal:
            assert (wal.stats().direct, wal.stats().block_bytes) == (True, 512)
            await wal.append(b"x")
    async with walsvc.open(tmp_path, read_only=True) as log:
        assert len([record async for record in log.read()]) == 3
    monkeypatch.setattr(measure, "find_block_bytes", lambda file, zeros: 4096)
    with pytest.raises(BadOption, match="needs 4096"):
        await walsvc.open(tmp_path)


@needs_fuse
@pytest.mark.parametrize("direct", [None, False])
@pytest.mark.parametrize("reading", ["direct", "mapped"])
async def test_log_on_a_file_system_that_turned_read_only_can_be_read(
    tmp_path: Path, direct: bool | None, reading: str
) -> None:
    with mounted(tmp_path) as fuse:
        async with walsvc.open(fuse.path / "log", segment_bytes=1 << 16) as wal:
            for _ in range(40):
                await wal.append(b"x" * 3000)
        for operation in ("fsync", "fsyncdir", "write", "create"):
            fuse.fail(operation, errno=errno.EROFS, times=1000)
        async with walsvc.open(fuse.path / "log", read_only=True, direct=direct, reading=reading) as log:
            assert len([record async for record in log.read()]) == 40
        with pytest.raises((PathError, DurabilityLost)) as caught:
            await walsvc.open(fuse.path / "log")
        assert caught.value.errno == errno.EROFS


@pytest.mark.parametrize(("direct", "mapped"), [(True, False), (True, True), (False, False)])
@pytest.mark.parametrize("read_only", [True, False])
def test_pages_that_never_reached_a_read_only_device_are_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, direct: bool, mapped: bool, read_only: bool
) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    directory = Directory(str(tmp_path), descriptor, lock=None, direct=direct, block_bytes=BLOCK, mapped=mapped)
    directory.read_only = read_only
    (tmp_path / "a.wal").write_bytes(b"x" * BLOCK)  # not synced: it stays in the page cache

    def refuse(file: int) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "fdatasync", refuse)
    if read_only and direct and not mapped:
        directory.sync("a.wal")
    else:
        with pytest.raises(OSError, match="Read-only"):
            directory.sync("a.wal")
    directory.close()


def test_pages_in_the_cache_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 3 * BLOCK)
    (tmp_path / "empty").touch()
    file, empty = os.open(tmp_path / "a", os.O_RDWR), os.open(tmp_path / "empty", os.O_RDONLY)
    assert (cached_pages(file), cached_pages(empty)) == (3, 0)
    os.fsync(file)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    assert cached_pages(file) == 0
    os.close(file)
    os.close(empty)
