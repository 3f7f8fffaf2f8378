"""File systems on which RWF_DSYNC is believed: a table of file systems, by what their code in the Linux kernel does with the flag.

Whether a file system keeps the flag shows in no answer of the kernel: FUSE takes it with an O_DIRECT write of io_uring, answers
success, and sends no FSYNC to its server (fs/fuse/file.c, fuse_direct_write_iter, has no call of generic_write_sync). So a
measurement cannot decide it, and what is not in the table gets an fdatasync of its own after each write. Among others:

* FUSE (sshfs, virtiofs, the shares of desktop virtual machines): see above; through the page cache it is the server's choice.
* overlayfs: it hides which file system lies below; with the mount option `volatile` it drops the flag.
* NFS: fs/nfs/direct.c drops what generic_write_sync answers, and so an error.
* Btrfs, ZFS, bcachefs, CIFS, Ceph, 9p, tmpfs: not read closely enough, or not in the kernel's tree.

Code was read in Linux 6.12 (all rows), names of functions are those of that version.
"""

from __future__ import annotations

import ctypes
import os
from typing import NamedTuple

from walsvc.disk import system
from walsvc.disk.mapped import libc

EXT4_MAGIC, XFS_MAGIC = 0xEF53, 0x58465342  # include/uapi/linux/magic.h; ext2 and ext3 share ext4's, and its driver

RESERVING = frozenset({EXT4_MAGIC, XFS_MAGIC})
"""File systems whose reserved room is kept for the file: they overwrite in place, and set metadata blocks for the conversion aside."""

LOCAL = RESERVING | {0x9123683E, 0x794C7630, 0x01021994, 0xF2F52010}
"""File systems that have an open file's metadata in memory: no device and no server is asked for it. With Btrfs, overlayfs, tmpfs, F2FS."""

NAMES = {
    0x65735546: "FUSE",
    0x794C7630: "overlayfs",
    0x9123683E: "Btrfs",
    0x2FC12FC1: "ZFS",
    0xCA451A4E: "bcachefs",
    0xF2F52010: "F2FS",
    0x6969: "NFS",
    0xFF534D42: "CIFS",
    0xFE534D42: "SMB",
    0x00C36400: "Ceph",
    0x01021997: "9p",
    0x01021994: "tmpfs",
}
"""For messages only: what is often met and not in the table."""

FUA_DEFECTS = ((4, 18), (4, 19), (6, 15), (6, 16))
"""Releases that leave the sync out where an O_DIRECT write with the flag fills a hole, an unwritten or a shared extent, as a sparse
or reflinked copy of a segment has: until commit 0929d8580071 ("FUA is wrong for DIO O_DSYNC writes into unwritten extents"),
and since commit d279c80e0bac until "iomap: Fix broken data integrity guarantees for O_SYNC writes". A maintained 6.15 has the
mending; its release does not tell, and a sync of its own is never wrong."""


class Believed(NamedTuple):
    """One row: this file system keeps RWF_DSYNC of this way of writing, from io_uring and from a thread.

    Attributes:
        magic: f_type of statfs(2).
        direct: written with O_DIRECT; else through the page cache.
        source: the functions that make it so.
        but_not: releases of Linux, (major, minor), where it is not so.
    """

    magic: int
    direct: bool
    source: str
    but_not: tuple[tuple[int, int], ...] = ()


DIRECT = (
    "__iomap_dio_rw sets IOMAP_DIO_NEED_SYNC for IOCB_DSYNC; iomap_dio_complete, which ends asynchronous writes as well, then calls "
    "generic_write_sync, or the write itself went with REQ_FUA (fs/iomap/direct-io.c)"
)
KEPT = (
    Believed(EXT4_MAGIC, True, "fs/ext4/file.c: ext4_dio_write_iter, by iomap_dio_rw. " + DIRECT, FUA_DEFECTS),
    Believed(EXT4_MAGIC, False, "fs/ext4/file.c: ext4_buffered_write_iter ends with generic_write_sync"),
    Believed(XFS_MAGIC, True, "fs/xfs/xfs_file.c: xfs_file_dio_write, by iomap_dio_rw. " + DIRECT, FUA_DEFECTS),
    Believed(XFS_MAGIC, False, "fs/xfs/xfs_file.c: xfs_file_buffered_write ends with generic_write_sync"),
)


def doubt(directory: int, *, direct: bool) -> str:
    """Why RWF_DSYNC is not believed for files of this directory, in words; empty where it is.

    A disk writes some files through the page cache even where it is `direct`, so both ways have to be in the table.
    """
    if not system.RWF_DSYNC:
        return "this system does not have it"
    magic = magic_of(directory)
    if magic is None:
        return "statfs does not say which file system this is"
    return doubt_of(magic, os.uname().release, direct=direct)


def doubt_of(magic: int, release: str, *, direct: bool) -> str:
    """`doubt` for a file system by its magic and a release of Linux."""
    for way in {False, direct}:
        row = next((row for row in KEPT if row.magic == magic and row.direct is way), None)
        if row is None:
            return f"Linux is not known to keep it on {NAMES.get(magic, f'a file system of type {magic:#x}')}"
        if numbers(release) in row.but_not:
            return f"Linux {release} is not known to keep it for O_DIRECT"
    return ""


def numbers(release: str) -> tuple[int, int] | None:
    """(major, minor) of uname's release; None where it has another form."""
    major, _, rest = release.partition(".")
    minor = rest.partition(".")[0].partition("-")[0]
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else None


def magic_of(directory: int) -> int | None:
    """f_type of fstatfs(2), which Python does not have; None where the kernel refuses."""
    status = ctypes.create_string_buffer(512)  # struct statfs has 120 bytes on 64 bit machines, and begins with f_type
    if libc().fstatfs(directory, status) != 0:
        return None
    return ctypes.c_ulong.from_buffer(status).value & 0xFFFF_FFFF
