"""Tasks of walsvc's own. No task factory is asked: an eager one, as a program may have set, would run the work before its starter
can keep the task, or answer first."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

Answer = TypeVar("Answer")


def begin_task(work: Coroutine[Any, Any, Answer], *, name: str | None = None) -> asyncio.Task[Answer]:
    """Run `work` in a task on the running loop; it begins in a later turn of it."""
    return asyncio.Task(work, loop=asyncio.get_running_loop(), name=name)
