"""Entering: what callers hand over, checked, becomes an entry of the queue."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any, TypedDict, Unpack, cast

from walsvc.config import between
from walsvc.errors import Conflict
from walsvc.format.producers import Request
from walsvc.log.commit.ack import Ack
from walsvc.log.commit.conditions import check_expected, check_key
from walsvc.log.commit.core import Core
from walsvc.log.commit.entries import Pieces
from walsvc.log.commit.group import Labels
from walsvc.log.commit.payload import pack_attributes
from walsvc.log.commit.queued import QueuedAppend
from walsvc.log.commit.results import BatchResult
from walsvc.model import Mode, Strict


class Common(TypedDict, total=False):
    """The part that all records of one append share; see QueuedAppend."""

    labels: Labels | None
    topic: str | None
    request: Request | None
    expected: int | None
    dedupe: str | None


def append_record(
    core: Core,
    payload: Any,
    mode: Mode,
    *,
    type: int,
    attributes: Mapping[str, Any] | None,
    topic: str | None,
    expected: int | None = None,
    dedupe: str | None = None,
    wait: bool,
) -> Any:
    """Append one record, of any kind. With `wait` it may wait for room, and the answer is an Ack; else it raises Backpressure or
    NoSpace in that case, and the answer is an asyncio.Future, which asyncio.wait takes."""
    queue = core.queue
    piece = queue.bounds.checked(payload)
    core.health.check_append(mode)
    between("type", type, 0, 0xFFFF)
    check_expected(expected)
    check_key(dedupe)
    labels = None
    packed = pack_attributes(attributes)
    if type or packed:
        labels = Labels(type, 0, len(packed))
        piece = packed + piece
    answer = queue.new_ack() if wait else core.health.loop.create_future()
    entry = QueuedAppend(
        [piece], mode, labels, batch=False, future=answer, topic=topic, expected=expected, dedupe=dedupe
    )
    return queue.enter(entry, wait=wait)


def append_pieces(
    core: Core,
    pieces: Pieces,
    lengths: array[int],
    size: int,
    mode: Mode,
    **common: Unpack[Common],
) -> Ack[BatchResult]:
    """Append records that fit one group, all or none; the caller has checked them. No record: nothing is written.

    Args:
        pieces: the records; `lengths` and `size` are of its payloads, and their sum.
        mode: Strict or Relaxed.
        common: of all records; without labels they have those of `pieces`.
    """
    queue, payloads = core.queue, pieces.payloads
    topic, expected, request = common.get("topic"), common.get("expected"), common.get("request")
    answer: Any = queue.new_ack()
    if not payloads:
        try:
            queue.conditions.check(topic, expected)
            answer.set_result(BatchResult([], durable=True, sync_us=0))
        except Conflict as conflict:
            answer.set_exception(conflict)
        return cast("Ack[BatchResult]", answer)
    labels, dedupe = common.get("labels"), common.get("dedupe")
    plain = mode is Strict and not pieces.labels and (labels, topic, expected, dedupe) == (None, None, None, None)
    if plain and queue.enter_plain(payloads, lengths, size, answer=answer, request=request):
        return cast("Ack[BatchResult]", answer)
    entry = QueuedAppend(
        payloads,
        mode,
        labels,
        batch=True,
        future=answer,
        topic=topic,
        request=request,
        expected=expected,
        lengths=lengths,
        size=size,
        dedupe=dedupe,
        own=pieces.labels,
    )
    return queue.enter(entry)
