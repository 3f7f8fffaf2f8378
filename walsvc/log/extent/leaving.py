"""Leaving: a topic of which nothing is left goes from the table by itself, so that a log with a topic for each session costs what lives.

Called when first_lsn has moved, or a topic was truncated by itself. A topic goes that has no visible record, no consumer, and no caller's key that is remembered: a
repeated append would be written twice otherwise. That is made durable by whatever is committed next: after a crash before that the
next truncation finds the topics again.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from walsvc.format.meta import departure

if TYPE_CHECKING:
    from walsvc.log.commit.core import Core

LOOKED_AT = 10_000  # topics in one step of the loop, a millisecond or so
TOGETHER_MAX = 1_000  # topics that go in one step


async def leave(core: Core) -> None:
    """Let the topics go of which nothing is left."""
    idle = await last_below(core, core.metadata.truncated)
    for begin in range(0, len(idle), TOGETHER_MAX):
        numbers = idle[begin : begin + TOGETHER_MAX]
        if not core.changes.join_lazily(partial(change, core, numbers)):
            return  # there is no room now
        await asyncio.sleep(0)


def leave_alone(core: Core, number: int) -> None:
    """Let a topic go that was truncated by itself, if nothing is left of it."""
    core.changes.join_lazily(partial(change, core, [number]))


def change(core: Core, numbers: list[int]) -> dict[str, Any]:
    """The change by which those of the topics go that may."""
    going = [number for number in numbers if is_over(core, number)]
    return departure(core.metadata, going) if going else {}


def is_over(core: Core, number: int) -> bool:
    """True if nothing is left of a topic."""
    metadata = core.metadata
    last = core.placement.group.last_of(number) or metadata.topics.last_of(number)
    if number in metadata.limits:
        return False
    first = max(metadata.truncated, metadata.floor_of(number))
    if number not in metadata.topics.names or last >= first or metadata.positions.of_topic(number):
        return False
    return not core.queue.conditions.remembers(number)


async def last_below(core: Core, lsn: int) -> list[int]:
    """Numbers of the topics whose last record in a closed group is below `lsn`; others have their turns between two steps."""
    numbers, _, lasts, tally = core.metadata.topics.mark()
    found: list[int] = []
    for begin in range(0, len(numbers), LOOKED_AT):
        rows = zip(numbers[begin : begin + LOOKED_AT], lasts[begin : begin + LOOKED_AT], strict=True)
        found += [number for number, last in rows if last < lsn and number not in tally]
        await asyncio.sleep(0)
    found += [number for number, row in tally.items() if row.last_lsn < lsn]
    return found
