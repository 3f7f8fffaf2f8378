"""Everyone at once: a random program whose tasks make all calls of a log beside each other, are cancelled, and meet shortages, refusals,
failed reads and failed writes. Every call is answered, `close` ends, and nothing acknowledged is lost, also where the power was cut on the way.

    python -m tests.crash.everyone --seconds 600 --seed 1

Prints its seeds; a failure prints the seed that shows it again, and the exit code is 1 then. Where tests/crash/explore.py asks what is on the
disk at every moment, this asks who waits for whom: the calls come from many tasks, in any order.
"""

from __future__ import annotations

import asyncio
import errno
import random
import sys
import time
import traceback
from collections.abc import Iterable
from typing import Any

from walsvc.config import WalConfig
from walsvc.disk.sim import SimDevice, SimDisk, run_sim
from walsvc.errors import NoSpace, Truncated, WalError
from walsvc.opening import open_on

from .calls import Calls, Promises
from .campaigning import first_of, seeds_from, seeds_parser
from .plan import reproducible

STEPS = 50
LIVES = 2
CUTS = 3  # moments of a life at which the power is cut
STATES = 2  # images of each
PATIENCE_S = 100.0  # of simulated time, in which every call must be answered
REFUSABLE = ("rename", "remove", "allocate", "open_file", "close_file")
REFUSALS = (errno.EACCES, errno.EMFILE, errno.ENOSPC, errno.EBUSY, errno.ENOMEM)


class Stuck(AssertionError):
    """A call was not answered."""


class Everyone:
    """One run.

    Args:
        seed: decides everything.
        steps: calls of each life of the log.
        hard: writes and syncs fail, too, which ends a life of the log.
    """

    def __init__(self, seed: int, steps: int = STEPS, *, hard: bool = False) -> None:
        rng = self.rng = random.Random(seed)
        self.steps, self.hard = steps, hard
        self.device = SimDevice(seed, garbage=True, loose=rng.random() < 0.5)
        self.options = drawn_options(rng)
        lossy = not self.options.keys().isdisjoint({"reclaim", "retain_bytes", "retain_seconds"})
        self.calls = Calls(rng, Promises(lossy=lossy), encrypted=rng.random() < 0.5)
        self._aside = random.Random(f"{seed} cuts")
        self._cuts: list[tuple[SimDevice, Promises]] = []

    def run(self) -> None:
        """All of it. Raises Stuck, Wrong, SimDeadlock, and whatever a call raised that is no answer."""
        with reproducible(self.device.seed):
            run_sim(self._main, self.device.seed)

    async def _main(self, _: int) -> None:
        for life in range(LIVES):
            await self._life(last=life == LIVES - 1)
            await self._check(self.device, self.calls.promises)
            cuts, self._cuts = self._cuts, []
            for fork, promises in cuts:
                for image in fork.crash_states(STATES):
                    await self._check(image, promises)
                    if self._aside.random() < 0.2:  # the next life begins after a power cut
                        self.device, self.calls.promises = image, promises

    async def _open(self, device: SimDevice) -> Any:
        """The log; where the device is full and a truncation has to go on, once there is room."""
        config = WalConfig(**self.options, keys=self.calls.ring())
        try:
            return await open_on(SimDisk(device), config)
        except NoSpace:
            if device.capacity is None:
                raise
            device.capacity = None
            return await open_on(SimDisk(device), config)

    async def _check(self, device: SimDevice, promises: Promises) -> None:
        async with await self._open(device) as log:
            while True:
                try:
                    found = {record.lsn: record.payload async for record in log.read(start=log.first_lsn)}
                except Truncated:  # retention went on meanwhile
                    continue
                promises.check(log.first_lsn, found)
                return

    # ---- a life

    async def _life(self, *, last: bool) -> None:
        rng, calls, device = self.rng, self.calls, self.device
        calls.log = await self._open(device)
        device.on_operation = self._maybe_cut
        weights = {**calls.WEIGHTS, **({"seal": 1} if last else {})}
        tasks: dict[asyncio.Task[None], str] = {}
        for step in range(self.steps):
            (name,) = rng.choices(list(weights), list(weights.values()))
            tasks[asyncio.ensure_future(self._answered(getattr(calls, name)))] = f"{step} {name}"
            if rng.random() < 0.12:
                await self._fault()
            pause = rng.random()
            if pause >= 0.3:
                await asyncio.sleep(0 if pause < 0.6 else rng.random() * (0.002 if pause < 0.9 else 0.1))
            if rng.random() < 0.15 and (running := [task for task in tasks if not task.done()]):
                rng.choice(running).cancel()
        if rng.random() < 0.6:
            await self._wait(tasks, patient=True)
            self._relieve()
            await self._wait({asyncio.ensure_future(self._answered(calls.flush)): "flush"})
        self._relieve()
        await self._wait({asyncio.ensure_future(self._answered(calls.log.close)): "close"})
        await self._wait(tasks)
        device.on_operation = None
        for task in tasks:
            if not task.cancelled():
                task.result()

    @staticmethod
    async def _answered(call: Any) -> None:
        """Any error of the log is an answer."""
        try:
            await call()
        except (WalError, TimeoutError):
            pass

    async def _wait(self, tasks: dict[asyncio.Task[None], str], *, patient: bool = False) -> None:
        """Wait for the calls; `patient`: where they wait for a shortage to end, it ends."""
        for attempt in range(1 + patient):
            running = [task for task in tasks if not task.done()]
            if running:
                await asyncio.wait(running, timeout=PATIENCE_S)
            if all(task.done() for task in tasks):
                return
            if attempt < patient:
                self._relieve()
        waiting = {tasks[task]: chain_of(task) for task in tasks if not task.done()}
        own = [f"{task.get_name()}: {chain_of(task)}" for task in asyncio.all_tasks() if "walsvc" in task.get_name()]
        raise Stuck(f"{waiting} were not answered; failure: {self.calls.log.writer.core.health.failure!r}; {own}")

    # ---- what befalls it

    async def _fault(self) -> None:
        rng, device, kind = self.rng, self.device, self.rng.random()
        if kind < 0.35:
            used = sum(device.file(name).visible_size for name in device.directory.names)
            device.capacity = used + rng.choice((0, 0, 65_536))
            asyncio.get_running_loop().call_later(rng.random() * 0.3, setattr, device, "capacity", None)
        elif kind < 0.8:
            device.fail(
                rng.choice(REFUSABLE), nth=rng.randint(1, 2), errno=rng.choice(REFUSALS), times=rng.randint(1, 30)
            )
        elif kind < 0.9:
            device.fail("read", times=rng.randint(1, 3))
        elif self.hard:
            device.fail(rng.choice(("submit", "sync", "write", "sync_directory")), nth=rng.randint(1, 3))

    def _relieve(self) -> None:
        self.device.capacity = None
        self.device._faults.clear()

    def _maybe_cut(self, _number: int, _operation: str) -> None:
        if len(self._cuts) < CUTS and self._aside.random() < 0.01:
            self._cuts.append((self.device.fork(), self.calls.promises.frozen()))


