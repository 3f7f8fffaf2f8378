"""The cold half of the real disks: errors at every step, nothing left behind, and never on the loop's thread."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from walsvc.disk import directory as module
from walsvc.disk.directory import READ_BYTES_MAX, Directory
from walsvc.disk.dsync import EXT4_MAGIC, XFS_MAGIC
from walsvc.disk.memory import aligned_buffer, write_all
from walsvc.disk.threads import ThreadsDisk

BLOCK = 4096


@pytest.fixture(params=[True, False], ids=["direct", "buffered"])
def directory(request, tmp_path) -> Directory:
    if request.param:
        try:
            os.close(os.open(tmp_path / "try", os.O_WRONLY | os.O_CREAT | os.O_DIRECT))
            (tmp_path / "try").unlink()
        except OSError:
            pytest.skip("no O_DIRECT here")
    return open_directory(tmp_path, direct=request.param)


def open_directory(path: Path, *, direct: bool) -> Directory:
    return Directory(str(path), os.open(path, os.O_RDONLY), lock=None, direct=direct, block_bytes=BLOCK)


def fail_nth(monkeypatch, call: str, nth: int, number: int) -> list[int]:
    """Make the nth call of os.`call` fail; the list that is returned counts the calls."""
    real = getattr(os, call)
    calls: list[int] = []

    def sometimes(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == nth:
            raise OSError(number, os.strerror(number))
        return real(*args, **kwargs)

    monkeypatch.setattr(os, call, sometimes)
    return calls


@pytest.mark.parametrize(
    "failure",
    [
        ("open", 1, errno.ENOSPC),
        ("open", 1, errno.EMFILE),
        ("posix_fallocate", 1, errno.ENOSPC),
        ("posix_fallocate", 1, errno.EDQUOT),
        ("posix_fallocate", 1, errno.EIO),
        ("pwrite", 1, errno.EIO),
        ("pwrite", 2, errno.ENOSPC),
        ("pwrite", 3, errno.EDQUOT),
        ("fsync", 1, errno.EIO),
        ("fsync", 2, errno.EIO),
    ],
)
def test_failed_allocation_gives_the_errno_and_leaves_nothing(directory, tmp_path, monkeypatch, failure):
    call, nth, number = failure
    fail_nth(monkeypatch, call, nth, number)
    with pytest.raises(OSError) as caught:  # noqa: PT011
        directory.allocate("a.spare", 3 << 20)
    assert caught.value.errno == number
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
def test_file_systems_without_fallocate_get_zeros_all_the_same(directory, tmp_path, monkeypatch, number):
    fail_nth(monkeypatch, "posix_fallocate", 1, number)
    directory.allocate("a.spare", (1 << 20) + BLOCK)
    assert (tmp_path / "a.spare").read_bytes() == bytes((1 << 20) + BLOCK)


@pytest.mark.parametrize("length", [1, BLOCK - 1, BLOCK + 1, (1 << 20) + 5, 2 << 20])
def test_allocation_of_any_length(directory, tmp_path, length):
    directory.allocate("a.spare", length)
    assert (tmp_path / "a.spare").read_bytes() == bytes(length)


def test_allocation_has_written_extents_and_not_only_reserved_ones(directory, tmp_path, monkeypatch):
    written = []
    real = os.pwrite
    monkeypatch.setattr(
        os, "pwrite", lambda fd, data, offset: (written.append((offset, len(data))), real(fd, data, offset))[1]
    )
    directory.allocate("a.spare", (5 << 20) + BLOCK)
    position = 0
    for offset, length in written:
        assert offset == position
        position += length
    assert position == (5 << 20) + BLOCK


@pytest.mark.parametrize(
    ("magic", "written"), [(EXT4_MAGIC, 0), (XFS_MAGIC, 0), (0x9123683E, 2 << 20), (None, 2 << 20)]
)
def test_room_is_only_reserved_where_the_file_system_keeps_it(directory, tmp_path, monkeypatch, magic, written):
    lengths = []
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: (lengths.append(len(data)), real(fd, data, at))[1])
    monkeypatch.setattr("walsvc.disk.directory.magic_of", lambda _: magic)
    directory.allocate("a.spare", 2 << 20, reserved=True)
    assert sum(lengths) == written
    assert (tmp_path / "a.spare").stat().st_blocks * 512 >= 2 << 20
    assert (tmp_path / "a.spare").read_bytes() == bytes(2 << 20)


def test_zeros_are_written_where_no_room_can_be_reserved(directory, tmp_path, monkeypatch):
    fail_nth(monkeypatch, "posix_fallocate", 1, errno.EOPNOTSUPP)
    directory.allocate("a.spare", 1 << 20, reserved=True)
    assert (tmp_path / "a.spare").stat().st_blocks * 512 >= 1 << 20
    assert (tmp_path / "a.spare").read_bytes() == bytes(1 << 20)


@pytest.mark.parametrize("call", ["sync", "sync_directory", "rename", "write", "remove"])
def test_no_error_of_a_sync_or_a_name_is_dropped(directory, monkeypatch, call):
    directory.allocate("a.wal", 1 << 20)
    inner = {"sync": "fdatasync", "sync_directory": "fsync", "write": "fdatasync", "remove": "unlink"}.get(call, call)
    fail_nth(monkeypatch, inner, 1, errno.EIO)
    arguments = {
        "sync": ("a.wal",),
        "rename": ("a.wal", "b.wal"),
        "write": ("a.wal", 0, bytes(BLOCK)),
        "remove": ("a.wal",),
    }
    with pytest.raises(OSError) as caught:  # noqa: PT011
        getattr(directory, call)(*arguments.get(call, ()))
    assert caught.value.errno == errno.EIO


def test_read_error_is_not_the_end_of_the_file(directory, monkeypatch):
    directory.allocate("a.wal", 1 << 20)
    fail_nth(monkeypatch, "preadv", 1, errno.EIO)
    with pytest.raises(OSError) as caught:  # noqa: PT011
        directory.read("a.wal", 0, BLOCK)
    assert caught.value.errno == errno.EIO


def test_short_reads_are_gone_on_with(directory, tmp_path, monkeypatch):
    data = os.urandom(10 * BLOCK)
    (tmp_path / "a.wal").write_bytes(data)
    real, most = os.preadv, BLOCK if directory.direct else 1000
    monkeypatch.setattr(os, "preadv", lambda fd, views, offset: real(fd, [views[0][:most]], offset))
    assert directory.read("a.wal", 5, 9 * BLOCK) == data[5 : 5 + 9 * BLOCK]
    assert directory.read("a.wal", 5, 20 * BLOCK) == data[5:]


@pytest.mark.parametrize("offset", [0, 1, BLOCK])
def test_reads_beyond_one_buffer(directory, tmp_path, offset):
    data = os.urandom(READ_BYTES_MAX + 3 * BLOCK + 17)
    (tmp_path / "a.wal").write_bytes(data)
    assert directory.read("a.wal", offset, len(data)) == data[offset:]
    assert directory.read("a.wal", offset, READ_BYTES_MAX) == data[offset : offset + READ_BYTES_MAX]


@pytest.mark.parametrize("directory", [True], indirect=True, ids=["direct"])
def test_no_read_call_asks_the_device_for_much_at_once(directory, tmp_path, monkeypatch):
    """A commit waits for what the device is reading."""
    data = os.urandom(1 << 20)
    (tmp_path / "a.wal").write_bytes(data)
    real, asked = os.preadv, list[int]()
    monkeypatch.setattr(os, "preadv", lambda fd, views, at: (asked.append(len(views[0])), real(fd, views, at))[1])
    view = aligned_buffer(1 << 20)
    assert directory.read_into("a.wal", 0, view) == 1 << 20
    assert view == data
    assert directory.read("a.wal", 0, 1 << 20) == data
    assert max(asked) == 256 << 10


def test_only_regular_files_are_listed(directory, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "link").symlink_to("a.wal")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "a.wal").write_bytes(b"abc")
    assert directory.list() == {"a.wal": 3}
    with pytest.raises(OSError, match="symbolic"):
        directory.read("link", 0, 1)


def test_names_are_those_of_the_directory_that_was_opened(tmp_path):
    (tmp_path / "log").mkdir()
    directory = open_directory(tmp_path / "log", direct=False)
    (tmp_path / "log").rename(tmp_path / "moved")
    (tmp_path / "log").mkdir()
    directory.allocate("a.wal", BLOCK)
    assert [entry.name for entry in (tmp_path / "moved").iterdir()] == ["a.wal"]
    assert list((tmp_path / "log").iterdir()) == []


def test_write_all_goes_on_after_a_short_write(tmp_path, monkeypatch):
    file = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:BLOCK], offset))
    data = os.urandom(5 * BLOCK + 3)
    write_all(file, memoryview(data), 10)
    assert os.pread(file, 1 << 20, 10) == data
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: 512)
    with pytest.raises(OSError, match="short write: 512 of 8192") as caught:
        write_all(file, aligned_buffer(2 * BLOCK), 0, block_bytes=BLOCK)
    assert caught.value.errno == errno.EIO
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: 0)
    with pytest.raises(OSError, match="short write: 0 of"):
        write_all(file, aligned_buffer(BLOCK), 0)
    os.close(file)


def descriptors_in(path: str) -> int:
    """Descriptors of this process that are open on a directory, or on a file in it."""
    names = []
    for each in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the one that listed them
            names.append(os.readlink(f"/proc/self/fd/{each}"))
    return sum(name.startswith(path) for name in names)


def test_close_releases_every_descriptor_and_lost_handles(directory):
    directory.allocate("a.wal", BLOCK)
    handles = [directory.open_file("a.wal") for _ in range(5)]
    assert descriptors_in(directory.path) >= 6, "the directory's own, too"
    directory.close()
    directory.close()
    assert descriptors_in(directory.path) == 0
    for handle in handles:
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(handle)


def page_cache_pages(path: Path) -> int:
    """Resident pages of a file, by mincore(2) over a mapping of it."""
    import ctypes
    import mmap

    length = path.stat().st_size
    with path.open("r+b") as file, mmap.mmap(file.fileno(), length) as mapping:
        anchor = ctypes.c_char.from_buffer(mapping)
        vector = (ctypes.c_ubyte * (length // mmap.PAGESIZE))()
        assert (
            ctypes.CDLL(None).mincore(ctypes.c_void_p(ctypes.addressof(anchor)), ctypes.c_size_t(length), vector) == 0
        )
        del anchor
        return sum(flag & 1 for flag in vector)


def test_allocating_and_reading_leave_the_page_cache_flat(directory, tmp_path):
    directory.allocate("a.wal", 8 << 20)
    assert directory.read("a.wal", 0, 8 << 20) == bytes(8 << 20)
    if page_cache_pages(tmp_path / "a.wal") == 2048 and not directory.direct:
        pytest.skip("the file system keeps its files in memory")
    assert page_cache_pages(tmp_path / "a.wal") < 64


async def test_cold_calls_never_run_on_the_loops_thread(directory, monkeypatch):
    gc.collect()  # what earlier tests dropped is closed here and not below
    here = threading.get_ident()
    threads: set[int] = set()
    for call in ("open", "close", "fsync", "fdatasync", "rename", "unlink", "pwrite", "scandir", "fstatvfs"):
        real = getattr(os, call)

        def watched(*args: Any, _real: Any = real, **kwargs: Any) -> Any:
            threads.add(threading.get_ident())
            return _real(*args, **kwargs)

        monkeypatch.setattr(os, call, watched)
    disk = ThreadsDisk(directory, loop=asyncio.get_running_loop(), dsync=True, reason="test")
    await disk.allocate("a.wal", 1 << 20)
    await disk.write("a.wal", 0, bytes(BLOCK))
    await disk.read("a.wal", 0, BLOCK)
    await disk.sync("a.wal")
    await disk.close_file(await disk.open_file("a.wal"))
    await disk.rename("a.wal", "b.wal")
    await disk.sync_directory()
    await disk.list()
    await disk.free_bytes()
    await disk.remove("b.wal")
    await disk.close()
    assert threads
    assert here not in threads


async def test_close_comes_back_while_a_cancelled_call_still_runs(directory, monkeypatch):
    disk = ThreadsDisk(directory, loop=asyncio.get_running_loop(), dsync=True, reason="test")
    entered, leave = threading.Event(), threading.Event()

    def slow(*args: Any) -> None:
        entered.set()
        assert leave.wait(60)

    monkeypatch.setattr(directory, "sync_directory", slow)
    syncing = asyncio.create_task(disk.sync_directory())
    await asyncio.get_running_loop().run_in_executor(None, entered.wait, 60)
    syncing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await syncing
    closing = asyncio.create_task(disk.close())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not closing.done(), "close waits for the thread, whose caller is gone"
    leave.set()
    await closing


@pytest.mark.parametrize(("magic", "known"), [(EXT4_MAGIC, True), (0x65735546, False), (0x6969, False), (None, False)])
def test_a_server_is_not_asked_whether_a_file_has_a_name_left(tmp_path, monkeypatch, magic, known) -> None:
    """The loop asks: what it learns must be in memory, also of FUSE and NFS."""
    monkeypatch.setattr(module, "magic_of", lambda _descriptor: magic)
    directory = open_directory(tmp_path, direct=False)
    directory.allocate("file", BLOCK)
    file = directory.open_file("file")
    assert not directory.spoilt(file)
    os.unlink(tmp_path / "file")
    asked: list[int] = []
    real = os.fstat
    monkeypatch.setattr(module, "magic_of", lambda _descriptor: asked.append(0))
    monkeypatch.setattr(os, "fstat", lambda descriptor: (asked.append(descriptor), real(descriptor))[1])
    assert directory.spoilt(file) == known
    assert asked == ([file] if known else [])
