"""Background: the tasks that a writer runs for itself.

A task of a log must come to its end: half a rotation, or half a truncation, leaves callers waiting for ever. Programs cancel
all tasks when they end, and a signal handler may raise SystemExit in any of them. So a piece of work has two tasks:

* The work itself. It is taken off asyncio's list of all tasks, so that nobody outside finds it to cancel it.
* Its keeper, on that list under the name "walsvc ...", which waits for the work however often it is cancelled. While the loop
  is being shut down it makes asyncio.run wait, too.

Work that ends by a cancellation or by an exception it did not foresee fails the log, which wakes everybody, before anything else
runs on the loop. No task factory is asked: an eager one would run the work before its starter can keep the task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from walsvc.tasks import until_ended

Answer = TypeVar("Answer")


class Background:
    """Starts tasks, and keeps them until they end. Loop thread only.

    Args:
        loop: of the log.
        broken: called as broken(name, error) when work ended by what it did not foresee.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, broken: Callable[[str, BaseException], None]) -> None:
        self._loop = loop
        self._broken = broken
        self._kept: dict[asyncio.Task[Any], asyncio.Task[Any]] = {}  # keeper: work
        self._answered: dict[asyncio.Task[Any], object] = {}  # work: the future that it waited for, and that was done

    def start(
        self, name: str, work: Coroutine[Any, Any, Answer], *, foreseen: tuple[type[BaseException], ...] = ()
    ) -> asyncio.Task[Answer]:
        """Run `work`; it begins in a later turn of the loop.

        Args:
            name: what it does, for people.
            work: what to run.
            foreseen: exceptions that are an answer to whoever asked for the work.
        """
        try:
            told: list[BaseException] = []
            task = asyncio.Task(self._run(name, work, foreseen, told), loop=self._loop, name=f"walsvc {name}: work")
            asyncio._unregister_task(task)  # noqa: SLF001 - documented for whoever extends asyncio
            task.add_done_callback(partial(self._ended, name, foreseen, told))
            keeper = asyncio.Task(keep(task), loop=self._loop, name=f"walsvc {name}")
            self._kept[keeper] = task
            keeper.add_done_callback(self._forget)
        except BaseException as error:  # it may run already, and its starter does not know it
            self._broken(f"beginning {name} was cut short", error)
            raise
        return task

    def _forget(self, keeper: asyncio.Task[Any]) -> None:
        self._kept.pop(keeper, None)

    def look(self) -> None:
        """Wake work whose wake-up asyncio has lost: it waits for a future that was done at the look before, too. Where a signal
        handler raises inside of call_soon, or between its taking a callback and calling it, a task is never told. For whoever
        waits for the work, not more often than once a second."""
        before, self._answered = self._answered, {}
        for task in list(self._kept.values()):
            waiter = getattr(task, "_fut_waiter", None)
            if waiter is None or not waiter.done():
                continue
            if before.get(task) is waiter:
                wake_again(task)
            else:
                self._answered[task] = waiter

    async def _run(
        self,
        name: str,
        work: Coroutine[Any, Any, Answer],
        foreseen: tuple[type[BaseException], ...],
        told: list[BaseException],
    ) -> Answer:
        try:
            return await work
        except foreseen:
            raise
        except BaseException as error:
            self._broken(f"{name} ended", error)
            told.append(error)
            raise

    def _ended(
        self,
        name: str,
        foreseen: tuple[type[BaseException], ...],
        told: list[BaseException],
        task: asyncio.Task[Any],
    ) -> None:
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is None or isinstance(error, foreseen):
            return
        if not told:  # it has ended before its first line
            self._broken(f"{name} ended", error)
        if isinstance(error, Exception) and not isinstance(error, (OSError, MemoryError)):  # a defect of ours
            self._loop.call_exception_handler({"message": f"walsvc: {name} ended", "exception": error})


def under_way(task: asyncio.Task[Any] | None) -> bool:
    """True if there is a task that has not ended."""
    return task is not None and not task.done()


async def keep(work: asyncio.Task[Any], *also: asyncio.Future[Any]) -> None:
    """Wait for the end of `work`, or of one of `also`, cancelled or not."""
    while not any(each.done() for each in (work, *also)):
        with suppress(asyncio.CancelledError):
            await until_ended(work, also=also)


def wake_again(task: asyncio.Task[Any]) -> None:
    """Let a task go on that waits for a future which is done. To begin a Task anew with its coroutine is the way to have asyncio
    step it; what it was to tell at its end is kept."""
    told: list[tuple[Callable[[Any], object], Any]] = getattr(task, "_callbacks", None) or []
    task.__init__(task.get_coro(), loop=task.get_loop(), name=task.get_name())  # type: ignore[misc]
    asyncio._unregister_task(task)  # noqa: SLF001 - documented for whoever extends asyncio
    for callback, context in told:
        task.add_done_callback(callback, context=context)
