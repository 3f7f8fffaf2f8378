"""A program under trial: it runs, every moment of it is kept, and the check is run on what a power cut may leave of each.

A cut has a name, by which it is tried again alone: RUN:OPERATION:IMAGE, such as 0:31:1, where RUN is a seed and perhaps a fault
(0+sync@3: the third sync fails); /OPERATION:IMAGE follows for each further life.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from walsvc.disk.sim import SimCrash
from walsvc.errors import BadOption, WalError
from walsvc.testing.machine import Disk
from walsvc.testing.picture import fates
from walsvc.testing.world import EPOCH, begin, running

Work = Callable[[Disk], Awaitable[Any]]
REBOOT_SECONDS = 30.0  # the wall clock goes on while the machine is off
TEXT_SHOWN = 200
SHOWN = 8  # operations, and fates of writes, in a report


@dataclass(slots=True)
class Explored:
    """The figures of a trial.

    Attributes:
        runs: of the program.
        moments: at which the power might have gone.
        checks: each of other contents of the disk, or with another witness.
    """

    runs: int = 0
    moments: int = 0
    checks: int = 0


class Moment(NamedTuple):
    """The world right before an operation takes effect; the last one of a life is its end.

    Attributes:
        operation: its name.
        seconds: what the wall clock shows.
        known: equal as long as the witness has heard nothing new.
        disk: a copy.
    """

    operation: str
    seconds: float
    known: int
    disk: Disk


@dataclass(frozen=True, slots=True)
class Life:
    """One run of the program, and how it is called: a run, and the cuts before it."""

    name: str
    moments: Sequence[Moment]

    def cut(self, number: int, image: int) -> str:
        """The name of a cut before the moment with this index."""
        return f"{self.name}{'/' if ':' in self.name else ':'}{number + 1}:{image}"


class Failure(NamedTuple):
    """A check that failed."""

    number: int
    image: int
    left: Disk
    error: BaseException


@dataclass(frozen=True, slots=True)
class Trial:
    """See PowerCuts.__call__ for the fields."""

    program: Work
    check: Work
    images: int
    checks_max: int
    operations_max: int
    again: str | None
    explored: Explored

    def explore(self, seed: int, lives: int) -> None:
        """Cut the power everywhere in a run with this seed, and in those that follow on what some cut has left."""
        __tracebackhide__ = True
        disk, name, epoch, rng = Disk(seed), f"{seed}", EPOCH, random.Random(f"{seed} lives")
        for _ in range(lives):
            life = self.live(name, disk, epoch)
            self.cut(life, range(len(life.moments)))
            number = rng.randrange(len(life.moments))
            images = list(life.moments[number].disk.images(self.images))
            image = rng.randrange(len(images))
            epoch = life.moments[number].seconds + REBOOT_SECONDS
            name, disk = life.cut(number, image), images[image].restarted()

    def fail(self, seed: int, operation: str, nth: int) -> bool:
        """Let one operation of a run fail, and check at its end. False: there are not so many of them."""
        __tracebackhide__ = True
        disk = Disk(seed)
        disk.fail(operation, nth=nth)
        life = self.live(f"{seed}+{operation}@{nth}", disk, EPOCH)
        if disk.failed:
            self.cut(life, [len(life.moments) - 1])
        return disk.failed > 0

    def once(self, name: str) -> None:
        """Try one cut, or one run, by its name. BadOption: it has no such name."""
        __tracebackhide__ = True
        try:
            run, _, rest = name.partition(":")
            seed, _, fault = run.partition("+")
            operation, _, nth = fault.partition("@")
            disk, life_name, epoch = Disk(int(seed)), run, EPOCH
            cuts = [(int(number), int(image)) for number, image in (c.split(":") for c in rest.split("/") if rest)]
            if fault:
                disk.fail(operation, nth=int(nth))
        except ValueError:
            raise BadOption(f"{name!r} is no power cut", hint="take it from a failing test's report") from None
        life = self.live(life_name, disk, epoch)
        for turn, (number, image) in enumerate(cuts, 1):
            left = self.left(life, number, image)
            if turn == len(cuts):
                failure = self.failure(life, number - 1, image, left)
                if failure is not None:
                    self.report(life, failure)
                    raise failure.error
                return
            epoch = life.moments[number - 1].seconds + REBOOT_SECONDS
            life = self.live(life.cut(number - 1, image), left.restarted(), epoch)
        self.cut(life, [len(life.moments) - 1] if fault else range(len(life.moments)))

    def left(self, life: Life, number: int, image: int) -> Disk:
        """The disk that a cut leaves. BadOption: the run has no such moment."""
        if not 1 <= number <= len(life.moments):
            raise BadOption(f"run {life.name} has operations 1 to {len(life.moments)}, not {number}")
        found = list(life.moments[number - 1].disk.images(self.images))
        if not 0 <= image < len(found):
            raise BadOption(f"operation {number} of run {life.name} has images 0 to {len(found) - 1}, not {image}")
        return found[image]

    # ---- living

    def live(self, name: str, disk: Disk, epoch: float) -> Life:
        """Run the program to its end, or to its last operation, and keep every moment of it."""
        __tracebackhide__ = True
        moments: list[Moment] = []

        def keep(operation: str) -> None:
            known = 0
            if moments:
                known = moments[-1].known + (moments[-1].disk.witness != disk.witness)
            loop = running()
            moments.append(Moment(operation, epoch + (loop.time() if loop else 0.0), known, disk.fork()))
            if len(moments) > self.operations_max:
                raise SimCrash

        async def whole() -> None:
            try:
                await self.program(disk)
            except (WalError, OSError):
                if not disk.failed:  # a fault that was asked for may end the program
                    raise
            keep("end")
            disk.watch(None)

        disk.watch(keep)
        self.explored.runs += 1
        try:
            begin(whole, chance=name, epoch=epoch)
        except SimCrash:
            pass
        except BaseException as error:
            said = (
                f"walsvc.testing: the program failed, before any power cut, {len(moments)} operations into run {name}"
            )
            error.add_note("\n".join([said, *self.again_with(name)]))
            raise
        finally:
            disk.watch(None)
        assert disk.devices, "the program has not used its disk: open the log by walsvc.open(disk)"
        return Life(name, moments)

    # ---- cutting

    def cut(self, life: Life, numbers: Sequence[int]) -> None:
        """Check what cuts at some moments leave, earlier ones first. Raises what the check raises at the first that fails."""
        __tracebackhide__ = True
        self.explored.moments += len(numbers)
        seen: set[tuple[str, int]] = set()
        chosen = numbers
        if len(numbers) * self.images > self.checks_max:
            rng = random.Random(f"{life.name} moments")
            chosen = sorted(rng.sample(numbers, max(1, self.checks_max // self.images)))
        for failure in self.failures(life, chosen, seen):
            passed_over = [number for number in numbers if number < failure.number and number not in chosen]
            shortest = next(self.failures(life, passed_over, seen), failure)
            self.report(life, shortest)
            raise shortest.error

    def failures(self, life: Life, numbers: Iterable[int], seen: set[tuple[str, int]]) -> Iterator[Failure]:
        """The cuts that fail, where the same disk with the same witness was not seen yet."""
        __tracebackhide__ = True
        for number in numbers:
            moment = life.moments[number]
            for image, left in enumerate(moment.disk.images(self.images)):
                key = (left.fingerprint(), moment.known)
                if key not in seen:
                    seen.add(key)
                    failure = self.failure(life, number, image, left)
                    if failure is not None:
                        yield failure

    def failure(self, life: Life, number: int, image: int, left: Disk) -> Failure | None:
        """Run the check on what a cut has left; None: it passes."""
        __tracebackhide__ = True
        self.explored.checks += 1
        epoch = life.moments[number].seconds + REBOOT_SECONDS
        try:
            begin(self.check, left.fork(), chance=life.cut(number, image), epoch=epoch)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - that of the shortest cut is raised
            return Failure(number, image, left, error)
        return None

    # ---- telling

    def report(self, life: Life, failure: Failure) -> None:
        """Add to the error where the power went, what that took, and how to see it again."""
        moment, operations = life.moments[failure.number], [each.operation for each in life.moments]
        before = operations[max(0, failure.number - SHOWN) : failure.number]
        witness = moment.disk.witness
        took = fates(moment.disk, failure.left)
        if len(took) > SHOWN:
            took[SHOWN:] = [f"and {len(took) - SHOWN} more"]
        lines = [
            f"walsvc.testing: the check failed after a power cut before operation {failure.number + 1} of {len(operations)}, "
            f"{moment.operation!r}, {moment.seconds - life.moments[0].seconds:.6f} s into run {life.name}",
            f"  operations before it: {'... ' if failure.number > SHOWN else ''}{', '.join(before) or 'none'}",
            f"  witness at that moment: {clip(repr(witness))}",
            *(f"  not synced then: {fate}" for fate in took or ["nothing; all that was written is there"]),
            f"  tried before it: {self.explored.checks - 1} other disks",
            *self.again_with(life.cut(failure.number, failure.image)),
            *self.shared(),
        ]
        failure.error.add_note("\n".join(lines))

    def again_with(self, name: str) -> list[str]:
        """The line that says how to see it again."""
        return [f"  again: {self.again} --power-cut {name}" if self.again else f"  again: PowerCuts(only={name!r})"]

    def shared(self) -> list[str]:
        """A line about values that program and check share beside the disk: at the check they are from another time."""
        cells = [getattr(inspect.unwrap(work), "__closure__", None) or () for work in (self.program, self.check)]
        values = [{id(cell.cell_contents): cell.cell_contents for cell in each} for each in cells]
        both = [value for key, value in values[0].items() if key in values[1] and isinstance(value, (dict, list, set))]
        return [
            f"  careful: program and check share {clip(repr(value))}, as it was at the program's end; what the world knew at "
            "the cut is in disk.witness"
            for value in both
        ]


def clip(text: str) -> str:
    """The end of a long text, which is the youngest part of a list."""
    return text if len(text) <= TEXT_SHOWN else f"...{text[-TEXT_SHOWN:]}"
