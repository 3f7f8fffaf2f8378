"""Closed logs to be damaged, ways to damage them, and what reading a damaged log says."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

from walsvc.config import WalConfig
from walsvc.disk.base import Disk
from walsvc.disk.sim import SimDevice, SimDisk
from walsvc.errors import Corruption, UnsupportedFormat
from walsvc.format.chain import Chain
from walsvc.format.group import BadGroup, GroupHeader
from walsvc.format.segment import decode_segment_header, parse_name
from walsvc.keyring import BLIND, KeyRing, Keys
from walsvc.log.offline import verify as verify_module
from walsvc.opening import open_on

from .model import Entry
from .plan import SEGMENT_BYTES, Payloads, reproducible
from .workload import observe

BLOCK = 512
CONFIG = WalConfig(segment_bytes=SEGMENT_BYTES, block_bytes=BLOCK)
DAMAGED = (Corruption, UnsupportedFormat)


def disk_of(device: SimDevice, *, lock: bool = True) -> SimDisk:
    """A calm process' view."""
    return SimDisk(device, latency=0.0, out_of_order=False, block_bytes=BLOCK, lock=lock)


@dataclass(slots=True)
class ClosedLog:
    """A log that was closed in order, and what it holds."""

    device: SimDevice
    entries: list[Entry]

    @property
    def segments(self) -> list[str]:
        """Names of the segments, oldest first."""
        return [name for name in sorted(self.device.directory.names) if parse_name(name, ".wal") is not None]


async def rotated(count: int = 45, keys: KeyRing | None = None) -> ClosedLog:
    """Several full segments."""
    device, payloads = SimDevice(7), Payloads(7)
    entries = [payloads.entry(size) for size in [2900, 40, 5000, 0, 3300] * (count // 5)]
    with reproducible(7):
        log = await open_on(disk_of(device), dataclasses.replace(CONFIG, keys=keys))
        for entry in entries:
            await log.append(entry.payload, type=entry.type, attributes=dict(entry.attributes) or None)
        await log.close()
    return ClosedLog(device, entries)


async def small(keys: KeyRing | None = None, rounds: int = 3) -> ClosedLog:
    """Several full segments that are smaller than the options allow, so that every byte in use can be tried."""
    device, payloads = SimDevice(8), Payloads(8)
    entries = [payloads.entry(size) for size in (100, 0, 700, 30, 90) * rounds]
    config = dataclasses.replace(CONFIG, keys=keys)
    object.__setattr__(config, "segment_bytes", 16 * BLOCK)
    with reproducible(8):
        log = await open_on(disk_of(device), config)
        for entry in entries:
            await log.append(entry.payload, type=entry.type, attributes=dict(entry.attributes) or None)
        await log.close()
    return ClosedLog(device, entries)


def content(device: SimDevice, name: str) -> bytes:
    """A file's bytes."""
    file = device.file(name)
    return file.read(0, file.visible_size, lambda: True)


def overwrite(device: SimDevice, name: str, offset: int, data: bytes) -> None:
    """Change bytes on the medium."""
    file, number = device.file(name), device.next_number()
    file.begin(number, offset, data)
    file.land(number)
    file.commit([number])


def rename(device: SimDevice, changes: dict[str, str | None]) -> None:
    """Give files (new name: old name) other names, or take them away (None), all at once and durably."""
    names = device.directory.names
    device.directory.change({new: None if old is None else names[old] for new, old in changes.items()})
    device.directory.sync()


def groups(device: SimDevice, name: str) -> list[GroupHeader]:
    """The valid groups of a segment."""
    data = content(device, name)
    chain = Chain.begin(decode_segment_header(data), data[:4096], len(data))
    found: list[GroupHeader] = []
    while True:
        try:
            header = chain.take(data, 0)
        except BadGroup:
            return found
        assert isinstance(header, GroupHeader), "the whole file was given"
        found.append(header)


async def told_by_reading(device: SimDevice, entries: list[Entry], keys: KeyRing | None = None) -> str:
    """Open read-only and read everything. Returns the error's name, or "unclean", or "clean".

    Whatever is returned without an error must be what was appended, and nothing on the device may change.
    """
    before = device.fingerprint()
    config = WalConfig(segment_bytes=SEGMENT_BYTES, read_only=True, keys=keys)
    try:
        log: Any = await open_on(disk_of(device, lock=False), config)
        try:
            seen = await observe(log)
        finally:
            await log.close()
        assert seen.entries == entries, "damaged data was returned"
        result = "clean" if log.report.clean else "unclean"
    except DAMAGED as error:
        result = type(error).__name__ if error.path is not None else "an error without a path"
    assert device.fingerprint() == before, "reading changed the files"
    return result


async def told_by_verify(device: SimDevice, keys: Keys = BLIND) -> bool:
    """Whether `verify` finds the log clean."""

    @contextlib.asynccontextmanager
    async def reading(_: object) -> AsyncIterator[Disk]:
        disk = disk_of(device, lock=False)
        yield disk
        await disk.close()

    with mock.patch.object(verify_module, "reading", reading):
        return (await verify_module.verify("sim", keys=keys)).clean


async def told_by_opening(device: SimDevice, keys: KeyRing | None = None) -> str:
    """Open for writing and close; the error's name, or "opened". An error must leave everything as it was."""
    before = device.fingerprint()
    try:
        log = await open_on(disk_of(device), dataclasses.replace(CONFIG, keys=keys))
    except DAMAGED as error:
        assert device.fingerprint() == before, "a log that cannot be opened was changed"
        return type(error).__name__
    await log.close()
    return "opened"
