"""Order and time of simulated operations: a queue from which chance draws who goes next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Any, TypeVar

from walsvc.disk.sim.device import SimDevice

T = TypeVar("T")
Program = Generator[None, None, T]
"""One operation. It begins some time after it was asked for; each `yield` lets more time pass and others overtake."""


class _Job:
    """A program on its way, and who wants to know its end."""

    __slots__ = ("end", "program", "started", "unwanted")

    def __init__(
        self, program: Program[Any], end: Callable[[Any, BaseException | None], None], unwanted: Callable[[], bool]
    ) -> None:
        self.program = program
        self.end = end
        self.unwanted = unwanted
        self.started = False


class SimQueue:
    """Runs programs on the loop, each in turns.

    Args:
        latency: seconds that a turn takes on average, half of it to one and a half; 0: the next round of the loop.
        out_of_order: draw each turn's program from the device's seed; False: one program at a time, in order. With a
            latency of 0 a program that nothing is in front of then runs to its end before `run` returns, without a round.
    """

    def __init__(self, device: SimDevice, loop: asyncio.AbstractEventLoop, latency: float, out_of_order: bool) -> None:
        self._device = device
        self._loop = loop
        self._latency = latency
        self._out_of_order = out_of_order
        self._at_once = latency == 0 and not out_of_order
        self._jobs: list[_Job] = []
        self._stalled_until = 0.0
        self._idle: list[asyncio.Future[None]] = []
        self._abandoned = False

    @property
    def gone(self) -> bool:
        """True if the process is dead, by SIGKILL or with the machine."""
        return self._abandoned or self._device.dead

    def add(
        self,
        program: Program[T],
        end: Callable[[T | None, BaseException | None], None],
        unwanted: Callable[[], bool] = lambda: False,
    ) -> None:
        """Run a program; end(result, error) is called from the loop.

        If it is `unwanted` before it began, chance decides whether it still happens; once begun, it runs to its end, as
        a thread's system call does.
        """
        self._jobs.append(_Job(program, end, unwanted))
        self._schedule()

    async def run(self, program: Program[T]) -> T:
        """Run a program and return its result. Cancelling the wait makes it unwanted."""
        if self._at_once and not self._jobs and not self._stalled():
            try:
                while True:
                    next(program)
            except StopIteration as stop:
                at_once: T = stop.value
                return at_once
        future: asyncio.Future[Any] = self._loop.create_future()

        def end(result: T | None, error: BaseException | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        self.add(program, end, future.cancelled)
        result: T = await future
        return result

    async def idle(self) -> None:
        """Wait until no program is left; at once when the process is gone."""
        while self._jobs and not self.gone:
            waiter = self._loop.create_future()
            self._idle.append(waiter)
            await waiter

    def abandon(self) -> None:
        """The process is dead: nothing runs on, nobody is called back."""
        self._abandoned = True
        self._jobs.clear()
        self._wake()

    def _schedule(self) -> None:
        """One turn for each program in the queue; which one takes it is drawn when it comes."""
        if self._latency > 0:
            self._loop.call_later(self._latency * self._device.random.uniform(0.5, 1.5), self._turn)
        else:
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        if self.gone:
            self._wake()
            return
        if self._stalled():
            self._loop.call_at(self._stalled_until, self._turn)
            return
        job = self._jobs.pop(self._device.random.randrange(len(self._jobs)) if self._out_of_order else 0)
        try:
            self._advance(job)
        finally:  # a callback may raise, and be the last thing that `idle` waits for
            if not self._jobs:
                self._wake()

    def _stalled(self) -> bool:
        """True if the device answers nobody; what a test asked for begins with the first look."""
        if self._device.stall > 0:
            self._stalled_until = self._loop.time() + self._device.stall
            self._device.stall = 0.0
        return self._loop.time() < self._stalled_until

    def _advance(self, job: _Job) -> None:
        if not job.started and job.unwanted() and self._device.coin():
            return
        job.started = True
        try:
            next(job.program)
        except StopIteration as stop:
            job.end(stop.value, None)
        except (OSError, AssertionError) as error:  # SimCrash passes: it ends the run, and no callback may hear of it
            job.end(None, error)
        else:
            self._jobs.insert(0, job)
            self._schedule()

    def _wake(self) -> None:
        for waiter in self._idle:
            if not waiter.done():
                waiter.set_result(None)
        self._idle.clear()
