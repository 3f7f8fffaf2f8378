"""Ack, the answer to an append, and Waker, which gives many of them their results at once. Two implementations, equal by
test: this file in Python, which is the specification, and _ack.c, which is taken where it was built.

An Ack is awaitable, a future for everything in asyncio that takes futures, and a coroutine for create_task and TaskGroup.
"""

from __future__ import annotations

import asyncio
import os
from abc import abstractmethod
from array import array
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterable
from contextvars import Context
from functools import partial
from importlib import import_module
from itertools import accumulate, repeat
from typing import Any, TypeVar, cast

from walsvc.model import AppendResult
from walsvc.tasks import TWICE

make_result: partial[AppendResult] = partial(tuple.__new__, AppendResult)  # a third of the time of AppendResult(...)


T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Ack(Coroutine[Any, Any, T_co]):
    """The answer to an append: `await` it, once or more, in one task or in several.

    gather, wait_for, shield, timeout and as_completed take it as a future; create_task and TaskGroup.create_task take it as
    a coroutine. asyncio.wait refuses it, as it refuses every coroutine: `append_nowait` returns an asyncio.Future for it.
    Cancelling ends the wait. A record that was accepted stays; one that still waited for room is not written.

    Belongs to the log's loop, like asyncio.Future, whose methods of the same names are the model.
    """

    __slots__ = ()

    @abstractmethod
    def result(self) -> T_co:
        """Return the result, raise what the append failed with or CancelledError; InvalidStateError before that."""

    @abstractmethod
    def exception(self) -> BaseException | None:
        """Return what the append failed with, or None. Raises CancelledError and InvalidStateError as `result` does."""

    @abstractmethod
    def done(self) -> bool:
        """Return whether the append has its answer, or the wait was cancelled."""

    @abstractmethod
    def cancelled(self) -> bool:
        """Return whether the wait was cancelled."""

    @abstractmethod
    def cancel(self, msg: Any = None) -> bool:
        """End the wait; return False if there is an answer already."""

    @abstractmethod
    def add_done_callback(self, fn: Callable[[Any], object], /, *, context: Context | None = None) -> None:
        """Have the loop call fn(ack) when the append has its answer."""

    @abstractmethod
    def remove_done_callback(self, fn: Callable[[Any], object], /) -> int:
        """Remove all equal callbacks; return how many there were."""

    @abstractmethod
    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the log's loop."""


class PythonAck(asyncio.Future[Any]):
    """An asyncio.Future that passes for a coroutine, too."""

    def send(self, _: None) -> Any:
        """Coroutine protocol: return self while pending, then stop with the result."""
        if not self.done():
            self._asyncio_future_blocking = True
            return self
        raise StopIteration(self.result())

    def throw(self, kind: Any, value: Any = None, _: Any = None) -> Any:
        """Coroutine protocol: raise; the Ack stays as it is."""
        if isinstance(value, BaseException):
            raise value
        raise kind if value is None else kind(value)

    def close(self) -> None:
        """Coroutine protocol: nothing to close."""


class TaskAck(PythonAck):
    """The Ack of a task, for work that has to be undone when it is cancelled: cancelling asks the task, and the wait ends
    with it."""

    def __init__(self, task: asyncio.Task[Any]) -> None:
        super().__init__(loop=task.get_loop())
        self._task = task
        for _ in TWICE:
            task.add_done_callback(self._ended)

    def cancel(self, msg: Any = None) -> bool:
        return self._task.cancel(msg)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if self.done():
            return
        if task.cancelled():
            super().cancel()
        elif (error := task.exception()) is not None:
            self.set_exception(error)
        else:
            self.set_result(task.result())


def ack_of(task: asyncio.Task[T]) -> Ack[T]:
    """The Ack of a task."""
    return cast("Ack[T]", TaskAck(task))


