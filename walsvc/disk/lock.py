"""The LOCK file: one writer per directory, by flock, which the kernel releases when the process dies.

flock belongs to the open file, which a forked child shares. So that a child which never touches the log cannot keep the
directory locked after its parent died, the child's copy is closed right after the fork; and a release unlocks first.
"""

from __future__ import annotations

import errno
import fcntl
import os
import weakref
from contextlib import suppress

from walsvc.errors import Locked

LOCK_NAME = "LOCK"


class DirectoryLock:
    """An exclusive lock that is held from construction to `release`.

    Raises Locked at once when someone else holds it, OSError when the file cannot be opened or locked at all.
    """

    def __init__(self, path: str, directory: int) -> None:
        self._file = os.open(LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644, dir_fd=directory)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, b"%d\n" % os.getpid(), 0)
        except BlockingIOError:
            holder = read_holder(self._file)
            os.close(self._file)
            raise Locked(
                f"the log is open for writing{holder}",
                path=path,
                hint="close it there first, or open with read_only=True to read beside the writer",
            ) from None
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):  # the pid is a courtesy; the lock itself holds
                os.close(self._file)
                raise
        _held.add(self)

    def release(self) -> None:
        """Unlock, also for copies that a forked child may hold. Idempotent."""
        file, self._file = self._file, -1
        _held.discard(self)
        if file >= 0:
            with suppress(OSError):  # closing unlocks as well
                fcntl.flock(file, fcntl.LOCK_UN)
            os.close(file)

    def forget(self) -> None:
        """In a forked child: close the copy without unlocking the parent's lock."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)


def read_holder(file: int) -> str:
    """Who holds the lock, in words, as far as the file says it."""
    text = os.pread(file, 32, 0).strip()
    if not text.isdigit():
        return " elsewhere"
    return " in this process" if int(text) == os.getpid() else f" by process {int(text)}"


# Process-wide because fork is. It holds locks weakly and decides nothing.
_held: weakref.WeakSet[DirectoryLock] = weakref.WeakSet()


def _forget_all() -> None:
    for lock in list(_held):
        lock.forget()


os.register_at_fork(after_in_child=_forget_all)
