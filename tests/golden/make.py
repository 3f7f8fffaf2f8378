"""Writes a golden log of the present format version; run by hand once for each version: python -m tests.golden.make DIR

The files are committed and never made again: what version 1 wrote must decode for ever.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from walsvc.api import Log
from walsvc.config import WalConfig
from walsvc.disk.sim import SimDevice, SimDisk
from walsvc.keyring import KeyRing
from walsvc.model import Relaxed
from walsvc.opening import open_on

CONFIG = WalConfig(segment_bytes=65536)


def payload_of(lsn: int) -> bytes:
    """Deterministic content of 0 to about 900 bytes."""
    return f"record {lsn} ".encode() * (lsn * 7 % 91)


async def write(device: SimDevice) -> SimDevice:
    """Everything that version 1 knows: rotation, batches, types and attributes, truncation, crash, clean close."""
    log = await open_on(SimDisk(device), CONFIG)
    for lsn in range(1, 61, 6):
        await asyncio.gather(*(log.append(payload_of(each)) for each in range(lsn, lsn + 5)))
        await log.append(payload_of(lsn + 5), mode=Relaxed)
    await log.append_batch([payload_of(lsn) for lsn in range(61, 101)])
    await log.append(payload_of(101), type=7, attributes={"tenant": 7, "shard": "a"})
    await asyncio.gather(*(log.append(payload_of(lsn)) for lsn in range(102, 301)))
    await log.truncate_before(40)
    device = device.crash()
    log = await open_on(SimDisk(device), CONFIG)
    await log.append(payload_of(301), attributes={"after": "crash"})
    await log.truncate_after(290)
    await log.append_batch([payload_of(lsn) for lsn in range(291, 311)])
    await log.close()
    return device


def topic_of(lsn: int) -> str | None:
    """Topic of a record in the log with topics."""
    return ("orders", "注文", None, "rare")[3 if lsn % 50 == 0 else lsn % 3]


async def write_topics(device: SimDevice) -> SimDevice:
    """Topics, consumers, holds, a streamed batch, reclaiming, both truncations, a crash, a clean close."""
    config = WalConfig(segment_bytes=65536, max_group_bytes=8192)
    log = await open_on(SimDisk(device), config)

    async def append(*lsns: int) -> None:
        named = [(log.topic(name) if (name := topic_of(lsn)) else log, payload_of(lsn)) for lsn in lsns]
        await asyncio.gather(*(where.append(payload) for where, payload in named))

    await append(*range(1, 240))
    consumer = await log.topic("orders").consumer("billing")
    await consumer.ack((await consumer.read_batch(max_records=70))[-1].lsn)
    await log.hold("archive", 200)
    whole = await log.consumer("all", start=230)
    await whole.close()
    await log.reclaim()
    await append(*range(240, 300))
    await (await log.topic("rare").consumer("gone")).close()
    await log.topic("rare").delete_consumer("gone")
    device = device.crash()
    log = await open_on(SimDisk(device), config)
    await append(*range(300, 340))
    await log.truncate_after(320)
    await log.topic("batch").append_batch([payload_of(lsn) for lsn in range(321, 421)])
    await log.move_consumer("all", 310)
    await log.close()
    return device


GOLDEN_KEYS = [("first", bytes(range(32))), ("second", bytes(range(32, 64)))]


async def write_encrypted(device: SimDevice) -> SimDevice:
    """An encrypted log that changed its key, with a batch over several groups, a crash and a clean close."""
    first = KeyRing(GOLDEN_KEYS[0])
    both = KeyRing(GOLDEN_KEYS[1], [GOLDEN_KEYS[0]])
    config = WalConfig(segment_bytes=65536, max_group_bytes=8192, keys=first)
    log = await open_on(SimDisk(device), config)
    await asyncio.gather(*(log.append(payload_of(lsn)) for lsn in range(1, 31)))
    await log.use_keys(both)
    await log.append_batch([payload_of(lsn) for lsn in range(31, 61)])
    device = device.crash()
    log = await open_on(SimDisk(device), dataclasses.replace(config, keys=both))
    await asyncio.gather(*(log.append(payload_of(lsn)) for lsn in range(61, 91)))
    await log.close()
    return device


async def write_bound(device: SimDevice) -> SimDevice:
    """Segments that name the groups before them, some of them compacted, one cut inside, a crash, metadata and a clean close."""
    log = await open_on(SimDisk(device), CONFIG)
    for lsn in range(1, 201, 5):
        rows = range(lsn, lsn + 5)
        await asyncio.gather(*(log.append(payload_of(each), attributes={"key": each % 5}) for each in rows))
    await log.purge({"key": 3}, before=160)
    await log.compact()
    await log.truncate_after(120)
    for lsn in range(121, 301, 5):
        await asyncio.gather(*(log.append(payload_of(each)) for each in range(lsn, lsn + 5)))
    device = device.crash()
    log = await open_on(SimDisk(device), CONFIG)
    await asyncio.gather(*(log.append(payload_of(lsn)) for lsn in range(301, 311)))
    await log.hold("archive", 7)
    await log.close()
    return device


async def write_hidden(device: SimDevice) -> SimDevice:
    """Topics that were truncated by themselves, records purged one by one, compaction, both truncations, a crash and a clean close."""
    log = await open_on(SimDisk(device), CONFIG)
    await of_all_topics(log, 201)
    orders = log.topic("orders")
    await (await orders.consumer("behind")).close()
    await orders.truncate_before(60)
    await log.purge(lsns=[2, 5, 61, 62, 100, 150, 195, 199])
    await log.compact()
    await log.topic("注文").purge(keep=20)
    await log.truncate_before(10)
    await log.truncate_after(190)
    device = device.crash()
    log = await open_on(SimDisk(device), CONFIG)
    await orders_from(log, 191, 211)
    await log.topic("orders").purge(lsns=[192, 195])
    await log.close()
    return device


async def write_limits(device: SimDevice) -> SimDevice:
    """Limits of two topics, one of them set again and one lifted, over a rotation, a crash and a clean close."""
    log = await open_on(SimDisk(device), CONFIG)
    await orders_from(log, 1, 101)
    await log.topic("orders").retain(records=60)
    await log.topic("rare").retain(bytes=1 << 40, seconds=1e12)
    await log.topic("lifted").retain(records=1)
    await orders_from(log, 101, 151)
    await log.writer.core.pipeline.rotation.ended()
    device = device.crash()
    log = await open_on(SimDisk(device), CONFIG)
    await log.topic("orders").retain(records=70)
    await log.topic("lifted").retain()
    await log.close()
    return device


async def of_all_topics(log: Log, end: int) -> None:
    """Records of several topics and of none with the LSNs below `end`, 25 in a group."""
    for first in range(1, end, 25):
        lsns = range(first, first + 25)
        named = [(log.topic(name) if (name := topic_of(lsn)) else log, payload_of(lsn)) for lsn in lsns]
        await asyncio.gather(*(where.append(payload) for where, payload in named))


async def orders_from(log: Log, first: int, end: int) -> None:
    """Records of the topic orders with these LSNs."""
    await asyncio.gather(*(log.topic("orders").append(payload_of(lsn)) for lsn in range(first, end)))


async def write_keys(device: SimDevice) -> SimDevice:
    """Callers' keys of two topics and of none, some of them in a snapshot, some cut off, a crash and a clean close."""
    log = await open_on(SimDisk(device), CONFIG)
    for first in range(1, 201, 25):
        lsns = range(first, first + 25)
        named = [(log.topic(name) if (name := topic_of(lsn)) else log, lsn) for lsn in lsns]
        await asyncio.gather(*(where.append(payload_of(lsn), dedupe=f"key {lsn}") for where, lsn in named))
    await log.truncate_before(20)
    await log.truncate_after(190)
    device = device.crash()
    log = await open_on(SimDisk(device), CONFIG)
    await log.topic("orders").append(payload_of(191), dedupe="key 195")
    await log.close()
    return device


