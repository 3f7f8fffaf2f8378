"""The double-write file as the writer uses it: first the slot, synced, then the log's own write.

A write to the log that is cut by a crash may leave noise in any of its sectors. In layout pack its first block holds the
ends of groups that were acknowledged long ago. So the bytes go to a slot first, and only when they are durable there the
log is touched: at any moment one of the two is whole (InnoDB's doublewrite buffer; nodedb-wal). The same protects the last
groups of a log in layout pad from a device that damages what it had said was safe.

A group in flight has a slot of its own; the next but one takes it over, and by then the group is durable in the log. What
is written beside the pipeline, the seal of a segment, has the last slot.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Callable
from functools import partial

from walsvc.checksum import crc32c
from walsvc.config import BLOCK_BYTES_MIN, KIB, MIB, WalConfig
from walsvc.disk.base import Disk, Write
from walsvc.errors import BadOption, taking_space
from walsvc.format.double_write import (
    DOUBLE_WRITE_NAME,
    DOUBLE_WRITE_NEW,
    OUTSIDE_SLOT,
    PIPELINE_SLOTS,
    SLOTS,
    SlotHeader,
    encode_slot_header,
)
from walsvc.format.group import GROUP_HEADER_BYTES, align_up, decode_group_header
from walsvc.log.commit.patience import write_patiently
from walsvc.log.commit.segment import Segment

META_BYTES = 64 * KIB  # of what may join a group of full size: names of new topics, acknowledgements
WIPE_BYTES = MIB  # written at a time

logger: logging.Logger = logging.getLogger("walsvc")


class DoubleWrite:
    """Writes through the double-write file. Loop thread only.

    Attributes:
        room: bytes that a buffer needs in front of what is to be written to the log, for the slot's header.
        uncovered: groups with records that did not fit a slot.
        syncs: slots written.
    """

    def __init__(self, disk: Disk, file: int, slot_bytes: int, sequence: int) -> None:
        self.room: int = room_of(disk)
        self.uncovered: int = 0
        self.syncs: int = 0
        self._disk = disk
        self._file = file
        self._slot_bytes = slot_bytes
        self._sequence = sequence  # of the last slot written, in this opening or an earlier one
        self._turn = sequence % PIPELINE_SLOTS
        self._under_way: dict[Write, bool] = {}  # writes to the log, from before their slots on; True: behind its slot
        self._quiet: asyncio.Future[None] | None = None
        self._wiping = False
        self._waiting: list[Callable[[], None]] = []  # for the end of `wipe`

    def submit(self, write: Write, buffer: memoryview, segment: Segment, at: int, *, outside: bool = False) -> None:
        """Start a write to the log that holds one group, by way of a slot. Its `done` hears of both.

        Args:
            write: to the log, in whole blocks.
            buffer: the memory that write.view ends, with `room` bytes in front of it.
            segment: which the group belongs to.
            at: where the group begins in write.view.
            outside: it is not one of the pipeline.
        """
        if self._wiping:
            self._waiting.append(partial(self.submit, write, buffer, segment, at, outside=outside))
            return
        self._under_way[write] = False
        write.done = partial(self._ended, write.done)
        try:
            self._submit(write, buffer, segment, at, outside=outside)
        except BaseException:
            self._over(write)  # else `wipe` would wait for ever; whoever submits fails the log
            raise

    def _submit(self, write: Write, buffer: memoryview, segment: Segment, at: int, *, outside: bool) -> None:
        group = decode_group_header(bytes(write.view[at : at + GROUP_HEADER_BYTES]))
        start = at - group.offset % segment.block_bytes  # of the group's first block: what stands before is a prefix
        image_bytes = len(write.view) - start
        if self.room + image_bytes > self._slot_bytes:
            self._tell_uncovered(group.records, image_bytes)
            if start == at or write.offset == 0:
                self._disk.submit(write)  # nothing that it rewrites was ever acknowledged
                return
            image_bytes = segment.block_bytes
        end = self.room + start + image_bytes
        header = SlotHeader(
            header_bytes=self.room,
            log_id=group.log_id,
            sequence=self._sequence + 1,
            segment=segment.id,
            ordinal=segment.header.ordinal,
            generation=group.generation,
            offset=write.offset + start,
            group_offset=group.offset,
            image_bytes=image_bytes,
            group_bytes=group.group_bytes,
            previous_crc=group.previous_crc,
            image_crc=crc32c(buffer[end - image_bytes : end]),
        )
        self._sequence += 1
        covered = bytes(buffer[start : start + self.room]) if start else b""  # the end of a prefix, written right after
        buffer[start : start + self.room] = encode_slot_header(header).ljust(self.room, b"\0")
        if outside:
            slot = OUTSIDE_SLOT
        else:
            slot, self._turn = self._turn, (self._turn + 1) % PIPELINE_SLOTS
        after = partial(self._written, write, buffer[start : start + len(covered)], covered)
        self.syncs += 1
        self._disk.submit(Write(self._file, slot * self._slot_bytes, buffer[start:end], after))

    def _written(self, write: Write, place: memoryview, covered: bytes, _: Write, error: OSError | None) -> None:
        """The slot is durable: now the log."""
        if (begun := self._under_way.get(write)) is None:
            return
        if begun:  # told again, since an exception cut it short: whether the write is on its way is not known
            write.done(write, OSError(errno.ECANCELED, os.strerror(errno.ECANCELED)))
            return
        self._under_way[write] = True
        place[:] = covered
        if error is not None:
            write.done(write, OSError(error.errno, f"{error.strerror or error}, in the file {DOUBLE_WRITE_NAME}"))
        else:
            self._disk.submit(write)

    def _ended(self, done: Callable[[Write, OSError | None], None], write: Write, error: OSError | None) -> None:
        self._over(write)
        done(write, error)

    def _over(self, write: Write) -> None:
        self._under_way.pop(write, None)
        if self._quiet is not None and not self._under_way and not self._quiet.done():
            self._quiet.set_result(None)

    async def wipe(self) -> None:
        """Overwrite all slots with zeros, durably; one caller at a time. What is written meanwhile waits.

        Raises OSError if that fails: the slots may then hold anything.
        """
        self._wiping = True
        try:
            while self._under_way:
                self._quiet = asyncio.get_running_loop().create_future()
                await self._quiet
            for offset in range(0, SLOTS * self._slot_bytes, WIPE_BYTES):
                length = min(WIPE_BYTES, SLOTS * self._slot_bytes - offset)
                await write_patiently(self._disk, DOUBLE_WRITE_NAME, offset, bytes(length))
        finally:
            self._wiping = False
            waiting, self._waiting = self._waiting, []
            for submit in waiting:
                submit()

    def _tell_uncovered(self, records: int, image_bytes: int) -> None:
        if not records:
            return  # a segment's seal: opening writes it again
        self.uncovered += 1
        if self.uncovered == 1:
            logger.warning(
                "%s: a group of %d bytes does not fit the double-write file's %d; records of its size are not restored from "
                "there, what was acknowledged before is. A larger max_group_bytes makes room",
                self._disk.path,
                image_bytes,
                self._slot_bytes - self.room,
            )


def room_of(disk: Disk) -> int:
    """Bytes of a slot's header with the zeros behind it, so that the image begins where the device wants it."""
    return max(disk.block_bytes, BLOCK_BYTES_MIN)


