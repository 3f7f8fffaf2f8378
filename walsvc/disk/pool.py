"""Threads for calls that block. One is there from the start; more come when there is work for them and the system gives them.

Not concurrent.futures' ThreadPoolExecutor: it starts a thread when a call comes, and where there is none to be had (a limit on
processes, the end of the main thread) it raises RuntimeError and keeps the call, to run it at some later time, when its caller has
gone. And once the main thread has ended it takes no calls, though a loop in another thread goes on. Here, a call that was taken
runs once, and a pool that exists can run it.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

from walsvc.errors import PathError
from walsvc.tasks import TWICE

P = ParamSpec("P")
T = TypeVar("T")

Call = tuple[Future[Any], Callable[[], Any]]
Calls = SimpleQueue[Call | None]


class Load:
    """How many calls are queued or running. Threads share it, and hold no reference to their pool, which may be dropped."""

    def __init__(self) -> None:
        self.lock: threading.Lock = threading.Lock()
        self.calls: int = 0

    def add(self, change: int) -> int:
        """Count; returns the new number."""
        with self.lock:
            self.calls += change
            return self.calls


class Pool:
    """Runs calls in at most `threads_max` daemon threads. Dropped without `shutdown`, it lets them go.

    Raises OSError(EAGAIN) where not even one thread can be had.
    """

    def __init__(self, threads_max: int, name: str) -> None:
        self._threads_max = threads_max
        self._name = name
        self._calls: Calls = SimpleQueue()
        self._load = Load()
        self._threads: list[threading.Thread] = []
        self._threads.append(start_thread(work, self._name, self._calls, self._load))
        self._end = weakref.finalize(self, end, os.getpid(), self._calls, self._threads)

    def submit(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a call in a thread. OSError(EBADF) after `shutdown`."""
        if not self._end.alive:
            raise OSError(errno.EBADF, "the disk is closed")
        answer: Future[T] = Future()
        if len(self._threads) < min(self._load.add(1), self._threads_max):
            with suppress(OSError):  # then those that are there do it
                self._threads.append(start_thread(work, self._name, self._calls, self._load))
        self._calls.put((answer, lambda: call(*args, **kwargs)))
        return answer

    def shutdown(self, *, wait: bool = True) -> None:
        """Let the threads end when they have done what was submitted. Idempotent."""
        self._end()
        for thread in self._threads if wait else ():
            thread.join()


def start_thread(target: Callable[..., None], name: str, *args: object) -> threading.Thread:
    """Start a daemon thread. OSError(EAGAIN) where the system, or an interpreter that ends, gives none."""
    thread = threading.Thread(target=target, args=args, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, f"no thread can be started: {error}") from error
    return thread


def work(calls: Calls, load: Load) -> None:
    """A thread of a pool."""
    while (item := calls.get()) is not None:
        answer, call = item
        if answer.set_running_or_notify_cancel():
            try:
                result = call()
            except BaseException as error:  # noqa: BLE001 - whoever waits is told
                load.add(-1)
                answer.set_exception(error)
            else:
                load.add(-1)
                answer.set_result(result)
                del result
        else:
            load.add(-1)
        del item, answer, call


def end(owner: int, calls: Calls, threads: list[threading.Thread]) -> None:
    """One end for each thread, behind what is queued. A forked child has none of them."""
    if os.getpid() == owner:
        for _ in threads:
            calls.put(None)


async def imported(*names: str) -> None:
    """Import modules in a thread, as far as they are not there: on the loop, each would hold up everything else for its time.

    Where no thread can be had they are imported on the loop: what needs a thread for its work says so itself, with its path.
    Raises PathError where a file of theirs cannot be read, and what else the import raises.
    """
    if any(name not in sys.modules or starting(sys.modules[name]) for name in names):
        with suppress(PathError):
            await in_thread(import_all, names)
            return
        import_all(names)


def import_all(names: Iterable[str]) -> None:
    """Import modules; see `imported`. Blocks."""
    try:
        for name in names:
            import_module(name)
    except OSError as error:
        if isinstance(error, PathError):
            raise
        hint = "too many files are open, or the system is short of something (ulimit -a); try again once that is over"
        raise PathError(
            f"a part of walsvc cannot be imported: {error.strerror or error}",
            errno=error.errno,
            path=error.filename,
            hint=hint,
        ) from error


def starting(module: object) -> bool:
    """True if a module is just being imported, by another thread: to import it would wait for that one."""
    return bool(getattr(getattr(module, "__spec__", None), "_initializing", False))


async def in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a call that blocks in a thread of its own, and wait; cancelled, only the wait ends.

    Raises PathError(EAGAIN) where no thread can be had, and what the call raises. asyncio.to_thread raises RuntimeError, and may
    run the call later, when its caller has gone.
    """
    calls, load, answer = Calls(), Load(), Future[T]()
    calls.put((answer, lambda: call(*args, **kwargs)))
    calls.put(None)
    try:
        start_thread(work, "walsvc call", calls, load)
    except OSError as error:
        raise no_thread(str(error.strerror)) from error
    return await heard(answer)


def heard(answer: Future[T]) -> asyncio.Future[T]:
    """A future for the answer of a call in a thread; cancelled, a call that has not begun is left out. The loop is told twice:
    asyncio.wrap_future tells it once, which the exception of a signal handler may lose."""
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[T] = loop.create_future()
    waiter.add_done_callback(lambda ended: ended.cancelled() and answer.cancel())
    answer.add_done_callback(partial(tell_loop, loop, partial(copy_answer, waiter, answer)))
    return waiter


def tell_loop(loop: asyncio.AbstractEventLoop, hear: Callable[[], None], _: Future[Any]) -> None:
    """In a thread: have the loop call `hear`, which is there for being called twice."""
    with suppress(RuntimeError):  # the loop is closed, so nobody waits any more
        for _each in TWICE:
            loop.call_soon_threadsafe(hear)


def copy_answer(waiter: asyncio.Future[T], done: Future[T]) -> None:
    """On the loop: give a call's answer to whoever waits."""
    if waiter.done():
        return
    if done.cancelled():
        waiter.cancel()
    elif (error := done.exception()) is not None:
        waiter.set_exception(error)
    else:
        waiter.set_result(done.result())


def no_thread(text: str) -> PathError:
    """The error where no thread can be had."""
    hint = "raise the limit on processes (ulimit -u, pids.max), and try again"
    return PathError(text, errno=errno.EAGAIN, hint=hint)


@contextmanager
def looking_up() -> Iterator[None]:
    """Around a call in which asyncio looks up a name, in a thread of its own executor: PathError(EAGAIN) where that is not to be had."""
    try:
        yield
    except RuntimeError as error:
        if "thread" not in str(error) and "schedule" not in str(error):  # as CPython and its ThreadPoolExecutor say it
            raise
        raise no_thread(f"no thread can be started: {error}") from error