async def write_queues(device: SimDevice) -> SimDevice:
    """Two shared consumers, one of them without a lease: done out of order, tried, held, dead, moved; a crash and a clean close."""
    log = await open_on(SimDisk(device), CONFIG)
    await of_all_topics(log, 201)
    orders = log.topic("orders")
    workers = await orders.consumer("workers", shared=True, max_deliveries=2, dead_letter="dead", ordered_by="key")
    out = [await workers.next() for _ in range(12)]
    for place in (0, 1, 4, 5, 8):
        await out[place].ack()
    await out[2].nak()
    await (await workers.next()).nak()
    await out[6].nak()
    hands = await orders.consumer("hands", shared=True, lease=None, worker="left")
    held = [await hands.next() for _ in range(4)]
    await held[1].ack()
    device = device.crash()
    log = await open_on(SimDisk(device), CONFIG)
    await log.append_batch([payload_of(lsn) for lsn in range(202, 302)])
    moved = await log.consumer("moved", shared=True)
    await moved.seek(150)
    await log.close()
    return device


async def write_gone(device: SimDevice) -> SimDevice:
    """Topics that were deleted, one of them made again, some that went by themselves; compaction, both truncations, a crash and a
    clean close."""
    log = await open_on(SimDisk(device), CONFIG)

    async def append(*lsns: int) -> None:
        named = [(log.topic(name) if (name := topic_of(lsn)) else log, payload_of(lsn)) for lsn in lsns]
        await asyncio.gather(*(where.append(payload) for where, payload in named))

    for number in range(1, 11):
        await log.topic(f"session {number}").append(payload_of(number))
    await append(*range(11, 121))
    orders = log.topic("orders")
    await orders.append(payload_of(121), dedupe="key")
    await orders.purge("nobody")
    consumer = await orders.consumer("billing")
    await consumer.ack((await consumer.next()).lsn)
    await consumer.close()
    await log.truncate_before(11)
    await log.delete_topic("orders")
    await append(*range(122, 242))
    await log.compact()
    await log.delete_topic("rare")
    await log.truncate_after(230)
    device = device.crash()
    log = await open_on(SimDisk(device), CONFIG)
    await append(*range(231, 301))
    await (await log.topic("orders").consumer("billing", start="next")).close()
    await log.delete_topic("注文")
    await log.close()
    return device


