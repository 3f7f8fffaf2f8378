"""The file system itself, in a process of its own: python -m tests.fuse.daemon LOWER MOUNTPOINT.

Orders come as lines of JSON on standard input, each is answered by one line; at the end of input it unmounts itself.
tests/fuse/mount.py gives them. What it knows about durability is what a server behind FUSE knows: a write is volatile until a
FSYNC request for its file came after it, a name until a FSYNC request for its directory did.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import sys
import threading
from collections import Counter
from contextlib import suppress
from typing import Any

import mfusepy

STATUS = ("st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_blocks", "st_blksize")
HIDDEN = (
    "/.fuse_hidden"  # libfuse renames a file to this that is removed while it is open, and removes it when it is closed
)


class Ledger:
    """What was done and what of it is durable, and which requests are to fail. Several threads use it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.faults: list[dict[str, Any]] = []
        self.writes: Counter[int] = Counter()  # by inode
        self.durable: Counter[int] = Counter()
        self.names: dict[int, dict[str, int]] = {}  # by inode of a directory: each changed name and the change's number
        self.name_changes = 0

    def request(self, operation: str, name: str) -> int | None:
        """Count one request; raises what was ordered for it. A write that is to fall short gets how many bytes it may do."""
        with self.lock:
            self.counts[operation] += 1
            for fault in self.faults:
                if fault["operation"] == operation and name.endswith(fault["suffix"]):
                    fault["nth"] -= 1
                    if fault["nth"] < 0 < fault["times"]:
                        fault["times"] -= 1
                        if (short := fault["short"]) is not None:
                            return int(short)
                        raise OSError(fault["errno"], os.strerror(fault["errno"]))
        return None

    def wrote(self, inode: int) -> None:
        with self.lock:
            self.writes[inode] += 1

    def synced(self, inode: int, upto: int) -> None:
        with self.lock:
            self.durable[inode] = max(self.durable[inode], upto)

    def named(self, directory: int, name: str) -> None:
        with self.lock:
            self.name_changes += 1
            self.names.setdefault(directory, {})[name] = self.name_changes

    def names_synced(self, directory: int, upto: int) -> None:
        with self.lock:
            left = {name: number for name, number in self.names.get(directory, {}).items() if number > upto}
            self.names[directory] = left


