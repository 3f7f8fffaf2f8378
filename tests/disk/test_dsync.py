"""RWF_DSYNC is used where Linux is known to keep it, and nowhere else, whatever a measurement says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import walsvc
from tests.disks import REAL_DISKS
from walsvc.disk import choose, dsync, measure
from walsvc.disk.doctor import mount_of, probe
from walsvc.disk.dsync import EXT4_MAGIC, KEPT, XFS_MAGIC, doubt, doubt_of, magic_of, numbers
from walsvc.disk.measure import dsync_wins, say_timings

FUSE, OVERLAY, BTRFS, NFS, TMPFS, ZFS, UNKNOWN = (
    0x65735546,
    0x794C7630,
    0x9123683E,
    0x6969,
    0x01021994,
    0x2FC12FC1,
    0x12345,
)
FAST = {"dsync": 1.0, "fdatasync": 1000.0, "uring dsync": 1.0, "uring fdatasync": 1000.0}


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("magic", [FUSE, OVERLAY, BTRFS, NFS, TMPFS, ZFS, UNKNOWN])
def test_what_is_not_in_the_table_is_doubted(magic: int, direct: bool) -> None:
    assert "not known to keep it" in doubt_of(magic, "6.12.0", direct=direct)


@pytest.mark.parametrize("magic", [EXT4_MAGIC, XFS_MAGIC])
@pytest.mark.parametrize(
    ("release", "kept", "kept_direct"),
    [
        ("6.12.0", True, True),
        ("5.15.0-91-generic", True, True),
        ("6.18.44-fc-v857", True, True),
        ("7.0", True, True),
        ("5-custom", True, True),
        ("4.18.0-513.el8.x86_64", True, False),
        ("6.15.3", True, False),
        ("6.16-rc2", True, False),
        ("6.1.6", True, True),
    ],
)
def test_releases_that_lose_the_sync_of_direct_writes_into_holes_are_doubted_for_these(
    magic: int, release: str, kept: bool, kept_direct: bool
) -> None:
    assert (doubt_of(magic, release, direct=False) == "") is kept
    assert (doubt_of(magic, release, direct=True) == "") is kept_direct


def test_a_file_system_is_believed_only_for_the_ways_of_writing_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dsync, "KEPT", tuple(row for row in KEPT if row.magic != XFS_MAGIC or not row.direct))
    assert doubt_of(XFS_MAGIC, "6.12.0", direct=False) == ""
    assert doubt_of(XFS_MAGIC, "6.12.0", direct=True) != ""
    monkeypatch.setattr(dsync, "KEPT", tuple(row for row in KEPT if row.magic != XFS_MAGIC or row.direct))
    assert doubt_of(XFS_MAGIC, "6.12.0", direct=True) != "", "a direct disk writes some files through the page cache"


def test_each_row_names_its_source_in_the_kernel() -> None:
    assert all("fs/" in row.source and "generic_write_sync" in row.source for row in KEPT)
    assert numbers("6") is None


@pytest.mark.parametrize("path", ["/proc", "/sys", "/dev/shm"])
def test_the_kernel_says_which_file_system_it_is(path: str) -> None:
    magics = {"proc": 0x9FA0, "sysfs": 0x62656572, "tmpfs": TMPFS}
    if (kind := mount_of(path)[0]) not in magics:
        pytest.skip(f"{path} is {kind} here")
    directory = os.open(path, os.O_RDONLY)
    try:
        assert magic_of(directory) == magics[kind]
        assert doubt(directory, direct=True)
    finally:
        os.close(directory)


def test_without_an_answer_of_statfs_it_is_doubted() -> None:
    assert magic_of(-1) is None
    assert "statfs" in doubt(-1, direct=False)


def test_speed_does_not_outweigh_a_doubt() -> None:
    for way in ("", "uring "):
        assert dsync_wins(FAST, way)
        assert not dsync_wins(FAST, way, "it is not known")
        assert not dsync_wins({}, way, "it is not known")
    words = say_timings(FAST, "io_uring", "uring ", "it is not known")
    assert words.startswith("io_uring with write and fdatasync: 1000 us against 1 us for RWF_DSYNC")
    assert words.endswith("RWF_DSYNC is not used, as it is not known")


@pytest.mark.parametrize("disk", REAL_DISKS)
async def test_a_log_and_doctor_say_why_it_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: str
) -> None:
    monkeypatch.setattr(dsync, "magic_of", lambda directory: BTRFS)
    monkeypatch.setattr(measure, "time_methods", lambda *args: FAST)
    monkeypatch.setattr(measure, "_measured", {})
    async with walsvc.open(tmp_path, disk=disk) as wal:
        stats = wal.stats()
        assert stats.sync_method == "fdatasync"
        assert "RWF_DSYNC is not used, as Linux is not known to keep it on Btrfs" in stats.disk_reason
    found = probe(tmp_path)
    assert found.dsync_doubt == "Linux is not known to keep it on Btrfs"
    assert found.dsync_doubt in found.reason
    assert not any("RWF_DSYNC" in line for line in found.advice)


@pytest.mark.parametrize("disk", REAL_DISKS)
async def test_a_full_device_is_doubted_like_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: str) -> None:
    await (await walsvc.open(tmp_path)).close()
    monkeypatch.setattr(dsync, "magic_of", lambda directory: UNKNOWN)

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(choose, "try_directory", full)
    async with walsvc.open(tmp_path, disk=disk) as wal:
        assert wal.stats().sync_method == "fdatasync"