class PythonWaker:
    """Makes the Acks of one loop and answers them. Callbacks go through the loop, as asyncio's futures do it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.ack: Callable[[], PythonAck] = partial(PythonAck, loop=loop)

    def accepted(self, lsn: int, segment_id: int, offset: int, length: int) -> PythonAck:
        """The Ack of a record that was accepted, and is not durable."""
        ack = self.ack()
        ack.set_result(make_result((lsn, segment_id, offset, length, False, 0)))
        return ack

    def settle(  # noqa: PLR0917 - hot, and C takes no names
        self, acks: list[Any], first_lsn: int, segment_id: int, offset: int, lengths: array[int], sync_us: int
    ) -> None:
        """Give each Ack in the list its AppendResult. None stands for a record that nobody waits for; an asyncio.Future is
        served as an Ack is."""
        if len(lengths) != len(acks):
            raise ValueError("settle() needs one length for each record")
        offsets = accumulate(lengths, initial=offset)
        lsns = range(first_lsn, first_lsn + len(acks))
        rows = zip(lsns, repeat(segment_id), offsets, lengths, repeat(True), repeat(sync_us))
        results = map(make_result, rows)
        gaps = acks.count(None)
        if not gaps:
            set_results(acks, results)
        elif gaps < len(acks):
            self._settle_some(acks, results)

    def _settle_some(self, acks: list[Any], results: Iterable[AppendResult]) -> None:
        for ack, result in zip(acks, results, strict=True):
            if ack is not None and not ack.done():
                ack.set_result(result)

    def give(self, ack: PythonAck, value: object) -> None:
        """Give one Ack this result, unless its wait was cancelled."""
        if not ack.done():
            ack.set_result(value)

    def wake(self) -> None:
        """Wake whoever waits for what was settled and given: here the loop has been told already."""


def set_results(futures: Iterable[asyncio.Future[Any]], results: Iterable[Any]) -> None:
    """Give each future its result, skipping those that are cancelled, without a line of Python for each.

    A third of the time of the plain loop. After an exception both iterators stand behind the future that raised it.
    """
    pending, values = iter(futures), iter(results)
    while True:
        try:
            deque(map(asyncio.Future.set_result, pending, values), maxlen=0)
            return
        except asyncio.InvalidStateError:
            continue


class Lesson:
    """A loop that runs nothing and a future that is never done: a task of the first that awaits the second shows what a
    task's wake-up is."""

    _asyncio_future_blocking = False

    def __init__(self) -> None:
        self.step: tuple[Callable[..., Any], Context] | None = None
        self.wakeup: Callable[..., Any] | None = None

    def get_debug(self) -> bool:
        return False

    def call_soon(self, step: Callable[..., Any], *_: Any, context: Context) -> None:
        self.step = step, context

    def call_exception_handler(self, _: dict[str, Any]) -> None:
        """Nothing is wrong about a task that never ends."""

    def get_loop(self) -> Lesson:
        return self

    def add_done_callback(self, wakeup: Callable[..., Any], *, context: Context) -> None:
        self.wakeup = wakeup

    def result(self) -> None:
        """Nothing."""

    def __await__(self) -> Generator[Lesson, None, None]:
        self._asyncio_future_blocking = True
        yield self


def wakeup_of_a_task() -> Callable[..., Any] | None:
    """Return the callback that a task gives to a future that is not asyncio's own."""

    async def pupil(lesson: Lesson) -> None:
        await lesson

    lesson = Lesson()
    task = asyncio.Task(pupil(lesson), loop=lesson)  # type: ignore[arg-type]
    assert lesson.step is not None
    step, context = lesson.step
    context.run(step)
    wakeup = lesson.wakeup
    if wakeup is not None:
        context.run(wakeup, lesson)
    assert task.done()
    return wakeup


async def all_done(waiting: Iterable[Any]) -> None:
    """Wait until all of these are done, whatever became of them. What asyncio.wait does for futures, here for Acks, too."""
    pending = [each for each in waiting if not each.done()]
    left = {id(each) for each in pending}
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def count(each: object) -> None:
        left.discard(id(each))
        if not left and not done.done():
            done.set_result(None)

    try:
        for each in pending:
            for _ in TWICE:
                each.add_done_callback(count)
        if pending:
            await done
    finally:
        for each in pending:
            each.remove_done_callback(count)


def extension(name: str) -> Any:
    """A part of the commit path in C, or None where it was not built or WALSVC_CORE=python rules it out."""
    if os.environ.get("WALSVC_CORE") == "python":
        return None
    try:
        return import_module(f"walsvc.log.commit.{name}")
    except ImportError:
        return None


def why() -> str:
    """The reason for the commit path that runs."""
    if os.environ.get("WALSVC_CORE") == "python":
        return "WALSVC_CORE=python"
    if compiled is None:
        return "the extensions were not built (no C compiler or no Python.h when walsvc was installed)"
    return (
        "compiled"
        if learned
        else "compiled; tasks are woken through the loop, since this asyncio's are written in Python"
    )


compiled: Any = extension("_ack")
learned = compiled is not None and compiled.learn(wakeup_of_a_task())
reason: str = why()
CORE = "python" if compiled is None else "c"
Waker: Any = PythonWaker if compiled is None else compiled.Waker
Ack.register(PythonAck)
if compiled is not None:
    Ack.register(compiled.Ack)