class PassThrough(mfusepy.Operations):
    """Every request goes to the directory `lower`."""

    use_ns = True

    def __init__(self, lower: str, ledger: Ledger) -> None:
        self.lower = lower
        self.ledger = ledger

    def place(self, path: str) -> str:
        return self.lower + path

    def init_with_config(self, conn_info: object, config_3: Any) -> None:
        answer({"mounted": True})

    # ---- files
    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        status = os.lstat(self.place(path))
        found = {key: getattr(status, key) for key in STATUS}
        return found | {"st_mtime": status.st_mtime_ns, "st_ctime": status.st_ctime_ns, "st_atime": status.st_atime_ns}

    def open(self, path: str, flags: int) -> int:
        self.ledger.request("open", path)
        return os.open(self.place(path), flags & ~(os.O_DIRECT | os.O_NOFOLLOW))

    def create(self, path: str, mode: int, flags: Any = 0) -> int:
        self.ledger.request("create", path)
        file = os.open(self.place(path), (flags | os.O_CREAT) & ~(os.O_DIRECT | os.O_NOFOLLOW), mode)
        self.name_changed(path)
        return file

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        self.ledger.request("read", name_of(fh))
        return os.pread(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        room = self.ledger.request("write", name_of(fh))
        written = os.pwrite(fh, data[:room], offset)
        self.ledger.wrote(os.fstat(fh).st_ino)
        return written

    def fallocate(self, path: str, mode: int, offset: int, size: int, fh: int) -> int:
        self.ledger.request("fallocate", name_of(fh))
        if mode:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        os.posix_fallocate(fh, offset, size)
        self.ledger.wrote(os.fstat(fh).st_ino)
        return 0

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        self.ledger.request("truncate", path)
        os.truncate(self.place(path), length)
        self.ledger.wrote(os.stat(self.place(path)).st_ino)
        return 0

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        inode = os.fstat(fh).st_ino
        upto = self.ledger.writes[inode]
        self.ledger.request("fsync", name_of(fh))
        self.ledger.synced(inode, upto)
        return 0

    def release(self, path: str, fh: int) -> int:
        os.close(fh)
        return 0

    # ---- directories
    def name_changed(self, path: str) -> None:
        if HIDDEN not in path:
            directory, name = os.path.split(self.place(path))
            self.ledger.named(os.stat(directory).st_ino, name)

    def opendir(self, path: str) -> int:
        return os.open(self.place(path), os.O_RDONLY | os.O_DIRECTORY)

    def releasedir(self, path: str, fh: int) -> int:
        os.close(fh)
        return 0

    def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
        upto = self.ledger.name_changes
        self.ledger.request("fsyncdir", name_of(fh))
        self.ledger.names_synced(os.fstat(fh).st_ino, upto)
        return 0

    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", "..", *(name for name in os.listdir(fh) if not name.startswith(HIDDEN[1:]))]

    def mkdir(self, path: str, mode: int) -> int:
        self.ledger.request("mkdir", path)
        os.mkdir(self.place(path), mode)
        self.name_changed(path)
        return 0

    def rmdir(self, path: str) -> int:
        self.ledger.request("rmdir", path)
        os.rmdir(self.place(path))
        self.name_changed(path)
        return 0

    def unlink(self, path: str) -> int:
        if HIDDEN not in path:
            self.ledger.request("unlink", path)
        os.unlink(self.place(path))
        self.name_changed(path)
        return 0

    def rename(self, old: str, new: str) -> int:
        self.ledger.request("rename" if HIDDEN not in new else "unlink", old)
        os.rename(self.place(old), self.place(new))
        self.name_changed(old)
        self.name_changed(new)
        return 0

    def link(self, target: str, source: str) -> int:  # the binding's names: `target` is the new one
        self.ledger.request("link", target)
        os.link(self.place(source), self.place(target))
        self.name_changed(target)
        return 0

    def symlink(self, target: str, source: str) -> int:  # likewise
        os.symlink(source, self.place(target))
        self.name_changed(target)
        return 0

    def readlink(self, path: str) -> str:
        return os.readlink(self.place(path))

    def chmod(self, path: str, mode: int) -> int:
        os.chmod(self.place(path), mode)
        return 0

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        os.utime(self.place(path), ns=times)
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        status = os.statvfs(self.place(path))
        keys = ("f_bavail", "f_bfree", "f_blocks", "f_bsize", "f_favail", "f_ffree", "f_files", "f_frsize", "f_namemax")
        return {key: getattr(status, key) for key in keys}

    # ---- orders
    def volatile(self) -> list[str]:
        """See Fuse.volatile."""
        found: list[str] = []
        for above, _, files in os.walk(self.lower):
            with suppress(FileNotFoundError), self.ledger.lock:
                changed = list(self.ledger.names.get(os.stat(above).st_ino, ()))
                found += [f"name {os.path.join(above, name)}" for name in changed]
                for name in files:
                    inode = os.lstat(os.path.join(above, name)).st_ino
                    if HIDDEN[1:] not in name and self.ledger.writes[inode] > self.ledger.durable[inode]:
                        found.append(f"data {os.path.join(above, name)}")
        return sorted(each.replace(self.lower + "/", "") for each in found)

    def obey(self, order: dict[str, Any]) -> object:
        match order.pop("order"):
            case "counts":
                return dict(self.ledger.counts)
            case "volatile":
                return self.volatile()
            case "fail":
                with self.ledger.lock:
                    self.ledger.faults.append(order)
                return None
            case "heal":
                with self.ledger.lock:
                    self.ledger.faults.clear()
                return None
            case unknown:
                raise ValueError(unknown)


def name_of(file: int) -> str:
    """What a handle is called at present."""
    return os.readlink(f"/proc/self/fd/{file}").removesuffix(" (deleted)")


def answer(value: object) -> None:
    print(json.dumps(value), flush=True)


def take_orders(operations: PassThrough, mountpoint: str) -> None:
    """Until the end of input, then unmount, which ends the main loop."""
    for line in sys.stdin:
        answer(operations.obey(json.loads(line)))
    libc = ctypes.CDLL(None)
    if libc.umount2(mountpoint.encode(), 2) != 0:  # MNT_DETACH; needs root, as fusermount3 does not
        os.spawnlp(os.P_WAIT, "fusermount3", "fusermount3", "-u", "-z", mountpoint)


def main() -> None:
    """The command line."""
    lower, mountpoint = sys.argv[1:]
    operations = PassThrough(lower, Ledger())
    threading.Thread(target=take_orders, args=(operations, mountpoint), daemon=True).start()
    mfusepy.FUSE(operations, mountpoint, foreground=True, fsname="walsvc-test")


if __name__ == "__main__":
    main()
