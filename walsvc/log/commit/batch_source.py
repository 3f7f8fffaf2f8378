"""The records of a batch, from any iterable, in pieces that fit a group each."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from walsvc.format.group import INDEX_BYTES_MAX, LENGTH_BYTES
from walsvc.log.commit.bounds import Bounds
from walsvc.log.commit.entries import Packed, Pieces, gathered, item_bytes, packed

BatchSource = AsyncIterable[Any] | Iterator[Any]


async def chunks(
    bounds: Bounds, head: Pieces, rest: BatchSource, drawn: Callable[[], None]
) -> AsyncGenerator[Pieces, None]:
    """The batch in pieces of at most a group each; `drawn` is called when an asynchronous source has ended. Raises RecordTooLarge
    over max_batch_bytes, BadPayload, BadOption, and whatever the source raises."""
    index = len(head)
    chunk, size = head, head.size
    total = size
    async for each in as_async_iterator(rest, drawn):
        item = packed(bounds, each, index)
        index += 1
        length = item_bytes(item)
        total += length
        bounds.check_batch(total)
        index_bytes = (INDEX_BYTES_MAX if isinstance(item, Packed) else chunk.index_bytes) * (len(chunk) + 1)
        full = size + length + index_bytes > bounds.group_bytes_max
        if len(chunk) and (full or len(chunk) >= bounds.group_records_max):
            yield chunk
            chunk, size = Pieces(), 0
        chunk.add(item)
        size += length
    if len(chunk):
        yield chunk


def whole_batch(bounds: Bounds, payloads: Sequence[Any]) -> tuple[Pieces, Iterator[Any] | None]:
    """Like head_of_batch, for records that are all in memory."""
    pieces, size = gathered(bounds, payloads)
    bounds.check_batch(size)
    if size + pieces.index_bytes * len(pieces) > bounds.group_bytes_max and len(pieces) > 1:
        return Pieces(), pieces.items()
    return pieces, None


def head_of_batch(bounds: Bounds, payloads: Iterator[Any]) -> tuple[Pieces, Iterator[Any] | None]:
    """As many records as fit a group, and the iterator over the others, if there are others."""
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