def drawn_options(rng: random.Random) -> dict[str, Any]:
    """Options of a log that changes segments often."""
    options: dict[str, Any] = {
        "segment_bytes": 65_536,
        "max_group_bytes": rng.choice((4096, 16_384, 65_536)),
        "max_pending_bytes": rng.choice((32_768, 131_072, 1 << 20)),
        "relaxed_interval": rng.choice((None, 0.05, 0.05)),
    }
    if rng.random() < 0.3:
        options["double_write"] = "direct"
        if rng.random() < 0.3:
            options["layout"] = "pack"
    for name, value, share in (
        ("reclaim", "consumed", 0.3),
        ("retain_bytes", 400_000, 0.15),
        ("retain_seconds", 1.0, 0.15),
    ):
        if rng.random() < share:
            options[name] = value
    return options


def chain_of(task: asyncio.Task[Any]) -> str:
    """Where a task waits, from the outermost line to the innermost."""
    lines, inner = [], task.get_coro()
    while (frame := getattr(inner, "cr_frame", None)) is not None:
        lines.append(f"{frame.f_code.co_name}:{frame.f_lineno}")
        inner = inner.cr_await  # type: ignore[union-attr]
    return " > ".join(lines)


def run_seeds(seeds: Iterable[int], *, hard: bool, steps: int = STEPS) -> int:
    """Run each; returns how many ended badly, of which it prints why."""
    bad = 0
    for seed in seeds:
        try:
            Everyone(seed, steps, hard=hard).run()
        except Exception as error:
            traceback.print_exception(error)
            print(f"replay: python -m tests.crash.everyone --seed {seed} --count 1{' --hard' * hard}", file=sys.stderr)
            bad += 1
    return bad


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = seeds_parser("python -m tests.crash.everyone", "All calls at once, at random.")
    parser.add_argument("--hard", action="store_true", help="writes and syncs fail as well (else in every other seed)")
    options = parser.parse_args(arguments)
    first, started, count, bad = first_of(options), time.monotonic(), 0, 0
    for seed in seeds_from(first, options):
        bad += run_seeds([seed], hard=options.hard or (options.count is None and seed % 2 == 1))
        count += 1
    print(f"{count} seeds from {first} on, {bad} ended badly, in {time.monotonic() - started:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
