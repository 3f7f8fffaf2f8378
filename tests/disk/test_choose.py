"""Opening a directory: the lock, the choice of the disk with its reason, and an error in words for each bad place."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from walsvc.config import WalConfig
from walsvc.disk import choose, measure, paths, ring
from walsvc.disk.base import Disk
from walsvc.disk.choose import open_disk
from walsvc.disk.measure import Findings, dsync_wins, say_timings
from walsvc.errors import BadOption, Locked, NoSpace, PathError
from walsvc.log.offline.backup import copy_log
from walsvc.log.writer import WalWriter
from walsvc.service.server.server import Server


async def opened(path: str | os.PathLike[str], *, exclusive: bool = True, **options: Any) -> Disk:
    config = WalConfig(**options)
    return await open_disk(path, config=config, loop=asyncio.get_running_loop(), exclusive=exclusive)


@pytest.fixture
def no_uring(monkeypatch):
    """Makes the kernel refuse rings with the errno given."""

    def refuse(number: int) -> None:
        def make(entries: int = 0) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(ring, "KernelRing", make)
        monkeypatch.setattr(choose, "UringDisk", lambda *args, **kwargs: make())

    return refuse


async def test_missing_directories_are_made(tmp_path):
    disk = await opened(tmp_path / "a" / "b" / "c")
    assert set(os.listdir(tmp_path / "a" / "b" / "c")) == {"LOCK"}
    assert disk.path == str(tmp_path / "a" / "b" / "c")
    await disk.close()


async def test_new_names_are_synced_from_the_top_down(tmp_path, monkeypatch):
    steps: list[str] = []
    real_mkdir, real_sync = os.mkdir, paths.sync_directory
    monkeypatch.setattr(
        os, "mkdir", lambda path, *rest: (steps.append(f"mkdir {Path(path).name}"), real_mkdir(path))[1]
    )
    monkeypatch.setattr(
        paths, "sync_directory", lambda path: (steps.append(f"sync {Path(path).name}"), real_sync(path))[1]
    )
    (tmp_path / "top").mkdir()
    steps.clear()
    paths.make_durably(str(tmp_path / "top" / "a" / "b"))
    assert steps == [f"sync {tmp_path.name}", "mkdir a", "sync top", "mkdir b", "sync a"]
    steps.clear()
    paths.make_durably(str(tmp_path / "top" / "a" / "b"))
    assert steps == ["sync a"]


async def test_failed_sync_of_a_new_directory_fails_the_opening(tmp_path, monkeypatch):
    def fail(path: str) -> None:
        raise OSError(errno.EIO, "sync failed")

    monkeypatch.setattr(paths, "sync_directory", fail)
    with pytest.raises(PathError) as caught:
        await opened(tmp_path / "log")
    assert caught.value.errno == errno.EIO


@pytest.mark.parametrize("read_only", [True, False])
async def test_a_file_in_place_of_the_directory(tmp_path, read_only):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "log"):
        with pytest.raises(PathError) as caught:
            await opened(path, read_only=read_only)
        assert caught.value.errno == errno.ENOTDIR
        assert caught.value.path == str(path)
        assert "directory" in str(caught.value)
        assert caught.value.hint


@pytest.mark.parametrize(
    ("path", "number"), [("", errno.ENOENT), ("a\0b", errno.EINVAL), ("x" * 300, errno.ENAMETOOLONG)]
)
async def test_paths_that_no_file_system_has(tmp_path, monkeypatch, path, number):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PathError) as caught:
        await opened(path)
    assert caught.value.errno == number
    assert os.listdir(tmp_path) == []


async def test_something_that_is_no_path():
    with pytest.raises(BadOption, match="not a path"):
        await opened(7)  # type: ignore[arg-type]


async def test_link_loop(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(PathError) as caught:
        await opened(tmp_path / "loop")
    assert caught.value.errno == errno.ELOOP


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EMFILE, errno.EIO, errno.ENOLCK])
async def test_errors_of_the_system_become_path_errors_with_hints(tmp_path, monkeypatch, number):
    def fail(*args: Any, **kwargs: Any) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(choose, "open_directory", fail)
    with pytest.raises(PathError) as caught:
        await opened(tmp_path / "log")
    assert caught.value.errno == number
    assert os.strerror(number) in str(caught.value)
    assert (caught.value.hint is None) == (number == errno.EIO)


async def test_missing_directory_is_not_made_for_a_reader(tmp_path):
    with pytest.raises(PathError) as caught:
        await opened(tmp_path / "log", read_only=True, exclusive=False)
    assert caught.value.errno == errno.ENOENT
    assert "not created" in str(caught.value)
    assert not (tmp_path / "log").exists()


async def test_a_reader_changes_nothing_and_takes_no_lock(tmp_path):
    writer = await opened(tmp_path / "log")
    await writer.allocate("0000000000000001.wal", 65536)
    before = {entry.name: entry.stat().st_mtime_ns for entry in (tmp_path / "log").iterdir()}
    stamp = (tmp_path / "log").stat().st_mtime_ns
    reader = await opened(tmp_path / "log", read_only=True, exclusive=False)
    assert await reader.read("0000000000000001.wal", 5, 100) == bytes(100)
    assert reader.direct == writer.direct
    await reader.close()
    assert {entry.name: entry.stat().st_mtime_ns for entry in (tmp_path / "log").iterdir()} == before
    assert (tmp_path / "log").stat().st_mtime_ns == stamp
    await writer.close()


async def test_second_opener_is_refused_at_once_and_told_by_whom(tmp_path):
    first = await opened(tmp_path / "log")
    with pytest.raises(Locked, match="in this process") as caught:
        await opened(tmp_path / "log")
    assert caught.value.path == str(tmp_path / "log")
    assert "read_only" in (caught.value.hint or "")
    assert (tmp_path / "log" / "LOCK").read_text() == f"{os.getpid()}\n"
    await first.close()
    await (await opened(tmp_path / "log")).close()


async def test_refused_opener_leaves_no_descriptor(tmp_path):
    first = await opened(tmp_path / "log")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(Locked):
            await opened(tmp_path / "log")
    assert len(os.listdir("/proc/self/fd")) == before
    await first.close()


@pytest.mark.parametrize("times", [1, 3])
async def test_cancelled_opener_has_released_everything_when_it_ends(tmp_path, monkeypatch, times):
    locked, go_on = threading.Event(), threading.Event()
    find = choose.find

    def wait_and_find(*args: Any) -> Findings:
        locked.set()
        assert go_on.wait(60)
        return find(*args)

    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        patch.setattr(choose, "find", wait_and_find)
        opening = asyncio.create_task(opened(tmp_path / "log"))
        await asyncio.to_thread(locked.wait)
        for _ in range(times):
            opening.cancel()
            await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert len(os.listdir("/proc/self/fd")) == before
    disk = await opened(tmp_path / "log")
    await disk.close()


async def test_auto_takes_uring_where_it_can(tmp_path):
    if why := ring.why_not():
        pytest.skip(why)
    disk = await opened(tmp_path)
    assert disk.kind == "uring"
    assert disk.reason.startswith("io_uring with ")
    assert " us" in disk.reason
    await disk.close()


@pytest.mark.parametrize(
    ("number", "word"), [(errno.EPERM, "seccomp"), (errno.ENOSYS, "ENOSYS"), (errno.ENOMEM, "ulimit")]
)
async def test_auto_falls_back_to_threads_and_says_why(tmp_path, no_uring, number, word):
    if not ring.extension_built():
        pytest.skip("the extension was not built, which is another reason")
    no_uring(number)
    disk = await opened(tmp_path)
    assert disk.kind == "threads"
    assert "no io_uring" in disk.reason
    assert word in disk.reason
    await disk.close()
    with pytest.raises(BadOption, match=word) as caught:
        await opened(tmp_path, disk="uring")
    assert 'disk="threads"' in (caught.value.hint or "")
    await (await opened(tmp_path, disk="threads")).close()


async def test_extension_that_was_not_built(tmp_path, monkeypatch):
    monkeypatch.setattr(ring, "_uring", None)
    disk = await opened(tmp_path)
    assert disk.kind == "threads"
    assert "not built" in disk.reason
    await disk.close()
    with pytest.raises(BadOption, match="not built") as caught:
        await opened(tmp_path, disk="uring")
    assert "liburing-dev" in (caught.value.hint or "")


async def test_full_device_still_opens(tmp_path, monkeypatch):
    def full(*args: Any, **kwargs: Any) -> Findings:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(choose, "try_directory", full)
    disk = await opened(tmp_path)
    assert await disk.list() == {"LOCK": len(str(os.getpid())) + 1}
    await disk.close()


async def test_device_without_room_for_the_directory_is_no_space(tmp_path, monkeypatch):
    def full(*args: Any, **kwargs: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(choose, "open_directory", full)
    with pytest.raises(NoSpace) as caught:
        await opened(tmp_path)
    assert caught.value.errno == errno.ENOSPC


async def test_without_o_direct_the_page_cache_is_used_unless_direct_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "find_block_bytes", lambda file, zeros: 1)
    disk = await opened(tmp_path)
    assert not disk.direct
    assert "page cache" in disk.reason
    await disk.close()
    with pytest.raises(BadOption, match="O_DIRECT"):
        await opened(tmp_path, direct=True)


async def test_block_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "find_block_bytes", lambda file, zeros: 8192)
    monkeypatch.setattr(measure, "time_methods", lambda *args: {})
    disk = await opened(tmp_path, disk="threads")
    assert (disk.direct, disk.block_bytes) == (True, 8192)
    await disk.close()
    disk = await opened(tmp_path, disk="threads", block_bytes=16384)
    assert disk.block_bytes == 16384
    await disk.close()
    disk = await opened(tmp_path, disk="threads", block_bytes=4096)
    assert (disk.direct, disk.block_bytes) == (False, 4096)
    assert "8192" in disk.reason
    await disk.close()
    with pytest.raises(BadOption, match="block_bytes=4096"):
        await opened(tmp_path, disk="threads", block_bytes=4096, direct=True)


async def test_direct_false_is_obeyed(tmp_path):
    disk = await opened(tmp_path, direct=False)
    assert not disk.direct
    await disk.close()


async def test_probe_file_is_gone_also_a_left_over_one(tmp_path):
    (tmp_path / "probe.spare").write_bytes(b"left over")
    disk = await opened(tmp_path)
    assert set(await disk.list()) == {"LOCK"}
    await disk.close()


async def test_timing_is_made_once_for_a_device(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "_measured", {})
    timed: list[int] = []
    real = measure.time_methods
    monkeypatch.setattr(measure, "time_methods", lambda *args: (timed.append(1), real(*args))[1])
    for name in ("a", "b", "c"):
        await (await opened(tmp_path / name)).close()
    assert len(timed) == 1


def test_timing_stops_when_its_time_is_up(monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(measure.time, "perf_counter", lambda: float(next(clock)))
    calls: list[int] = []
    timings = measure.time_in_turn({"dsync": calls.append}, 4096)
    assert len(calls) == 2, "one to warm up, one that counts"
    assert timings == {"dsync": 1e6}


def test_method_that_fails_is_left_out():
    def fail(offset: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    timings = measure.time_in_turn({"dsync": fail, "fdatasync": lambda offset: None}, 4096)
    assert set(timings) == {"fdatasync"}


@pytest.mark.parametrize(
    ("timings", "wins", "words"),
    [
        ({}, True, "io_uring with RWF_DSYNC"),
        ({"uring dsync": 78.0, "uring fdatasync": 95.0}, True, "io_uring with RWF_DSYNC: 78 us against 95 us for write and fdatasync"),
        ({"uring dsync": 95.0, "uring fdatasync": 94.0}, True, "io_uring with RWF_DSYNC: 95 us against 94 us for write and fdatasync"),
        ({"uring dsync": 95.0, "uring fdatasync": 70.0}, False, "io_uring with write and fdatasync: 70 us against 95 us for RWF_DSYNC"),
        ({"uring fdatasync": 78.0}, False, "io_uring with write and fdatasync: 78 us"),
        ({"uring dsync": 78.0}, True, "io_uring with RWF_DSYNC: 78 us"),
    ],
)  # fmt: skip
def test_choice_between_the_ways_to_sync(timings, wins, words):
    assert dsync_wins(timings, "uring ") is wins
    assert say_timings(timings, "io_uring", "uring ") == words


async def test_url_is_no_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for url, takes in (
        ("nats://h1,h2,h3/s", "replicate"),
        ("unix:///run/walsvc.sock", "walsvc.open"),
        ("wals://host/orders?timeout=1", "walsvc.open"),
        ("s3://bucket/prefix", "archive"),
        ("ftp://host/x", "path"),
    ):
        for call in (
            opened(url),
            opened(os.fsencode(url)),
            WalWriter.open(url),
            copy_log(tmp_path / "log", url, sparse=False),
            copy_log(url, str(tmp_path / "copy"), sparse=False),
        ):
            with pytest.raises(BadOption, match="not a URL") as caught:
                await call
            assert takes in caught.value.hint
        with pytest.raises(BadOption, match="not a URL"):
            Server(url, unix=tmp_path / "s")
    with pytest.raises(BadOption, match="not a URL") as caught:
        await opened("nats://user:secret@h/s")
    assert "secret" not in str(caught.value)
    assert not list(tmp_path.iterdir())
