"""100,000 topics in one log: opening stays quick and small."""

from __future__ import annotations

import asyncio
import os
import time

import walsvc
from tests.service.memory import resident_bytes

TOPICS = 100_000


async def test_hundred_thousand_topics(tmp_path):
    async with walsvc.open(tmp_path) as log:
        for start in range(0, TOPICS, 10_000):
            names = [f"customer/{number}" for number in range(start, start + 10_000)]
            await asyncio.gather(*(log.topic(name).append(name.encode()) for name in names))
    before, started = resident_bytes(os.getpid()), time.process_time()
    async with walsvc.open(tmp_path) as log:
        took, grown = time.process_time() - started, resident_bytes(os.getpid()) - before
        print(f"{TOPICS} topics: opened in {took:.3f} s of the processor, {grown / 2**20:.0f} MiB more")
        assert len(log.topics()) == TOPICS
        assert took < 5
        assert grown < 200 << 20
        name = f"customer/{TOPICS // 2}"
        assert await log.topic(name).count() == 1
        assert [record.payload async for record in log.topic(name).read()] == [name.encode()]
