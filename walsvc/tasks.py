"""Tasks and callbacks of walsvc's own.

No task factory is asked: an eager one, as a program may have set, would run the work before its starter can keep the task, or
answer first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, suppress
from functools import wraps
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

Answer = TypeVar("Answer")
P = ParamSpec("P")
TWICE = range(2)
"""A callback that must not be lost is given to the loop so often: the exception of a signal handler may come before its first line,
and the second time it finds nothing to do."""


LOOKS = (1.0, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds between two looks at a task that is waited for."""


def begin_task(
    work: Coroutine[Any, Any, Answer], *, name: str | None = None, unlisted: bool = False
) -> asyncio.Task[Answer]:
    """Run `work` in a task on the running loop; it begins in a later turn of it.

    `unlisted`: it is taken off asyncio's list of all tasks, so that a program that cancels all tasks does not find it.
    """
    task = asyncio.Task(work, loop=asyncio.get_running_loop(), name=name)
    if unlisted:
        asyncio._unregister_task(task)  # noqa: SLF001 - documented for whoever extends asyncio
    return task


async def until_ended(
    task: asyncio.Task[Any], look: Callable[[], None] = lambda: None, *, also: tuple[asyncio.Future[Any], ...] = ()
) -> None:
    """Wait for the end of a task, or of one of `also`, and look at it again now and then: the exception of a signal handler inside
    asyncio may lose the callback that says so. `look` is called each time that the task has not ended.

    Seldom enough to cost nothing, and not for ever: a wait that nobody ends is to be seen as such on a simulated loop.
    """
    ends = (task, *also)
    for pause in LOOKS:
        if any(each.done() for each in ends):
            return
        await asyncio.wait(ends, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            look()
    if not any(each.done() for each in ends):
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)


def when_awaited(
    task: asyncio.Task[Any] | None,
    answer: asyncio.Future[Any],
    refuse: Callable[[], None],
    looks: tuple[float, ...] = (0.0, *LOOKS),
) -> None:
    """Call `refuse()` once `task` waits for `answer`. Looked at when the task has come to its next wait, and now and then after that."""
    if task is None or task.done() or answer.done() or not looks:
        return
    if getattr(task, "_fut_waiter", None) is answer:
        refuse()
        return
    task.get_loop().call_later(looks[0], when_awaited, task, answer, refuse, looks[1:])


class TaskLock:
    """`async with lock:` for one task at a time, in the order in which they came. For asyncio.Lock, where a signal handler's exception
    between the block's last line and the lock's release would keep it for ever: a turn is over at the latest when its task ends, or
    takes another one.
    """

    def __init__(self) -> None:
        # in the order of the calls; the first has come
        self._turns: dict[asyncio.Task[Any], asyncio.Future[None] | None] = {}

    def locked(self) -> bool:
        """True if some task has the turn."""
        return bool(self._turns)

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "a turn belongs to a task"
        if task in self._turns:
            self._end(task)
        turn = asyncio.get_running_loop().create_future() if self._turns else None
        try:
            self._turns[task] = turn
            task.add_done_callback(self._end)
            if turn is not None:
                self._grant()
                await turn
        except BaseException:
            self._end(task)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(RuntimeError):  # no loop: it ended in the middle, and the coroutine is thrown away
            if (task := asyncio.current_task()) is not None:
                self._end(task)
                task.remove_done_callback(self._end)

    def hand_over(self, task: asyncio.Task[Any]) -> None:
        """Give the turn of the running task to another one, which has it until it ends."""
        mine = asyncio.current_task()
        self._turns = {task if each is mine else each: turn for each, turn in self._turns.items()}
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[Any]) -> None:
        self._turns.pop(task, None)
        self._grant()

    def _grant(self) -> None:
        for turn in self._turns.values():
            if turn is not None and not turn.done():
                turn.set_result(None)
            return


def insistent(tell: Callable[P, Answer]) -> Callable[P, Answer]:
    """Make a function run again where an exception cuts it short; the exception goes on. The second time it must do only what was
    not done."""

    @wraps(tell)
    def again(*args: P.args, **kwargs: P.kwargs) -> Answer:
        try:
            return tell(*args, **kwargs)
        except BaseException:
            tell(*args, **kwargs)
            raise

    return again


class Alarm:
    """One timer for many deadlines: calls `ring` at the earliest time that it was set to. Loop thread only.

    `whole` goes around what it does then, so that an exception between two lines loses no deadline.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ring: Callable[[], None],
        whole: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._loop = loop
        self._ring = ring
        self._whole = whole
        self._timer: asyncio.TimerHandle | None = None
        self._at = 0.0  # uvloop makes a plain Handle of a time that is over, which has no when()

    def set(self, at: float) -> None:
        """Ring at this time of the loop, or before it where that was set already."""
        if self._timer is None or self._timer.cancelled() or at < self._at:
            self.stop()
            self._at = at
            self._timer = self._loop.call_at(at, self._due)

    def _due(self) -> None:
        with self._whole():
            self._timer = None
            self._ring()

    def stop(self) -> None:
        """Do not ring any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
