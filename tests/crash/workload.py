"""A seeded workload: what tasks of a program may do to a log, at once and in any order, with the model told of it."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

from walsvc.api import Log
from walsvc.disk.sim import SimDevice
from walsvc.errors import Closed
from walsvc.log.commit.ack import all_done
from walsvc.model import Mode, Record, Relaxed, Strict
from walsvc.opening import open_on

from .model import Call, Entry, Model, Observed, require
from .plan import Payloads, Plan, ring


class Workload:
    """One program on one device. `run` opens the log, does `steps` random steps, and closes it or leaves it open."""

    def __init__(self, plan: Plan, device: SimDevice, model: Model, life: int, steps: int) -> None:
        self.plan = plan
        self.device = device
        self.model = model
        self.steps = steps
        self.rng = random.Random(f"{plan.seed} workload {life}")
        self.payloads = Payloads(plan.seed * 1000 + life)
        self.tasks: set[asyncio.Task[None]] = set()
        self.appends: list[tuple[asyncio.Future[Any], Call]] = []
        self.maintenance: asyncio.Task[None] | None = None
        self.log: Log

    async def run(self) -> None:
        """The whole workload. Raises what the log raises, and Violation."""
        await self.open()
        choices: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (30, self.append_some),
            (8, self.append_batch),
            (8, self.pause),
            (6, self.settle_all),
            (5, self.flush),
            (4, self.cancel_append),
            (4, self.truncate_before),
            (3, self.truncate_after),
            (3, self.read),
            (2, self.reopen),
        ]
        if self.plan.config.keys is not None:
            choices.append((3, self.change_key))
        weights, steps = [weight for weight, _ in choices], [step for _, step in choices]
        for _ in range(self.steps):
            await self.rng.choices(steps, weights)[0]()
            self.collect()
        if self.rng.random() < 0.7:
            await self.close()

    # ---- steps

    async def open(self) -> None:
        self.log = await open_on(self.plan.disk(self.device), self.plan.config)
        self.model.opened(self.log)

    async def close(self) -> None:
        """Close while anything may be going on; what waits for room is refused."""
        await self.log.close()
        for future, _ in self.appends:
            require(future.done(), "an append was neither answered nor refused by close")
        if self.tasks:
            await asyncio.wait(self.tasks)
        self.collect()
        self.model.closed()

    async def reopen(self) -> None:
        await self.close()
        await self.open()
        require(self.log.report.clean, f"not clean after close: {self.log.report}")

    async def append_some(self) -> None:
        mode = Strict if self.rng.random() < 0.7 else Relaxed
        for _ in range(self.rng.choice((1, 1, 2, 4, 8))):
            entry = self.payloads.entry(70_000 if self.rng.random() < 0.01 else None)  # larger than a whole segment
            labels = dict(entry.attributes) or None
            append = partial(self.log.append, entry.payload, mode=mode, type=entry.type, attributes=labels)
            self.call(append, [entry], mode, batch=False)

    async def append_batch(self) -> None:
        mode = Strict if self.rng.random() < 0.7 else Relaxed
        count = (
            self.rng.randint(1, 6) if self.rng.random() < 0.85 else self.rng.randint(10, 50)
        )  # over several segments
        entries = [Entry(self.payloads.entry().payload) for _ in range(count)]
        append = partial(self.log.append_batch, [entry.payload for entry in entries], mode=mode)
        self.call(append, entries, mode, batch=True)
        await asyncio.sleep(0)  # a large one queues up in a task of its own

    def call(self, append: Callable[[], asyncio.Future[Any]], entries: list[Entry], mode: Mode, *, batch: bool) -> None:
        """Tell the model, then call the log: a lone append is submitted before the call returns."""
        call = self.model.called(entries, batch=batch)
        future = append()
        self.model.settle()
        self.appends.append((future, call))
        self.start(self.answered(future, call, mode))

    async def answered(self, future: asyncio.Future[Any], call: Call, mode: Mode) -> None:
        """Wait for an append's answer and compare it."""
        await all_done([future])
        if future.cancelled():
            return
        if (error := future.exception()) is not None:
            require(isinstance(error, Closed), f"append failed: {error!r}")
            return
        results = list(future.result()) if call.batch else [future.result()]
        require(len(results) == len(call.entries), "a batch was answered in part")
        for result, entry in zip(results, call.entries, strict=True):
            # a Relaxed batch that is streamed over several groups is durable when it is answered
            require(result.durable or mode is Relaxed, f"{mode} was answered with {result}")
            require(call.batch or result.durable is (mode is Strict), f"{mode} was answered with {result}")
            self.model.acknowledged(result.lsn, entry, durable=result.durable)

    async def change_key(self) -> None:
        """Go on under another key, perhaps while appends and a truncation are under way."""
        changing = self.start(self.changing_key(self.rng.randrange(3)))
        if self.rng.random() < 0.5:
            await asyncio.wait([changing])

    async def changing_key(self, current: int) -> None:
        with contextlib.suppress(Closed):
            await self.log.use_keys(ring(current))
            require(
                self.log.writer.core.tail.segment.cipher.key_id == f"key {current}" or self.busy,
                "the key did not change",
            )

    async def pause(self) -> None:
        await asyncio.sleep(self.rng.choice((0, 0, 50e-6, 1e-3, 0.3)))

    async def settle_all(self) -> None:
        """Wait for every append so far."""
        if self.appends:
            await all_done([future for future, _ in self.appends])
        self.appends.clear()

    async def flush(self) -> None:
        lsn, busy = self.log.next_lsn - 1, self.busy
        if busy or lsn < self.log.first_lsn or self.rng.random() < 0.5:
            durable = await self.log.flush()
        else:
            lsn = self.rng.randint(self.log.first_lsn, lsn)
            durable = await self.log.wait_durable(lsn)
        self.model.settle()
        if not busy:
            require(
                lsn <= durable <= self.model.durable, f"flush said {durable} for LSN {lsn}, {self.model.durable} is"
            )

    async def cancel_append(self) -> None:
        """Cancel an append that was not answered yet, accepted or not."""
        pending = [(future, call) for future, call in self.appends if not future.done()]
        if pending:
            future, call = self.rng.choice(pending)
            future.cancel()
            self.model.withdrawn(call)

    async def truncate_before(self) -> None:
        if not self.busy:
            self.maintenance = self.start(self.truncating_before(self.rng.random()))
            await self.perhaps_wait()

    async def truncating_before(self, share: float) -> None:
        first, after = self.log.first_lsn, self.log.next_lsn
        lsn = first + int(share * (after - first + 1))
        self.model.firsts.add(lsn)
        await self.log.truncate_before(lsn)
        require(self.log.first_lsn == lsn, f"first_lsn is {self.log.first_lsn} after truncate_before({lsn})")
        self.model.settle()
        self.model.firsts = {lsn}

    async def truncate_after(self) -> None:
        if not self.busy:
            self.maintenance = self.start(self.truncating_after(self.rng.random()))
            await self.perhaps_wait()

    async def truncating_after(self, share: float) -> None:
        self.model.settle()
        first, after = self.log.first_lsn, self.log.next_lsn
        lsn = after - 1 - int(share * share * (after - first))  # mostly near the end
        if (
            lsn == after - 1 and not self.model.waiting
        ):  # else what waits may be accepted, and cut, before its turn comes
            await self.log.truncate_after(lsn)
            return
        self.model.cutting(lsn)
        try:
            await self.log.truncate_after(lsn)
        except BaseException:
            self.model.cut_abandoned()
            raise
        self.model.settle()
        if lsn == after - 1:
            self.model.cut = None  # if it is still to come, nothing was there to cut
        require(self.model.cut is None, f"truncate_after({lsn}) returned, next_lsn is {self.log.next_lsn}")

    async def perhaps_wait(self) -> None:
        """Wait for the truncation, cancel it somewhere in the middle, or let it go on beside what follows."""
        chance = self.rng.random()
        if self.maintenance is None or chance < 0.3:
            return
        if chance < 0.5:
            await asyncio.sleep(self.rng.uniform(0, 12) * self.plan.latency)
            self.maintenance.cancel()
        await asyncio.wait([self.maintenance])
        await asyncio.sleep(0)

    async def read(self) -> None:
        """Everything from the first record on, or from somewhere; and the bytes where the answer said they are."""
        if self.busy:
            return
        self.model.settle()
        first, count = self.log.first_lsn, len(self.model.entries)
        start = self.rng.randint(first, count + 1)
        seen = [entry_of(record) async for record in self.log.read(start, count + 1)]
        require(seen == self.model.entries[start - 1 : count], f"read({start}) gave something else")

    # ---- tasks

    @property
    def busy(self) -> bool:
        """A truncation is under way."""
        if self.maintenance is None:
            return False
        return not self.maintenance.done() or self.log.writer.core.extent.locked()  # a cancelled one goes on

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        return task

    def collect(self) -> None:
        """Raise what a task raised. A cancelled truncation, or one that met `close`, is no failure."""
        for task in [task for task in self.tasks if task.done()]:
            self.tasks.discard(task)
            if task.cancelled():
                continue
            error = task.exception()
            if error is not None and not (task is self.maintenance and isinstance(error, Closed)):
                raise error


def entry_of(record: Record) -> Entry:
    """A record as the model keeps it."""
    return Entry(record.payload, record.type, tuple(record.attributes.items()))


async def observe(log: Any) -> Observed:
    """What a log shows to a reader."""
    entries = [entry_of(record) async for records in log.read_batches() for record in records]
    return Observed(log.first_lsn, log.next_lsn, entries)
