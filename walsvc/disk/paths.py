"""From what the caller gave as a path to an open directory, or to an error that says what is wrong with it."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import Any

from walsvc.disk.system import sync
from walsvc.errors import SPACE_ERRNOS, PathError, WalError, no_space
from walsvc.targets import directory_of

_HINTS = {
    errno.ENOENT: "check the path; a log opened with read_only=True is not created",
    errno.ENOTDIR: "a log is a directory: give the path of one, or of one to be created",
    errno.EEXIST: "a log is a directory: give the path of one, or of one to be created",
    errno.EACCES: "check owner and mode of the directory and of those above it",
    errno.EPERM: "check owner, mode and attributes of the directory",
    errno.EROFS: "the file system is mounted read-only; read_only=True still reads a log on it",
    errno.EMFILE: "this process has too many files open: raise its limit (ulimit -n) or close some",
    errno.ENFILE: "the system has too many files open (fs.file-max)",
    errno.EAGAIN: "no thread can be had: raise the limit on processes and threads (ulimit -u, pids.max of a container)",
    errno.ENOMEM: "the system gives no memory: see the limits of the process (ulimit -v) and of its container",
    errno.ENAMETOOLONG: "use a shorter path",
    errno.ELOOP: "a symbolic link points to itself, or LOCK is a symbolic link",
    errno.EISDIR: "LOCK is a directory: move it elsewhere",
    errno.ENXIO: "LOCK is no regular file: move it elsewhere",
    errno.ENOLCK: "the file system has no flock: use a local one",
    errno.EOPNOTSUPP: "the file system has no flock: use a local one",
}

UNFINISHED = "copy.unfinished"  # a copy is being made there, so it is no log yet (walsvc.log.offline.destination)


def checked_path(path: str | bytes | os.PathLike[Any], namespace: str | None = None) -> str:
    """The path of a log, which may be a namespace in a directory, as text. Raises what `directory_of` raises."""
    text = directory_of(path)
    return text if namespace is None else os.path.join(text, namespace)


def path_error(error: OSError, path: str) -> WalError:
    """The typed error for an OSError met while opening `path`."""
    number = error.errno or 0
    reason = os.strerror(number) if number else str(error)
    if number in SPACE_ERRNOS:
        return no_space(error, "cannot open the log", path=path, hint="free some space")
    return PathError(f"cannot open the log: {reason}", errno=number, path=path, hint=_HINTS.get(number))


def hint_for(number: int) -> str | None:
    """Return the hint for an error number that a path gives."""
    return _HINTS.get(number)


def open_directory(path: str, *, create: bool) -> int:
    """A descriptor of the directory. With `create` it is made if missing, and its name is durable on return.

    OSError as the kernel gave it; PathError where a copy that is being made there is not finished.
    """
    if create:
        make_durably(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.stat(UNFINISHED, dir_fd=descriptor, follow_symlinks=False)
    except FileNotFoundError:
        return descriptor
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    raise PathError(
        "a backup or a restore into this directory is under way, or was cut short",
        path=path,
        hint="wait for its end, or run it again to the same directory",
    )


def make_durably(path: str) -> None:
    """Make missing directories from the top down, each name synced before the next is made.

    The lowest one that exists is synced into its parent as well: an earlier attempt may have been killed between making
    it and syncing it, and records in a directory whose name is lost are lost.
    """
    missing: list[str] = []
    lowest = os.path.abspath(path)
    while not os.path.lexists(lowest):
        missing.append(lowest)
        lowest = os.path.dirname(lowest)
    with suppress(PermissionError):  # a parent that we may pass but not open: then it is not we who made that name
        sync_directory(os.path.dirname(lowest))
    for directory in reversed(missing):
        with suppress(FileExistsError):
            os.mkdir(directory)
        sync_directory(os.path.dirname(directory))


def sync_directory(path: str) -> None:
    """fsync a directory by path."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)
