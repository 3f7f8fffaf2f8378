"""Appending atomic batches: in one frame where they fit, else in parts as the server takes them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing
from functools import partial
from typing import Any, cast

from walsvc.errors import RecordTooLarge, WalError, copy_of
from walsvc.keywords import Payloads
from walsvc.log.commit.ack import Ack, ack_of
from walsvc.log.commit.entries import Pieces, gathered, item_bytes, packed
from walsvc.log.commit.payload import iterator_of
from walsvc.log.commit.results import BatchResult
from walsvc.model import Entry, Mode, Strict
from walsvc.service.client.appends import Appends
from walsvc.service.client.sent_batches import SentBatch, WholeBatch, given_up, size_of
from walsvc.service.wire.frames import APPEND_COST, OVERHEAD_BYTES
from walsvc.tasks import begin_task

PART_BYTES = 256 * 1024  # enough to keep the server busy, little enough to interleave with other frames


def append_batch(
    appends: Appends,
    payloads: Payloads,
    mode: Mode = Strict,
    topic: str | None = None,
    *,
    expected: int | None = None,
) -> Ack[BatchResult]:
    """Append a batch; see WalWriter.append_batch."""
    appends.check(mode)
    appends.limits.check_expected(expected)
    session, whole = appends.session, None
    rest: Iterator[Any] | AsyncIterable[Any]
    if isinstance(payloads, AsyncIterable):
        rest = payloads
    else:
        if isinstance(payloads, (list, tuple)) and not isinstance(payloads, Entry):
            whole, size = gathered(appends.limits, payloads)
            if size > session.limits["batch_bytes"]:
                raise too_large(appends)
            appends.limits.check_entries(whole)
        pieces, more = head_of(appends, iterator_of(payloads)) if whole is None else head_of_whole(appends, whole)
        if more is None:
            if not len(pieces) and expected is None:
                empty: Any = appends.waker.ack()
                empty.set_result(BatchResult([], durable=True, sync_us=0))
                return cast("Ack[BatchResult]", empty)
            turn = appends.take_turn()
            if turn.done() and appends.accepts(size_of(pieces)):
                batch = WholeBatch(appends, mode, topic, pieces, expected)
                appends.hold(-1)
                return cast("Ack[BatchResult]", batch.answer)
            sending = stream(appends, turn, pieces.items(), partial(Sending, appends, mode, topic, pieces, expected))
            return ack_of(begin_task(sending))
        rest = itertools.chain(pieces.items(), more) if whole is None else whole.items()
    turn = appends.take_turn()
    task = begin_task(stream(appends, turn, rest, partial(Sending, appends, mode, topic, whole, expected)))
    if isinstance(rest, AsyncIterable):  # which may never end: close does not wait for it
        appends.drawing.add(task)
        task.add_done_callback(appends.drawing.discard)
    return ack_of(task)


def head_of(appends: Appends, payloads: Iterator[Any]) -> tuple[Pieces, Iterator[Any] | None]:
    """As many records as fit one frame, and the iterator over the others, if there are others."""
    limits, pieces, size = appends.session.limits, Pieces(), 0
    for index, each in enumerate(payloads):
        item = packed(appends.limits, each, index)
        size += item_bytes(item) + APPEND_COST
        if len(pieces) and (size > limits["append_bytes"] or len(pieces) >= limits["items"]):
            return pieces, itertools.chain([item], payloads)
        pieces.add(item)
    appends.limits.check_entries(pieces)
    if pieces.size > limits["batch_bytes"]:
        raise too_large(appends)
    return pieces, None


def head_of_whole(appends: Appends, whole: Pieces) -> tuple[Pieces, Iterator[Any] | None]:
    """Do so for records that are all in memory, and within the limits of a batch."""
    limits = appends.session.limits
    if len(whole) <= limits["items"] and size_of(whole) <= limits["append_bytes"]:
        return whole, None
    return head_of(appends, whole.items())


def too_large(appends: Appends) -> RecordTooLarge:
    """The error for a batch over the server's limit."""
    return RecordTooLarge(
        f"the batch is over {appends.session.limits['batch_bytes']} bytes; nothing was written",
        path=appends.session.address.url,
        hint="split it, or let the server open the log with a larger max_batch_bytes",
    )


