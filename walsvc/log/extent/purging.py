"""Purging: records of a key, or with some labels, are hidden from all reading up to an LSN. A mark in the metadata, no more.

The mark shares the group commit like any other change. What it hides stays in the files until the segment is truncated or
compacted (walsvc.log.extent.compaction). Hidden records keep their LSNs, and count where records are counted: counts, lags and
sizes are sums over what was appended, and a mark cannot know how many records it hides without reading them all.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from walsvc.errors import BadOption, WalError
from walsvc.format.purge import MARKS_MAX, labels_of, mark_name
from walsvc.log.read.cuts import Hiding
from walsvc.model import is_lsn

if TYPE_CHECKING:
    from walsvc.log.commit.core import Core


async def purge(core: Core, key_or_labels: Any, before: int | None, topic: str | None) -> None:
    """Hide the records of `topic` (None: of all topics and of none) whose labels match and whose LSN is below `before`.

    Args:
        core: of the log.
        key_or_labels: see walsvc.format.purge.labels_of.
        before: 1 to next_lsn; None: next_lsn as it is now.
        topic: its name; where the log has no such topic nothing is hidden, and those who listen are told all the same.
    """
    core.health.check_call()
    labels = labels_of(key_or_labels)
    limit = limit_of(core, before)
    number = 0 if topic is None else core.metadata.topics.get(topic)
    name = mark_name(number or 0, labels)

    def change() -> dict[str, Any]:
        purges = core.metadata.purges
        if name not in purges and len(purges) >= MARKS_MAX:
            raise BadOption(
                f"the log has {len(purges)} purge marks, no more fit",
                path=core.disk.path,
                hint="compact() takes away marks that have nothing left to hide; truncate_before does, too",
            )
        # the end may have been cut since; and a mark never falls, else records that were purged would come back
        return {"purges": {name: max(min(limit, core.next_lsn), purges.get(name, 0))}}

    async def work() -> None:
        if number is not None:
            await core.changes.join(change)
        core.catalog.cuts.hidden(Hiding(topic, limit, labels=labels))

    await asyncio.shield(core.background.start("purging records", work(), foreseen=(WalError,)))


def limit_of(core: Core, before: int | None) -> int:
    """The LSN below which purge(before) hides; None: next_lsn as it is now. BadOption: it is out of range."""
    limit = core.next_lsn if before is None else before
    if not is_lsn(limit) or not 1 <= limit <= core.next_lsn:
        raise BadOption(
            f"purge(before={before!r}) is out of range",
            path=core.disk.path,
            hint=f"1 to next_lsn, {core.next_lsn}",
        )
    return limit
