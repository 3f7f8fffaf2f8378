"""Hidings: changes that hide records, from their preparation to whoever has read ahead.

Such a change joins a group like any other. What it needs to know of the log is read before, and one change is prepared at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from walsvc.errors import WalError
from walsvc.log.commit.queued import Joined

if TYPE_CHECKING:
    from walsvc.log.commit.core import Core
    from walsvc.log.read.cuts import Hiding
    from walsvc.log.read.segments import Segments

Change = Callable[[], dict[str, Any] | None]


class Hidings:
    """The way of such changes into one log. Loop thread only.

    Attributes:
        preparing: held while a change is prepared, until it is accepted.
    """

    def __init__(self, core: Core, segments: Segments) -> None:
        self.preparing: asyncio.Lock = asyncio.Lock()
        self._core = core
        self._segments = segments

    async def accepted(self, make: Change, hidings: Sequence[Hiding]) -> asyncio.Task[bool]:
        """Let a change join a group, and wait until it is accepted, or refused.

        Args:
            make: makes it from the state at that moment; None: it is not to be made.
            hidings: what readers are told once it is durable.

        Returns:
            A task that ends then; whether the change was made.
        """
        accepted: asyncio.Future[None] = self._core.health.loop.create_future()
        made = False

        def change() -> dict[str, Any]:
            nonlocal made
            wanted = make()
            made = wanted is not None
            return {"positions": {}} if wanted is None else wanted

        def taken() -> None:
            if any(hiding.before for hiding in hidings):
                self._segments.cuts.turned()
            if not accepted.done():
                accepted.set_result(None)

        async def work() -> bool:
            await self._core.changes.join(Joined(change, taken))
            for hiding in hidings if made else ():
                self._segments.cuts.hidden(hiding)
            return made

        ending = self._core.background.start("hiding records", work(), foreseen=(WalError,))
        either: list[asyncio.Future[Any]] = [ending, accepted]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        return ending
