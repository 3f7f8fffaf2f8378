"""Steps that the changes of a log's extent share."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from walsvc.errors import WalError
from walsvc.log.commit.core import Core


async def run_shielded(core: Core, name: str, change: Coroutine[Any, Any, None]) -> None:
    """Run a change of the log's extent in a task of its own: cancelling the caller ends the wait, not the change. Left
    half done, it would be finished by the next opening, which would drop what was appended and acknowledged since."""
    await asyncio.shield(core.background.start(name, change, foreseen=(WalError, OSError)))


async def have_spare(core: Core, need: int = 0, *, metadata: bool = True) -> None:
    """Wait for a prepared spare of at least `need` bytes, for `metadata` also one from the reserve. Raises NoSpace where
    there is no room for one."""
    spares = core.tail.spares
    while spares.fitting(need, metadata=metadata) is None:
        if core.pipeline.rotation.busy:
            await segment_begun(core)
            continue
        spares.prepare(
            core.tail.segment.header.ordinal + 1, core.tail.segment.header.file_bytes, need, metadata=metadata
        )
        await spares.settle()
        core.health.raise_failure()
        if (error := core.queue.no_space()) is not None and spares.fitting(need, metadata=metadata) is None:
            raise error


async def segment_begun(core: Core) -> None:
    """Wait until no segment is being begun. Until then its file has a spare's name: where it replaces the segment before it, the very
    one that the next spare gets."""
    while core.pipeline.rotation.busy:
        if core.pipeline.rotation.head_in_flight and not core.placement.group.empty:
            core.placement.intake.want()  # it may be the first group, with what joined it lazily
        await core.waits.room()
        core.health.raise_failure()
