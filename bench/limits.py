"""`python -m bench limits`: everything that is held against the targets, in one run."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from bench import extents, first, rates, reading
from bench.device import Device
from bench.environment import Environment, Results
from bench.plan import Plan
from bench.targets import Verdict
from walsvc.config import WalConfig


@dataclass(frozen=True, slots=True)
class Outcome:
    """Verdicts in the order of the targets, and how the limits were measured."""

    verdicts: tuple[Verdict, ...]
    device: str
    direct: bool
    disk: str
    disk_reason: str
    sync_method: str


async def run(
    place: str,
    plan: Plan,
    config: WalConfig,
    *,
    environment: Environment,
    results: Results,
    tick: Callable[[str], None],
) -> Outcome:
    """Measure everything below `place`, an empty directory that is emptied again after each part.

    Args:
        place: where; the device and the log share the file system and the block size.
        plan: how much.
        config: the log's options.
        environment: what it runs on.
        results: where each verdict goes as soon as it is there.
        tick: called with the name of what begins.
    """
    # What the measuring program itself has imported is no part of a log, and a full collection would walk all of it.
    gc.collect()
    gc.freeze()
    backend = await extents.backend(os.path.join(place, "backend"), config)
    device = await asyncio.to_thread(Device, place)
    verdicts: list[Verdict] = []
    common = {
        "plan": {name: getattr(plan, name) for name in Plan.__slots__},
        "backend": backend,
        "bare_device": device.how,
    }
    with device:
        parts: tuple[Callable[[str], AsyncGenerator[str | Verdict, None]], ...] = (
            lambda path: rates.rate_rounds(path, device, plan, config),
            lambda path: rates.crowds(path, plan, config),
            lambda path: reading.replays(path, device, plan, config),
            lambda path: reading.openings(path, plan, config),
            lambda path: extents.memory(path, plan, config),
            lambda path: extents.lag(path, plan, config),
            lambda path: extents.rotation(path, plan, config),
            lambda path: extents.growth(path, plan, config),
            lambda path: extents.topics(path, plan, config),
            lambda path: first.cpu(path, plan, config),
        )
        for number, part in enumerate(parts):
            path = os.path.join(place, f"part-{number}")
            os.mkdir(path)
            async with aclosing(part(path)) as told:  # its log is closed here, and not when it is collected
                async for news in told:
                    if isinstance(news, str):
                        tick(news)
                        continue
                    news.durable, news.shared = not environment.memory_backed, plan.shared
                    verdicts.append(news)
                    results.add(**common, **news.as_dict())
            await asyncio.to_thread(shutil.rmtree, path)
        path = os.path.join(place, "curve")
        os.mkdir(path)
        tick("throughput over concurrency")
        async with aclosing(rates.curve(path, device, plan, config)) as points:
            async for point in points:
                tick(f"{point['curve']} tasks")
                results.add(**common, **point)
    verdicts.sort(key=lambda verdict: (int(verdict.target.id[1:].rstrip("abcd")), verdict.target.id))
    return Outcome(
        verdicts=tuple(verdicts),
        device=device.how,
        direct=device.direct,
        disk=str(backend["disk"]),
        disk_reason=str(backend["disk_reason"]),
        sync_method=str(backend["sync_method"]),
    )
