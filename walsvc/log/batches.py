"""Atomic batches over several groups and segments, streamed in bounded memory.

Every group of such a batch names the batch's first LSN, and only the last one ends it. Until the end is written, nothing
of the batch is durable in the sense of durable_lsn, so no reader sees a part, no later group is evidence of it, and after
a crash the log ends where the batch begins. Neither io_uring nor a file system makes a batch atomic; this does.

Giving a batch up, because the caller was cancelled or the source failed, is what recovery does after a crash, done by the
running writer: segments that were begun for it are removed, newest first, and a new generation goes on where it began.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NamedTuple

from walsvc.errors import RecordTooLarge, WalError, again
from walsvc.format.group import GROUP_HEADER_BYTES, INDEX_BYTES_MAX, LENGTH_BYTES, Flag
from walsvc.format.producers import REQUEST_BYTES, Request, Row
from walsvc.format.segment import segment_name
from walsvc.format.summary import SUMMARY_ROW_BYTES
from walsvc.log.accept import Turn
from walsvc.log.commit.background import keep
from walsvc.log.group import Group, Labels
from walsvc.log.results import BatchResult, Part
from walsvc.log.segments import Segment

if TYPE_CHECKING:
    from walsvc.log.writer import WalWriter

READY_MAX = 2  # groups of a batch that wait to be written: enough to keep the device busy, few enough for memory
Source = AsyncIterable[Any] | Iterator[Any]


class Start(NamedTuple):
    """Where a batch begins."""

    segment: Segment
    offset: int
    lsn: int


def start_batch(
    writer: WalWriter, head: list[bytes], rest: Source, topic: str | None = None, request: Request | None = None
) -> asyncio.Task[BatchResult]:
    """Write a batch of any size up to max_batch_bytes; the task has its results when all of it is durable.

    Args:
        writer: whose later appends wait until the batch is through or given up.
        head: payloads already taken from the source.
        rest: the others.
        topic: of every record.
        request: of an idempotent producer, remembered with the batch's last group.
    """
    turn = writer._take_turn()  # now, not when the task begins to run: LSNs follow the order of the calls
    work = stream_batch(writer, turn, chunks(writer, head, rest), topic, request)
    task = asyncio.Task(work, loop=writer.health.loop, name="walsvc batch")  # by no factory, which might run it at once
    task.add_done_callback(turn.end)  # also when it is cancelled before it ran at all
    writer._batches.add(task)
    task.add_done_callback(writer._batches.discard)
    if isinstance(rest, AsyncIterable):  # which may never end: close does not wait for it
        writer._drawing.add(task)
        task.add_done_callback(writer._drawing.discard)
    return task


async def stream_batch(
    writer: WalWriter,
    turn: Turn,
    pieces: AsyncGenerator[list[bytes], None],
    topic: str | None,
    request: Request | None = None,
) -> BatchResult:
    """See start_batch."""
    try:
        await turn.granted
        async with writer.extent, aclosing(pieces) as source:
            writer._spares.error = None  # a new attempt: what the last one met may be over
            labels = None if topic is None else Labels(topic=await writer._topic_number(topic))
            parts, durable = await place_batch(writer, source, labels, request)
    except asyncio.CancelledError:
        if writer.health.closed is not None and asyncio.current_task() in writer._drawing:
            raise again(writer.health.closed) from None  # by close
        raise
    turn.end()
    if durable is not None:
        await durable
    return BatchResult(parts, durable=True, sync_us=writer.counters.sync_us_last)


async def chunks(writer: WalWriter, head: list[bytes], rest: Source) -> AsyncGenerator[list[bytes], None]:
    """The batch in pieces of at most a group each. Raises RecordTooLarge over max_batch_bytes, BadPayload, and whatever
    the source raises."""
    limit, count_max = writer._config.max_group_bytes, writer._config.max_group_records
    chunk, size, total = list(head), sum(map(len, head)), sum(map(len, head))
    async for payload in every(writer, rest):
        piece = writer._checked(payload)
        total += len(piece)
        if total > writer._config.max_batch_bytes:
            raise batch_too_large(writer._config.max_batch_bytes, writer._disk.path)
        if chunk and (size + len(piece) + LENGTH_BYTES * (len(chunk) + 1) > limit or len(chunk) >= count_max):
            yield chunk
            chunk, size = [], 0
        chunk.append(piece)
        size += len(piece)
    if chunk:
        yield chunk


def batch_too_large(limit: int, path: str) -> RecordTooLarge:
    """The error of a batch over max_batch_bytes."""
    return RecordTooLarge(
        f"the batch has more than {limit} bytes",
        path=path,
        hint="nothing of it was kept; split it, or open the log with a larger max_batch_bytes",
    )


async def every(writer: WalWriter, source: Source) -> AsyncIterator[Any]:
    """A plain or an asynchronous iterable as an asynchronous one."""
    if isinstance(source, AsyncIterable):
        async for each in source:
            yield each
        writer._drawing.discard(asyncio.current_task())
    else:
        for each in source:
            yield each


async def place_batch(
    writer: WalWriter, source: AsyncIterator[list[bytes]], labels: Labels | None, request: Request | None = None
) -> tuple[list[Part], asyncio.Future[None] | None]:
    """Give every chunk its group, one behind the source, because the last group must be known as the last.

    Returns where the records stand, and a future for their durability. From then on the batch is accepted: cancelling
    ends only the wait.
    """
    parts: list[Part] = []
    start: Start | None = None
    durable: asyncio.Future[None] | None = None
    try:
        chunk = await anext(source, None)
        while chunk is not None:
            following = await anext(source, None)
            group = await group_with_room(writer, chunk, labels)
            if following is not None and start is None:
                writer._batch_lsn = group.first_lsn
            start = start or Start(group.segment, group.offset, group.first_lsn)
            group.batch_lsn = writer._batch_lsn
            if writer._batch_lsn:
                group.flags |= Flag.BATCH if following is not None else Flag.BATCH | Flag.BATCH_END
            if following is None:
                durable = writer._create_future()
                group.barriers.append((durable, None))
            fill(group, chunk, labels)
            if following is None and request is not None:
                count = group.first_lsn + len(chunk) - start.lsn
                at = parts[0].offset if parts else group.offset + GROUP_HEADER_BYTES
                row = Row(start.lsn, start.segment.id, at, count, len(parts) + 1)
                writer._note_request(group, request, row)
            writer._cut()
            if following is None:
                writer._batch_lsn = 0  # from here on the batch counts, and its end may be on disk any moment
            parts.append(Part(group.first_lsn, group.segment.id, group.offset + GROUP_HEADER_BYTES, group.lengths))
            writer._pump()
            chunk = following
    except BaseException:
        if start is not None:
            giving_up = writer.background.start("giving up a batch", give_up(writer, start), foreseen=(WalError,))
            await keep(giving_up)  # nobody may be let in before it is done, however often the caller is cancelled
            giving_up.result()
        raise
    return parts, durable


def fill(group: Group, chunk: list[bytes], labels: Labels | None) -> None:
    """Put a chunk into an empty group."""
    group.payloads.extend(chunk)
    group.waiters.extend([None] * len(chunk))
    if labels is not None:
        group.labels = dict.fromkeys(range(len(chunk)), labels)


async def group_with_room(writer: WalWriter, chunk: list[bytes], labels: Labels | None) -> Group:
    """The filling group, empty and placed so that the chunk fits. Waits for room; raises what ends all waiting."""
    size = sum(map(len, chunk))
    need = size + len(chunk) * (LENGTH_BYTES if labels is None else INDEX_BYTES_MAX) + REQUEST_BYTES
    while True:
        if (ended := writer.health.ended()) is not None:
            raise ended
        if not writer._filling.empty:
            writer._cut_off()
        pending = writer._pending_bytes
        fits = len(writer._ready) < READY_MAX and (pending == 0 or pending + size <= writer._config.max_pending_bytes)
        if fits and writer._place(need, rows=0 if labels is None else SUMMARY_ROW_BYTES):
            return writer._filling
        await writer._room_change()


async def give_up(writer: WalWriter, start: Start) -> None:
    """Go back to where the batch began, on disk and in memory. A crash in the middle leaves an unfinished batch."""
    try:
        await writer._quiet()
        if writer.health.failure is None:
            await remove_begun(writer, start.segment)
    except OSError as error:
        writer.health.fail("giving up a batch failed", error, (start.segment.id, start.offset, start.lsn))
    if writer.health.failure is not None:
        return
    writer.catalog.generation += 1
    writer.catalog.rewind()
    if writer._batch_mark is not None:
        writer._metadata.restore(writer._batch_mark)
    writer._summaries.forget()
    writer._segment = start.segment
    start.segment.index.rewind(start.offset)
    start.segment.end, start.segment.previous_crc = start.offset, writer._batch_crc
    start.segment.last_crc, start.segment.last_at = writer._batch_last
    start.segment.tail = writer._batch_tail
    writer._batch_groups.clear()
    writer._batch_lsn = 0
    writer._start_filling(Group(start.segment, start.offset, start.lsn))
    await writer._write_meta({}, Flag.OPEN)


async def remove_begun(writer: WalWriter, first: Segment) -> None:
    """Remove the segments after `first`, newest first, each durably, so that at no time one in the middle is missing."""
    await writer._spares.put_back()  # its name is for a number that comes later now
    begun = [each for each in writer.catalog.view.ids if each > first.id]
    for each in reversed(begun):
        await writer._disk.remove(segment_name(each))
        await writer._disk.sync_directory()
        writer.catalog.drop(each)
    if begun:
        await writer._disk.close_file(writer._segment.file)
        first.file = await writer._disk.open_file(segment_name(first.id))
