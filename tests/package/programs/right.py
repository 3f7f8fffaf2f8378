"""What users write, and what must pass mypy --strict and basedpyright in strict mode without a word."""

from __future__ import annotations

import asyncio
import datetime
from contextlib import aclosing
from pathlib import Path
from typing import assert_type

import walsvc
from walsvc import AppendResult, KeyRing, Record, Relaxed, Strict, WalConfig, WalWriter
from walsvc.testing import Disk, PowerCuts


async def first() -> None:
    async with walsvc.open("data/", segment_bytes=64 << 20) as wal:
        result = await wal.append(b"payload", mode=Strict)
        assert_type(result, AppendResult)
        future = wal.append_nowait(bytearray(b"x"), Relaxed, 7, {"key": "a"})
        assert_type(future, asyncio.Future[AppendResult])
        print(result.lsn, (await future).durable, await wal.flush(), await wal.wait_durable(result.lsn))
        for each in await wal.append_batch([b"a", memoryview(b"b")]):
            print(each.lsn + each.sync_us)
        await wal.append(b"x", expected=wal.durable_lsn, dedupe="a")
        await wal.append_batch([b"x"], expected=None)
        both = await wal.append_batch([b"a", walsvc.Entry(bytearray(b"b"), type=7, attributes={"key": "a"})])
        assert_type(both[1], AppendResult)
        await wal.topic("t").append_batch(walsvc.Entry(b"%d" % number, number) for number in range(3))
        async for record in wal.read(start=1, where={"key": "a"}, types=[7]):
            assert_type(record, Record)
        async with aclosing(wal.follow(since=datetime.datetime.now(datetime.UTC))) as records:
            async for record in records:
                print(record.payload.decode())
        await wal.truncate_before(wal.first_lsn)
        print(wal.stats().groups, wal.report.clean, wal.retention().pins)


async def several() -> None:
    wal = await walsvc.open(Path("data"), layout="pack", double_write="direct", keys=KeyRing(("k", bytes(32))))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(wal.append(b"x"))
    assert_type(task.result(), AppendResult)
    assert_type(wal.writer, WalWriter)
    await asyncio.gather(*(wal.append(b"y") for _ in range(3)))
    topic = wal.topic("orders")
    async with await topic.consumer("billing", walsvc.AtLeastOnce(10), start="next") as consumer:
        async for record in consumer:
            print(record.lsn, consumer.position)
        await consumer.ack((await consumer.next()).lsn)
    await wal.close(timeout=3)


def script() -> None:
    with walsvc.blocking.open("data", segment_bytes=1 << 20) as log:
        assert_type(log.append(b"x", topic="orders", expected=0), AppendResult)
        assert_type(log.get(1), Record | None)
        log.append_batch([walsvc.Entry(b"x", attributes={"key": "a"}), b"y"], topic="orders")
        assert_type(log.run(lambda log: log.topic("orders").count()), int)
        for record in log.read(where={"key": "a"}):
            print(record.payload)


async def crash_program(disk: Disk) -> None:
    async with walsvc.open(disk, retain_seconds=60) as log:
        disk.witness.append((await log.append(b"x")).lsn)


def test_crashes(power_cuts: PowerCuts) -> None:
    assert_type(power_cuts(crash_program, crash_program).checks, int)


async def anywhere(log: walsvc.Log) -> walsvc.Topic:
    assert isinstance(log, walsvc.Log)
    await log.append(b"x")
    await log.refresh()
    topic = log.topic("a")
    await topic.append(b"x", Relaxed, not_before=datetime.datetime.now(datetime.UTC), dedupe="a")
    assert_type(await topic.append_nowait(b"x", not_before=1.5), AppendResult)
    return topic


async def elsewhere() -> None:
    async with walsvc.open("wals://host/orders", token_file="token", reconnect_seconds=3) as log:
        topic = await anywhere(log)
        print(await topic.count())
    async with walsvc.open("nats://h1,h2,h3/stream", allow_unsynced=True, segment_bytes=1 << 20) as log:
        consumer: walsvc.Consumer = await log.consumer("all")
        print(await consumer.lag())
    async with walsvc.open("data", config=WalConfig(disk="threads"), read_only=True) as log:
        await anywhere(log)
    async with await WalWriter.open("data", relaxed_interval=None) as writer:
        await writer.append(b"x")
