"""Hypothesis looks for an interleaving of append, cancel, flush, truncate, close, reopen and power cut that breaks the model.

Where the explorer draws long workloads from a seed, this draws short ones and shrinks what fails to its essence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from walsvc.api import Log
from walsvc.config import WalConfig
from walsvc.disk.sim import SimDevice, SimDisk
from walsvc.errors import Closed
from walsvc.log.commit.ack import all_done
from walsvc.model import Relaxed, Strict
from walsvc.opening import open_on

from .explorer import Explorer
from .model import Call, Entry, Model, require
from .sampling import share
from .workload import observe

CONFIG = WalConfig(segment_bytes=65536, max_group_bytes=4096, max_pending_bytes=32768, relaxed_interval=0.05)
SIZES = st.sampled_from((0, 1, 300, 3900, 9000, 70_000))
SHARES = st.floats(0, 1, allow_nan=False)


class LogMachine(RuleBasedStateMachine):
    """One log on a simulated disk, with the plain list of tests.crash.model beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.explorer = Explorer()
        self.device = SimDevice(11, sector=512, garbage=True)
        self.model = Model()
        self.number = 0
        self.pending: list[tuple[asyncio.Future[Any], Call]] = []
        self.log: Log
        self.open()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.explorer.run(work)

    def open(self) -> None:
        self.log = self.run(open_on(SimDisk(self.device, loop=self.explorer._loop), CONFIG))
        self.model.opened(self.log)

    def entry(self, size: int) -> Entry:
        self.number += 1
        return Entry((b"%d " % self.number * (size // 2 + 1))[:size])

    def call(self, append: Callable[[], asyncio.Future[Any]], entries: list[Entry], *, batch: bool) -> None:
        async def calling() -> asyncio.Future[Any]:
            return append()

        call = self.model.called(entries, batch=batch)
        self.pending.append((self.run(calling()), call))

    @rule(size=SIZES, strict=st.booleans())
    def append(self, size: int, strict: bool) -> None:
        entry, mode = self.entry(size), Strict if strict else Relaxed
        self.call(lambda: self.log.append(entry.payload, mode=mode), [entry], batch=False)

    @rule(sizes=st.lists(SIZES, min_size=1, max_size=6))
    def append_batch(self, sizes: list[int]) -> None:
        entries = [self.entry(size) for size in sizes]
        self.call(lambda: self.log.append_batch([each.payload for each in entries]), entries, batch=True)

    @rule(share=SHARES)
    def cancel(self, share: float) -> None:
        waiting = [each for each in self.pending if not each[0].done()]
        if waiting:
            future, call = waiting[int(share * (len(waiting) - 1))]
            future.cancel()
            self.model.withdrawn(call)

    @rule(turns=st.integers(1, 6))
    def let_it_run(self, turns: int) -> None:
        async def turning() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)

        self.run(turning())

    @rule()
    def settle(self) -> None:
        self.run(self.settling())

    async def settling(self) -> None:
        """Wait for every answer and compare it."""
        if self.pending:
            await all_done([future for future, _ in self.pending])
        for future, call in self.pending:
            if future.cancelled():
                continue
            if (error := future.exception()) is not None:
                require(isinstance(error, Closed), f"append failed: {error!r}")
                continue
            results = list(future.result()) if call.batch else [future.result()]
            for result, entry in zip(results, call.entries, strict=True):
                self.model.acknowledged(result.lsn, entry, durable=result.durable)
        self.pending.clear()

    @rule()
    def flush(self) -> None:
        durable = self.run(self.log.flush())
        self.model.settle()
        require(durable <= self.model.durable, f"flush said {durable}, durable is {self.model.durable}")

    @rule(share=SHARES)
    def truncate_before(self, share: float) -> None:
        self.settle()
        lsn = self.log.first_lsn + int(share * (self.log.next_lsn - self.log.first_lsn))
        self.model.firsts.add(lsn)
        self.run(self.log.truncate_before(lsn))
        self.model.firsts = {lsn}

    @rule(share=SHARES)
    def truncate_after(self, share: float) -> None:
        self.settle()
        self.flush()  # so that the model sees the cut: durable_lsn falls
        lsn = self.log.next_lsn - 1 - int(share * (self.log.next_lsn - self.log.first_lsn))
        if lsn < self.log.next_lsn - 1:
            self.model.cutting(lsn)
        self.run(self.log.truncate_after(lsn))
        self.model.settle()
        require(self.model.cut is None, f"truncate_after({lsn}) left next_lsn at {self.log.next_lsn}")

    @rule()
    def read(self) -> None:
        self.settle()
        seen = self.run(observe(self.log))
        self.model.settle()
        self.model.freeze().check(seen)

    @rule()
    def close_and_reopen(self) -> None:
        self.run(self.log.close())
        self.settle()
        self.model.closed()
        self.open()
        require(self.log.report.clean, f"not clean after close: {self.log.report}")

    @rule()
    def cut_the_power(self) -> None:
        bounds, image = self.model.freeze(), self.device.fork().crash()
        self.run(self.log.close())  # the run that the cut ended goes its own way, unseen
        for future, _ in self.pending:
            assert future.cancelled() or future.exception() is None or isinstance(future.exception(), Closed)
        self.pending.clear()
        self.device, self.model = image, Model.of(bounds)
        self.open()
        seen = self.run(observe(self.log))
        bounds.check(seen)

    @invariant()
    def ranges_agree(self) -> None:
        self.model.settle()
        assert self.log.first_lsn - 1 <= self.log.durable_lsn < self.log.next_lsn

    def teardown(self) -> None:
        self.run(self.log.close())
        self.explorer.close()


LogMachine.TestCase.settings = settings(
    max_examples=share(240, 4),
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
test_log_machine = LogMachine.TestCase
