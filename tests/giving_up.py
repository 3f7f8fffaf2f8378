"""A caller that gives up: cancels a call at each of its await points, one after the other, by count and not by luck."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Generator
from typing import Any


class Interrupted:
    """Awaits `work`, and cancels the task that does so at its `at`th suspension.

    Args:
        work: what is awaited.
        at: which suspension; 1 is the first.
        late: cancel when what the task waits for has just come, and the task has not been woken by it yet. Otherwise at once.

    Attributes:
        reached: `work` was suspended so often.
    """

    def __init__(self, work: Awaitable[Any], at: int, *, late: bool) -> None:
        self._work = work
        self._at = at
        self._late = late
        self.reached = False

    def __await__(self) -> Generator[Any, Any, Any]:
        task = asyncio.current_task()
        assert task is not None
        steps = self._work.__await__()
        step, argument = steps.send, None
        suspensions = 0
        while True:
            try:
                waited_for = step(argument)
            except StopIteration as end:
                return end.value
            suspensions += 1
            if suspensions == self._at:
                self.reached = True
                if self._late and waited_for is not None:
                    waited_for.add_done_callback(lambda _: task.cancel())
                else:
                    asyncio.get_running_loop().call_soon(task.cancel)
            try:
                argument, step = (yield waited_for), steps.send
            except BaseException as error:  # whatever it is, it is for `work`
                argument, step = error, steps.throw


async def interrupted(work: Awaitable[Any], at: int, *, late: bool) -> tuple[bool, Any]:
    """Run `work` in a task of its own, cancelled at its `at`th suspension.

    Returns:
        Whether it was suspended so often, and what it gave; CancelledError where it was cancelled.
    """
    run = Interrupted(work, at, late=late)

    async def main() -> Any:
        return await run

    (outcome,) = await asyncio.gather(main(), return_exceptions=True)
    return run.reached, outcome
