"""Mistakes that type checkers must see. The end of each such line says what: mypy's code, and pyright's rule."""

from __future__ import annotations

from pathlib import Path

import walsvc


async def appending(log: walsvc.Log, topic: walsvc.Topic) -> None:
    await log.append({"a": 1})  # wrong: arg-type reportArgumentType
    await log.append("text")  # wrong: arg-type reportArgumentType
    await log.append(b"x", mode="strikt")  # wrong: arg-type reportArgumentType
    await log.append(b"x", attributes=3)  # wrong: arg-type reportArgumentType
    await log.append(b"x", expectd=1)  # wrong: call-arg reportCallIssue
    await log.append(b"x", not_before=1)  # wrong: call-arg reportCallIssue
    await log.append(b"x", dedupe=1)  # wrong: arg-type reportArgumentType
    await log.append_batch([b"x"], dedupe="a")  # wrong: call-arg reportCallIssue
    await topic.append(b"x", not_before="soon")  # wrong: arg-type reportArgumentType
    await log.apend(b"x")  # wrong: attr-defined reportAttributeAccessIssue
    await topic.append(1)  # wrong: arg-type reportArgumentType
    await log.append_batch([1, 2])  # wrong: list-item reportArgumentType
    await log.append(walsvc.Entry(b"x"))  # wrong: arg-type reportArgumentType
    await log.append_batch([walsvc.Entry("text")])  # wrong: arg-type reportArgumentType
    await log.append_batch([walsvc.Entry(b"x", typ=7)])  # wrong: call-arg reportCallIssue
    print((await log.append(b"x")).lns)  # wrong: attr-defined reportAttributeAccessIssue
    await log.wait_durable("1")  # wrong: arg-type reportArgumentType
    log.durable_lsn = 3  # wrong: misc reportAttributeAccessIssue


async def reading(log: walsvc.Log, topic: walsvc.Topic) -> None:
    async for record in log.read(sinse=None):  # wrong: call-arg reportCallIssue
        print(record.lsn)
    async for record in log.read("1"):  # wrong: arg-type reportArgumentType
        print(record.payloads)  # wrong: attr-defined reportAttributeAccessIssue
    await topic.consumer("c", start="frist")  # wrong: call-overload reportArgumentType
    async with await topic.consumer("c") as consumer:
        await consumer.acknowledge(1)  # wrong: attr-defined reportAttributeAccessIssue


async def opening() -> None:
    walsvc.open("data", segment_byte=1)  # wrong: call-overload reportCallIssue
    walsvc.open("data", layout="packed")  # wrong: call-overload reportArgumentType
    walsvc.open(Path("data"), token_file="x")  # wrong: call-overload reportArgumentType
    walsvc.WalConfig(disk="ring")  # wrong: arg-type reportArgumentType
    await walsvc.open("data").append(b"x")  # wrong: attr-defined reportAttributeAccessIssue
    log = await walsvc.open(Path("data"))
    log.segments_of(1)  # wrong: attr-defined reportAttributeAccessIssue
