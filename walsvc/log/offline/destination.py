"""The directory in which a copy of a log is made: a new one, or an empty one that is there already.

The files are written into a subdirectory, UNFINISHED. When all of it is on stable storage they move up, and UNFINISHED goes
last. As long as it is there, nothing opens the directory as a log (walsvc.disk.paths.open_directory), so what a crash leaves
is never taken for one; another copy to the same place clears it away first. Nothing is needed of the directory above an
existing one: it may be a mount point, belong to somebody else, or be reached through a symbolic link.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiofiles

from walsvc.disk import system
from walsvc.disk.paths import UNFINISHED, hint_for, make_durably, sync_directory
from walsvc.disk.pool import Pool, heard, in_thread
from walsvc.errors import SPACE_ERRNOS, PathError, WalError, no_space
from walsvc.format.segment import parse_name

IGNORED = frozenset({"lost+found"})  # an ext4 file system has it in its root


@contextlib.contextmanager
def told(path: str) -> Iterator[None]:
    """Turn an OSError into an error that names the destination."""
    try:
        yield
    except OSError as error:
        if isinstance(error, WalError):
            raise
        raise destination_error(error, path) from error


def destination_error(error: OSError, path: str) -> WalError:
    """The typed error for an OSError met at the destination."""
    number = error.errno or 0
    text = "cannot write the destination"
    if number in SPACE_ERRNOS:
        return no_space(error, text, path=path, hint="free some space there, or choose another destination")
    return PathError(
        f"{text}: {error.strerror or error}",
        errno=number,
        path=path,
        hint=hint_for(number) or "choose another destination",
    )


class Destination:
    """A directory on its way to become a log. All calls block; `destination` is the way to have one.

    Attributes:
        target: what it becomes, without symbolic links.
        path: where its files are to be written.
    """

    def __init__(self, target: str, source: str | None = None) -> None:
        self.target: str = os.path.realpath(target)
        self.path: str = os.path.join(self.target, UNFINISHED)
        self._made = not os.path.lexists(self.target)
        refuse_taken(self.target, source)
        self._directory = -1

    def begin(self) -> None:
        """Make the directory and UNFINISHED in it, durably. PathError where another copy to it is under way."""
        make_durably(self.target)
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.path)
        self._directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(self._directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                self.release()
                raise PathError(
                    "another copy to this directory is under way", path=self.target, hint="choose another one"
                ) from error
        self.clear()
        sync_directory(self.target)

    def clear(self) -> None:
        """Remove what an attempt has written."""
        for directory in (self.path, self.target):
            for name in segments_in(directory):
                os.unlink(os.path.join(directory, name))

    def publish(self) -> None:
        """Make the copy durable, and a log."""
        for name in sorted(os.listdir(self.path)):
            os.rename(os.path.join(self.path, name), os.path.join(self.target, name))
        system.sync(self._directory)
        sync_directory(self.target)
        os.rmdir(self.path)
        sync_directory(self.target)
        self.release()

    def discard(self) -> None:
        """Leave the directory as it was found."""
        if self._directory < 0:
            return
        self.clear()
        os.rmdir(self.path)
        if self._made:
            os.rmdir(self.target)
        self.release()

    def release(self) -> None:
        """Close what is open. Idempotent."""
        directory, self._directory = self._directory, -1
        if directory >= 0:
            os.close(directory)


def refuse_taken(target: str, source: str | None = None) -> None:
    """PathError unless `target` is free, and not inside `source`."""
    if os.path.lexists(target):
        status = os.stat(target)
        if not stat.S_ISDIR(status.st_mode) or not is_free(target):
            raise PathError(
                "the destination exists and is not an empty directory", path=target, hint="choose another one"
            )
    if source is not None and Path(os.path.realpath(target)).is_relative_to(os.path.realpath(source)):
        raise PathError("the destination is inside the log itself", path=target, hint="choose another one")


def is_free(target: str) -> bool:
    """True if a directory is empty, or holds nothing but what a copy that was cut short has left."""
    names = {*os.listdir(target)} - IGNORED
    return not names or (UNFINISHED in names and all(name == UNFINISHED or is_segment(name) for name in names))


def is_segment(name: str) -> bool:
    """True if it is the name of a segment's file."""
    return parse_name(name, ".wal") is not None


def segments_in(path: str) -> list[str]:
    """Names of the segments' files in a directory."""
    return [name for name in os.listdir(path) if is_segment(name)]


@contextlib.asynccontextmanager
async def destination(target: str, source: str | None = None) -> AsyncIterator[Destination]:
    """A destination that is published when the block ends, and left as it was found when the block fails.

    Raises PathError where `target` is taken or cannot be written, NoSpace where there is no room.
    """
    with told(target):
        place = await in_thread(Destination, target, source)
    try:
        with told(target):
            await in_thread(place.begin)
        yield place
        with told(target):
            await in_thread(place.publish)
    except BaseException:
        with contextlib.suppress(OSError):
            place.discard()
        raise
    finally:
        place.release()


class NewFile:
    """A file of a copy that is being written; errors name it."""

    def __init__(self, path: str, file: Any) -> None:
        self._path = path
        self._file = file

    async def write(self, data: bytes | memoryview) -> int:
        """Write all of it."""
        with told(self._path):
            return int(await self._file.write(data))

    async def truncate(self, length: int) -> None:
        """Make the file `length` bytes long."""
        with told(self._path):
            await self._file.truncate(length)


@contextlib.asynccontextmanager
async def new_file(path: str) -> AsyncIterator[NewFile]:
    """A new file that is on stable storage when the block has ended."""
    with told(path):
        thread: Any = Pool(1, "walsvc copy")  # all that asyncio asks of an executor is submit
        file = await aiofiles.open(path, "xb", executor=thread)
    try:
        yield NewFile(path, file)
        with told(path):
            await file.flush()
            await heard(thread.submit(system.sync, file.fileno()))
    finally:
        with told(path):
            await file.close()
        thread.shutdown(wait=False)
