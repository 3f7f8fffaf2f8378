"""Where copies of a log are made: any empty directory will do, and half a copy is never taken for a log."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

import walsvc
from tests.mounts import mounted
from walsvc.disk.paths import UNFINISHED
from walsvc.errors import NoSpace, PathError
from walsvc.log.offline import destination as destination_module
from walsvc.log.offline.backup import copy_log
from walsvc.log.offline.destination import destination
from walsvc.log.offline.repair import copy_aside

RECORDS = 40


async def a_log(path: Path) -> Path:
    async with walsvc.open(path, segment_bytes=1 << 16) as log:
        for _ in range(RECORDS):
            await log.append(bytes(3000))
    return path


async def lsns(path: Path) -> list[int]:
    async with walsvc.open(path, read_only=True) as log:
        return [record.lsn async for record in log.read()]


def existing(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


def linked(tmp_path: Path) -> Path:
    existing(tmp_path)
    (tmp_path / "link").symlink_to("empty")
    return tmp_path / "link"


def dangling(tmp_path: Path) -> Path:
    (tmp_path / "link").symlink_to("not there yet")
    return tmp_path / "link"


def with_lost_and_found(tmp_path: Path) -> Path:
    (existing(tmp_path) / "lost+found").mkdir()
    return tmp_path / "empty"


def below_missing_ones(tmp_path: Path) -> Path:
    return tmp_path / "a" / "b" / "c"


@pytest.mark.parametrize("place", [existing, linked, dangling, with_lost_and_found, below_missing_ones])
async def test_log_is_restored_into_an_empty_directory_of_any_kind(
    tmp_path: Path, place: Callable[[Path], Path]
) -> None:
    source, target = await a_log(tmp_path / "log"), place(tmp_path)
    inode = target.stat().st_ino if target.exists() else None
    await copy_log(source, os.fspath(target), sparse=False)
    assert await lsns(target) == list(range(1, RECORDS + 1))
    assert inode in (None, target.stat().st_ino)  # filled, not replaced
    assert not (target / UNFINISHED).exists()
    with pytest.raises(PathError, match="not an empty directory"):
        await copy_log(source, os.fspath(target), sparse=False)


@pytest.fixture
def mount_point(tmp_path: Path) -> Iterator[Path]:
    """An empty file system of its own."""
    with mounted("tmpfs", tmp_path / "mounted", 8) as place:
        yield place


async def test_log_is_restored_into_a_mount_point_and_repaired_there(tmp_path: Path, mount_point: Path) -> None:
    source = await a_log(tmp_path / "log")
    await copy_log(source, os.fspath(mount_point), sparse=False)
    assert await lsns(mount_point) == list(range(1, RECORDS + 1))
    copy = Path(await copy_aside(os.fspath(mount_point)))
    assert copy.parent == mount_point  # the directory above is another file system's
    assert await lsns(copy) == list(range(1, RECORDS + 1))
    assert await lsns(mount_point) == list(range(1, RECORDS + 1))


def fail_below(monkeypatch: pytest.MonkeyPatch, parent: Path) -> None:
    """Only what is in `parent` may be changed, not `parent`: for root, who may everything."""
    for name in ("mkdir", "rename", "rmdir"):
        call = getattr(os, name)

        def refusing(path: str, *args: object, call: Callable[..., object] = call, **kwargs: object) -> object:
            if Path(os.fspath(path)).parent == parent:
                raise PermissionError(errno.EACCES, "Permission denied", path)
            return call(path, *args, **kwargs)

        monkeypatch.setattr(os, name, refusing)


async def test_nothing_is_made_in_the_directory_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = await a_log(tmp_path / "log"), existing(tmp_path)
    fail_below(monkeypatch, tmp_path)
    await copy_log(source, os.fspath(target), sparse=False)
    assert await lsns(target) == list(range(1, RECORDS + 1))
    copy = Path(await copy_aside(os.fspath(target)))
    assert copy.parent == target
    with pytest.raises(PathError, match="cannot write the destination: Permission denied") as caught:
        await copy_log(source, os.fspath(tmp_path / "new"), sparse=False)
    assert caught.value.path == os.fspath(tmp_path / "new")


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ENOSPC, NoSpace), (errno.EIO, PathError), (errno.EROFS, PathError)]
)
async def test_error_of_the_destination_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[walsvc.WalError]
) -> None:
    source, target = await a_log(tmp_path / "log"), existing(tmp_path)
    before = await asyncio.to_thread(lambda: sorted(each.name for each in source.iterdir()))

    def failing(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(destination_module.os, "fsync", failing)
    with pytest.raises(kind, match="cannot write the destination") as caught:
        await copy_log(source, os.fspath(target), sparse=False)
    monkeypatch.undo()
    assert str(target) in str(caught.value.path)
    assert os.listdir(target) == []
    assert sorted(each.name for each in source.iterdir()) == before
    await copy_log(source, os.fspath(target), sparse=False)


async def refused(call: Awaitable[object]) -> None:
    with pytest.raises(PathError, match="under way, or was cut short"):
        await call


@pytest.mark.parametrize("moved", [0, 1, 2])
async def test_half_a_copy_is_no_log_until_it_is_made_again(
    tmp_path: Path, moved: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while files are written, or after so many of them were moved up."""
    source, target = await a_log(tmp_path / "log"), existing(tmp_path)
    script = f"""
import asyncio, os, signal
from walsvc.log.offline import backup, destination
left, rename = {moved}, os.rename
def dying(*names):
    global left
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    rename(*names)
os.rename = dying
asyncio.run(backup.copy_log({os.fspath(source)!r}, {os.fspath(target)!r}, sparse=False))
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -signal.SIGKILL
    assert sum(each.suffix == ".wal" for each in target.iterdir()) == moved
    names = sorted(os.listdir(target))
    await refused(opened(target))
    await refused(opened(target, read_only=True))
    await refused(copy_log(target, os.fspath(tmp_path / "other"), sparse=False))
    assert sorted(os.listdir(target)) == names
    assert not (tmp_path / "other").exists()
    await copy_log(source, os.fspath(target), sparse=False)
    assert await lsns(target) == list(range(1, RECORDS + 1))


async def opened(path: Path, **options: bool) -> None:
    async with walsvc.open(path, **options):
        pass


async def test_two_copies_to_one_place_do_not_mix(tmp_path: Path) -> None:
    source, target = await a_log(tmp_path / "log"), tmp_path / "new"
    async with destination(os.fspath(target)):
        with pytest.raises(PathError, match="another copy to this directory is under way"):
            await copy_log(source, os.fspath(target), sparse=False)
        assert (target / UNFINISHED).exists()