async def stream(
    appends: Appends,
    turn: asyncio.Future[None],
    source: AsyncIterable[Any] | Iterable[Any],
    begin: Callable[[], Sending],
) -> BatchResult:
    """Send a batch in parts, when it is its turn, and wait for the answer.

    Args:
        appends: whose.
        turn: resolved when what was appended before is sent.
        source: the payloads.
        begin: called then.
    """
    sending: Sending | None = None
    try:
        await turn
        sending = begin()
        return await sending.run(source)
    except asyncio.CancelledError:
        closed = appends.session.closed if asyncio.current_task() in appends.drawing else None
        if (error := (sending and sending.interrupted) or closed) is not None:
            raise copy_of(error) from None
        raise
    finally:
        if sending is not None:
            sending.end()
        elif turn.done() and not turn.cancelled() and turn.exception() is None:
            appends.hold(-1)
        turn.cancel()


class Sending:
    """The task of a batch in parts; see SentBatch."""

    def __init__(
        self, appends: Appends, mode: Mode, topic: str | None, whole: Pieces | None, expected: int | None
    ) -> None:
        self.batch: SentBatch = SentBatch(appends, mode, topic, whole, expected)
        self.batch.interrupt = self._interrupt
        self.interrupted: WalError | None = None
        self._appends = appends
        self._session = appends.session
        self._holds = True
        self._task = asyncio.current_task()
        self.batch.submit()

    def _interrupt(self, error: WalError) -> None:
        """It is over while perhaps the source of the payloads is waited for."""
        if self._task is not None and self.interrupted is None:
            self.interrupted = error
            self._task.cancel()

    def end(self) -> None:
        """Whatever became of it, it is over."""
        self.batch.cancel()
        self.release()
        if self.batch.answer.done() and not self.batch.answer.cancelled():
            self.batch.answer.exception()  # the task may have ended by another error

    def release(self) -> None:
        """Let the appends go on that were called after it."""
        if self._holds:
            self._holds = False
            self._appends.hold(-1)

    async def run(self, source: AsyncIterable[Any] | Iterable[Any]) -> BatchResult:
        """Send it, again after a lost connection where that is possible, until it is answered."""
        batch, sent_on = self.batch, 0
        while not batch.answer.done():
            on = batch.connection
            if on == sent_on or not self._on(on):
                await self._appends.change()
                continue
            if batch.due:
                await self._send(source if batch.whole is None else batch.whole.items())
            if batch.whole is None and not batch.complete and not batch.answer.done():
                raise given_up(self._session)
            sent_on = on
        result: BatchResult = batch.answer.result()
        return result

    async def _send(self, source: AsyncIterable[Any] | Iterable[Any]) -> None:
        """Send all parts, as there is room for them; ends early when the connection is lost or the batch answered."""
        batch, on = self.batch, self.batch.connection
        if not self._holds:
            self._holds = True
            self._appends.hold(1)
        async with aclosing(parts_of(self._appends, source)) as parts:
            async for part, last in parts:
                if not len(part):
                    batch.nothing()
                self._appends.limits.check_entries(part)
                size = part.size
                asked = False
                while self._on(on) and not batch.answer.done() and not self._appends.fits(size):
                    if not asked and self._appends.waits_for(batch):
                        batch.send(Pieces(), last=False)  # the server may be waiting for more of it
                        asked = True
                    await self._appends.change()
                if not self._on(on) or batch.answer.done():
                    return
                batch.send(part, last=last)
                await asyncio.sleep(0)  # others, and the writing itself
        self.release()

    def _on(self, connection: int) -> bool:
        return self._session.connected and self._session.connections == connection


async def parts_of(
    appends: Appends, source: AsyncIterable[Any] | Iterable[Any]
) -> AsyncGenerator[tuple[Pieces, bool], None]:
    """The records in parts, and whether a part is the last. Only a batch of nothing has an empty part."""
    part, size, total, index = Pieces(), 0, 0, 0
    most = min(PART_BYTES, appends.session.limits["frame_bytes"] - OVERHEAD_BYTES // 2)
    async for each in every(appends, source):
        item = packed(appends.limits, each, index)
        index += 1
        length = item_bytes(item)
        total += length
        if total > appends.session.limits["batch_bytes"]:
            raise too_large(appends)
        if len(part) and (size + length > most or len(part) >= appends.session.limits["items"]):
            yield part, False
            part, size = Pieces(), 0
        part.add(item)
        size += length
    yield part, True


async def every(appends: Appends, source: AsyncIterable[Any] | Iterable[Any]) -> AsyncIterator[Any]:
    """A plain or an asynchronous iterable as an asynchronous one."""
    if isinstance(source, AsyncIterable):
        async for each in source:
            yield each
        appends.drawing.discard(asyncio.current_task())
    else:
        for each in source:
            yield each
