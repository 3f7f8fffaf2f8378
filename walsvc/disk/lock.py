"""One writer per directory, by flock on the file LOCK and on the directory itself, which the kernel releases when the process
dies.

The directory's lock holds where somebody removes or replaces LOCK, which older writers know alone. NFS locks no directories:
there LOCK is all that there is. Both belong to files that were opened: `check` says when they are no longer those that the
path leads to, so that another writer may be at work there.

flock belongs to the open file, which a forked child shares. So that a child which never touches the log cannot keep the
directory locked after its parent died, the child's copy is closed right after the fork; and a release unlocks first.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import weakref
from contextlib import suppress

from walsvc.disk.base import Displaced
from walsvc.errors import SPACE_ERRNOS, Locked, PathError

LOCK_NAME = "LOCK"
_TAKEN = frozenset({errno.EWOULDBLOCK, errno.EACCES})


class DirectoryLock:
    """An exclusive lock that is held from construction to `release`.

    Raises Locked at once when someone else holds it, OSError when the file cannot be opened or locked at all.

    Attributes:
        note: why the directory itself is not locked, in words for a user; empty where it is.
    """

    def __init__(self, path: str, directory: int) -> None:
        self.note: str = ""
        self._path = os.path.abspath(path)
        self._directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
        self._file = -1
        try:
            self._lock_directory(path)
            self._lock_file(path)
        except BaseException:
            self.forget()
            raise
        _held.add(self)

    def _lock_directory(self, path: str) -> None:
        try:
            fcntl.flock(self._directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _TAKEN:
                raise self._taken(path) from None
            self.note = unlocked(error)

    def _lock_file(self, path: str) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        self._file = os.open(LOCK_NAME, flags, 0o644, dir_fd=self._directory)
        if not stat.S_ISREG(os.fstat(self._file).st_mode):
            raise PathError("LOCK is no regular file", path=path, hint="move it elsewhere; a log makes its own")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._taken(path) from None
        if os.fstat(self._file).st_nlink > 1:
            return  # the pid is a courtesy, and what has another name may be somebody else's
        try:
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, b"%d\n" % os.getpid(), 0)
        except OSError as error:
            if error.errno not in SPACE_ERRNOS:  # the lock itself holds
                raise

    def _taken(self, path: str) -> Locked:
        return Locked(
            f"the log is open for writing{read_holder(self._directory)}",
            path=path,
            hint="close it there first, or open with read_only=True to read beside the writer; for several processes that append, "
            "`walsvc serve` has the log, and each of them opens its URL",
        )

    def check(self) -> None:
        """Raise Displaced unless LOCK, and the directory that the path leads to, are those that are locked."""
        if self._file < 0:
            return
        try:
            named = os.stat(LOCK_NAME, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            named = None
        if not same_file(named, os.fstat(self._file)):
            what = "was removed" if named is None else "was replaced by another file"
            raise Displaced(errno.ESTALE, f"LOCK {what}")
        try:
            named = os.stat(self._path)
        except (FileNotFoundError, NotADirectoryError):
            named = None
        except OSError:
            return  # a directory above may have been closed to this process since; that moves nothing
        if not same_file(named, os.fstat(self._directory)):
            what = "was moved or removed" if named is None else "gave way to another one"
            raise Displaced(errno.ESTALE, f"the directory {what}")

    def release(self) -> None:
        """Unlock, also for copies that a forked child may hold. Idempotent."""
        _held.discard(self)
        for file in (self._file, self._directory):
            if file >= 0:
                with suppress(OSError):  # closing unlocks as well
                    fcntl.flock(file, fcntl.LOCK_UN)
        self.forget()

    def forget(self) -> None:
        """Close what is open without unlocking: in a forked child the lock is the parent's."""
        files, self._file, self._directory = (self._file, self._directory), -1, -1
        for file in files:
            if file >= 0:
                release(file)


def release(file: int) -> None:
    """Close a descriptor of which all is durable. The system has released it also where close(2) says something else, and
    what else is to be released must not wait for that."""
    with suppress(OSError):
        os.close(file)


def unlocked(error: OSError) -> str:
    """Say what follows from a directory that could not be locked."""
    return (
        f"the directory itself cannot be locked here ({os.strerror(error.errno or 0)}), so whoever removes LOCK lets a second "
        "writer in"
    )


def why_no_directory_lock(directory: int) -> str:
    """Why no directory on this file system can be locked; empty where one can. Tried with a new one, which is removed."""
    name = f".walsvc-lock-{os.urandom(4).hex()}"
    os.mkdir(name, 0o700, dir_fd=directory)
    try:
        tried = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
        try:
            fcntl.flock(tried, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return unlocked(error)
        finally:
            os.close(tried)
    finally:
        os.rmdir(name, dir_fd=directory)
    return ""


def same_file(one: os.stat_result | None, other: os.stat_result) -> bool:
    """True if both are the same file, which has a name."""
    return one is not None and os.path.samestat(one, other) and other.st_nlink > 0


def read_holder(directory: int) -> str:
    """Say which process holds the lock, as far as the file LOCK says it."""
    text = b""
    with suppress(OSError):
        file = os.open(LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
        try:
            if os.fstat(file).st_nlink == 1:
                text = os.pread(file, 32, 0).strip()
        finally:
            os.close(file)
    if not text.isdigit():
        return " elsewhere"
    return " in this process" if int(text) == os.getpid() else f" by process {int(text)}"


# Process-wide because fork is. It holds locks weakly and decides nothing.
_held: weakref.WeakSet[DirectoryLock] = weakref.WeakSet()


def _forget_all() -> None:
    for lock in list(_held):
        lock.forget()


os.register_at_fork(after_in_child=_forget_all)
