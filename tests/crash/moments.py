"""Every moment at which the power may go: the device as it is at each operation, and what somebody had been told by then."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, Self, TypeVar

from walsvc.disk.sim import SimDevice, run_sim


class Knowledge(Protocol):
    """What was told so far."""

    def freeze(self) -> Self:
        """A copy that stays as it is."""
        ...


T = TypeVar("T", bound=Knowledge)


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
