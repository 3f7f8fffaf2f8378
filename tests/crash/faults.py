"""One planted fault and a scenario that meets every operation: what the log must say, and what must be there afterwards."""

from __future__ import annotations

import asyncio
import errno
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from walsvc.api import Log
from walsvc.disk.sim import SimDevice, run_sim
from walsvc.errors import Closed, DurabilityLost, NoSpace, PathError, WalError
from walsvc.log.commit.ack import all_done
from walsvc.log.commit.patience import SHORTAGES
from walsvc.model import Mode, Relaxed, Strict
from walsvc.opening import open_on

from .model import Bounds, Call, Entry, Model, require
from .plan import Payloads, Plan
from .workload import observe


class Planted(NamedTuple):
    """The nth operation of a name fails."""

    operation: str
    nth: int
    errno: int
    short: int | None = None


class FaultRun:
    """The scenario: create, append in every way, rotate, truncate at both ends, close, open again, append."""

    def __init__(self, plan: Plan, planted: Planted | None) -> None:
        self.plan = plan
        self.planted = planted
        self.device = plan.device()
        self.model = Model()
        self.payloads = Payloads(plan.seed)
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []  # what the caller was told, in order
        self.at_failure: list[tuple[SimDevice, Bounds]] = []
        self.log: Log

    def run(self) -> None:
        """The whole scenario. Raises Violation, or SimDeadlock when somebody waits for ever."""
        if self.planted is not None:
            operation, nth, number, short = self.planted
            self.device.fail(operation, nth=nth, errno=number, short=short)

        def seen(_: int, operation: str) -> None:
            self.counts[operation] += 1
            self.model.settle()

        self.device.on_operation = seen
        run_sim(lambda _: self.scenario(), self.plan.seed)

    async def scenario(self) -> None:
        await self.open()
        for wave in range(3):
            await self.append([2500] * 5 + [9000], Strict)
            await self.append([100, 0, 5000], Relaxed)
            await self.batch([300, 7000])
            await self.batch([9000] * (3 + 4 * wave))  # over several groups, the last one over segments
            await self.step(self.flush)
            if wave == 1:
                await self.truncate_before(0.5)
        await self.truncate_after()
        await self.append([20_000] * 4, Strict)
        await self.compare()
        await self.close()
        await self.open()
        await self.append([20_000] * 9, Strict)
        await self.truncate_before(1.0)
        await self.append([20_000] * 6, Strict)
        await self.close()
        await self.open()
        await self.compare()
        await self.close()

    # ---- steps

    async def open(self) -> None:
        """Open; where the fault comes while opening, the error has its type and the next attempt succeeds."""
        for _ in range(2):
            try:
                self.log = await open_on(self.plan.disk(self.device), self.plan.config)
                break
            except (PathError, NoSpace, DurabilityLost) as error:
                self.told(error)
        else:
            require(False, f"opening failed twice: {self.failures}")
        self.model.opened(self.log)
        self.model.freeze().check(await self.seen())

    async def close(self) -> None:
        try:
            await self.log.close()
        except DurabilityLost as error:
            self.told(error)
            self.model.failed()
            return
        self.model.closed()

    async def append(self, sizes: Sequence[int], mode: Mode) -> None:
        """Append at once; who is told NoSpace tries again."""
        entries = [self.payloads.entry(size) for size in sizes]
        for _ in range(3):
            try:
                calls = [self.called(entry, mode) for entry in entries]
            except DurabilityLost as error:  # from before: a preparation in the background
                self.told(error)
                await self.terminal()
                return
            await all_done([future for future, _ in calls])
            errors = [future.exception() for future, _ in calls]
            for error in filter(None, errors):
                self.told(error)
            if any(isinstance(error, DurabilityLost) for error in errors):
                await self.terminal()
                return
            entries = []
            for (future, call), error in zip(calls, errors, strict=True):
                if error is None:
                    self.model.acknowledged(future.result().lsn, call.entries[0], durable=mode is Strict)
                else:
                    self.model.withdrawn(call)
                    entries += call.entries
            if not entries:
                return
        require(False, f"no room for ever: {self.failures}")

    def called(self, entry: Entry, mode: Mode) -> tuple[asyncio.Future[Any], Call]:
        """Tell the model, then call the log: a lone append is submitted before the call returns."""
        call = self.model.called([entry])
        labels = dict(entry.attributes) or None
        try:
            future = self.log.append(entry.payload, mode=mode, type=entry.type, attributes=labels)
        except DurabilityLost:
            self.model.withdrawn(call)
            raise
        self.model.settle()
        return future, call

    async def batch(self, sizes: Sequence[int]) -> None:
        entries = [Entry(self.payloads.entry(size).payload) for size in sizes]

        async def once() -> None:
            call = self.model.called(entries, batch=True)
            try:
                results = await self.log.append_batch([entry.payload for entry in entries])
            except (NoSpace, DurabilityLost):
                self.model.withdrawn(call)
                raise
            for result, entry in zip(results, entries, strict=True):
                self.model.acknowledged(result.lsn, entry, durable=True)

        await self.step(once)

    async def flush(self) -> None:
        await self.log.flush()

    async def truncate_before(self, share: float) -> None:
        first, after = self.log.first_lsn, self.log.next_lsn
        lsn = first + int(share * (after - first))
        self.model.firsts.add(lsn)
        if await self.step(lambda: self.log.truncate_before(lsn)):
            self.model.firsts = {lsn}

    async def truncate_after(self) -> None:
        lsn = self.log.next_lsn - 3

        async def once() -> None:
            self.model.cutting(lsn)
            try:
                await self.log.truncate_after(lsn)
            except (NoSpace, PathError):
                self.model.cut_abandoned()
                raise
            self.model.settle()
            require(self.log.next_lsn == lsn + 1, "truncate_after did nothing")

        if lsn >= self.log.first_lsn:
            await self.step(once)

    async def compare(self) -> None:
        """Read everything."""
        self.model.freeze().check(await self.seen())

    async def seen(self) -> Any:
        try:
            return await observe(self.log)
        except PathError as error:  # a read error is an error, not the end; the next attempt succeeds
            self.told(error)
            return await observe(self.log)
        except DurabilityLost:
            await self.terminal()
            return await observe(self.log)

    # ---- failing

    async def step(self, call: Callable[[], Awaitable[Any]]) -> bool:
        """Do something; again where there was no room, or a read failed before anything was changed. False when the log had to be opened again."""
        for _ in range(3):
            try:
                await call()
                return True
            except (NoSpace, PathError) as error:
                self.told(error)
            except DurabilityLost as error:
                self.told(error)
                await self.terminal()
                return False
        require(False, f"no room for ever: {self.failures}")
        return False

    def told(self, error: BaseException) -> None:
        """An error reached the caller: it must be the planted one, in the right class."""
        require(self.planted is not None, f"an error without a fault: {error!r}")
        assert self.planted is not None
        number = errno.EIO if self.planted.short is not None else self.planted.errno
        require(isinstance(error, WalError), f"not typed: {error!r}")
        found = getattr(error, "errno", None)
        require(found == number, f"errno {found} instead of {number}: {error!r}")
        if isinstance(error, NoSpace):
            require(number in SHORTAGES, f"NoSpace for errno {number}")
            operation = self.planted.operation
            require(not operation.startswith("submit"), f"NoSpace from {operation}, into space that was prepared")
        self.failures.append(type(error).__name__)

    async def terminal(self) -> None:
        """After DurabilityLost: every later call says so, and nothing acknowledged is missing after opening again."""
        self.at_failure.append((self.device.fork(), self.model.freeze()))
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: self.log.append(b"late"),
            lambda: self.log.append_nowait(b"late", mode=Relaxed),
            lambda: self.log.append_batch([b"late"]),
            self.log.flush,
            lambda: self.log.wait_durable(1),
            lambda: self.log.truncate_before(self.log.first_lsn),
            self.log.seal,
        ]
        for number, call in enumerate(calls):
            try:
                await call()
            except DurabilityLost as error:
                self.told(error)
            else:
                require(False, f"call {number} succeeded after DurabilityLost")
        try:
            await self.log.close()
        except DurabilityLost as error:
            self.told(error)
        except Closed:
            require(False, "close() is not idempotent")
        self.model.failed()
        await self.open()
