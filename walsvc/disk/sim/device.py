"""The simulated device: the world that outlives processes and power cuts, the plan of its faults, and its crash images.

The rules are in the head of walsvc/disk/sim/__init__.py. All choices come from the seed: the device's own generator
serves the run, and generators derived from (seed, operation count) serve forks and crash states, so that looking at
crash states never changes the run that is being looked at.
"""

from __future__ import annotations

import errno as errnos
import hashlib
import os
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Protocol

from walsvc.disk.sim.crash import Cut, distinct, random_cut
from walsvc.disk.sim.directory import SimDirectory
from walsvc.disk.sim.faults import Operations, system_error
from walsvc.disk.sim.file import ZEROS, SimFile
from walsvc.errors import Locked

UNLIMITED_BYTES = 1 << 50  # what free_bytes says when no capacity was set


class Attached(Protocol):
    """A process (SimDisk) as the device that it uses sees it."""

    lock: bool

    def inodes(self) -> Iterable[int]:
        """Inodes held open."""

    def abandon(self) -> None:
        """The process is gone: do nothing any more, call nobody."""


class SimDevice(Operations):
    """A disk with one directory. One process at a time may hold its lock.

    Args:
        seed: decides everything that is left to chance.
        sector: bytes that reach the disk as a whole or not at all: 512 or 4096.
        garbage: whether a power cut may turn one sector of an unsynced write into noise.
        garbage_each: whether it may do so with one sector of every unsynced write.
        loose: whether a power cut may lose any subset of the unsynced directory operations (ALICE, OSDI 2014), not only
            the last ones (a metadata journal).
        sync_names: whether a file's sync also makes all names durable, as ext4's journal happens to.
        capacity: bytes that files may take together; None for no limit.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        sector: int = 512,
        garbage: bool = False,
        garbage_each: bool = False,
        loose: bool = False,
        sync_names: bool = False,
        capacity: int | None = None,
    ) -> None:
        assert sector in ZEROS, "disks have sectors of 512 or 4096 bytes"
        super().__init__()
        self.seed = seed
        self.sector = sector
        self.garbage = garbage
        self.garbage_each = garbage_each
        self.loose = loose
        self.sync_names = sync_names
        self.capacity = capacity
        self._chance: int | str = seed
        self.directory: SimDirectory = SimDirectory()
        self.files: dict[int, SimFile] = {}
        self.stall: float = 0.0
        self.linked: set[int] = set()  # inodes that have a name in another directory, too
        self._attached: list[Attached] = []
        self._numbers = 0

    # ---- the plan of a test
    def stall_sync(self, seconds: float) -> None:
        """The next answer comes `seconds` of the loop's time later, and all that are behind it wait."""
        self.stall += seconds

    def flip(self, name: str, offset: int, bit: int) -> None:
        """Damage the medium: invert bit `bit` (0 to 7) of the byte at `offset` of a file."""
        file = self.file(name)
        assert 0 <= offset < file.visible_size
        file.flip(offset, bit)

    # ---- processes
    def attach(self, disk: Attached) -> None:
        """A process opens the directory; raises Locked while another one holds the lock and this one wants it."""
        self.alive()
        in_flight = any(file.in_flight for file in self.files.values())
        assert self._attached or not in_flight, "a fork in mid-air: crash or kill it before it is used"
        if disk.lock and any(each.lock for each in self._attached):
            raise Locked("the simulated disk is in use")
        self._attached.append(disk)

    def detach(self, disk: Attached) -> None:
        """The process is done."""
        if disk in self._attached:
            self._attached.remove(disk)

    def kill(self) -> None:
        """SIGKILL for every process: the page cache stays, writes in flight land in any part, no callback comes.

        Not from a hook, in the middle of an operation: kill a fork there.
        """
        assert not self._hooked
        self._abandon_processes()
        for file in self.files.values():
            for number in sorted(file.in_flight):
                file.abandon(number, self.coin)

    # ---- power cuts
    def crash(self, rng: Random | None = None) -> SimDevice:
        """Cut the power. This device is dead; the new one is what the next boot finds, with everything durable."""
        rng = rng or self.random
        self.dead = True
        self._abandon_processes()
        return self._image(random_cut(self, rng), rng)

    def fork(self) -> SimDevice:
        """A cheap, independent copy of this moment, without processes, faults and hooks; `crash` or `kill` it then."""
        copy = self._sibling(self._purpose("fork"))
        copy.directory = self.directory.fork()
        copy.files = {inode: file.fork() for inode, file in self.files.items()}
        copy.operations = self.operations
        return copy

    def crash_states(self, limit: int) -> Iterator[SimDevice]:
        """Up to `limit` distinct devices that a power cut at this moment may leave (this one lives on).

        First nothing unsynced kept and everything kept, then in turn a random subset and one of: a single write lost, a
        single write kept, each prefix of the directory operations (each single one lost when `loose`), a single sector
        garbage. Ends early where chance finds nothing new. Tell them apart by `fingerprint()`.
        """
        copy = self.fork()
        return distinct(copy, limit, self.derived("states"), copy._image)  # noqa: SLF001 - another device of its kind

    def fingerprint(self) -> str:
        """Hash of all durable names and contents, stable over processes and versions of Python."""
        state = hashlib.blake2b(digest_size=16)
        for name in sorted(self.directory.durable):
            state.update(name.encode() + b"\0")
            state.update(self.files[self.directory.durable[name]].digest())
        return state.hexdigest()

    # ---- real files, for looking at an image with other tools
    def dump(self, directory: str | os.PathLike[str]) -> None:
        """Write the durable image into `directory`, which is made if missing; sparse files."""
        Path(directory).mkdir(parents=True, exist_ok=True)
        for name, inode in self.directory.durable.items():
            file = self.files[inode]
            with open(Path(directory, name), "wb") as target:
                for index in sorted(file.durable):
                    target.seek(index * self.sector)
                    target.write(file.durable[index])
                target.truncate(file.size)

    @classmethod
    def load(cls, directory: str | os.PathLike[str], seed: int = 0, *, sector: int = 512) -> SimDevice:
        """A device that holds the regular files of `directory`, all durable."""
        device = cls(seed, sector=sector)
        for path in sorted(Path(directory).iterdir()):
            if path.is_file():
                data = path.read_bytes()
                file = device.create(path.name)
                file.begin(0, 0, data)
                file.land(0)
                file.commit([0])
        device.directory.sync()
        return device

    # ---- what SimDisk is made of
    def inode(self, name: str) -> int:
        """The inode of a name; FileNotFoundError."""
        try:
            return self.directory.names[name]
        except KeyError:
            raise system_error(errnos.ENOENT, name) from None

    def file(self, name: str) -> SimFile:
        """The file of a name; FileNotFoundError."""
        return self.files[self.inode(name)]

    def create(self, name: str) -> SimFile:
        """A new, empty file; FileExistsError."""
        assert "/" not in name, "the directory holds plain names"
        if name in self.directory.names:
            raise system_error(errnos.EEXIST, name)
        inode = self.next_number()
        self.files[inode] = SimFile(self.sector)
        self.directory.change({name: inode})
        return self.files[inode]

    def next_number(self) -> int:
        """A number for a write or an inode; later ones are larger."""
        self._numbers += 1
        return self._numbers

    def begin_write(self, file: SimFile, offset: int, data: bytes) -> int:
        """A write is in flight; returns its number."""
        number = self.next_number()
        file.begin(number, offset, data)
        return number

    def land_write(self, name: str, file: SimFile, number: int, data: bytes) -> None:
        """The write in flight completes, as operation `name`, wholly, short or failing."""
        fault = self.step(name)
        offset, end, _ = file.writes[number]
        if fault is None and end - file.visible_size > self.free_bytes():
            file.forget(number)
            raise system_error(errnos.ENOSPC)
        if fault is None:
            file.land(number)
        elif fault.short is None:
            file.abandon(number, self.coin)
            raise fault.error()
        else:
            file.forget(number)
            if fault.short > 0:
                file.begin(number, offset, data[: fault.short])
                file.land(number)
            raise OSError(errnos.EIO, f"short write: {fault.short} of {len(data)} bytes")

    def sync_file(self, name: str, file: SimFile, numbers: Iterable[int], cached: bool) -> None:
        """The sync of these writes completes, as operation `name`."""
        fault = self.step(name)
        if fault is not None:
            file.fail_sync(numbers, cached, self.coin)
            raise fault.error()
        file.commit(numbers)
        if self.sync_names:
            self.directory.sync()

    def sync_directory(self, name: str, mark: int) -> None:
        """The sync of the directory that began at `mark` completes, as operation `name`."""
        self.check(name)
        self.directory.sync(mark)
        reachable = self._open_inodes() | self.directory.inodes()
        self.files = {inode: file for inode, file in self.files.items() if inode in reachable}

    def free_bytes(self) -> int:
        """Bytes left of the capacity; a file that was removed counts as long as it is open."""
        if self.capacity is None:
            return UNLIMITED_BYTES
        held = self._open_inodes() | set(self.directory.names.values())
        return max(self.capacity - sum(self.files[inode].visible_size for inode in held), 0)

    @cached_property
    def random(self) -> Random:
        """The generator of this run; most forks and images are looked at without it, and seeding takes as long as a fork."""
        return Random(self._chance)

    def coin(self) -> bool:
        """Heads or tails, by the seed."""
        return self.random.random() < 0.5

    def derived(self, purpose: str) -> Random:
        """A generator for looking aside: the same at the same operation of a run, without moving the run's own."""
        return Random(self._purpose(purpose))

    def _purpose(self, purpose: str) -> str:
        return f"{self.seed} {purpose} {self.operations}"

    def _open_inodes(self) -> set[int]:
        return {inode for disk in self._attached for inode in disk.inodes()}

    def _abandon_processes(self) -> None:
        for disk in self._attached:
            disk.abandon()
        self._attached.clear()

    def _sibling(self, chance: int | str) -> SimDevice:
        device = SimDevice(
            self.seed,
            sector=self.sector,
            garbage=self.garbage,
            garbage_each=self.garbage_each,
            loose=self.loose,
            sync_names=self.sync_names,
            capacity=self.capacity,
        )
        device._chance = chance
        device._numbers = self._numbers
        return device

    def _image(self, cut: Cut, rng: Random) -> SimDevice:
        image = self._sibling(rng.getrandbits(64))
        image.directory = SimDirectory(self.directory.after_crash(cut.names))
        for inode in image.directory.names.values():
            file = self.files[inode]
            noise = cut.garbage.get(inode, {})
            image.files[inode] = file.after_crash(cut.keep, cut.size(file), noise)
        return image
