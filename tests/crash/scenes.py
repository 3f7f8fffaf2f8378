"""What the scenarios share: opening on a simulated disk, filming a run, and looking at every crash of every moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, NamedTuple

from walsvc.api import Log
from walsvc.config import WalConfig
from walsvc.disk.base import Write
from walsvc.disk.sim import SimDevice, SimDisk, run_sim
from walsvc.format.segment import parse_name
from walsvc.opening import open_on

from .plan import SEGMENT_BYTES
from .workload import observe

CONFIG = WalConfig(segment_bytes=SEGMENT_BYTES, relaxed_interval=None)
USUAL = WalConfig(segment_bytes=SEGMENT_BYTES)  # Relaxed records are written after a while, too
ONE_EACH = WalConfig(segment_bytes=SEGMENT_BYTES, relaxed_interval=None, max_group_records=1)


def run(scenario: Callable[[int], Any], seeds: int = 1) -> None:
    """Run a scenario on simulated time, with each of some seeds."""
    for seed in range(seeds):
        run_sim(scenario, seed)


async def opened(device: SimDevice, config: WalConfig = CONFIG, **options: Any) -> Log:
    """Open the log of a device."""
    log: Log = await open_on(SimDisk(device, **options), config)
    return log


def closed_log(sizes: list[int]) -> SimDevice:
    """A device with a log that was closed in order."""
    device = SimDevice(1)

    async def fill(_: int) -> None:
        log = await opened(device)
        for number, size in enumerate(sizes):
            await log.append(b"%d" % (number % 10) * size)
        await log.close()

    run(fill)
    return device


async def payloads(log: Log) -> list[bytes]:
    """All payloads, in order."""
    return [entry.payload for entry in (await observe(log)).entries]


def segments(device: SimDevice) -> list[str]:
    """Names of the segments, oldest first."""
    return [name for name in sorted(device.directory.names) if parse_name(name, ".wal") is not None]


async def fill_segment(log: Log, leave: int) -> None:
    """Append until the active segment has room for groups of `leave` bytes (a multiple of 4096), and a spare is ready."""
    while True:
        segment = log.writer.core.tail.segment
        room = segment.limit - segment.end
        if room <= leave:
            break
        await log.append(bytes(min(room - leave, 3 * 4096) - 200))
    assert room == leave, "the segment was too full already"
    await asyncio.sleep(1)  # simulated
    assert log.writer.core.tail.spares.spare is not None


def new_images(device: SimDevice, states: int, looked: set[tuple[object, ...]], *known: object) -> Iterator[SimDevice]:
    """Up to `states` devices that a power cut may leave, but none that equals one of which the same was `known`: these are in `looked`."""
    for image in device.crash_states(states):
        what = (image.fingerprint(), *known)
        if what not in looked:
            looked.add(what)
            yield image


class Moment(NamedTuple):
    """The device before an operation takes effect, and what the log had said by then."""

    device: SimDevice
    operation: str
    first_lsn: int
    durable_lsn: int


class Film:
    """Keeps every moment of what happens inside `with`."""

    def __init__(self, device: SimDevice, log: Log) -> None:
        self.moments: list[Moment] = []
        self._device = device
        self._log = log

    def __enter__(self) -> Film:
        self._device.on_operation = lambda _, name: self.take(name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._device.on_operation = None

    def take(self, operation: str = "end") -> None:
        """Keep this moment."""
        self.moments.append(Moment(self._device.fork(), operation, self._log.first_lsn, self._log.durable_lsn))

    def crashes(self, states: int) -> Iterator[tuple[Moment, SimDevice]]:
        """Up to `states` devices that a power cut at each moment may leave; equal ones, of which the log had said the same, once."""
        looked: set[tuple[object, ...]] = set()
        for moment in self.moments:
            said = moment.first_lsn, moment.durable_lsn, moment.operation == "end"
            for image in new_images(moment.device, states, looked, *said):
                yield moment, image


class WatchedDisk(SimDisk):
    """Shows every durable write to `before` (inode, offset, bytes) and, once it was answered, to `after`."""

    def __init__(
        self,
        device: SimDevice,
        before: Callable[[int, int, bytes], None],
        after: Callable[[int, int, bytes], None],
        **options: Any,
    ) -> None:
        super().__init__(device, **options)
        self._before = before
        self._after = after

    def submit(self, write: Write) -> None:
        """See Disk.submit."""
        inode, offset, data, done = self._handles[write.file], write.offset, bytes(write.view), write.done
        self._before(inode, offset, data)

        def answered(which: Write, error: OSError | None) -> None:
            if error is None:
                self._after(inode, offset, data)
            done(which, error)

        write.done = answered
        super().submit(write)

    async def write(self, name: str, offset: int, data: bytes) -> None:
        """See Disk.write."""
        inode = self.device.inode(name)
        self._before(inode, offset, bytes(data))
        await super().write(name, offset, data)
        self._after(inode, offset, bytes(data))
