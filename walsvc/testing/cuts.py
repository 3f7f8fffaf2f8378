"""PowerCuts: what the fixture `power_cuts` is, and `run` for a program in simulated time without cuts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from concurrent.futures import Future
from contextvars import copy_context
from threading import Thread
from typing import Any, TypeVar

from walsvc.config import between
from walsvc.disk.sim.faults import check_operation
from walsvc.options import check_type
from walsvc.testing.machine import COUNT_MAX, Disk
from walsvc.testing.trial import Explored, Trial
from walsvc.testing.world import begin

T = TypeVar("T")


class PowerCuts:
    """Tries programs on a disk that loses power at every operation.

    Args:
        again: the command that runs the test again, for reports.
        only: the name of a cut, or of a run, which is then all that is tried.
        seeds: how many seeds are tried, whatever the call says.
    """

    def __init__(self, again: str | None = None, only: str | None = None, seeds: int | None = None) -> None:
        self._again = again
        self._only = only
        self._seeds = seeds

    def __call__(
        self,
        program: Callable[[Disk], Awaitable[Any]],
        check: Callable[[Disk], Awaitable[Any]],
        *,
        seeds: int = 5,
        lives: int = 1,
        faults: Collection[str] = (),
        images: int = 6,
        checks_max: int = 2_000,
        operations_max: int = 1_000,
    ) -> Explored:
        """Run `program(disk)` on an empty disk, and `check(disk)` on what a power cut at each of its operations may leave.

        Both run on simulated time in event loops of their own. This is an ordinary call, for tests of every kind, asynchronous
        ones, too. The program may run for ever: at operation `operations_max` the power goes for good.

        Args:
            program: opens logs by `walsvc.open(disk, ...)`, and appends to `disk.witness` what somebody outside is told.
            check: opens them again, and raises what it likes where something is not there that the witness has seen.
            seeds: how many runs, each with another order of events.
            lives: above 1 the program runs again on what some cut has left, and is cut at each operation there as well.
            faults: names of operations (see Disk.fail). For each of them the program runs as often as it has such operations;
                each time another one fails, and the check is run on what the end may leave. A WalError or an OSError may end
                such a run.
            images: how many different contents of the disk are looked at for each moment, at most.
            checks_max: in each life; where there may be more, the seed draws the moments.
            operations_max: in each life.

        Returns:
            How much was tried.

        Raises:
            What the check raised, with a note that names the shortest cut that fails, what was lost by it, and the command that
            tries it again; or what the program raised. AssertionError: the program has not used its disk. BadOption: a fault that
            the disk does not know; a number below 1, with which nothing would be tried.
        """
        __tracebackhide__ = True
        seeds = seeds if self._seeds is None else self._seeds
        for name, value in (("seeds", seeds), ("lives", lives), ("images", images)):
            between(name, value, 1, COUNT_MAX)
        between("checks_max", checks_max, 1, COUNT_MAX)
        between("operations_max", operations_max, 1, COUNT_MAX)
        check_type("faults", faults, list, tuple, set, frozenset)
        for fault in faults:
            check_operation(fault)

        def work() -> Explored:
            __tracebackhide__ = True
            trial = Trial(program, check, images, checks_max, operations_max, self._again, Explored())
            if self._only is not None:
                trial.once(self._only)
                return trial.explored
            for seed in range(seeds):
                trial.explore(seed, lives)
                for fault in faults:
                    nth = 1
                    while trial.fail(seed, fault, nth):
                        nth += 1
            return trial.explored

        return apart(work)


def run(program: Callable[[Disk], Awaitable[T]], seed: int = 0) -> T:
    """Run `program(disk)` once, on simulated time and without a power cut; returns what it returns."""
    __tracebackhide__ = True
    return apart(lambda: begin(program, Disk(seed), chance=f"{seed}"))


def apart(call: Callable[[], T]) -> T:
    """Call, and where this thread runs an event loop already, in another thread, with the caller's context variables."""
    __tracebackhide__ = True
    if not loop_runs():
        return call()
    context, answer = copy_context(), Future[T]()

    def work() -> None:
        __tracebackhide__ = True
        try:
            result = context.run(call)
        except BaseException as error:  # noqa: BLE001 - the caller raises it
            answer.set_exception(error)
        else:
            answer.set_result(result)

    Thread(target=work, name="walsvc.testing", daemon=True).start()
    return answer.result()


def loop_runs() -> bool:
    """True if an event loop runs in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
