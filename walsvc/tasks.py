"""Tasks and callbacks of walsvc's own.

No task factory is asked: an eager one, as a program may have set, would run the work before its starter can keep the task, or
answer first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
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


async def until_ended(task: asyncio.Task[Any], look: Callable[[], None] = lambda: None) -> None:
    """Wait for the end of a task, and look at it again now and then: the exception of a signal handler inside asyncio may lose the
    callback that says so. `look` is called each time that it has not ended.

    Seldom enough to cost nothing, and not for ever: a wait that nobody ends is to be seen as such on a simulated loop.
    """
    for pause in LOOKS:
        if task.done():
            return
        await asyncio.wait([task], timeout=pause)
        if not task.done():
            look()
    if not task.done():
        await asyncio.wait([task])


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