TOPICS_EXPECTED = {
    "labelled": {},
    "consumers": [["all", None, 310], ["billing", "orders", 214]],
    "holds": {"archive": 200},
}


def main() -> None:
    """Write the files and what they must decode to: python -m tests.golden.make DIR KIND, which is one of `writers`."""
    target = Path(sys.argv[1])
    kind = sys.argv[2] if sys.argv[2:] else ""
    topics, encrypted = kind == "topics", kind == "encrypted"
    writers = {"topics": write_topics, "encrypted": write_encrypted, "bound": write_bound, "keys": write_keys}
    writers |= {"queues": write_queues, "hidden": write_hidden, "gone": write_gone, "limits": write_limits}
    device = asyncio.run(writers.get(kind, write)(SimDevice(1)))
    target.mkdir(parents=True)
    device.dump(target)
    for spare in target.glob("*.spare"):
        spare.unlink()
    expected: dict[str, Any] = {
        "first_lsn": 40,
        "next_lsn": 311,
        "labelled": {"101": [7, {"tenant": 7, "shard": "a"}]},
        "files": sorted(file.name for file in target.glob("*.wal")),
    }
    if topics:
        first = min(int(name[:16], 16) for name in expected["files"])
        names = {str(lsn): name for lsn in range(first, 321) if (name := topic_of(lsn))}
        names |= {str(lsn): "batch" for lsn in range(321, 421)}
        expected |= {"first_lsn": first, "next_lsn": 421, "topics": names, **TOPICS_EXPECTED}
    if encrypted:
        expected = {"next_lsn": 91, "keys": [name for name, _ in GOLDEN_KEYS]}
    if kind == "keys":
        expected = {"first_lsn": 20, "next_lsn": 192}
    if kind == "limits":
        expected = {"next_lsn": 151}
    if kind == "hidden":
        expected = {"first_lsn": 10, "next_lsn": 211}
    if kind == "gone":
        expected = {"first_lsn": 11, "next_lsn": 301}
    if kind == "queues":
        expected = {"next_lsn": 302}
    if kind == "bound":
        expected = {"next_lsn": 311, "files": expected["files"]}
    (target / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
