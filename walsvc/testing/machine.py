"""Disk: the disk of a simulated machine, as the program and the check of a crash test get it.

It owns a SimDevice for each namespace that was opened on it, and what the world outside knows. Power cuts hit all of it at once.
"""

from __future__ import annotations

import errno as errnos
import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any

from walsvc.config import WalConfig, between
from walsvc.disk.sim import SimDevice, SimDisk
from walsvc.disk.sim.disk import LATENCY_S
from walsvc.disk.sim.faults import check_operation

SECTOR_BYTES = 512
COUNT_MAX = 1_000_000_000  # of what is counted here: more takes for ever
MAIN = ""  # the namespace of a log that has none


class Disk:
    """Give it to `walsvc.open` in the place of a directory. With `namespace=` it holds several logs.

    The program's own options hold, but for `disk`, which chooses between kinds of real disks.

    Attributes:
        seed: it decides the order of the disk's answers, what a power cut leaves, and `random`.
        random: for choices of the program, the same with the same seed.
        witness: what somebody outside of the machine knows, and a power cut cannot take back: the program appends to it, the
            check finds what was in it at the moment of the cut. What the two share otherwise is as it was when the program ended.
    """

    def __init__(self, seed: int = 0, *, calm: bool = False) -> None:
        self.seed: int = seed
        self.random: random.Random = random.Random(f"{seed} program")
        self.witness: list[Any] = []
        self._devices: dict[str, SimDevice] = {}
        self._plans: list[Callable[[SimDevice], None]] = []
        self._capacity: int | None = None
        self._watcher: Callable[[str], None] | None = None
        self._calm = calm  # everything at once and in order

    async def disk_for(self, config: WalConfig) -> SimDisk:
        """For walsvc.open: one process' view of the disk."""
        return SimDisk(
            self._device(config.namespace or MAIN),
            path=config.namespace or "simulated disk",
            latency=0.0 if self._calm else LATENCY_S,
            out_of_order=not self._calm,
            direct=config.direct is not False,
            lock=not config.read_only,
        )

    # ---- what may go wrong

    def fail(
        self, operation: str, *, nth: int = 1, errno: int = errnos.EIO, short: int | None = None, times: int = 1
    ) -> None:
        """Let an operation of the disk fail, counted from now.

        Args:
            operation: "write" and "sync" are those of records and of everything else; "submit.write" and "submit.sync" those of
                records only. Also "allocate", "read", "rename", "remove", "list", "open_file", "close_file", "sync_directory".
            nth: which of them is the first to fail, from 1.
            errno: what it fails with.
            short: of a write: only so many bytes are written, and then it fails.
            times: how many fail in a row.

        Raises:
            BadOption: there is no such operation; nth or times is less than 1.
        """
        check_operation(operation)
        between("nth", nth, 1, COUNT_MAX)
        between("times", times, 1, COUNT_MAX)

        def plan(device: SimDevice) -> None:
            device.fail(operation, nth=nth, errno=errno, short=short, times=times)

        self._plans.append(plan)
        for device in self._devices.values():
            plan(device)

    def stall(self, seconds: float) -> None:
        """The disk answers nothing for `seconds` of simulated time, from its next operation on."""
        for device in self._devices.values():
            device.stall_sync(seconds)

    def damage(self, name: str, offset: int, bit: int = 0, *, namespace: str = MAIN) -> None:
        """Invert bit `bit` (0 to 7) of the byte at `offset` of a file: the medium rots. See `files`."""
        self._devices[namespace].flip(name, offset, bit)

    @property
    def capacity(self) -> int | None:
        """Bytes that the files of each log may take; None: no limit. It may be set at any time."""
        return self._capacity

    @capacity.setter
    def capacity(self, size: int | None) -> None:
        self._capacity = size
        for device in self._devices.values():
            device.capacity = size

    def files(self, namespace: str = MAIN) -> dict[str, int]:
        """Names and sizes of a log's files."""
        device = self._devices[namespace]
        return {name: device.file(name).visible_size for name in sorted(device.directory.names)}

    @property
    def failed(self) -> int:
        """How many operations failed because `fail`, or `faults` of the test, asked for it."""
        return sum(device.failed for device in self._devices.values())

    # ---- for the explorer

    @property
    def devices(self) -> dict[str, SimDevice]:
        """The simulated devices by namespace, "" for none."""
        return self._devices

    def watch(self, watcher: Callable[[str], None] | None) -> None:
        """Call `watcher(operation)` before each operation takes effect; it may raise SimCrash."""
        self._watcher = watcher
        for namespace, device in self._devices.items():
            self._show(namespace, device)

    def fork(self) -> Disk:
        """A copy of this moment, without faults to come."""
        return self._with({name: device.fork() for name, device in self._devices.items()}, calm=self._calm)

    def images(self, limit: int) -> Iterator[Disk]:
        """Up to `limit` disks that a power cut at this moment may leave: first all unsynced is lost, then all is kept, then
        whatever else may be. See SimDevice.crash_states."""
        names = list(self._devices)
        left = [list(device.crash_states(limit)) for device in self._devices.values()]
        if len(left) <= 1:
            combined = list(zip(*left, strict=True))
        else:
            plain = [tuple(each[min(turn, len(each) - 1)] for each in left) for turn in (0, 1)]
            mixed = list(itertools.product(*left))
            random.Random(f"{self.seed} {len(mixed)}").shuffle(mixed)
            combined = plain + mixed
        for devices in combined[:limit]:
            yield self._with(dict(zip(names, devices, strict=True)), calm=True)

    def restarted(self) -> Disk:
        """Make the disk of a check one on which a program runs."""
        return self._with({name: device.fork() for name, device in self._devices.items()}, calm=False)

    def fingerprint(self) -> str:
        """Equal for equal contents of the disk."""
        return " ".join(f"{name}:{self._devices[name].fingerprint()}" for name in sorted(self._devices))

    def _with(self, devices: dict[str, SimDevice], *, calm: bool) -> Disk:
        copy = Disk(self.seed, calm=calm)
        copy.random.setstate(self.random.getstate())
        copy.witness = list(self.witness)
        copy._devices, copy._capacity = devices, self._capacity
        return copy

    def _device(self, namespace: str) -> SimDevice:
        device = self._devices.get(namespace)
        if device is None:
            device = SimDevice(self.seed, sector=SECTOR_BYTES, capacity=self._capacity)
            for plan in self._plans:
                plan(device)
            self._devices[namespace] = device
            self._show(namespace, device)
        return device

    def _show(self, namespace: str, device: SimDevice) -> None:
        watcher, before = self._watcher, f"{namespace}: " if namespace else ""
        device.on_operation = None if watcher is None else lambda _, name: watcher(before + name)