def slot_bytes_for(disk: Disk, config: WalConfig, block_bytes: int) -> int:
    """Size of a slot for the largest ordinary group: it ends somewhere in a block, and begins in another."""
    group = GROUP_HEADER_BYTES + config.max_group_bytes + META_BYTES
    return align_up(room_of(disk) + block_bytes + align_up(group, block_bytes), max(room_of(disk), block_bytes))


async def prepare_double_write(disk: Disk, config: WalConfig, block_bytes: int, sizes: dict[str, int]) -> bool:
    """Make the file, if there is none that will do, without touching one that is there: it may yet be needed.

    Returns whether there is a new one to install.

    Raises:
        NoSpace: nothing was changed. BadOption: double_write="direct", and the log does not use O_DIRECT.
    """
    if config.double_write == "direct" and not disk.direct:
        raise BadOption(
            'double_write="direct", but this log is written through the page cache',
            path=disk.path,
            hint='use double_write="buffered"',
        )
    slot_bytes = slot_bytes_for(disk, config, block_bytes)
    length = sizes.get(DOUBLE_WRITE_NAME, 0)
    fits = length >= SLOTS * slot_bytes and length % (SLOTS * room_of(disk)) == 0
    if config.double_write == "off" or (fits and not await disk.shared(DOUBLE_WRITE_NAME)):
        return False
    if DOUBLE_WRITE_NEW in sizes:
        await disk.remove(DOUBLE_WRITE_NEW)
    with taking_space(
        "no room for the double-write file",
        path=disk.path,
        expected=f"{SLOTS * slot_bytes} bytes",
        hint="free space and open the log again; nothing was changed",
    ):
        await disk.allocate(DOUBLE_WRITE_NEW, SLOTS * slot_bytes)
    return True


async def install_double_write(disk: Disk, config: WalConfig, sequence: int, *, new: bool) -> DoubleWrite | None:
    """Begin to use the file, or remove it where it is not wanted. What it could restore is on the log's own disk by now.

    Args:
        sequence: of the newest slot in the file that was there.
        new: put the one in place that was prepared.
    """
    if new:
        await disk.rename(DOUBLE_WRITE_NEW, DOUBLE_WRITE_NAME)
        await disk.sync_directory()
    sizes, off = await disk.list(), config.double_write == "off"
    for name in (DOUBLE_WRITE_NEW, DOUBLE_WRITE_NAME) if off else (DOUBLE_WRITE_NEW,):
        if name in sizes:
            await disk.remove(name)
    if off:
        return None
    file = await disk.open_file(DOUBLE_WRITE_NAME, cached=config.double_write == "buffered")
    return DoubleWrite(disk, file, sizes[DOUBLE_WRITE_NAME] // SLOTS, sequence)


async def append_outside(disk: Disk, double_write: DoubleWrite | None, segment: Segment, data: bytes) -> None:
    """Write one encoded group at a segment's end, durably, beside the pipeline; OSError if it failed."""
    room = 0 if double_write is None else double_write.room
    begin = len(segment.tail)
    end = begin + len(data)
    buffer = disk.buffer(room + align_up(end, segment.block_bytes))
    view = buffer[room:]
    view[begin:end] = data
    if segment.packed:
        segment.pack(view, begin, end)
    submit = disk.submit
    if double_write is not None:
        submit = partial(submit_outside, double_write, buffer, segment, begin)
    await durable_write(submit, segment.file, segment.end - begin, view)


def submit_outside(double_write: DoubleWrite, buffer: memoryview, segment: Segment, at: int, write: Write) -> None:
    """DoubleWrite.submit for `durable_write`."""
    double_write.submit(write, buffer, segment, at, outside=True)


async def durable_write(submit: Callable[[Write], None], file: int, offset: int, view: memoryview) -> None:
    """Submit one write and wait for it; OSError if it failed. For the rare writes outside the pipeline."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def done(_: Write, error: OSError | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(None)

    submit(Write(file, offset, view, done))
    await asyncio.shield(future)
