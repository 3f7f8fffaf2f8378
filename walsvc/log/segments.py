"""Segments as the writer sees them: the active file, the one being sealed, and the pipeline that prepares the next.

Preparing costs a file of written zeros and three syncs, so it happens ahead of time and in the background, as etcd's
file_pipeline.go does. A young log begins with small segments (1 MiB, then eight times as much each, up to segment_bytes),
so that a log of a few records does not occupy 64 MiB.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from walsvc.config import MIB, WalConfig
from walsvc.disk.base import Disk, Write
from walsvc.errors import NoSpace
from walsvc.format.cipher import SegmentCipher
from walsvc.format.group import TAG_BYTES, align_up
from walsvc.format.index import SegmentIndex, index_bytes_max
from walsvc.format.segment import segment_name, spare_name
from walsvc.format.summary import Tally
from walsvc.log.commit.background import Background

if TYPE_CHECKING:
    from walsvc.log.reserve import Reserve

FIRST_SEGMENT_BYTES = 1 * MIB
GROWTH = 8
META_BLOCKS = 2  # kept free at a segment's end for metadata when no record fits any more
JOIN_BLOCKS = 1  # more of them, for what joins a group: an acknowledgement may be what makes room on a full device
SEAL_BYTES = 256  # of a seal without summary and index, at most
PACK_ALIGN = 64  # of groups in layout pack: half a group header, a cache line
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
SHORTAGES = NO_SPACE | {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EFBIG}
"""Shortages that may keep a segment from being prepared, and may pass: no data is at stake, so the log tries again."""


@dataclass(slots=True)
class Segment:
    """A segment that is being written.

    `end` is where the next group will be placed.
    """

    id: int
    file: int
    file_bytes: int
    align: int
    log_id: int
    ordinal: int
    end: int
    previous_crc: int
    name: str
    previous_end: int = 0  # as in its header
    summary_bytes: int = 0  # what the topics of its records take in the seal
    tally: dict[int, Tally] | None = None  # its records by topic, once it is complete
    cipher: SegmentCipher | None = None  # None: it is not encrypted
    block_bytes: int = 0  # of the device, at least; 0: that is `align`
    replaced: bool = False  # its file has given way to another of its name
    metadata_only: bool = (
        False  # it is of the reserve (walsvc.log.reserve): no record begins in it, and it is never sealed
    )
    tail: bytes = b""  # what its last block holds already, where groups begin inside a block
    durable_end: int = 0  # everything before it is on stable storage, and no batch that is unfinished is in it
    last_crc: int = 0  # of the last group with records that was submitted, here or in an earlier segment, and
    last_at: int = 0  # where it stands; both as in walsvc.format.chain
    index: SegmentIndex = field(init=False)  # of the groups that were submitted
    index_bytes: int = field(init=False)  # what the index takes in the seal at most
    tag_bytes: int = field(init=False)  # what encryption adds to every group: the limits leave room for it
    _limit_for: int = -1  # bytes of the summary for which `_limit` was found last
    _limit: int = 0

    def __post_init__(self) -> None:
        self.index, self.index_bytes = SegmentIndex(self.file_bytes), index_bytes_max(self.file_bytes)
        self.tag_bytes = 0 if self.cipher is None else TAG_BYTES
        self.block_bytes = self.block_bytes or self.align

    @property
    def packed(self) -> bool:
        """Groups begin inside a block, so its bytes are written again: never without the double-write file."""
        return self.align < self.block_bytes

    @property
    def _whole_bytes(self) -> int:
        """The file up to its last whole block."""
        return self.file_bytes - self.file_bytes % self.block_bytes

    def pack(self, view: memoryview, begin: int, end: int) -> None:
        """Finish the whole blocks in `view`, where what is new lies in [begin, end): the last block's old bytes go in front
        of it, zeros behind it, and the last block is remembered for the next time."""
        assert begin in {0, len(self.tail)}, "a group begins where the one before it ended"
        view[:begin] = self.tail[:begin]
        view[end:] = bytes(len(view) - end)
        self.tail = bytes(view[end - end % self.block_bytes : end])

    @property
    def _seal_bytes(self) -> int:
        return SEAL_BYTES + self.tag_bytes + self.summary_bytes + self.index_bytes

    @property
    def limit(self) -> int:
        """Records end here at the latest: room is kept for the seal and some metadata, so that on a full device a log
        can still be truncated and closed in order."""
        return self.limit_with(0)

    def limit_with(self, summary_bytes: int) -> int:
        """The limit of records once the summary has grown by `summary_bytes`."""
        if self.metadata_only:
            return 0
        summary_bytes += self.summary_bytes
        if summary_bytes != self._limit_for:  # asked several times for each group, and mostly the same
            seal = align_up(self._seal_bytes - self.summary_bytes + summary_bytes, self.block_bytes)
            kept = seal + (META_BLOCKS + JOIN_BLOCKS) * self.block_bytes + self.tag_bytes
            self._limit_for, self._limit = summary_bytes, self._whole_bytes - kept
        return self._limit

    @property
    def join_limit(self) -> int:
        """Metadata of a group of its own, such as acknowledgements, ends here at the latest."""
        return self.meta_limit - META_BLOCKS * self.block_bytes

    @property
    def meta_limit(self) -> int:
        """Metadata that makes room or ends the log ends here at the latest; the seal always finds room."""
        if self.metadata_only:
            return self.mark_limit
        return self.mark_limit - align_up(self._seal_bytes, self.block_bytes)

    @property
    def mark_limit(self) -> int:
        """In a log that was sealed for good no seal of this segment comes, and the mark of its end may have that room."""
        return self._whole_bytes - self.tag_bytes


class Spare(NamedTuple):
    """A prepared file: every byte was written once (zeros, or a former segment), synced with its directory entry."""

    name: str
    file: int
    file_bytes: int
    recycled: bool  # it may hold old bytes instead of zeros
    metadata_only: bool = False  # it is lent from the reserve


def no_space(error: OSError, path: str, lsn: int) -> NoSpace:
    """The error for callers, when the next segment could not be prepared for want of something."""
    hint = "nothing was written and no LSN was used; free space (or truncate_before) and append again"
    if error.errno not in NO_SPACE:
        hint = "nothing was written and no LSN was used; append again once the shortage is over (ulimit -a, free)"
    return NoSpace(
        f"no room for the next segment: {error.strerror or error}",
        errno=error.errno or 0,
        path=path,
        lsn=lsn,
        hint=hint,
    )


def next_align(config: WalConfig, block_bytes: int) -> int:
    """Alignment of groups in the next segment: an option that an existing log takes up with a new segment."""
    return PACK_ALIGN if config.layout == "pack" else block_bytes


def tail_of(prefix: bytes, block_bytes: int) -> bytes:
    """What the last block of a segment holds whose prefix alone has been written."""
    return prefix[len(prefix) - len(prefix) % block_bytes :]


def whole_blocks(data: bytes, block_bytes: int) -> bytes:
    """`data` up to the end of its last block."""
    return data.ljust(align_up(len(data), block_bytes), b"\0")


def first_segment_bytes(segment_bytes: int) -> int:
    """Size of a new log's first segment."""
    return min(FIRST_SEGMENT_BYTES, segment_bytes)


