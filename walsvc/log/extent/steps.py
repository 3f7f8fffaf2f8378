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
        spares.prepare(
            core.tail.segment.header.ordinal + 1, core.tail.segment.header.file_bytes, need, metadata=metadata
        )
        await spares.settle()
        core.health.raise_failure()
        if (error := core.queue.no_space()) is not None and spares.fitting(need, metadata=metadata) is None:
            raise error
