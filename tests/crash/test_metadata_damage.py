"""Damage to what a log remembers beside records: after an orderly close none of it is undone without a word."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from walsvc import Relaxed
from walsvc.config import WalConfig
from walsvc.disk.sim import SimDevice
from walsvc.format.group import DURABLE_UNIT, GROUP_HEADER_BYTES, Flag, GroupHeader, crc32c
from walsvc.format.segment import SEGMENT_HEADER_BYTES
from walsvc.keyring import KeyRing
from walsvc.log.opening import open_writer
from walsvc.opening import open_on

from .damage import BLOCK, DAMAGED, disk_of, groups, overwrite, told_by_verify
from .explorer import Explorer
from .plan import reproducible
from .sampling import sampled, share

KEYS = KeyRing(current=("k1", bytes(range(32))))
CONFIG = WalConfig(segment_bytes=64 * 1024, block_bytes=BLOCK)
PLAIN_PLACES = 5  # one in so many of a plain log's


@pytest.fixture(name="explorer")
def fixture_explorer() -> Iterator[Explorer]:
    explorer = Explorer()
    yield explorer
    explorer.close()


async def remembering(config: WalConfig, *, sealed: bool = False) -> SimDevice:
    """A small log with every kind of metadata, opened twice and closed in order."""
    device = SimDevice(5)
    with reproducible(5):
        log = await open_on(disk_of(device), config)
        topic = log.topic("orders")
        for number in range(4):
            await topic.append(b"%d" % number, attributes={"key": f"user-{number}"})
        async with await topic.consumer("billing") as consumer:
            record = await consumer.next()
            await consumer.ack(record.lsn)
        await log.hold("export", 3)
        await log.close()
        log = await open_on(disk_of(device), config)
        await log.append(b"relaxed", mode=Relaxed)
        await log.purge("user-3")
        await log.hold("export", 4)
        await log.truncate_before(3)
        if sealed:
            await log.seal()
        await log.close()
    return device


def state_of(log: Any) -> tuple[object, ...]:
    """All that a log remembers beside its records."""
    known = log.segments.metadata
    kept = (known.positions, known.holds, known.purges, known.topics.names)
    return log.first_lsn, log.next_lsn, known.sealed, *[tuple(sorted(each.items())) for each in kept]


async def told(device: SimDevice, config: WalConfig) -> tuple[str, tuple[object, ...]]:
    """What opening says, and the state that it finds; the latter is empty where it refuses."""
    try:
        log: Any = await open_on(disk_of(device, lock=False), dataclasses.replace(config, read_only=True))
    except DAMAGED:
        return "Corruption", ()
    state = state_of(log)
    await log.close()
    return "clean" if log.report.clean else "told", state


def newest(device: SimDevice) -> str:
    return max(name for name in device.directory.names if name.endswith(".wal"))


def places(header: GroupHeader) -> Iterator[int]:
    """Offsets in a group: all in use, and some of its padding."""
    used = GROUP_HEADER_BYTES + header.body_bytes
    yield from range(header.offset, header.offset + used)
    yield from range(header.offset + used, header.end, 101)


@pytest.mark.parametrize("kind", ["plain", "encrypted", "sealed"])
def test_every_flipped_bit_after_an_orderly_close_is_told_and_undoes_nothing(explorer: Explorer, kind: str) -> None:
    config = dataclasses.replace(CONFIG, keys=KEYS if kind == "encrypted" else None)
    device = explorer.run(remembering(config, sealed=kind == "sealed"))
    right = explorer.run(told(device, config))
    assert right[0] == "clean"
    assert right[1][0] == 3
    name, rng, seen = newest(device), random.Random(3), Counter[str]()
    every = [
        (header, offset)
        for header in groups(device, name)
        for offset in (places(header) if kind == "plain" else range(header.offset, header.end, 7))
    ]
    one_in = PLAIN_PLACES if kind == "plain" else 2
    for header, offset in sampled(every, one_in):
        copy = device.fork()
        copy.flip(name, offset, rng.randrange(8))
        word, state = explorer.run(told(copy, config))
        assert word != "clean", f"offset {offset}: not noticed"
        assert word == "Corruption" or state == right[1], f"offset {offset}: undone, and the log opens"
        assert word == "Corruption" or header.flags & Flag.CLOSE, f"offset {offset}: only the mark itself may be torn"
        seen[word] += 1
    print(dict(seen))
    assert seen["Corruption"] > share(300, 2)
    assert seen["told"] > share(20, 2)


@pytest.mark.parametrize("keys", [None, KEYS], ids=["plain", "encrypted"])
def test_verify_finds_damaged_metadata_of_a_closed_log(explorer: Explorer, keys: KeyRing | None) -> None:
    config = dataclasses.replace(CONFIG, keys=keys)
    device = explorer.run(remembering(config))
    assert explorer.run(told_by_verify(device.fork(), keys))
    name = newest(device)
    for header in groups(device, name):
        copy = device.fork()
        copy.flip(name, header.offset + GROUP_HEADER_BYTES, 1)
        assert not explorer.run(told_by_verify(copy)), f"offset {header.offset}"
        assert explorer.run(told(copy, config))[0] == "Corruption" or header.flags & Flag.CLOSE


def test_a_log_closed_by_an_older_walsvc_whose_metadata_a_power_cut_took_opens(explorer: Explorer) -> None:
    """Its closing group says nothing of what was durable, and may have been written ahead of the metadata before it."""
    device = explorer.run(remembering(CONFIG))
    name, crc = newest(device), 0
    found = groups(device, name)
    for place, header in enumerate(found):  # as 0.1.0 wrote them
        data = bytearray(device.file(name).read(header.offset, header.group_bytes, lambda: True))
        if place:
            data[92:96] = crc.to_bytes(4, "little")
        data[116:124] = bytes(8)
        crc = crc32c(bytes(data[:124]))
        data[124:128] = crc.to_bytes(4, "little")
        overwrite(device, name, header.offset, bytes(data))
    assert explorer.run(told(device, CONFIG))[0] == "clean"
    overwrite(device, name, found[-2].offset, bytes(found[-2].group_bytes))
    word, state = explorer.run(told(device, CONFIG))
    assert word == "told"
    assert state[1] == 6


def test_close_waits_for_metadata_that_is_still_on_its_way(explorer: Explorer) -> None:
    """The mark of an orderly close is submitted only when all before it is on stable storage, metadata included."""

    async def scenario() -> SimDevice:
        device = SimDevice(5)
        with reproducible(5):
            writer, _ = await open_writer(disk_of(device), CONFIG)
            durable = [writer.core.changes.try_write({"holds": {str(number): 1}}) for number in range(5)]
            await writer.close()
            assert all(each is not None and each.done() for each in durable)
        return device

    device = explorer.run(scenario())
    close = groups(device, newest(device))[-1]
    assert close.flags & Flag.CLOSE
    assert close.durable_end == close.offset


def test_what_a_group_says_to_be_durable_was_durable_when_it_was_submitted(explorer: Explorer) -> None:
    device = explorer.run(remembering(CONFIG))
    found = groups(device, newest(device))
    assert found[0].offset >= SEGMENT_HEADER_BYTES
    for header in found:
        assert header.durable_end <= header.offset
        assert header.durable_end % DURABLE_UNIT == 0
    assert found[-1].durable_end == found[-1].offset
