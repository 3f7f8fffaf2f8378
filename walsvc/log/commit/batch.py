"""Batch: an atomic batch over several groups and segments, streamed in bounded memory.

Every group of such a batch names the batch's first LSN, and only the last one ends it. Until the end is written, nothing
of the batch is durable in the sense of durable_lsn, so no reader sees a part, no later group is evidence of it, and after
a crash the log ends where the batch begins. Neither io_uring nor a file system makes a batch atomic; this does.

Giving a batch up, because the caller was cancelled or the source failed, is what recovery does after a crash, done by the
running writer: segments that were begun for it are removed, newest first, and a new generation goes on where it began. Where
the system does not let a file go now, the caller has its answer, and the log waits: nothing may come behind half a batch.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import aclosing
from functools import partial
from types import TracebackType
from typing import NamedTuple

from walsvc.errors import WalError, copy_of
from walsvc.format.group import GROUP_HEADER_BYTES, INDEX_BYTES_MAX, Flag
from walsvc.format.producers import REQUEST_BYTES, Request, RequestRow
from walsvc.format.segment import segment_name
from walsvc.format.summary import SUMMARY_ROW_BYTES
from walsvc.log.commit.accepting import note_request
from walsvc.log.commit.background import keep
from walsvc.log.commit.batch_source import BatchSource, chunks
from walsvc.log.commit.core import Core
from walsvc.log.commit.entries import Pieces
from walsvc.log.commit.group import Group, Labels
from walsvc.log.commit.patience import BY_ITSELF, gone, insist, kept_back, let_go, patiently
from walsvc.log.commit.queue import Turn
from walsvc.log.commit.results import BatchResult, Part
from walsvc.log.commit.segment import Segment
from walsvc.tasks import begin_task

logger: logging.Logger = logging.getLogger("walsvc.log")
READY_MAX = 2  # groups of a batch that wait to be written: enough to keep the device busy, few enough for memory


def stream_batch(
    core: Core,
    head: Pieces,
    rest: BatchSource,
    topic: str | None = None,
    request: Request | None = None,
    *,
    expected: int | None = None,
) -> asyncio.Task[BatchResult]:
    """Write a batch of any size up to max_batch_bytes; the task has its results when all of it is durable.

    Args:
        core: of the log, whose later appends wait until the batch is through or given up.
        head: records already taken from the source.
        rest: the others.
        topic: of every record.
        request: of an idempotent producer, remembered with the batch's last group.
        expected: LSN that the topic, or the log, must end with when the batch has the log; the source is not read otherwise.
    """
    with core.health.whole("beginning a batch"):
        turn = core.queue.take_turn()  # now, so that LSNs follow the order of the calls
        batch = Batch(core, turn, topic, request, expected)
        pieces = chunks(core.queue.bounds, head, rest, core.batches.drawn)
        task = begin_task(batch.run(pieces), name="walsvc batch")
        task.add_done_callback(batch.turn.end)  # also when it is cancelled before it ran at all
        core.batches.add(task, drawing=isinstance(rest, AsyncIterable))
    return task


class BatchStart(NamedTuple):
    """The place at which a batch begins."""

    segment: Segment
    offset: int
    lsn: int


class Batch:
    """One batch on its way. Once all of it has its LSNs it is accepted: cancelling ends only the wait."""

    def __init__(
        self, core: Core, turn: Turn, topic: str | None, request: Request | None, expected: int | None
    ) -> None:
        self.turn = turn
        self._core = core
        self._topic = topic
        self._request = request
        self._expected = expected
        self._labels: Labels | None = None
        self._start: BatchStart | None = None
        self._parts: list[Part] = []
        # done where a file cannot be removed now: giving the batch up takes longer than its caller waits
        self._short: asyncio.Future[None] = core.health.loop.create_future()
        self._durable: asyncio.Future[None] | None = None  # for its end

    async def run(self, pieces: AsyncGenerator[Pieces, None]) -> BatchResult:
        """See stream_batch."""
        core = self._core
        try:
            await self.turn.granted
            async with core.extent, self, aclosing(pieces) as source:
                core.queue.conditions.check(self._topic, self._expected)
                core.tail.spares.forget_shortage()  # a new attempt: what the last one met may be over
                if self._topic is not None:
                    self._labels = Labels(topic=await core.changes.topic_number(self._topic))
                await self._place(source)
        except asyncio.CancelledError:
            if core.health.closed is not None and core.batches.draws:
                raise copy_of(core.health.closed) from None  # by close
            raise
        self.turn.end()
        if self._durable is not None:
            await self._durable
        return BatchResult(self._parts, durable=True, sync_us=core.counters.sync_us_last)

    async def _place(self, source: AsyncIterator[Pieces]) -> None:
        """Give every chunk its group, one behind the source, because the last group must be known as the last."""
        try:
            chunk = await anext(source, None)
            while chunk is not None:
                following = await anext(source, None)
                while not self._put(chunk, last=following is None):
                    await self._core.queue.room_change()
                chunk = following
        except GeneratorExit:  # the loop is closed: the next opening drops what there is of the batch
            raise
        except BaseException:
            if self._start is not None and self._core.placement.batch_lsn:
                giving_up = self._core.background.start(
                    "giving up a batch", self._give_up(self._start), foreseen=(WalError,)
                )
                # no append is let in before it is done, however often the caller is cancelled
                await keep(giving_up, self._short)
                if giving_up.done():
                    giving_up.result()
                else:
                    self._core.extent.hand_over(giving_up)
            raise

    def _put(self, chunk: Pieces, *, last: bool) -> bool:
        """Send a chunk as a group of its own; False where there is no room yet. Raises what ends all waiting."""
        core, size = self._core, chunk.size
        if (ended := core.health.ended()) is not None:
            raise ended
        with core.health.whole("writing a part of a batch"):  # the group may begin a segment, which must be sent then
            core.pipeline.cut_off()
            pending = core.placement.pending_bytes
            fits = core.pipeline.ready < READY_MAX
            fits = fits and (pending == 0 or pending + size <= core.config.max_pending_bytes)
            index_bytes = chunk.index_bytes if self._labels is None else INDEX_BYTES_MAX
            need = size + len(chunk) * index_bytes + REQUEST_BYTES
            if not fits or not core.placement.place(need, rows=0 if self._labels is None else SUMMARY_ROW_BYTES):
                return False
            group = core.placement.group
            self._fill(group, chunk, last=last)
            core.pipeline.send()
            self._parts.append(Part(group.first_lsn, group.segment.id, self._offset(group), group.body.lengths))
        return True

    async def __aenter__(self) -> None:
        """Nothing is written yet."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Fail the log if giving up was cut short: no append may come behind half a batch."""
        if error is not None and self._core.placement.batch_lsn and not self._short.done():
            self._core.health.broken("a batch was cut short", error)

    def _fill(self, group: Group, chunk: Pieces, *, last: bool) -> None:
        """Put a chunk into an empty group, and say which part of the batch it is."""
        placement = self._core.placement
        if self._start is None:
            self._start = BatchStart(group.segment, group.offset, group.first_lsn)
            if not last:
                placement.begin_batch(group.first_lsn)
        group.batch_lsn = placement.batch_lsn
        if group.batch_lsn:
            group.flags |= Flag.BATCH | Flag.BATCH_END if last else Flag.BATCH
        group.payloads.extend(chunk.payloads)
        group.answers.waiters.extend([None] * len(chunk))
        if self._labels is not None:
            group.labels.update(dict.fromkeys(range(len(chunk)), self._labels))
        for index, labels in chunk.labels.items():
            group.labels[index] = labels._replace(topic=self._labels.topic if self._labels else 0)
        if last:
            self._durable = self._core.health.loop.create_future()
            group.answers.barriers.append((self._durable, None))
            if self._request is not None:
                count = group.first_lsn + len(chunk) - self._start.lsn
                at = self._parts[0].offset if self._parts else self._offset(group)
                row = RequestRow(self._start.lsn, self._start.segment.id, at, count, len(self._parts) + 1)
                note_request(self._core.metadata, group, self._request, row)
            placement.end_batch()  # from here on the batch counts, and its end may be on disk any moment

    @staticmethod
    def _offset(group: Group) -> int:
        return group.offset + GROUP_HEADER_BYTES

    async def _give_up(self, start: BatchStart) -> None:
        """Go back to where the batch began, on disk and in memory. A crash in the middle leaves an unfinished batch."""
        core = self._core
        try:
            await core.pipeline.quiet()
            if core.health.failure is None:
                await self._remove_begun(start.segment)
        except OSError as error:
            place = (start.segment.id, start.offset, start.lsn)
            core.health.fail("giving up a batch failed", error, place)
        if core.health.failure is not None:
            return
        core.catalog.give_up()
        core.tail.rollback(start.segment, start.offset)
        core.pipeline.forget_batch()
        core.placement.start(Group(start.segment, start.offset, start.lsn))
        core.placement.end_batch()
        try:
            await core.changes.write({}, Flag.OPEN)
        finally:
            if self._short.done():
                core.queue.hold(-1)

    def _refused(self, segment: int, error: OSError) -> None:
        """Hold the log, and refuse the callers that wait, while a segment of the batch cannot be removed."""
        core = self._core
        if core.health.closed is not None:
            raise error
        text = "a segment of a batch that was given up cannot be removed yet"
        reason = kept_back(error, text, path=core.disk.path, segment=segment, hint=BY_ITSELF)
        if not self._short.done():
            core.queue.hold(1)  # the turn of the batch ends with its task
            self._short.set_result(None)
            logger.warning("%s", reason)
        core.refuse(reason)

    async def _remove_begun(self, first: Segment) -> None:
        """Remove the segments after `first`, newest first, each durably, so that at no time one in the middle is missing."""
        core, disk = self._core, self._core.disk
        await core.tail.spares.put_back()  # its name is for a number that comes later now
        begun = [each for each in core.catalog.view.ids if each > first.id]
        for each in reversed(begun):
            await insist(partial(gone, disk, segment_name(each)), partial(self._refused, each))
            await disk.sync_directory()
            core.catalog.drop(each)
        if begun:
            await let_go(disk, core.tail.segment.file)
            first.file = await patiently(disk.open_file, segment_name(first.id))
