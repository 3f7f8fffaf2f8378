"""The cold half that both real disks share, and the bookkeeping of writes in flight.

Cold calls run in a small thread pool of their own: never on the loop, and never in the commit thread, where a reading
or the writing of zeros would delay a commit. Subclasses add `submit`.
"""

from __future__ import annotations

import asyncio
import errno
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, ParamSpec, TypeVar

from walsvc.disk.base import Write
from walsvc.disk.directory import Directory
from walsvc.disk.memory import aligned_buffer
from walsvc.disk.pool import Pool, copy_answer
from walsvc.tasks import TWICE, begin_task, until_ended

P = ParamSpec("P")
T = TypeVar("T")
Deliver = Callable[[asyncio.Future[T], Future[T]], None]

COLD_THREADS = (
    4  # one may prepare a segment for a second or more; reads, renames and a second log reader go on beside it
)
WRITE_BYTES_MAX = 1 << 30  # larger writes are cut: Linux moves at most 2 GiB less a page in one call


class PosixDisk:
    """Directory work for one log. See walsvc.disk.base.Disk for the contract.

    It belongs to the loop it was made for; `directory` and `executor` become its own and are released by `close`. A disk
    that is dropped without `close` lets them go when it is collected, each once its last call has ended.
    """

    kind = "posix"
    rewrites = True

    def __init__(
        self,
        directory: Directory,
        *,
        loop: asyncio.AbstractEventLoop,
        dsync: bool,
        reason: str,
        executor: Pool | None = None,
    ) -> None:
        self.path: str = directory.path
        self.reason = reason
        self.direct: bool = directory.direct
        self.block_bytes: int = directory.block_bytes
        self.reading: str = directory.reading
        self.sync_method = "dsync" if dsync else "fdatasync"
        self._loop = loop
        self._directory = directory
        self._executor = executor or cold_executor()
        self._in_flight: set[Write] = set()  # submitted and not yet answered; loop thread only
        self._answers: deque[tuple[Write, OSError | None]] = deque()  # that are still to be given
        # under way, cancelled ones included until their thread is through
        self._cold_calls: set[asyncio.Future[Any]] = set()
        self._quiet: asyncio.Future[None] | None = None
        self._closing: asyncio.Task[None] | None = None

    def buffer(self, length: int) -> memoryview:
        try:
            return aligned_buffer(length)
        except OSError as error:  # what mmap answers
            raise MemoryError(f"no memory for a buffer of {length} bytes: {error.strerror}") from error

    def suit(self, block_bytes: int) -> bool:
        suits = self._directory.suit(block_bytes)
        self.block_bytes = self._directory.block_bytes
        return suits

    def spoilt(self, file: int) -> bool:
        return self._directory.spoilt(file)

    async def list(self) -> dict[str, int]:
        return await self._cold(self._directory.list)

    async def others(self) -> dict[str, str]:
        return await self._cold(self._directory.others)

    async def shared(self, name: str) -> bool:
        return await self._cold(self._directory.shared, name)

    async def reusable(self, name: str, length: int) -> bool:
        return await self._cold(self._directory.reusable, name, length)

    async def fill_holes(self, name: str, offset: int) -> bool:
        return await self._cold(self._directory.fill_holes, name, offset)

    async def open_file(self, name: str, *, cached: bool = False) -> int:
        return await self._cold(self._directory.open_file, name, cached=cached)

    async def close_file(self, file: int) -> None:
        await self._cold(self._directory.close_file, file)

    async def allocate(self, name: str, length: int, *, reserved: bool = False) -> None:
        await self._cold(self._directory.allocate, name, length, reserved=reserved)

    async def read(self, name: str, offset: int, length: int) -> bytes:
        return await self._cold(self._directory.read, name, offset, length)

    async def read_into(self, name: str, offset: int, view: memoryview) -> int:
        return await self._cold(self._directory.read_into, name, offset, view)

    async def write(self, name: str, offset: int, data: bytes) -> None:
        await self._cold(self._directory.write, name, offset, data)

    async def sync(self, name: str) -> None:
        await self._cold(self._directory.sync, name)

    async def rename(self, old: str, new: str) -> None:
        await self._cold(self._directory.rename, old, new)

    async def remove(self, name: str) -> None:
        await self._cold(self._directory.remove, name)

    async def sync_directory(self) -> None:
        await self._cold(self._directory.sync_directory)

    async def free_bytes(self) -> int:
        return await self._cold(self._directory.free_bytes)

    async def check_place(self) -> None:
        await self._cold(self._directory.check_place)

    async def close(self) -> None:
        """Every caller waits for the same shutdown; cancelling one of them, or all tasks, does not stop it."""
        if self._closing is None:
            self._closing = begin_task(self._close(), name="walsvc disk close", unlisted=True)
        await until_ended(self._closing)
        self._closing.result()

    async def _close(self) -> None:
        self._directory.stopping = True
        self._answer_all()
        while self._in_flight or self._cold_calls:
            self._quiet = self._loop.create_future()
            await self._quiet
        self._stop()
        await self._run(self._directory.close)  # freeing the blocks of a removed file can take long: not on the loop
        self._executor.shutdown()

    def _stop(self) -> None:
        """Release what the hot half holds; no write is in flight any more."""

    async def _cold(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._closing is not None:
            raise closed()
        return await self._run(call, *args, **kwargs)

    async def _run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run in the pool. A cancelled caller leaves the call to its end, and `close` waits for that end."""
        waiter: asyncio.Future[T] = self._loop.create_future()
        answer = self._executor.submit(call, *args, **kwargs)
        told = partial(tell, weakref.WeakMethod(self._deliver), self._loop, waiter)
        try:
            self._cold_calls.add(waiter)
            answer.add_done_callback(told)
        except BaseException:  # of a signal handler: perhaps it is there already; telling twice is telling once
            answer.add_done_callback(told)
            raise
        try:
            return await waiter
        except asyncio.CancelledError:
            answer.cancel()
            raise

    def _deliver(self, waiter: asyncio.Future[T], done: Future[T]) -> None:
        self._cold_calls.discard(waiter)
        self._check_quiet()
        copy_answer(waiter, done)

    def _answer_all(self) -> None:
        """Give the answers that are due, on the loop. What a `done` raises goes on to the loop, when that write was told again and
        the others will be."""
        answers = self._answers
        try:
            while answers:
                self._finish(*answers[0])
                del answers[0]
        except BaseException:
            self._loop.call_soon(self._answer_all)
            self._finish(*answers.popleft())
            raise

    def _finish(self, write: Write, error: OSError | None) -> None:
        self._in_flight.discard(write)
        if not self._in_flight:
            self._at_rest()  # before the answer, which may submit again
        write.done(write, error)

    def _at_rest(self) -> None:
        """No write is in flight."""
        if self._quiet is not None:
            self._check_quiet()

    def _check_quiet(self) -> None:
        if self._quiet is not None and not (self._in_flight or self._cold_calls) and not self._quiet.done():
            self._quiet.set_result(None)

    def _refuse(self, write: Write, error: OSError) -> None:
        """Answer a write that was never started, from the loop and not from inside `submit`."""
        self._in_flight.add(write)
        self._answer_later(write, error)

    def _answer_later(self, write: Write, error: OSError | None) -> None:
        self._answers.append((write, error))
        for _ in TWICE:
            self._loop.call_soon(self._answer_all)


def tell(
    deliver: weakref.WeakMethod[Deliver[T]], loop: asyncio.AbstractEventLoop, waiter: asyncio.Future[T], done: Future[T]
) -> None:
    """In a thread of the pool: let the loop hear of a call's end. The thread holds no reference to the disk, which it might be the
    last to drop at some later time."""
    try:
        for _ in TWICE:  # a signal that wakes the loop has its handler run at the first line of what the loop calls
            loop.call_soon_threadsafe(hand_over, deliver, waiter, done)
    except RuntimeError:
        pass  # the loop is closed, so nobody waits any more


def hand_over(deliver: weakref.WeakMethod[Deliver[T]], waiter: asyncio.Future[T], done: Future[T]) -> None:
    """On the loop. Whoever waits holds the disk, so without one nobody does."""
    if (alive := deliver()) is not None:
        alive(waiter, done)


def cold_executor() -> Pool:
    """The pool for cold calls. OSError(EAGAIN) where no thread is to be had."""
    return Pool(COLD_THREADS, "walsvc-disk")


def closed() -> OSError:
    """The error of a call after `close`."""
    return OSError(errno.EBADF, "the disk is closed")


def short_write(length: int, written: int, offset: int) -> OSError:
    """A write that moved fewer bytes than asked: the reason is not known, so EIO."""
    return OSError(errno.EIO, f"short write: {written} of {length} bytes at offset {offset}")
