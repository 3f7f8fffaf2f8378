"""A busy program that bears every error, and what it was told: for faults of which only the outcome can be foreseen.

Whatever happens to the program, it never waits for ever; what was acknowledged is in the log under the LSN that the answer
named; and the log holds nothing that was never asked for, nothing twice, and each task's records in their order.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any

from walsvc.api import Log
from walsvc.config import WalConfig
from walsvc.disk.sim import SimDevice, SimDisk, SimLoop
from walsvc.errors import WalError
from walsvc.model import AppendResult, Relaxed, Strict
from walsvc.opening import open_on

from .model import require
from .plan import SEGMENT_BYTES

TURNS_MAX = 20_000  # the program needs some hundreds
Opening = Callable[[], Awaitable[Log]]


class Ledger:
    """What was asked for and what was answered.

    Attributes:
        asked: every payload, with the task that appended it and its number there.
        acknowledged: LSN and payload of the answers that said durable.
        cut: the highest LSN that truncate_before was ever called with.
    """

    def __init__(self) -> None:
        self.asked: dict[bytes, tuple[int, int]] = {}
        self.acknowledged: dict[int, bytes] = {}
        self.cut = 1
        self._numbers = itertools.count()

    def payload(self, task: int, size: int) -> bytes:
        """A payload like no other, of at least 8 bytes."""
        number = next(self._numbers)
        payload = number.to_bytes(8, "big") + bytes([number % 251]) * max(0, size - 8)
        self.asked[payload] = (task, number)
        return payload

    def answered(self, lsn: int, payload: bytes, *, durable: bool) -> None:
        """An append was answered."""
        require(self.acknowledged.get(lsn, payload) == payload, f"LSN {lsn} was answered twice")
        if durable:
            self.acknowledged[lsn] = payload

    def check(self, first: int, found: Iterable[tuple[int, bytes]]) -> None:
        """Compare with all that the log shows. Raises Violation."""
        there = dict(found)
        require(first <= self.cut, f"first_lsn is {first}, but nothing above {self.cut} was ever cut")
        for lsn, payload in self.acknowledged.items():
            if lsn >= first:
                require(
                    there.get(lsn) == payload, f"LSN {lsn} is {there.get(lsn, b'')[:8]!r}, answered was {payload[:8]!r}"
                )
        require(list(there) == list(range(first, first + len(there))), f"LSNs are {list(there)}")
        require(len(set(there.values())) == len(there), "a record is there twice")
        last: dict[int, int] = {}
        for lsn, payload in there.items():
            require(payload in self.asked, f"LSN {lsn} is {payload[:8]!r}, which was never asked for")
            task, number = self.asked[payload]
            require(last.get(task, -1) < number, f"LSN {lsn} is out of its task's order")
            last[task] = number


class Program:
    """Opens a log, uses it from several tasks, closes it, and all of it again; bears typed errors and `interruption`.

    Attributes:
        told: the errors that it met.
        during: called with True when the log is in use, and with False otherwise; closing counts as use where `at_close`.
    """

    def __init__(
        self,
        opening: Opening,
        ledger: Ledger,
        *,
        interruption: tuple[type[BaseException], ...] = (),
        during: Callable[[bool], None] = lambda _: None,
        at_close: bool = False,
    ) -> None:
        self.told: list[BaseException] = []
        self.during = during
        self._opening = opening
        self._at_close = at_close
        self._ledger = ledger
        self._borne = (WalError, *interruption)
        self._log: Log

    async def run(self) -> None:
        """Two lives and a last look."""
        for life in range(2):
            await self.open()
            self.during(True)
            await asyncio.gather(*(self.work(life * 10 + number, turns=2 - life) for number in range(3)))
            self.during(self._at_close)
            told = len(self.told)
            await self.step(self._log.close)
            self.during(False)
            if len(self.told) > told:
                await self.step(self._log.close)  # what interrupted the first call is no answer
        await self.open()
        await self.compare()
        await self._log.close()

    async def open(self) -> None:
        """Open; where that fails, once more."""
        self._log = await self.step(self._opening) or await self._opening()

    async def step(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Do something, and bear what it raises; its answer, or None."""
        try:
            return await call()
        except self._borne as error:
            self.told.append(error)
            return None

    async def work(self, number: int, *, turns: int) -> None:
        """One task: appends of every kind, and what a program does beside them."""
        log = self._log
        for turn in range(turns):
            await self.appends(number, [40, 9000, 300])
            await self.appends(number, [700, 20], relaxed=True)
            if number % 10 == 0:
                await self.batch(number, [9000] * (1 + turn * 6))
            elif number % 10 == 1:
                await self.step(log.flush)
            elif number < 10 or turn:
                await self.step(self.cut)

    async def cut(self) -> None:
        """Drop all that is durable."""
        lsn = max(self._log.first_lsn, self._log.durable_lsn)
        self._ledger.cut = max(self._ledger.cut, lsn)
        await self._log.truncate_before(lsn)

    async def appends(self, number: int, sizes: list[int], *, relaxed: bool = False) -> None:
        """Some at once; each is answered or refused."""
        payloads = [self._ledger.payload(number, size) for size in sizes]
        futures = []
        for payload in payloads:
            try:
                futures.append((self._log.append(payload, mode=Relaxed if relaxed else Strict), payload))
            except self._borne as error:
                self.told.append(error)
        for future, payload in futures:
            await self.step(partial(self.answer, future, payload))

    async def answer(self, future: Awaitable[AppendResult], payload: bytes) -> None:
        """Wait for an append and note its answer."""
        result = await future
        self._ledger.answered(result.lsn, payload, durable=result.durable)

    async def batch(self, number: int, sizes: list[int]) -> None:
        """All or nothing."""
        payloads = [self._ledger.payload(number, size) for size in sizes]

        async def once() -> None:
            for result, payload in zip(await self._log.append_batch(payloads), payloads, strict=True):
                self._ledger.answered(result.lsn, payload, durable=result.durable)

        await self.step(once)

    async def compare(self) -> None:
        """Everything that the log shows against everything that was answered."""
        found = [(record.lsn, record.payload) async for record in self._log.read()]
        self._ledger.check(self._log.first_lsn, found)


class CtrlC(KeyboardInterrupt):
    """What the default handler of SIGINT raises: it ends the run of the loop, and the program may run it again."""


class PatientLoop(SimLoop):
    """A loop on which nothing may go round and round for ever either.

    Attributes:
        turns: how often it looked for what is ready.
    """

    def __init__(self) -> None:
        super().__init__()
        self.turns = 0

    def _run_once(self) -> None:
        self.turns += 1
        require(self.turns < TURNS_MAX, "the loop turns, and nothing comes of it")
        super()._run_once()  # type: ignore[misc]


def on_device(device: SimDevice) -> Opening:
    """Opens a log of small segments on a simulated device."""
    config = WalConfig(
        segment_bytes=SEGMENT_BYTES, max_group_bytes=16 * 1024, max_pending_bytes=64 * 1024, relaxed_interval=0.002
    )
    return lambda: open_on(SimDisk(device, latency=100e-6), config)


def drive(program: Program, loop: SimLoop) -> None:
    """Run the loop until the program has ended; again after each Ctrl-C that ended the run."""
    task = loop.create_task(program.run())
    while not task.done():
        try:
            loop.run_until_complete(task)
        except CtrlC:
            assert not task.done(), "the program itself bears it"
    task.result()
