"""Appending on behalf of an idempotent producer: a request that is repeated gives the same LSNs, and is never there twice.

Between looking for a request's row and accepting it, the request may wait for room. Whoever repeats a request must have
cancelled the first attempt before: cancelled while it waits it is never accepted, and accepted it has its row.
"""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import Any, NamedTuple, Unpack

from walsvc.errors import BadOption, WalError
from walsvc.format.group import GROUP_HEADER_BYTES, BadGroup
from walsvc.format.producers import Request, RequestRow
from walsvc.format.segment import segment_name
from walsvc.log.commit.batch import stream_batch
from walsvc.log.commit.conditions import check_expected, check_key
from walsvc.log.commit.core import Core
from walsvc.log.commit.encoding import measure
from walsvc.log.commit.entering import Common, append_pieces
from walsvc.log.commit.entries import Item, Pieces
from walsvc.log.commit.results import Run
from walsvc.log.read.stream import open_stream
from walsvc.model import Mode, Strict
from walsvc.tasks import begin_task


class Repeated(NamedTuple):
    """The answer to a request that had been accepted before; what a BatchResult tells, without the lengths."""

    places: list[Run]
    durable: bool
    sync_us: int


def append_request(
    core: Core,
    payloads: list[bytes] | Pieces,
    mode: Mode,
    **common: Unpack[Common],
) -> Any:
    """Append payloads to one group, atomically, unless their request did it before.

    Args:
        core: of which log.
        payloads: one, or several that fit into one group together, with packed attributes in front where `labels` has some;
            or records that may have labels of their own.
        mode: as of append.
        common: of all of them. labels: type and length of the attributes; without a request nothing is remembered; a key to
            dedupe is for one payload.

    Returns:
        An Ack of a BatchResult, or a task whose result is Repeated.

    Raises:
        As append_batch; OutcomeUnknown where it cannot be told whether the request was accepted before.
    """
    core.health.check_append(mode)
    labels, request, dedupe = common.get("labels"), common.get("request"), common.get("dedupe")
    check_expected(common.get("expected"))
    check_key(dedupe)
    pieces = payloads if isinstance(payloads, Pieces) else Pieces(payloads)
    payloads = pieces.payloads
    lengths, size, longest = measure(payloads)
    if dedupe is not None and len(payloads) != 1:
        raise BadOption(f"one dedupe key came for {len(payloads)} payloads", hint="send each in a request of its own")
    check_request(core, len(payloads), size)
    if pieces.labels:
        longest = pieces.longest
    elif labels is not None:
        longest -= labels.attributes_bytes
    core.queue.bounds.check_length(longest)
    if request is not None and (row := core.metadata.producers.find(request)) is not None:
        return begin_task(repeated(core, row, mode))
    return append_pieces(core, pieces, lengths, size, mode, **common)


def check_request(core: Core, count: int, size: int) -> None:
    """Raise BadOption where the records of one request, with their attributes, are more than a group holds."""
    if count > 1 and size > core.config.max_group_bytes:
        raise BadOption(
            "the payloads of one request are more than a group holds",
            expected=f"at most {core.config.max_group_bytes} bytes, or one payload",
            hint="send several requests, or a batch",
        )


def stream_request(
    core: Core,
    source: AsyncIterable[Item | Pieces],
    topic: str | None,
    request: Request | None,
    *,
    expected: int | None = None,
) -> Any:
    """Append an atomic batch from a source, see WalWriter.append_batch, unless `request` did it before: then the source is
    not read. Raises as append_request."""
    core.health.check_append(Strict)
    check_expected(expected)
    if request is not None and (row := core.metadata.producers.find(request)) is not None:
        return begin_task(repeated(core, row, Strict))
    return stream_batch(core, Pieces(), source, topic, request, expected=expected)


async def repeated(core: Core, row: RequestRow, mode: Mode) -> Repeated:
    """The places of a request's records, durable where the mode asks for it."""
    last = row.lsn + row.records - 1
    if mode is Strict and last > core.catalog.durable_lsn:
        await core.durable(last)
    places = [Run(row.lsn, row.records, row.segment, row.offset)]
    if row.parts > 1:
        try:
            places = await find_parts(core, row)
        except (WalError, OSError, BadGroup):
            pass  # dropped or damaged since; what remains true is that they were appended, and under which LSNs
    return Repeated(places, last <= core.catalog.durable_lsn, 0)


async def find_parts(core: Core, row: RequestRow) -> list[Run]:
    """The groups of a streamed batch, from the headers of the segments that hold it."""
    places: list[Run] = []
    following = row.lsn
    for first in [each for each in core.catalog.view.ids if each >= row.segment]:
        _, stream = await open_stream(
            core.disk, segment_name(first), first, core.catalog.view.sizes[first], core.tail.keys
        )
        while following < row.lsn + row.records:
            try:
                header = (await stream.next()).header
            except BadGroup:
                break  # the segment's end
            if header.records and header.first_lsn == following:
                places.append(Run(following, header.records, first, header.offset + GROUP_HEADER_BYTES))
                following = header.next_lsn
        if following == row.lsn + row.records:
            return places
    raise BadGroup("the batch is not where it was")
