"""SimDisk: what one process sees of a simulated device. Rules in the head of walsvc/disk/sim/__init__.py."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import mmap
from collections.abc import Iterable
from typing import TypeVar

from walsvc.disk.base import Displaced, Write
from walsvc.disk.sim.device import SimDevice
from walsvc.disk.sim.faults import SimCrash, SimPowerOff, system_error
from walsvc.disk.sim.programs import Programs
from walsvc.disk.sim.queue import Program, SimQueue

T = TypeVar("T")

LAZY_BYTES = 1 << 20  # larger buffers are of pages that are made when they are written, which costs more than zeros do
LATENCY_S = 100e-6  # about what a durable 4 KiB write takes on an NVMe disk with power-loss protection


class SimDisk:
    """A process' view of a SimDevice: implements `walsvc.disk.base.Disk`.

    Args:
        device: the device; it survives this object.
        loop: the event loop; None for the running one. On a SimLoop time is simulated.
        path: what messages call the directory.
        latency: seconds that an operation's turn takes on average; 0: the next round of the loop.
        out_of_order: whether operations overtake each other; False: one at a time, in order.
        sync_method: "dsync" or "fdatasync", see rule 2.
        direct: without page cache; offsets, lengths and memory must then be multiples of block_bytes.
        block_bytes: alignment for `direct`.
        lock: take the device's lock, as a writer does; raises Locked while another one holds it.
    """

    kind = "sim"
    reading = "simulated"
    rewrites = True
    reason = "asked for: a simulated disk for tests"

    def __init__(
        self,
        device: SimDevice,
        loop: asyncio.AbstractEventLoop | None = None,
        path: str = "sim",
        *,
        latency: float = LATENCY_S,
        out_of_order: bool = True,
        sync_method: str = "dsync",
        direct: bool = True,
        block_bytes: int = 4096,
        lock: bool = True,
    ) -> None:
        assert sync_method in {"dsync", "fdatasync"}
        self.device = device
        self.path = path
        self.direct = direct
        self.block_bytes = block_bytes
        self.sync_method = sync_method
        self.lock = lock
        self._loop = loop or asyncio.get_running_loop()
        self._queue = SimQueue(device, self._loop, latency, out_of_order)
        self._programs = Programs(device, sync_method, direct=direct)
        self._handles: dict[int, int] = {}
        self._handle_last = 2
        self._cached: set[int] = set()  # handles whose writes go through the page cache
        self._writes: dict[int, int] = {}  # handle to the number of its writes in flight
        self._let_go: set[int] = set()  # inodes that lost their name by this process' doing
        self._closing = False
        device.attach(self)

    # ---- hot
    def submit(self, write: Write) -> None:
        """Start a durable write; see Disk.submit. AssertionError on misuse, SimCrash when the power is off."""
        self._usable()
        data = bytes(write.view)
        self._check_aligned(write.offset, len(data))
        if self.direct and data and not write.view.readonly:
            address = ctypes.addressof(ctypes.c_char.from_buffer(write.view))
            assert address % self.block_bytes == 0, "memory of a direct write is not aligned: take it from buffer()"
        inode = self._handles.get(write.file)
        if self._closing or inode is None:
            self._report(write, self._programs.failing(system_error(errno.EBADF)))
            return
        try:
            fault = self.device.step("submit")
        except SimCrash as crash:
            # The caller's task dies of it, perhaps unnoticed; the loop must hear of it, too.
            self._loop.call_soon(_raise, crash)
            raise
        if fault is not None:
            self._report(write, self._programs.failing(fault.error()))
            return
        file = self.device.files[inode]
        number = self.device.begin_write(file, write.offset, data)
        cached = write.file in self._cached
        self._report(write, self._programs.submitted(write, file, number, data, cached=cached))

    def buffer(self, length: int) -> memoryview:
        """Zeroed memory of `length` bytes, aligned to block_bytes."""
        if length >= LAZY_BYTES and mmap.PAGESIZE % self.block_bytes == 0:
            return memoryview(mmap.mmap(-1, length))
        memory = bytearray(length + self.block_bytes)
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        start = -address % self.block_bytes
        return memoryview(memory)[start : start + length]

    def suit(self, block_bytes: int) -> bool:
        """See Disk.suit; the simulated device takes no less than `block_bytes`."""
        return not self.direct or block_bytes % self.block_bytes == 0

    def spoilt(self, file: int) -> bool:
        """See Disk.spoilt; nobody cuts a file."""
        return self._handles.get(file) not in self.device.directory.names.values()

    # ---- cold
    async def list(self) -> dict[str, int]:
        """See Disk.list."""

        def sizes() -> dict[str, int]:
            return {name: self.device.file(name).visible_size for name in sorted(self.device.directory.names)}

        return await self._run(self._programs.single("list", sizes))

    async def others(self) -> dict[str, str]:
        """See Disk.others: there is nothing but files."""
        return {}

    async def shared(self, name: str) -> bool:
        """See Disk.shared."""
        return self.device.inode(name) in self.device.linked

    async def reusable(self, name: str, length: int) -> bool:
        """See Disk.reusable."""
        return not await self.shared(name) and self.device.file(name).visible_size >= length

    async def fill_holes(self, name: str, offset: int) -> bool:
        """See Disk.fill_holes: no file has holes."""
        return False

    async def open_file(self, name: str, *, cached: bool = False) -> int:
        """See Disk.open_file."""

        def open_handle() -> int:
            inode = self.device.inode(name)
            self._handle_last += 1
            self._handles[self._handle_last] = inode
            if cached:
                self._cached.add(self._handle_last)
            return self._handle_last

        return await self._run(self._programs.single("open_file", open_handle))

    async def close_file(self, file: int) -> None:
        """See Disk.close_file."""

        assert not self._writes.get(file), "a write is in flight on the file that is being closed"

        def close_handle() -> None:
            if self._handles.pop(file, None) is None:
                raise system_error(errno.EBADF)

        await self._run(self._programs.single("close_file", close_handle))

    async def allocate(self, name: str, length: int, *, reserved: bool = False) -> None:
        """See Disk.allocate."""
        await self._run(self._programs.allocating(name, length, lambda: self._closing, reserved=reserved))

    async def read(self, name: str, offset: int, length: int) -> bytes:
        """See Disk.read."""

        def contents() -> bytes:
            return self.device.file(name).read(offset, length, self.device.coin)

        return await self._run(self._programs.single("read", contents))

    async def read_into(self, name: str, offset: int, view: memoryview) -> int:
        """See Disk.read_into."""
        data = await self.read(name, offset, len(view))
        view[: len(data)] = data
        return len(data)

    async def write(self, name: str, offset: int, data: bytes) -> None:
        """See Disk.write."""
        self._check_aligned(offset, len(data))
        await self._run(self._programs.writing(name, offset, bytes(data)))

    async def sync(self, name: str) -> None:
        """See Disk.sync."""
        await self._run(self._programs.syncing(name))

    async def rename(self, old: str, new: str) -> None:
        """See Disk.rename."""

        def change() -> None:
            inode = self.device.inode(old)
            self._let_go.add(self.device.directory.names.get(new, inode))
            self._let_go.discard(inode)
            self.device.directory.change({old: None, new: inode})

        await self._run(self._programs.single("rename", change))

    async def remove(self, name: str) -> None:
        """See Disk.remove."""

        def change() -> None:
            self._let_go.add(self.device.inode(name))
            self.device.directory.change({name: None})

        await self._run(self._programs.single("remove", change))

    async def check_place(self) -> None:
        """See Disk.check_place."""

        named = {*self.device.directory.names.values()} | self._let_go
        if not named.issuperset(self._handles.values()):
            raise Displaced(errno.ESTALE, "a file was removed or replaced")

    async def sync_directory(self) -> None:
        """See Disk.sync_directory."""
        await self._run(self._programs.syncing_names("sync_directory"))

    async def free_bytes(self) -> int:
        """See Disk.free_bytes."""
        return await self._run(self._programs.single("free_bytes", self.device.free_bytes))

    async def close(self) -> None:
        """See Disk.close. Quiet when the power is off: a process that is gone closes nothing."""
        self._closing = True
        await self._queue.idle()
        self._handles.clear()
        self.device.detach(self)

    # ---- for the device
    def inodes(self) -> Iterable[int]:
        """Inodes that this process holds open."""
        return self._handles.values()

    def abandon(self) -> None:
        """The process is dead."""
        self._queue.abandon()

    # ---- running programs
    def _report(self, write: Write, program: Program[None]) -> None:
        """Run a program of `submit`, whose outcome goes to write.done."""
        self._writes[write.file] = self._writes.get(write.file, 0) + 1

        def end(_: None, error: BaseException | None) -> None:
            self._writes[write.file] -= 1
            if error is not None and not isinstance(error, OSError):
                raise error
            try:
                write.done(write, error)
            except BaseException:
                write.done(write, error)
                raise

        self._queue.add(program, end)

    async def _run(self, program: Program[T]) -> T:
        """Run a program of a cold call."""
        self._usable()
        if self._closing:
            raise system_error(errno.EBADF)
        return await self._queue.run(program)

    def _usable(self) -> None:
        if self._queue.gone:
            raise SimPowerOff("the process of this simulated disk is dead")

    def _check_aligned(self, offset: int, length: int) -> None:
        if self.direct:
            assert offset % self.block_bytes == 0, f"offset {offset} of a direct write is not aligned"
            assert length % self.block_bytes == 0, f"length {length} of a direct write is not aligned"


def _raise(error: BaseException) -> None:
    raise error
