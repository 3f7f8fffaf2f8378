"""The `threads` disk: one dedicated thread makes each write durable, with RWF_DSYNC or with fdatasync after it.

Used where the io_uring extension was not built or where a container forbids io_uring (Docker's default seccomp profile
does). The loop hands writes over by a SimpleQueue and is woken once for all completions that come together.
"""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
import weakref
from queue import Empty, SimpleQueue

from walsvc.disk import posix, system
from walsvc.disk.base import Write
from walsvc.disk.directory import Directory
from walsvc.disk.pool import Pool, start_thread
from walsvc.disk.posix import PosixDisk, closed, short_write

RETRY_SECONDS = (0.0, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256)
"""Pauses before a write that the kernel put off (EINTR, EAGAIN) is tried again; after the last one the error stands."""

LOST_SECONDS = 1.0
"""After so long the loop is woken again for answers that it has not taken: a signal that wakes it has its handler run at the first line
of what it calls, and where that raises, the wake-up is lost."""

Commits = SimpleQueue["tuple[ThreadsDisk, Write] | None"]


class ThreadsDisk(PosixDisk):
    """A disk whose hot half is a thread. See walsvc.disk.base.Disk for the contract."""

    kind = "threads"

    def __init__(
        self,
        directory: Directory,
        *,
        loop: asyncio.AbstractEventLoop,
        dsync: bool,
        reason: str,
        executor: Pool | None = None,
    ) -> None:
        super().__init__(directory, loop=loop, dsync=dsync, reason=reason, executor=executor)
        self._dsync = dsync
        self._commits: Commits = SimpleQueue()
        self._finished = self._answers  # the thread adds to it
        self._woken = False
        self._thread: threading.Thread | None = None
        self._stop_thread: weakref.finalize[..., ThreadsDisk] | None = None

    def submit(self, write: Write) -> None:
        if self._closing is not None:
            self._refuse(write, closed())
            return
        try:
            self.start()
        except OSError as error:
            self._refuse(write, error)
            return
        try:
            self._in_flight.add(write)
            self._commits.put((self, write))
        except BaseException:  # of a signal handler: `close` waits for the thread itself
            self._in_flight.discard(write)
            raise

    def start(self) -> None:
        """Start the commit thread, unless it runs. OSError(EAGAIN) where none is to be had.

        A daemon, because the interpreter would wait for any other before it lets the finalizer stop it; the finalizer then
        waits for the writes on their way, so none is cut off.
        """
        if self._thread is None:
            self._thread = start_thread(commit_all, "walsvc-commit", self._commits)
            self._stop_thread = weakref.finalize(self, stop_thread, os.getpid(), self._commits, self._thread)

    def _stop(self) -> None:
        if self._stop_thread is not None:
            self._stop_thread()

    def perform(self, write: Write) -> None:
        """In the commit thread: one write and its sync, then wake the loop unless a wake-up is already on its way."""
        error: OSError | None
        try:
            error = write_durably(write, dsync=self._dsync)
        except Exception as unforeseen:  # noqa: BLE001 - the thread must live on, and the waiter must hear of it
            number = errno.ENOMEM if isinstance(unforeseen, MemoryError) else errno.EIO
            error = OSError(number, f"{type(unforeseen).__name__}: {unforeseen}")
            error.__cause__ = unforeseen
        self._finished.append((write, error))
        # Order matters on both sides: here append, then look at the flag; in _complete clear the flag, then take.
        if not self._woken:
            self._woken = True
            self._wake()

    def _wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._complete)
        except RuntimeError:
            self._finished.clear()  # the loop is closed: nobody is left to be told

    def wake_again(self) -> bool:
        """In the commit thread: wake the loop once more if it has not taken all answers; False if it has."""
        if not self._finished:
            return False
        self._wake()
        return True

    def _complete(self) -> None:
        self._woken = False
        self._answer_all()


def commit_all(commits: Commits) -> None:
    """The commit thread. While it waits it holds no reference to the disk, so that an unclosed one can be collected."""
    late: weakref.ref[ThreadsDisk] | None = None  # its answers may not have been taken
    while True:
        try:
            item = commits.get(timeout=None if late is None else LOST_SECONDS)
        except Empty:
            if late is None or (idle := late()) is None or not idle.wake_again():
                late = None
            idle = None
            continue
        if item is None:
            return
        disk, write = item
        disk.perform(write)
        late = weakref.ref(disk)
        del item, disk, write


def stop_thread(owner: int, commits: Commits, thread: threading.Thread) -> None:
    """Let the thread finish what is queued, then end. It may be the one that drops the last reference to a disk."""
    if os.getpid() == owner:
        commits.put(None)
        if thread is not threading.current_thread():
            thread.join()


def write_durably(write: Write, *, dsync: bool) -> OSError | None:
    """One write and its sync. A short write is a failure; a sync is never repeated."""
    offset, view = write.offset, write.view
    while True:
        piece = view[: posix.WRITE_BYTES_MAX] if len(view) > posix.WRITE_BYTES_MAX else view
        written, error = write_piece(write.file, piece, offset, system.RWF_DSYNC if dsync else 0)
        if error is not None:
            return error
        if written != len(piece):
            return short_write(len(piece), written, offset)
        if len(piece) == len(view):
            break
        view = view[written:]
        offset += written
    if not dsync:
        try:
            system.sync_data(write.file)
        except OSError as error:
            return error
    return None


def write_piece(file: int, piece: memoryview, offset: int, flags: int) -> tuple[int, OSError | None]:
    """pwritev, again after EINTR and EAGAIN, which both mean that nothing was written yet."""
    for pause in (*RETRY_SECONDS, None):
        try:
            return os.pwritev(file, (piece,), offset, flags), None
        except OSError as error:
            if error.errno not in (errno.EINTR, errno.EAGAIN) or pause is None:
                return 0, error
            time.sleep(pause)
    raise AssertionError("the last attempt returns")
