"""Files that are not only ours, or not what they were: each is used rightly or refused with the reason."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

import walsvc
from walsvc.config import WalConfig
from walsvc.disk.sim import SimDevice, SimDisk, run_sim
from walsvc.errors import NoSpace, PathError, WalError
from walsvc.log.offline.backup import copy_log
from walsvc.log.offline.verify import verify
from walsvc.opening import open_on

from ..disks import REAL_DISKS

SEGMENT = f"{1:016x}.wal"
OPTIONS = {"segment_bytes": 1 << 16}


async def a_log(path: Path, records: int = 100) -> Path:
    async with walsvc.open(path, **OPTIONS) as log:
        for _ in range(records):
            await log.append(bytes(3000))
    return path


async def lsns(path: Path) -> list[int]:
    async with walsvc.open(path, read_only=True) as log:
        return [record.lsn async for record in log.read()]


def linked_copy(path: Path, target: Path) -> dict[str, bytes]:
    """A copy of hard links, as of `cp -al`; what is in it."""
    subprocess.run(["cp", "-al", path, target], check=True)
    return contents(target)


def contents(path: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in path.iterdir() if each.name != "LOCK"}


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("double_write", ["off", "buffered"])
async def test_nothing_is_written_into_a_backup_of_hard_links(tmp_path: Path, beside: bool, double_write: str) -> None:
    source, options = await a_log(tmp_path / "log"), {**OPTIONS, "double_write": double_write}
    async with walsvc.open(source, **options) as log:
        await log.truncate_before(60)  # leaves spares
    log = await walsvc.open(source, **options) if beside else None
    before = linked_copy(source, tmp_path / "backup")
    if log is not None:
        await log.truncate_before(90)
        await log.close()
        before = {name: data for name, data in before.items() if name in sealed_names(source, before)}
    for _ in range(3):
        async with walsvc.open(source, **options) as log:
            for _ in range(60):
                await log.append(bytes(3000))
            await log.truncate_before(log.next_lsn - 5)
    after = contents(tmp_path / "backup")
    assert {name: after[name] for name in before} == before
    assert await lsns(source) == list(range(276, 281))
    if not beside:
        assert (await verify(tmp_path / "backup")).errors == []
        async with walsvc.open(tmp_path / "backup", **options) as log:
            assert (await log.append(b"on")).lsn == 101


def sealed_names(source: Path, names: dict[str, bytes]) -> set[str]:
    """All but the segment that was being written, and what was to be written next."""
    newest = max(name for name in names if name.endswith(".wal"))
    return {name for name in names if name.endswith(".wal") and name != newest}


def test_recycling_leaves_a_file_that_has_another_name() -> None:
    async def main(seed: int) -> None:
        device = SimDevice(seed)
        log = await open_on(SimDisk(device), WalConfig(segment_bytes=1 << 16))
        for _ in range(60):
            await log.append(bytes(3000))
        sealed = sorted(name for name in device.directory.names if name.endswith(".wal"))[:-1]
        kept = {device.inode(name) for name in sealed}
        device.linked |= kept
        await log.truncate_before(log.next_lsn - 1)
        for _ in range(60):
            await log.append(bytes(3000))
        named = set(device.directory.names.values())
        assert not kept & named, "they are removed, not written again"
        await log.close()

    run_sim(main, 1)


def test_a_full_device_changes_no_file_of_a_backup() -> None:
    async def main(seed: int) -> None:
        device = SimDevice(seed)
        log = await open_on(SimDisk(device), WalConfig(segment_bytes=1 << 16))
        await log.append(b"x")
        await log.close()
        device.linked.add(device.inode(SEGMENT))
        device.capacity = sum(device.file(name).visible_size for name in device.directory.names)
        with pytest.raises(NoSpace, match="hard-linked elsewhere") as caught:
            await open_on(SimDisk(device), WalConfig(segment_bytes=1 << 16))
        assert "remove the other name" in (caught.value.hint or "")
        device.linked.clear()
        log = await open_on(SimDisk(device), WalConfig(segment_bytes=1 << 16))
        assert log.next_lsn == 2
        await log.close()

    run_sim(main, 1)


def link(place: Path) -> None:
    place.rename(place.with_suffix(".kept"))
    place.symlink_to(place.with_suffix(".kept").name)


def link_elsewhere(place: Path) -> None:
    place.rename(place.parent.parent / "kept")
    place.symlink_to("../kept")


def dangling_link(place: Path) -> None:
    place.unlink()
    place.symlink_to("nothing")


def directory(place: Path) -> None:
    place.unlink()
    place.mkdir()


def fifo(place: Path) -> None:
    place.unlink()
    os.mkfifo(place)


def unix_socket(place: Path) -> None:
    place.unlink()
    with socket.socket(socket.AF_UNIX) as bound:
        here = os.getcwd()
        os.chdir(place.parent)  # the name of a socket must be short
        try:
            bound.bind(place.name)
        finally:
            os.chdir(here)


def upper_case(place: Path) -> None:
    place.rename(place.with_name(place.name.upper()))


KINDS = [link, link_elsewhere, dangling_link, directory, fifo, unix_socket, upper_case]


def tree(path: Path) -> dict[str, tuple[int, int]]:
    return {
        each.name: (each.lstat().st_ino, each.lstat().st_mtime_ns) for each in path.iterdir() if each.name != "LOCK"
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [SEGMENT, "newest", f"{7:016x}.spare", "double-write"])
async def test_what_is_no_file_of_the_log_is_refused_under_its_name(
    tmp_path: Path, kind: Callable[[Path], None], name: str
) -> None:
    path = await a_log(tmp_path / "log")
    if name == "newest":
        name = max(each.name for each in path.glob("*.wal"))
    (path / name).touch()
    kind(path / name)
    before = tree(path)
    for call in (
        walsvc.open(path),
        walsvc.open(path, read_only=True),
        copy_log(path, os.fspath(tmp_path / "copy"), sparse=False),
    ):
        with pytest.raises(PathError) as caught:
            await call
        assert name.lower() in str(caught.value).lower()
        assert caught.value.hint
    assert tree(path) == before
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("kind", KINDS[:-1])
async def test_link_in_place_of_the_only_segment_is_not_replaced_by_a_new_log(
    tmp_path: Path, kind: Callable[[Path], None]
) -> None:
    path = await a_log(tmp_path / "log", records=3)
    kind(path / SEGMENT)
    before = tree(path)
    with pytest.raises(PathError, match="no regular file"):
        await walsvc.open(path)
    assert tree(path) == before


@pytest.mark.parametrize("kind", [link, dangling_link, directory, fifo, unix_socket])
async def test_lock_that_is_no_file_is_refused(tmp_path: Path, kind: Callable[[Path], None]) -> None:
    path = await a_log(tmp_path / "log", records=3)
    kind(path / "LOCK")
    before = tree(path)
    with pytest.raises(PathError) as caught:
        await walsvc.open(path)
    assert caught.value.hint
    assert tree(path) == before
    assert await lsns(path) == [1, 2, 3]


@pytest.mark.parametrize("length", [0, 1, 4095, 4096, 40_000])
async def test_a_segment_that_is_cut_is_corruption_and_stays(tmp_path: Path, length: int) -> None:
    path = await a_log(tmp_path / "log", records=3)
    os.truncate(path / SEGMENT, length)
    before = tree(path)
    for read_only in (False, True):
        with pytest.raises(WalError) as caught:
            await walsvc.open(path, read_only=read_only)
        assert isinstance(caught.value, walsvc.Corruption)
    assert {name: row for name, row in tree(path).items() if name.endswith(".wal")} == {
        name: row for name, row in before.items() if name.endswith(".wal")
    }


@pytest.mark.parametrize("length", [0, 1, 30_000, 1 << 16, 1 << 20])
async def test_spare_of_any_length_is_used_rightly(tmp_path: Path, length: int) -> None:
    """Half prepared when the process died, or left by other options: full of noise, at that."""
    path = await a_log(tmp_path / "log")
    for each in path.glob("*.spare"):
        each.unlink()
    for number in (9, 10, 1 << 62):
        (path / f"{number:016x}.spare").write_bytes(b"\xa5" * length)
    async with walsvc.open(path, **OPTIONS) as log:
        for _ in range(100):
            await log.append(bytes(3000))
    assert (await verify(path)).errors == []
    assert await lsns(path) == list(range(1, 201))


async def test_foreign_files_are_left_alone(tmp_path: Path) -> None:
    path = await a_log(tmp_path / "log", records=3)
    (path / "notes.txt").write_bytes(b"ours")
    (path / f"{SEGMENT}.bak").write_bytes(b"a copy")
    (path / "sub").mkdir()
    (path / "link").symlink_to("notes.txt")
    before = tree(path)
    async with walsvc.open(path, **OPTIONS) as log:
        for _ in range(60):
            await log.append(bytes(3000))
        await log.truncate_before(60)
    assert {name: tree(path)[name] for name in ("notes.txt", f"{SEGMENT}.bak", "link")} == {
        name: before[name] for name in ("notes.txt", f"{SEGMENT}.bak", "link")
    }


async def test_directory_of_the_log_may_be_a_link(tmp_path: Path) -> None:
    await a_log(tmp_path / "real", records=3)
    (tmp_path / "link").symlink_to("real")
    async with walsvc.open(tmp_path / "link") as log:
        assert (await log.append(b"on")).lsn == 4
    assert await lsns(tmp_path / "real") == [1, 2, 3, 4]


def holes(path: Path) -> bool:
    status = path.stat()
    return status.st_blocks * 512 < status.st_size


async def test_holes_of_a_sparse_copy_are_filled_before_they_are_written_on(tmp_path: Path) -> None:
    path = await a_log(tmp_path / "log", records=3)
    shutil.copytree(path, tmp_path / "kept")
    await copy_log(path, os.fspath(tmp_path / "sparse"), sparse=True)
    segment = tmp_path / "sparse" / SEGMENT
    if not holes(segment):
        pytest.skip("the file system keeps no holes")
    async with walsvc.open(tmp_path / "sparse", **OPTIONS) as log:
        assert not holes(segment)
        assert (await log.append(b"on")).lsn == 4
    assert await lsns(tmp_path / "sparse") == [1, 2, 3, 4]


async def test_spare_that_is_a_sparse_copy_is_filled(tmp_path: Path) -> None:
    path = await a_log(tmp_path / "log")
    spares = list(path.glob("*.spare"))
    assert spares
    for each in spares:
        length = each.stat().st_size
        each.unlink()
        each.touch()
        os.truncate(each, length)
    async with walsvc.open(path, **OPTIONS) as log:
        for _ in range(60):
            await log.append(bytes(3000))
        assert not any(holes(each) for each in path.glob("*.wal"))


async def test_copies_of_any_kind_go_on(tmp_path: Path) -> None:
    """cp -a, cp --sparse=always, cp --reflink=auto, tar: all give a log."""
    path = await a_log(tmp_path / "log")
    for number, command in enumerate(
        (("cp", "-a"), ("cp", "-r", "--sparse=always"), ("cp", "-r", "--reflink=auto"), ("cp", "-rL")), 1
    ):
        copy = tmp_path / f"copy{number}"
        subprocess.run([*command, path, copy], check=True)
        async with walsvc.open(copy, **OPTIONS) as log:
            for _ in range(30):
                await log.append(bytes(3000))
        assert await lsns(copy) == list(range(1, 131))
    assert await lsns(path) == list(range(1, 101))


@pytest.mark.parametrize("after", [2, 12, 22, 60])
async def test_files_that_wait_to_be_used_may_be_removed_under_a_log(tmp_path: Path, after: int) -> None:
    """As somebody does who wants room. The one that is prepared for the next segment is in use."""
    async with walsvc.open(tmp_path, **OPTIONS) as log:
        for number in range(80):
            if number == after:
                await log.truncate_before(max(1, number - 30))
                for name in [each for each in os.listdir(tmp_path) if each.endswith(".spare") and each[0] in "48"]:
                    os.unlink(tmp_path / name)
            await log.append(bytes(3000))
        await log.hold("copy", 70)
    assert (await lsns(tmp_path))[-1] == 80


def cut(path: Path) -> None:
    os.truncate(path, 100)


def replaced_in_place(path: Path) -> None:
    path.write_bytes(b"something else")


@pytest.mark.parametrize("disk", REAL_DISKS)
@pytest.mark.parametrize("change", [cut, replaced_in_place])
@pytest.mark.parametrize("after", [2, 12, 22, 60])
async def test_files_that_wait_to_be_used_may_be_cut_under_a_log(
    tmp_path: Path, after: int, change: Callable[[Path], None], disk: Literal["uring", "threads"]
) -> None:
    """None of them holds a record: acknowledged records never get into one whose end is missing."""
    async with walsvc.open(tmp_path, **OPTIONS, disk=disk) as log:
        for number in range(80):
            if number == after:
                await log.truncate_before(max(1, number - 30))
                for name in [each for each in os.listdir(tmp_path) if each.endswith(".spare")]:
                    change(tmp_path / name)
            await log.append(bytes(3000))
        await log.hold("copy", 70)
    assert (await lsns(tmp_path))[-1] == 80


async def test_directory_under_the_name_of_the_next_segment_ends_no_log(tmp_path: Path) -> None:
    async with walsvc.open(tmp_path, **OPTIONS) as log:
        await log.append(bytes(3000))
        for number in range(3, 40):
            (tmp_path / f"{number:016x}.spare").mkdir(exist_ok=True)
        with pytest.raises(NoSpace, match="Is a directory"):
            for _ in range(200):
                await log.append(bytes(3000))
        last = log.durable_lsn
        for each in [each for each in os.scandir(tmp_path) if each.is_dir()]:
            os.rmdir(each)
        assert (await log.append(b"goes on")).lsn == last + 1
    assert len(await lsns(tmp_path)) == last + 1


def test_reserve_that_a_backup_shares_is_made_anew() -> None:
    """What has another name is not written over, so on a full device it would be no reserve."""

    async def main(seed: int) -> None:
        device = SimDevice(seed)
        log = await open_on(SimDisk(device), WalConfig(segment_bytes=1 << 16))
        for _ in range(40):
            await log.append(bytes(3000))
        device.linked |= {device.inode(name) for name in device.directory.names if name.endswith(".spare")}
        for _ in range(40):
            await log.append(bytes(3000))
        device.capacity = sum(device.file(name).visible_size for name in device.directory.names)
        with pytest.raises(NoSpace):
            for _ in range(200):
                await log.append(bytes(3000))
        for number in range(200):
            await log.hold("copy", 1 + number % 80)
        await log.release("copy")
        await log.truncate_before(80)
        device.capacity = None
        await log.append(b"goes on")
        await log.close()

    run_sim(main, 1)


async def test_oldest_segment_that_somebody_has_removed_may_be_truncated(tmp_path: Path) -> None:
    async with walsvc.open(await a_log(tmp_path / "log"), **OPTIONS) as log:
        os.unlink(tmp_path / "log" / SEGMENT)
        with pytest.raises(walsvc.Corruption, match=SEGMENT) as missing:
            await anext(log.read(1))
        assert "truncate_before" in (missing.value.hint or "")
        await log.truncate_before(70)
        assert (await log.append(b"goes on")).lsn == 101
    assert await lsns(tmp_path / "log") == list(range(70, 102))


async def test_lock_that_has_another_name_is_used_and_not_written(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"somebody else's")
    (tmp_path / "log").mkdir()
    os.link(other, tmp_path / "log" / "LOCK")
    async with walsvc.open(tmp_path / "log") as log:
        await log.append(b"x")
        with pytest.raises(walsvc.Locked, match="elsewhere"):
            await walsvc.open(tmp_path / "log")
    assert other.read_bytes() == b"somebody else's"
