"""What the tests of the simulated disk share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from walsvc.disk.base import Write
from walsvc.disk.sim import SimDevice, SimDisk, run_sim

BLOCK = 4096
SEEDS = range(40)


def block(mark: bytes, blocks: int = 1) -> bytes:
    return mark * (BLOCK * blocks)


class Answers:
    """Collects what `done` says, in order."""

    def __init__(self) -> None:
        self.order: list[Any] = []
        self.errors: dict[Any, OSError | None] = {}
        self.more = asyncio.Event()

    def submit(self, disk: SimDisk, file: int, offset: int, data: bytes, tag: Any = 0) -> memoryview:
        view = disk.buffer(len(data))
        view[:] = data
        disk.submit(Write(file, offset, view, self.done, tag))
        return view

    def done(self, write: Write, error: OSError | None) -> None:
        self.order.append(write.tag)
        self.errors[write.tag] = error
        self.more.set()

    async def wait(self, count: int = 1) -> None:
        while len(self.order) < count:
            self.more.clear()
            await self.more.wait()


def on_disk(
    scenario: Callable[[SimDisk], Awaitable[Any]], seed: int = 0, *, device: SimDevice | None = None, **options: Any
) -> Any:
    """Run a scenario with one disk on simulated time."""

    async def main(seed: int) -> Any:
        disk = SimDisk(device or SimDevice(seed), **options)
        result = await scenario(disk)
        await disk.close()
        return result

    return run_sim(main, seed)


def content(device: SimDevice, name: str = "f") -> bytes:
    """What a process that opens this device finds in a file."""
    file = device.file(name)
    return file.read(0, file.visible_size, lambda: True)


def sectors(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


async def prepared(disk: SimDisk, blocks: int = 4) -> int:
    """An open, durable, zeroed file "f"."""
    await disk.allocate("f", blocks * BLOCK)
    return await disk.open_file("f")


def names_after(loose: bool, steps: Callable[[SimDisk], Awaitable[None]], **options: Any) -> set[tuple[str, ...]]:
    """Every set of names that cuts after `steps` leave, beside the durable, existing files a and b."""
    device = SimDevice(7, loose=loose, **options)

    async def scenario(disk: SimDisk) -> None:
        await disk.allocate("a", BLOCK)
        await disk.allocate("b", BLOCK)
        await steps(disk)

    on_disk(scenario, device=device)
    return {tuple(sorted(image.directory.durable)) for image in device.crash_states(200)}


async def rename_both(disk: SimDisk) -> None:
    await disk.rename("a", "x")
    await disk.rename("b", "y")


async def workload(disk: SimDisk) -> None:
    """Some of everything."""
    answers = Answers()
    file = await prepared(disk, blocks=8)
    for index in range(8):
        answers.submit(disk, file, index * BLOCK, block(b"%d" % index), index)
        if index % 3 == 0:
            await asyncio.sleep(1e-4)
    await disk.allocate("spare", 2 * BLOCK)
    await disk.rename("spare", "next")
    await disk.sync_directory()
    await disk.remove("next")
    await answers.wait(8)
