"""Pins, which are the consumers and holds that need records, and the limits of topics: by the metadata alone."""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from itertools import accumulate, islice

from walsvc.format.meta import Metadata
from walsvc.model import LimitedTopic, Pin

PINS_SHOWN = 16  # in stats(), which must stay quick
REPLICA_HOLD = "replica"  # name of the hold that keeps what is not replicated yet
ARCHIVE_HOLD = "archive"  # and of the one that keeps what is not archived yet


def pins_of(
    metadata: Metadata, next_lsn: int, segment_bytes: Mapping[int, int], count: int | None = None
) -> tuple[Pin, ...]:
    """Consumers and holders, those who need the oldest records first; the first `count` of them (None: all)."""
    if count == 0 or (not metadata.positions and not metadata.holds):
        return ()
    needs = needs_of(metadata, next_lsn)
    chosen = sorted(needs) if count is None else heapq.nsmallest(count, needs)
    ids = sorted(segment_bytes)
    below = list(accumulate((segment_bytes[first] for first in ids), initial=0))
    return tuple(
        Pin(kind, name, topic or None, lsn, below[-1] - below[max(bisect_right(ids, lsn) - 1, 0)])
        for lsn, kind, name, topic in chosen
    )


def limited_topics(metadata: Metadata) -> tuple[LimitedTopic, ...]:
    """The topics with limits of their own, the first PINS_SHOWN of them."""
    found = ((metadata.topics.names.get(number), limits) for number, limits in sorted(metadata.limits.items()))
    return tuple(LimitedTopic(name, *limits) for name, limits in islice(found, PINS_SHOWN) if name is not None)


def needs_of(metadata: Metadata, next_lsn: int) -> Iterator[tuple[int, str, str, str]]:
    """(lowest LSN, kind, name, topic or "") of everybody. A consumer of a topic without newer records needs nothing."""
    for key, position in metadata.positions.items():
        number, _, name = key.partition("/")
        idle = number != "0" and metadata.topics.last_of(int(number)) < position
        yield next_lsn if idle else position, "consumer", name, metadata.topics.names.get(int(number), "")
    for name, lsn in metadata.holds.items():
        yield lsn, "hold", name, ""
