"""An asyncio event loop whose time is simulated: it jumps to the next timer when nothing is ready.

Thirty seconds of a stalled disk take no time at all, and a run is the same on every machine. The loop knows no threads
and no sockets: when nothing is ready and no timer is set, nothing can ever happen again, and that is an error.
"""

from __future__ import annotations

import asyncio
import math
import selectors
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from walsvc.disk.sim.faults import SimCrash, SimPowerOff

T = TypeVar("T")


class SimDeadlock(RuntimeError):
    """Every task waits, and nothing is left that could wake one."""


class _JumpingSelector(selectors.DefaultSelector):
    """Advance the clock where the loop would sleep. `now`: simulated seconds."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            return []  # something is ready, and no socket has anything to say
        events = super().select(0)
        if events:
            return events
        if timeout is None:
            raise SimDeadlock("nothing is ready and no timer is set: the tasks wait for each other, or for nobody")
        if timeout > 0:
            # Rounding may leave the sum just before the timer, and the loop would spin for ever: go a hair beyond it.
            self.now += timeout
            self.now += 2 * math.ulp(self.now)
        return events


class SimLoop(asyncio.SelectorEventLoop):
    """Event loop with simulated time, from 0 seconds on.

    Attributes:
        epoch: what a wall clock shows at 0 seconds, for those who simulate one.
    """

    def __init__(self, epoch: float = 0.0) -> None:
        self._jumping = _JumpingSelector()
        self.epoch = epoch
        super().__init__(self._jumping)

    def time(self) -> float:
        """Simulated seconds since the loop was made."""
        return self._jumping.now

    def run_in_executor(  # type: ignore[override]  # the base class names a future's type that only type checkers know
        self, executor: object, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Call `func` in the loop's next round: it takes no simulated time, and every run calls it at the same place."""
        future: asyncio.Future[T] = self.create_future()

        def call() -> None:
            if future.cancelled():
                return
            try:
                future.set_result(func(*args))
            except Exception as error:  # noqa: BLE001 - whoever waits is told
                future.set_exception(error)

        self.call_soon(call)
        return future


def run_sim(main: Callable[[int], Coroutine[Any, Any, T]], seed: int) -> T:
    """Run `main(seed)` on a fresh SimLoop and return its result; see `simulate`.

    A failure prints the seed, and the same seed replays it.
    """
    try:
        return simulate(SimLoop(), lambda: main(seed))
    except SimCrash:
        raise
    except BaseException as error:
        error.add_note(f"simulation seed {seed}")
        print(f"simulation failed with seed {seed}; the same seed replays it", file=sys.stderr)
        raise


def simulate(loop: SimLoop, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run `main()` on a loop that nothing has run on, close the loop, and return the result.

    An exception in a callback, or one that nobody fetched from a task, fails the run like one in `main`. SimCrash, raised by
    a device's hook, ends the run at once and is raised to the caller, who holds the device and looks at what is left.
    """
    __tracebackhide__ = True
    strays: list[BaseException] = []

    def stray(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # A future whose error nobody fetched is the caller's choice, and what a dead process does is nobody's concern;
        # a failed callback or a task that died unnoticed is a bug.
        error = context.get("exception")
        future = context.get("future")
        if isinstance(error, SimPowerOff) or (future is not None and not isinstance(future, asyncio.Task)):
            return
        strays.append(error or RuntimeError(context["message"]))
        loop.stop()

    def finished(_: asyncio.Task[T]) -> None:
        loop.stop()

    loop.set_exception_handler(stray)
    try:
        task = loop.create_task(main())
        task.add_done_callback(finished)
        try:
            loop.run_forever()
        finally:
            task.remove_done_callback(finished)
        if strays:
            raise strays[0]
        return task.result()
    finally:
        try:
            _cancel_all(loop)
        finally:
            loop.close()


def _cancel_all(loop: SimLoop) -> None:
    """End what the run left behind, quietly: its outcome is decided."""
    loop.set_exception_handler(lambda *_: None)
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    try:
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks, timeout=60))
        loop.run_until_complete(loop.shutdown_asyncgens())
    except SimDeadlock:
        pass
