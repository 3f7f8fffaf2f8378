"""Deleting a topic: its records are hidden, its name and its consumers are free.

One change of metadata that joins the group commit, and no more: the records stay in the files until these are truncated, or compacted.
What is appended under the name later begins a new topic, with another number (walsvc.format.topics).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from walsvc.errors import BadOption, InUse
from walsvc.format.meta import departure
from walsvc.log.commit.queued import Joined
from walsvc.topics.names import check_name, parse_key

if TYPE_CHECKING:
    from walsvc.log.commit.core import Core


async def delete_topic(core: Core, name: str, number: int | None = None) -> int:
    """See Log.delete_topic. Returns the LSN below which its records are hidden; 0: nothing has happened.

    Args:
        core: of the log.
        name: the topic's.
        number: of the topic that is meant: nothing happens where the name is free, or another topic's by now. None: whichever has
            the name.
    """
    check_name("topic", name)
    core.health.check_call()
    before = 0

    def change() -> dict[str, Any]:
        found = core.metadata.topics.get(name)
        if number is not None and found != number:
            return {}
        if found is None:
            raise no_topic(core, name)
        refuse_used(core, found, name)
        return departure(core.metadata, [found])

    def accepted() -> None:
        nonlocal before
        if name not in core.metadata.topics:
            before = core.next_lsn
            core.catalog.cuts.deleted(name)

    await core.changes.join(Joined(change, accepted))
    core.changes.passed(before)
    return before


def number_of(core: Core, name: str) -> int:
    """The number of a topic. BadOption: there is none of that name."""
    number = core.metadata.topics.get(check_name("topic", name))
    if number is None:
        raise no_topic(core, name)
    return number


def no_topic(core: Core, name: str) -> BadOption:
    """The error of a topic that is not there."""
    hint = "topics(), or `walsvc topics PATH`, lists them"
    return BadOption(f"the log has no topic {name!r}", path=core.disk.path, hint=hint)


def refuse_used(core: Core, number: int, name: str) -> None:
    """Raise InUse while a consumer of a topic is open."""
    for key in core.metadata.positions.of_topic(number):
        if key in core.changes.places:
            raise InUse(
                f"consumer {parse_key(key)[1]!r} of topic {name!r} is open",
                path=core.disk.path,
                hint="close it first; the topic is as it was",
            )
