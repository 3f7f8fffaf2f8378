"""The records of a batch, from any iterable, in pieces that fit a group each; and which batches are being streamed."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from walsvc.format.group import INDEX_BYTES_MAX, LENGTH_BYTES
from walsvc.log.commit.encoding import measure
from walsvc.log.commit.entries import Item, Packed, Pieces, gathered, item_bytes, packed
from walsvc.log.commit.payload import Bounds
from walsvc.log.commit.results import BatchResult

BatchSource = AsyncIterable[Any] | Iterator[Any]
BatchTask = asyncio.Task[BatchResult]


class Cutter:
    """Records on their way into pieces of at most a group each.

    Attributes:
        open: the piece to which the next record is added, where it fits.
    """

    def __init__(self, bounds: Bounds, head: Pieces) -> None:
        self.open: Pieces = head
        self._size = head.size
        self._bounds = bounds

    def _fits(self, size: int, count: int, index_bytes: int) -> bool:
        """True if so many records more fit the open piece. One record always fits an empty one."""
        bounds, records = self._bounds, len(self.open) + count
        full = self._size + size + index_bytes * records > bounds.group_bytes_max or records > bounds.group_records_max
        return not full or records == 1

    def add(self, item: Item) -> Pieces | None:
        """Take one more record; the piece that is complete by that, if there is one."""
        full, size = None, item_bytes(item)
        if not self._fits(size, 1, INDEX_BYTES_MAX if isinstance(item, Packed) else self.open.index_bytes):
            full, self.open, self._size = self.open, Pieces(), 0
        self.open.add(item)
        self._size += size
        return full

    def extend(self, payloads: list[bytes], size: int) -> Iterator[Pieces]:
        """Take many records without labels, of `size` bytes in all, as `add` would; the pieces that are complete. What does not fit as
        a whole is halved, so no line of Python runs for each record."""
        if self._fits(size, len(payloads), self.open.index_bytes):
            self.open.payloads += payloads
            self._size += size
        elif len(payloads) == 1:
            full = self.add(payloads[0])
            assert full is not None
            yield full
        else:
            first = payloads[: len(payloads) // 2]
            _, first_size, _ = measure(first)
            yield from self.extend(first, first_size)
            yield from self.extend(payloads[len(first) :], size - first_size)


async def chunks(
    bounds: Bounds, head: Pieces, rest: BatchSource, drawn: Callable[[], None]
) -> AsyncGenerator[Pieces, None]:
    """The batch in pieces of at most a group each; `drawn` is called when an asynchronous source has ended. Raises RecordTooLarge
    over max_batch_bytes, BadPayload, BadOption, and whatever the source raises. Pieces in the source are such as `Cutter` makes, of
    records that were checked."""
    index, cut, total = len(head), Cutter(bounds, head), head.size
    async for each in as_async_iterator(rest, drawn):
        if isinstance(each, Pieces):
            yield each
            continue
        item = packed(bounds, each, index)
        index += 1
        total += item_bytes(item)
        bounds.check_batch(total)
        if (full := cut.add(item)) is not None:
            yield full
    if len(cut.open):
        yield cut.open


def whole_batch(bounds: Bounds, payloads: Sequence[Any]) -> tuple[Pieces, Iterator[Any] | None]:
    """Like head_of_batch, for records that are all in memory."""
    pieces, size = gathered(bounds, payloads)
    bounds.check_batch(size)
    if size + pieces.index_bytes * len(pieces) > bounds.group_bytes_max and len(pieces) > 1:
        return Pieces(), pieces.items()
    return pieces, None


def head_of_batch(bounds: Bounds, payloads: Iterator[Any]) -> tuple[Pieces, Iterator[Any] | None]:
    """Take as many records as fit a group; returns them, and the iterator over the others, None where there are none."""
    pieces, room = Pieces(), bounds.group_bytes_max
    for index, each in enumerate(payloads):
        item = packed(bounds, each, index)
        room -= item_bytes(item) + (INDEX_BYTES_MAX if isinstance(item, Packed) else LENGTH_BYTES)
        if room < 0 and len(pieces):
            return pieces, itertools.chain([item], payloads)
        pieces.add(item)
    bounds.check_batch(pieces.size)
    return pieces, None


async def as_async_iterator(source: BatchSource, drawn: Callable[[], None]) -> AsyncIterator[Any]:
    """A plain or an asynchronous iterable as an asynchronous one; `drawn` is called at the end of the latter."""
    if isinstance(source, AsyncIterable):
        async for each in source:
            yield each
        drawn()
    else:
        for each in source:
            yield each


class Batches:
    """The batches of one log that are being streamed. One has the log, the others wait for their turns.

    Args:
        drawing: kept here: those whose asynchronous source has not ended, and may never.
    """

    def __init__(self, drawing: set[BatchTask]) -> None:
        self._under_way: set[BatchTask] = set()
        self._drawing = drawing

    def add(self, task: BatchTask, *, drawing: bool) -> None:
        """Take note of a batch until it has ended; `drawing`: from an asynchronous source."""
        for tasks in (self._under_way, self._drawing) if drawing else (self._under_way,):
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    def drawn(self) -> None:
        """Take note that the source of the calling task's batch has ended."""
        self._drawing.discard(_calling())

    @property
    def draws(self) -> bool:
        """True if the asynchronous source of the calling task's batch has not ended."""
        return _calling() in self._drawing

    def of_others(self) -> list[BatchTask]:
        """The tasks but the one that asks, which may be the source of its own batch."""
        return list(self._under_way - {_calling()})

    def give_up_drawing(self) -> None:
        """Cancel the batches whose source has not ended, because the log is being closed."""
        for task in list(self._drawing):
            task.cancel()


def _calling() -> BatchTask:
    task = asyncio.current_task()
    assert task is not None
    return task
