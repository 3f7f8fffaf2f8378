"""Cut the power at every operation of a workload, and of the recoveries that follow, and compare with the model."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from walsvc.disk.sim import SimDevice, SimLoop, run_sim
from walsvc.opening import open_on

from .model import Bounds, Entry, Model, Observed, require
from .plan import Plan, reproducible
from .workload import Workload, observe

T = TypeVar("T")


class Point(NamedTuple):
    """A moment at which the power may go: the device then, and what may be left."""

    number: int
    operation: str
    device: SimDevice
    bounds: Bounds


@dataclass(slots=True)
class Tally:
    """What was explored."""

    seeds: int = 0
    points: int = 0
    recovery_points: int = 0
    images: int = 0
    kills: int = 0
    states: set[str] = field(default_factory=set)
    findings: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        found = ", ".join(f"{kind} {count}" for kind, count in sorted(self.findings.items()))
        return (
            f"{self.seeds} seeds, {self.points} crash points ({self.recovery_points} during recovery), "
            f"{self.images} images, {len(self.states)} distinct states, {self.kills} kills; findings: {found}"
        )


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to look at for each seed."""

    lives: int = 3
    steps: int = 30
    states: int = 8  # crash images at each operation of the workload
    recovery_share: float = 0.01  # share of the images whose recovery is cut at every operation
    recovery_states: int = 4
    kill_share: float = 0.02  # share of the operations at which the process is killed, too
    go_on_share: float = 1.0  # share of the images whose log is appended to, closed and opened again


class Explorer:
    """Explores one seed after the other."""

    def __init__(self, effort: Effort | None = None, draw: Callable[[int], Plan] = Plan.draw) -> None:
        self.effort = effort or Effort()
        self.draw = draw
        self.tally = Tally()
        self._loop = SimLoop()
        self._strays: list[BaseException] = []
        self._loop.set_exception_handler(self._stray)

    def close(self) -> None:
        self._loop.close()

    def explore(self, seed: int, enough: Callable[[], bool] = lambda: False) -> None:
        """One seed: some lives of a log, each ended by a power cut; ends early where it is `enough`. Raises Violation and
        whatever the log raises."""
        self.tally.seeds += 1
        with reproducible(seed):
            SeedRun(self, seed).run(enough)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop that all recoveries share."""
        result = self._loop.run_until_complete(work)
        if self._strays:
            raise self._strays.pop()
        return result

    def _stray(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        future = context.get("future")
        if future is not None and not isinstance(future, asyncio.Task):
            return  # an answer that nobody asked for
        self._strays.append(context.get("exception") or RuntimeError(context["message"]))


class SeedRun:
    """One seed's lives."""

    def __init__(self, explorer: Explorer, seed: int) -> None:
        self.explorer = explorer
        self.effort = explorer.effort
        self.tally = explorer.tally
        self.plan = explorer.draw(seed)
        self.seed = seed
        self.rng = random.Random(f"{seed} explorer")
        self.seen: dict[str, Observed] = {}

    def run(self, enough: Callable[[], bool]) -> None:
        device, model = self.plan.device(), Model()
        for life in range(self.effort.lives):
            points = self.live(device, model, life)
            left: list[tuple[SimDevice, Bounds]] = []
            for point in points:
                if enough():
                    return
                left += self.cut(life, point)
            if not left:
                return
            device, bounds = self.rng.choice(left)
            model = Model.of(bounds)

    def live(self, device: SimDevice, model: Model, life: int) -> list[Point]:
        """Run the workload and keep every moment of it."""
        points: list[Point] = []

        def keep(number: int, operation: str) -> None:
            points.append(Point(number, operation, device.fork(), model.freeze()))

        device.on_operation = keep
        workload = Workload(self.plan, device, model, life, self.effort.steps)

        async def main(_: int) -> None:
            await workload.run()
            keep(device.operations + 1, "end")
            device.on_operation = None

        try:
            run_sim(main, self.seed)
        except BaseException as error:
            error.add_note(f"in the workload of life {life}, operation {device.operations}")
            raise
        return points

    def cut(self, life: int, point: Point) -> list[tuple[SimDevice, Bounds]]:
        """Look at what a crash at this point may leave."""
        self.tally.points += 1
        left = []
        for index, image in enumerate(point.device.crash_states(self.effort.states)):
            where = f"life {life}, operation {point.number} ({point.operation}), image {index}"
            left.append((image.fork(), point.bounds))
            self.checked(image, point.bounds, where)
        if self.rng.random() < self.effort.kill_share:
            self.tally.kills += 1
            killed = point.device.fork()
            killed.kill()
            self.cut_recovery(
                killed, point.bounds, f"life {life}, operation {point.number} ({point.operation}), killed"
            )
        return left

    def checked(self, image: SimDevice, bounds: Bounds, where: str, *, deeper: bool = True) -> None:
        """Recover from an image, unless that was done before, and compare with the bounds."""
        self.tally.images += 1
        fingerprint = image.fingerprint()
        try:
            seen = self.seen.get(fingerprint)
            if seen is None:
                self.tally.states.add(fingerprint)
                if deeper and self.rng.random() < self.effort.recovery_share:
                    self.cut_recovery(image.fork(), bounds, where)
                go_on = self.rng.random() < self.effort.go_on_share
                seen = self.explorer.run(recover(self.plan, image, bounds, self.tally, go_on=go_on))
                self.seen[fingerprint] = seen
            bounds.check(seen)
        except Exception as error:
            error.add_note(f"seed {self.seed}, {where}; {self.plan}")
            raise

    def cut_recovery(self, device: SimDevice, bounds: Bounds, where: str) -> None:
        """Cut the power at every operation of a recovery, and once more when it has told what it found."""
        points: list[tuple[SimDevice, str]] = []
        device.on_operation = lambda number, operation: points.append((device.fork(), f"{number} ({operation})"))
        seen = self.explorer.run(recover(self.plan, device, bounds, self.tally, go_on=False))
        device.on_operation = None
        bounds.check(seen)
        for fork, operation in points:
            self.tally.points += 1
            self.tally.recovery_points += 1
            for index, image in enumerate(fork.crash_states(self.effort.recovery_states)):
                self.checked(image, bounds, f"{where}; recovery cut at {operation}, image {index}", deeper=False)
        for index, image in enumerate(device.crash_states(self.effort.recovery_states)):
            self.checked(image, bounds.after(seen), f"{where}; cut after the report, image {index}", deeper=False)


