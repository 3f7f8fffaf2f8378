"""Every moment at which the power may go: the device as it is at each operation, and what somebody had been told by then."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple, Protocol, Self, TypeVar

from walsvc.disk.sim import SimDevice, SimLoop, run_sim

from .plan import Plan, reproducible
from .program import Program


class Knowledge(Protocol):
    """What was told so far."""

    def freeze(self) -> Self:
        """A copy that stays as it is."""
        ...


class Explored(NamedTuple):
    """The result of cutting the power at each moment of a program.

    Attributes:
        outcomes: how often each was seen; together as many as there were images.
        states: distinct images, which were recovered: what the disk held, byte by byte.
    """

    outcomes: Counter[str]
    states: set[str]


T = TypeVar("T", bound=Knowledge)
Seen = TypeVar("Seen")


def moments(
    seed: int, device: SimDevice, told: T, run: Callable[[], Awaitable[None]]
) -> list[tuple[str, SimDevice, T]]:
    """Run a workload in simulated time to its end; returns for each operation of the disk its number and what it does, the device,
    and what was known."""
    found: list[tuple[str, SimDevice, T]] = []
    device.on_operation = lambda number, what: found.append((f"{number} ({what})", device.fork(), told.freeze()))

    async def main(_: int) -> None:
        await run()
        device.on_operation = None

    run_sim(main, seed)
    return found


def cut_at_each(
    program: Program[T],
    states: int,
    recover: Callable[[Plan, SimDevice], Coroutine[Any, Any, Seen]],
    check: Callable[[Seen, T], None],
) -> Explored:
    """Run a program, and cut the power at each moment of it, in several ways; returns what was seen. Raises what `check` raises.

    Args:
        program: not run yet.
        states: images of what the disk may hold then, for each moment.
        recover: opens an image, and tells what is seen. Equal images are recovered once, and held against each moment's bounds.
        check: holds that against what was known.
    """
    plan, seed = program.plan, program.plan.seed
    outcomes: Counter[str] = Counter()
    known_images: dict[str, Seen] = {}
    loop = SimLoop()
    with reproducible(seed):
        for where, fork, known in moments(seed, program.device, program.told, program.run):
            for index, image in enumerate(fork.crash_states(states)):
                try:
                    if (fingerprint := image.fingerprint()) not in known_images:
                        known_images[fingerprint] = loop.run_until_complete(recover(plan, image))
                    seen = known_images[fingerprint]
                    check(seen, known)
                    outcomes[str(seen)] += 1
                except Exception as error:
                    error.add_note(f"seed {seed}, operation {where}, image {index}")
                    raise
    loop.close()
    return Explored(outcomes, set(known_images))
