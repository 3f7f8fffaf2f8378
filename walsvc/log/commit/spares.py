"""Spares: the pipeline that prepares the file of the next segment.

Preparing costs a file of written zeros and three syncs, so it happens ahead of time and in the background, as etcd's
file_pipeline.go does. A segment may be GROWTH times as long as the one before it, up to segment_bytes. Behind a segment of large
groups, a bulk load, the room is only reserved: the zeros would be half of what the device writes.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable

from walsvc.disk.base import Disk
from walsvc.errors import SPACE_ERRNOS
from walsvc.format.segment import spare_name
from walsvc.log.commit.background import Background, under_way
from walsvc.log.commit.patience import FORBIDDEN, SHORTAGES, gone, let_go
from walsvc.log.commit.reserve import Reserve
from walsvc.log.commit.spare import Spare, allocate_anew
from walsvc.tasks import until_ended

logger: logging.Logger = logging.getLogger("walsvc.log")
GROWTH = 8
ATTEMPTS = 8  # at a file that somebody removes meanwhile


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
        self._ordinal = 0  # of the segment that the next spare is for
        self.reserve = reserve
        self._task: asyncio.Task[None] | None = None
        self.recyclable: dict[str, int] = {}  # file name -> length: old segments and spares of earlier runs
        self.spare: Spare | None = None
        self.error: OSError | None = None
        self._short = False  # the log has said so

    @property
    def count(self) -> int:
        """Spare files at hand."""
        return len(self.recyclable) + (self.spare is not None)

    def fitting(self, need: int = 0, *, metadata: bool = False) -> Spare | None:
        """The prepared spare, if it may be taken for `need` bytes of records, or of metadata."""
        spare = self.spare
        if spare is None or spare.file_bytes < need or self._disk.spoilt(spare.file):
            return None
        return spare if metadata or (self.reserve.complete and not spare.metadata_only) else None

    def prepare(
        self, ordinal: int, after_bytes: int, need: int = 0, *, metadata: bool = False, bulk: bool = False
    ) -> None:
        """Have a spare for segment `ordinal` made, unless one is there or on its way. The reserve is made first.

        Args:
            ordinal: number of the segment that it is for.
            after_bytes: size of the segment before it.
            need: bytes that it must hold; a spare that is too small is replaced.
            metadata: on a full device, lend a file of the reserve.
            bulk: large groups will go into it.
        """
        if self.fitting(need, metadata=metadata) is not None:
            return
        self._ordinal = ordinal
        if metadata:
            self._lending = max(self._lending, need)
        if under_way(self._task):
            return
        self.error = None
        length = max(min(after_bytes * GROWTH, self._segment_bytes), need)
        self._task = self._background.start(
            "preparing a segment", self._prepare(length, need, had=self.spare is not None, bulk=bulk)
        )

    async def _prepare(self, length: int, need: int, *, had: bool, bulk: bool) -> None:
        try:
            taken = had and self.spare is None  # before this began; it has the name still
            if self.spare is not None and (
                self.spare.metadata_only or self.spare.file_bytes < need or self._disk.spoilt(self.spare.file)
            ):
                await self._put_back()
            wanted = self.spare is None and not taken  # one that is taken meanwhile has the name still
            for _ in range(ATTEMPTS):
                try:
                    await self._go_on(length, wanted=wanted, bulk=bulk)
                    break
                except FileNotFoundError:  # somebody has removed spare files, which no record is in
                    await self._look()
            else:
                await self._disk.check_place()
                raise OSError(errno.EAGAIN, "the files that are prepared are removed at once")
        except OSError as error:
            self.error = error
            if self._lending >= 0 and error.errno in SHORTAGES and self.spare is None:
                await self._borrow()
        except (RuntimeError, MemoryError) as error:  # no thread, or no memory, can be had
            self.error = OSError(errno.EAGAIN if isinstance(error, RuntimeError) else errno.ENOMEM, str(error))
        finally:
            self._task, self._lending = None, -1
        self._tell()
        self._ready()

    @property
    def _name(self) -> str:
        return spare_name(self._ordinal)

    async def _go_on(self, length: int, *, wanted: bool, bulk: bool) -> None:
        await self._top_up()
        if wanted:
            self.spare = await self._make(self._name, length, bulk=bulk)

    async def _look(self) -> None:
        """Forget the files that are not there any more."""
        there = await self._disk.list()
        for files in (self.recyclable, self.reserve.files):
            for name in [each for each in files if each not in there]:
                del files[name]

    def _tell(self) -> None:
        """Say that a shortage has begun, or that it is over; not each attempt in between."""
        error, path = self.error, self._disk.path
        if error is None and self._short:
            self._short = False
            logger.info("%s: the next segment can be prepared again", path)
        elif error is not None and error.errno in SHORTAGES and not self._short:
            self._short = True
            what = (
                "the file of the next segment cannot be made"
                if error.errno in FORBIDDEN
                else "no room for the next segment"
            )
            logger.warning("%s: %s (%s): appends will get NoSpace", path, what, error.strerror or error)

    async def _make(self, name: str, length: int, *, bulk: bool) -> Spare:
        """A spare of that name, recycled where there is a fitting file. What goes wrong can be tried again."""
        await self._drop_unfit(name, length)
        recycled = next(iter(self.recyclable), None)
        if recycled is None:
            await allocate_anew(self._disk, name, length, reserved=bulk)
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
                if error.errno not in SPACE_ERRNOS or not self.recyclable:
                    raise
            name, _ = self.recyclable.popitem()
            await self._disk.remove(name)
            await self._disk.sync_directory()

    async def _borrow(self) -> None:
        name = self._name
        try:
            if name in self.recyclable:  # it cannot be used now, and what is lent takes its name
                await self._disk.remove(name)
                del self.recyclable[name]
            self.spare = await self.reserve.lend(name, self._lending)
        except OSError as error:
            self.error = error

    async def _drop_unfit(self, name: str, length: int) -> None:
        """Remove what cannot be recycled, so that at most one fitting file is left and `name` is free."""
        for old, old_bytes in list(self.recyclable.items()):
            taken = old != name and name in self.recyclable
            # a second name keeps what is in it, and somebody may have cut it
            if old_bytes < length or taken or not await self._disk.reusable(old, old_bytes):
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
            await gone(self._disk, name)
            del self.recyclable[name]
        await self._disk.sync_directory()

    async def put_back(self) -> None:
        """Take the name off the prepared spare: the next preparation gives it the one that is due then."""
        await self.settle()
        if self.spare is not None:
            await self._put_back()

    async def _put_back(self) -> None:
        spare = self.take()
        if self._disk.spoilt(spare.file):  # somebody has removed it, or cut it, to have its room
            await let_go(self._disk, spare.file)
            return
        if spare.metadata_only:
            await self.reserve.take_back(spare)
            return
        await let_go(self._disk, spare.file)
        self.recyclable[spare.name] = spare.file_bytes

    async def settle(self) -> None:
        """Wait for a preparation under way."""
        if self._task is not None:
            await until_ended(self._task)
