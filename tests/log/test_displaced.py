"""Somebody removes, replaces, cuts or moves files of a log that is open: no second writer gets in, and the first one notices."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import walsvc
from walsvc.disk import lock as lock_module
from walsvc.disk.doctor import probe
from walsvc.errors import DurabilityLost, Locked
from walsvc.log.offline.backup import copy_log

Change = Callable[[Path], None]


def lock_removed(path: Path) -> None:
    (path / "LOCK").unlink()


def lock_replaced(path: Path) -> None:
    (path / "new").write_bytes(b"")
    (path / "new").replace(path / "LOCK")


def lock_moved_aside(path: Path) -> None:
    (path / "LOCK").rename(path / "LOCK.old")


def directory_moved(path: Path) -> None:
    path.rename(path.with_name("moved"))


def directory_made_anew(path: Path) -> None:
    directory_moved(path)
    path.mkdir()


def directory_removed(path: Path) -> None:
    shutil.rmtree(path)


def copy_in_its_place(path: Path) -> None:
    directory_moved(path)
    shutil.copytree(path.with_name("moved"), path)


def restored_in_place(path: Path) -> None:
    """As rsync and tar do it: each file anew, under a name that takes the old one's place."""
    for each in path.glob("*.wal"):
        shutil.copy2(each, path / "new")
        (path / "new").replace(each)


def segment_removed(path: Path) -> None:
    max(path.glob("*.wal")).unlink()


def linked_segment_replaced(path: Path) -> None:
    """The old file has another name, so it still has links."""
    newest = max(path.glob("*.wal"))
    newest.with_suffix(".kept").hardlink_to(newest)
    shutil.copy2(newest, path / "new")
    (path / "new").replace(newest)


def segment_cut(path: Path) -> None:
    newest = max(path.glob("*.wal"))
    os.truncate(newest, newest.stat().st_size - 1)


CHANGES = [
    lock_removed,
    lock_replaced,
    lock_moved_aside,
    directory_moved,
    directory_made_anew,
    directory_removed,
    copy_in_its_place,
    restored_in_place,
    segment_removed,
    linked_segment_replaced,
    segment_cut,
]
LOCKS = CHANGES[:3]


@pytest.mark.parametrize("change", CHANGES)
async def test_writer_notices_at_the_next_flush(tmp_path: Path, change: Change) -> None:
    log = await walsvc.open(tmp_path / "log")
    await log.append(b"before")
    assert await log.flush() == 1
    change(tmp_path / "log")
    with pytest.raises(DurabilityLost, match="changed under its writer") as caught:
        await log.flush()
    assert caught.value.errno == errno.ESTALE
    assert caught.value.hint
    with pytest.raises(DurabilityLost):
        log.append(b"after")
    for call in (log.flush(), log.truncate_before(1)):
        with pytest.raises(DurabilityLost):
            await call
    await log.close()


@pytest.mark.parametrize("change", CHANGES)
async def test_writer_notices_when_it_closes(tmp_path: Path, change: Change) -> None:
    log = await walsvc.open(tmp_path / "log")
    await log.append(b"before")
    change(tmp_path / "log")
    await log.append(b"between")  # into whatever was opened: see WalWriter.flush
    with pytest.raises(DurabilityLost, match="changed under its writer"):
        await log.close()


@pytest.mark.parametrize("change", CHANGES)
async def test_writer_notices_when_it_begins_a_segment(tmp_path: Path, change: Change) -> None:
    log = await walsvc.open(tmp_path / "log", segment_bytes=1 << 16)
    await log.append(bytes(1000))
    change(tmp_path / "log")
    after = sorted((tmp_path / "log").glob("*")) if (tmp_path / "log").exists() else []
    with pytest.raises(DurabilityLost):
        for _ in range(60):
            await log.append(bytes(1000))
    assert len(log.writer.segments.ids()) == 1
    kept = [each for each in after if each.suffix == ".wal"]
    assert all(each.exists() for each in kept)
    await log.close()


@pytest.mark.parametrize("change", [restored_in_place, copy_in_its_place, lock_replaced])
async def test_truncating_touches_no_file_that_was_put_in_place_of_the_logs(tmp_path: Path, change: Change) -> None:
    log = await walsvc.open(tmp_path / "log", segment_bytes=1 << 16)
    for _ in range(60):
        await log.append(bytes(1000))
    change(tmp_path / "log")
    names = sorted(os.listdir(tmp_path / "log"))
    with pytest.raises(DurabilityLost):
        await log.truncate_before(50)
    assert sorted(os.listdir(tmp_path / "log")) == names
    with contextlib.suppress(DurabilityLost):
        await log.close()


@pytest.mark.parametrize("change", LOCKS)
async def test_second_writer_stays_out_without_the_lock_file(tmp_path: Path, change: Change) -> None:
    log = await walsvc.open(tmp_path / "log")
    await log.append(b"only")
    change(tmp_path / "log")
    present = (tmp_path / "log" / "LOCK").exists()
    with pytest.raises(Locked):
        await walsvc.open(tmp_path / "log")
    assert (tmp_path / "log" / "LOCK").exists() == present
    async with walsvc.open(tmp_path / "log", read_only=True) as reader:
        assert [record.payload async for record in reader.read()] == [b"only"]
    with pytest.raises(DurabilityLost):
        await log.close()
    async with walsvc.open(tmp_path / "log") as again:
        assert [record.payload async for record in again.read()] == [b"only"]


async def test_read_only_log_does_not_mind(tmp_path: Path) -> None:
    async with walsvc.open(tmp_path / "log") as log:
        await log.append(b"record")
    async with walsvc.open(tmp_path / "log", read_only=True) as reader:
        lock_removed(tmp_path / "log")
        directory_moved(tmp_path / "log")
        assert [record.payload async for record in reader.read()] == [b"record"]


async def test_what_the_log_itself_renames_and_removes_is_no_displacement(tmp_path: Path) -> None:
    async with walsvc.open(tmp_path / "log", segment_bytes=1 << 16) as log:
        for turn in range(1, 120):
            await log.append(bytes(2000))
            await log.flush()
            if turn % 30 == 0:
                await log.truncate_before(log.next_lsn - 10)
            if turn % 40 == 0:
                await log.truncate_after(log.next_lsn - 3)
                await log.append(bytes(70_000))
                await log.flush()


async def test_log_behind_a_link_and_a_changed_working_directory_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    async with walsvc.open("link") as log:
        monkeypatch.chdir("/")
        await log.append(b"x")
        assert await log.flush() == 1


async def test_where_directories_cannot_be_locked_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS: the lock file is all that there is."""
    real = lock_module.fcntl.flock

    def flock(file: int, operation: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{file}"):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        real(file, operation)

    monkeypatch.setattr(lock_module.fcntl, "flock", flock)
    assert any("the directory itself cannot be locked here" in each for each in probe(os.fspath(tmp_path)).advice)
    assert os.listdir(tmp_path) == []
    async with walsvc.open(tmp_path / "log") as log:
        assert "the directory itself cannot be locked here" in log.stats().disk_reason
        with pytest.raises(Locked, match="in this process"):
            await walsvc.open(tmp_path / "log")


async def test_backup_of_a_log_whose_lock_is_gone_goes_on(tmp_path: Path) -> None:
    async with walsvc.open(tmp_path / "log") as log:
        await log.append(b"record")
    lock_removed(tmp_path / "log")
    copied = await copy_log(tmp_path / "log", os.fspath(tmp_path / "copy"), sparse=True)
    assert copied.next_lsn == 2
