"""P1 to P5: latency and throughput of appending, each beside its limit in the same round; and the curve over concurrency."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from dataclasses import asdict
from statistics import median
from typing import TYPE_CHECKING, Any

import walsvc
from bench import load, targets
from bench.crowd import Crowd
from bench.device import Device
from bench.environment import in_own_process
from bench.plan import Plan
from bench.targets import Point, Verdict
from walsvc.bench.measure import Workload, measure
from walsvc.config import WalConfig

if TYPE_CHECKING:
    from walsvc.interface import Log

PAYLOAD_BYTES = 128
FLOOR_BYTES = 4096
CURVE_TASKS = (1, 4, 16, 64, 256, 1024)


class Rates:
    """Rounds of P1, P2, P4 and P5 on one log; every round measures each limit right before what is held against it."""

    def __init__(self, log: Log, device: Device, plan: Plan) -> None:
        self._log = log
        self._device = device
        self._plan = plan
        self._payload = os.urandom(PAYLOAD_BYTES)
        self.verdicts = {
            target.id: Verdict(target)
            for target in (targets.P1, targets.P2, targets.P4A, targets.P4B, targets.P5A, targets.P5B)
        }

    async def round(self) -> AsyncGenerator[str, None]:
        """Measure all of them once; yields the name of each before it begins."""
        log, seconds = self._log, self._plan.seconds
        yield "P1"
        floor = await asyncio.to_thread(self._device.floor, FLOOR_BYTES, seconds)
        taken = await load.latencies(log, self._payload, seconds)
        self._add("P1", median(each.ns for each in taken) / 1e3, floor * 1e6)
        yield "P2"
        ceiling = await load.ceiling(64, seconds)
        rate = await load.appends(log, self._payload, 64, seconds)
        self._add("P2", rate.per_s, 64 / (floor + 64 / ceiling.per_s))
        await load.drop_all(log)
        yield "P4"
        for target, tasks, need in (("P4a", 1, 1.5e6), ("P4b", 4, 4e6)):
            batch = await load.batches(log, [self._payload] * 256, tasks, seconds)
            self._add(target, batch.per_s, need)
            await load.drop_all(log)
        yield "P5"
        payload = os.urandom(64 << 10)
        before = log.stats()
        fresh = await load.appends(log, payload, 64, seconds)
        after = log.stats()
        trimming = asyncio.get_running_loop().create_task(trim(log))
        large = await load.appends(log, payload, 64, seconds)
        trimming.cancel()
        await asyncio.wait([trimming])
        size = round_up((after.written_bytes - before.written_bytes) // max(1, after.groups - before.groups))
        await load.drop_all(log)
        bandwidth = await asyncio.to_thread(self._device.bandwidth, size, seconds)
        self._add("P5a", large.per_s * len(payload), bandwidth)
        self._add("P5b", fresh.per_s * len(payload), bandwidth)
        self.verdicts["P5a"].note = f"write size {size >> 10} KiB"
        self.verdicts[
            "P5b"
        ].note = "behind large groups a segment's room is only reserved, and the limit's file is prepared"

    def _add(self, target: str, ours: float, limit: float) -> None:
        self.verdicts[target].points.append(Point(ours, limit))


async def trim(log: Log) -> None:
    """Keep the log short, as a program does that consumes what it appends: its segments are recycled."""
    while True:
        await asyncio.sleep(0.01)
        await log.truncate_before(max(log.first_lsn, log.durable_lsn - 500))


def round_up(length: int) -> int:
    """To whole blocks of 4 KiB, at least one: the size of a write that O_DIRECT takes."""
    return max(1, -(-length // FLOOR_BYTES)) * FLOOR_BYTES


async def rate_rounds(place: str, device: Device, plan: Plan, config: WalConfig) -> AsyncGenerator[str | Verdict, None]:
    """All rounds of P1, P2, P4 and P5: names as they begin, then the verdicts."""
    async with AsyncExitStack() as stack:
        log = await stack.enter_async_context(walsvc.open(os.path.join(place, "rates"), config=config))
        await load.grown_up(log)
        rates = Rates(log, device, plan)
        for number in range(plan.rounds):
            names = await stack.enter_async_context(aclosing(rates.round()))
            async for name in names:
                yield f"{name}, round {number + 1} of {plan.rounds}"
        for verdict in rates.verdicts.values():
            yield verdict


async def crowds(place: str, plan: Plan, config: WalConfig) -> AsyncGenerator[str | Verdict, None]:
    """P3: on each event loop, in a process of its own."""
    for target, loop in ((targets.P3A, "uvloop"), (targets.P3B, "asyncio")):
        yield f"{target.id}, {loop}"
        verdict = Verdict(target)
        if importlib.util.find_spec(loop) is None:
            verdict.note = f"{loop} is not installed"
        else:
            asked = Crowd(os.path.join(place, loop), config.disk, loop, plan.rounds, plan.seconds)
            found = json.loads(await in_own_process("bench.crowd", asked.as_argument()))
            verdict.points += [Point(*pair) for pair in found]
        yield verdict


async def curve(place: str, device: Device, plan: Plan, config: WalConfig) -> AsyncGenerator[dict[str, Any], None]:
    """For each number of tasks: what the log does, with latencies and group sizes, and what the limits allow."""
    for tasks in CURVE_TASKS:
        path = os.path.join(place, f"curve-{tasks}")
        floor = await asyncio.to_thread(device.floor, FLOOR_BYTES, plan.seconds / 4)
        ceiling = await load.ceiling(tasks, plan.seconds / 2)
        outcome = await measure(
            path, Workload(tasks=tasks, payload_bytes=PAYLOAD_BYTES, seconds=plan.seconds), config=config
        )
        yield {
            "curve": tasks,
            "payload_bytes": PAYLOAD_BYTES,
            "records_per_s": outcome.records_per_s,
            "limit_per_s": tasks / (floor + tasks / ceiling.per_s),
            "ceiling_per_s": ceiling.per_s,
            "floor_us": floor * 1e6,
            "latency_us": asdict(outcome.latency_us),
            "group_records_mean": outcome.group_records_mean,
            "group_records_max": outcome.group_records_max,
            "syncs": outcome.syncs,
            "loop_lag_us": asdict(outcome.loop_lag_us),
        }
