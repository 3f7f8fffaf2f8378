"""What scripts/wheels.sh, and a release, run on a fresh installation: the first records of a log, and which parts of it are in C."""

import asyncio
import time

import walsvc


async def main() -> None:
    async with walsvc.open("data") as log:
        results = await asyncio.gather(*(log.append(b"record %d" % number) for number in range(1000)))
        stats = log.stats()
    cpu_ms = time.process_time() * 1000
    async with walsvc.open("data", read_only=True) as log:
        kept = [record.payload async for record in log.read()]
    assert kept == [b"record %d" % number for number in range(1000)]
    assert results[-1].durable
    print(f"{len(kept)} records, disk {stats.disk}, commit path in {stats.core}, {cpu_ms:.0f} ms of CPU")


asyncio.run(main())