class SparePipeline:
    """Prepares one spare at a time.

    `ready()` is called on the loop whenever a preparation ended, well or not; `spare` or `error` then say how.
    """

    def __init__(
        self,
        disk: Disk,
        segment_bytes: int,
        reserve: Reserve,
        ready: Callable[[], None],
        background: Background,
    ) -> None:
        self._background = background
        self._disk = disk
        self._segment_bytes = segment_bytes
        self._ready = ready
        self._lending = -1  # bytes of metadata that wait for the preparation under way
        self.reserve = reserve
        self._task: asyncio.Task[None] | None = None
        self.recyclable: dict[str, int] = {}  # file name -> length: old segments and spares of earlier runs
        self.spare: Spare | None = None
        self.error: OSError | None = None

    @property
    def count(self) -> int:
        """Spare files at hand."""
        return len(self.recyclable) + (self.spare is not None)

    def fitting(self, need: int = 0, *, metadata: bool = False) -> Spare | None:
        """The prepared spare, if it may be taken for `need` bytes of records, or of metadata."""
        spare = self.spare
        if spare is None or spare.file_bytes < need:
            return None
        return spare if metadata or (self.reserve.complete and not spare.metadata_only) else None

    def prepare(self, ordinal: int, after_bytes: int, need: int = 0, *, metadata: bool = False) -> None:
        """Have a spare for segment `ordinal` made, unless one is there or on its way. The reserve is made first.

        Args:
            ordinal: number of the segment that it is for.
            after_bytes: size of the segment before it.
            need: bytes that it must hold; a spare that is too small is replaced.
            metadata: on a full device, lend a file of the reserve.
        """
        if self.fitting(need, metadata=metadata) is not None:
            return
        if metadata:
            self._lending = max(self._lending, need)
        if self._task is not None:
            return
        self.error = None
        length = max(min(after_bytes * GROWTH, self._segment_bytes), need)
        self._task = self._background.start("preparing a segment", self._prepare(ordinal, length, need))

    async def _prepare(self, ordinal: int, length: int, need: int) -> None:
        name = spare_name(ordinal)
        try:
            if self.spare is not None and (self.spare.metadata_only or self.spare.file_bytes < need):
                await self._put_back()
            there = self.spare is not None
            await self._top_up()
            if not there:
                self.spare = await self._make(name, length)
        except OSError as error:
            self.error = error
            if self._lending >= 0 and error.errno in SHORTAGES and self.spare is None:
                await self._borrow(name)
        except (RuntimeError, MemoryError) as error:  # no thread, or no memory, can be had
            self.error = OSError(errno.EAGAIN if isinstance(error, RuntimeError) else errno.ENOMEM, str(error))
        finally:
            self._task, self._lending = None, -1
        self._ready()

    async def _make(self, name: str, length: int) -> Spare:
        """A spare of that name, recycled where there is a fitting file. What goes wrong can be tried again."""
        await self._drop_unfit(name, length)
        recycled = next(iter(self.recyclable), None)
        if recycled is None:
            await allocate_anew(self._disk, name, length)
            return Spare(name, await self._disk.open_file(name), length, False)
        await self._disk.fill_holes(recycled, 0)  # a sparse copy of the log may have it
        if recycled != name:
            await self._disk.rename(recycled, name)
            self.recyclable[name] = self.recyclable.pop(recycled)
        await self._disk.sync_directory()  # also where an earlier attempt renamed it and found no room here
        file = await self._disk.open_file(name)
        return Spare(name, file, self.recyclable.pop(name), True)

    async def make_reserve(self) -> None:
        """Make the reserve while opening, if the device has room for it."""
        try:
            await self._top_up()
        except OSError as error:
            if error.errno not in SHORTAGES:
                raise

    async def _top_up(self) -> None:
        """Make the reserve whole, of old segments where there is no other room."""
        while True:
            try:
                await self.reserve.top_up()
                return
            except OSError as error:
                if error.errno not in NO_SPACE or not self.recyclable:
                    raise
            name, _ = self.recyclable.popitem()
            await self._disk.remove(name)
            await self._disk.sync_directory()

    async def _borrow(self, name: str) -> None:
        try:
            self.spare = await self.reserve.lend(name, self._lending)
        except OSError as error:
            self.error = error

    async def _drop_unfit(self, name: str, length: int) -> None:
        """Remove what cannot be recycled, so that at most one fitting file is left and `name` is free."""
        for old, old_bytes in list(self.recyclable.items()):
            taken = old != name and name in self.recyclable
            if old_bytes < length or taken or await self._disk.shared(old):  # a second name keeps what is in it
                await self._disk.remove(old)
                del self.recyclable[old]

    def forget_shortage(self) -> None:
        """Forget the shortage that the last preparation met, since it may be over."""
        self.error = None

    def take(self) -> Spare:
        """Hand the prepared spare over."""
        assert self.spare is not None, "take() without a prepared spare"
        spare, self.spare = self.spare, None
        self.error = None  # where it was lent on a full device, the next that asks is told anew
        return spare

    async def drop_recycled(self) -> None:
        """Remove, durably, every prepared or recyclable file that was a segment before."""
        await self.settle()
        if self.spare is not None and self.spare.recycled:
            await self.put_back()
        for name in list(self.recyclable):
            await self._disk.remove(name)
            del self.recyclable[name]
        await self._disk.sync_directory()

    async def put_back(self) -> None:
        """Take the name off the prepared spare: the next preparation gives it the one that is due then."""
        await self.settle()
        if self.spare is not None:
            await self._put_back()

    async def _put_back(self) -> None:
        spare = self.take()
        if spare.metadata_only:
            await self.reserve.take_back(spare)
            return
        await self._disk.close_file(spare.file)
        self.recyclable[spare.name] = spare.file_bytes

    async def settle(self) -> None:
        """Wait for a preparation under way."""
        if self._task is not None:
            await asyncio.wait([self._task])


async def allocate_anew(disk: Disk, name: str, length: int) -> None:
    """Allocate a file, in place of one that an attempt has left that ended behind this step."""
    try:
        await disk.allocate(name, length)
    except FileExistsError:
        await disk.remove(name)
        await disk.allocate(name, length)


async def install(disk: Disk, spare: Spare, first_lsn: int) -> str:
    """Give a spare its name as a segment; durable only after sync_directory."""
    name = segment_name(first_lsn)
    await disk.rename(spare.name, name)
    return name


async def durable_write(submit: Callable[[Write], None], file: int, offset: int, view: memoryview) -> None:
    """Submit one write and wait for it; OSError if it failed. For the rare writes outside the pipeline."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def done(_: Write, error: OSError | None) -> None:
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(None)

    submit(Write(file, offset, view, done))
    await asyncio.shield(future)