async def recover(plan: Plan, device: SimDevice, bounds: Bounds, tally: Tally, *, go_on: bool = True) -> Observed:
    """Open, read everything; then append, close, open again and read everything.

    Raises Violation where the report or what comes later is wrong; the caller compares what was observed with the bounds.
    """
    log = await open_on(plan.disk(device, calm=True), plan.config)
    report = log.report
    for finding in report.findings:
        tally.findings[finding.kind] += 1
        require(not finding.fatal, f"a fatal finding after a power cut: {finding}")
    require(report.first_lsn == log.first_lsn and report.next_lsn == log.next_lsn, f"wrong report: {report}")
    require(not (report.created and bounds.exists), "a log that existed was created anew")
    require(log.durable_lsn == log.next_lsn - 1, f"opened with durable_lsn {log.durable_lsn}")
    seen = await observe(log)
    if not go_on:
        return seen
    more = [Entry(b"more %d" % number * number) for number in (1, 0, 700)]
    batch = await log.append_batch([entry.payload for entry in more])
    require([each.lsn for each in batch] == list(range(seen.next, seen.next + 3)), "LSNs do not go on")
    await log.close()
    log = await open_on(plan.disk(device, calm=True), plan.config)
    require(log.report.clean, f"not clean after close: {log.report}")
    again = await observe(log)
    require(again == Observed(seen.first, seen.next + 3, seen.entries + more), "different after reopening")
    await log.close()
    return seen


def replay_command(seed: int) -> str:
    """What to type to see a failure again."""
    return f"python -m tests.crash.explore --seed {seed} --count 1"
