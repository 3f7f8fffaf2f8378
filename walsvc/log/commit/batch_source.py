"""The records of a batch, from any iterable, in pieces that fit a group each."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from walsvc.errors import RecordTooLarge
from walsvc.format.group import INDEX_BYTES_MAX, LENGTH_BYTES
from walsvc.log.commit.entries import Packed, Pieces, gathered, item_bytes, packed

if TYPE_CHECKING:
    from walsvc.log.commit.core import Core

BatchSource = AsyncIterable[Any] | Iterator[Any]


async def chunks(core: Core, head: Pieces, rest: BatchSource) -> AsyncGenerator[Pieces, None]:
    """The batch in pieces of at most a group each. Raises RecordTooLarge over max_batch_bytes, BadPayload, BadOption, and
    whatever the source raises."""
    config, index = core.config, len(head)
    chunk, size = head, head.size
    total = size
    async for each in as_async_iterator(core, rest):
        item = packed(core.queue, each, index)
        index += 1
        length = item_bytes(item)
        total += length
        if total > config.max_batch_bytes:
            raise batch_too_large(config.max_batch_bytes, core.disk.path)
        index_bytes = (INDEX_BYTES_MAX if isinstance(item, Packed) else chunk.index_bytes) * (len(chunk) + 1)
        full = size + length + index_bytes > config.max_group_bytes
        if len(chunk) and (full or len(chunk) >= config.max_group_records):
            yield chunk
            chunk, size = Pieces(), 0
        chunk.add(item)
        size += length
    if len(chunk):
        yield chunk


def whole_batch(core: Core, payloads: Sequence[Any]) -> tuple[Pieces, Iterator[Any] | None]:
    """Like head_of_batch, for records that are all in memory."""
    config = core.config
    pieces, size = gathered(core.queue, payloads)
    if size > config.max_batch_bytes:
        raise batch_too_large(config.max_batch_bytes, core.disk.path)
    if size + pieces.index_bytes * len(pieces) > config.max_group_bytes and len(pieces) > 1:
        return Pieces(), pieces.items()
    return pieces, None


def head_of_batch(core: Core, payloads: Iterator[Any]) -> tuple[Pieces, Iterator[Any] | None]:
    """As many records as fit a group, and the iterator over the others, if there are others."""
    config, pieces = core.config, Pieces()
    room = config.max_group_bytes
    for index, each in enumerate(payloads):
        item = packed(core.queue, each, index)
        room -= item_bytes(item) + (INDEX_BYTES_MAX if isinstance(item, Packed) else LENGTH_BYTES)
        if room < 0 and len(pieces):
            return pieces, itertools.chain([item], payloads)
        pieces.add(item)
    if pieces.size > config.max_batch_bytes:
        raise batch_too_large(config.max_batch_bytes, core.disk.path)
    return pieces, None


def batch_too_large(limit: int, path: str) -> RecordTooLarge:
    """The error of a batch over max_batch_bytes."""
    return RecordTooLarge(
        f"the batch has more than {limit} bytes",
        path=path,
        hint="nothing of it was kept; split it, or open the log with a larger max_batch_bytes",
    )


async def as_async_iterator(core: Core, source: BatchSource) -> AsyncIterator[Any]:
    """A plain or an asynchronous iterable as an asynchronous one."""
    if isinstance(source, AsyncIterable):
        async for each in source:
            yield each
        core.batches.drawing.discard(asyncio.current_task())
    else:
        for each in source:
            yield each
