"""The parts of a server that have failed or ended by themselves. Each part is asked now and then, so none of them can end in silence."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from walsvc.errors import WalError
from walsvc.service.server.status import Trouble

logger: logging.Logger = logging.getLogger("walsvc.service")
Look = Callable[[], Iterable[Trouble]]


class Troubles:
    """Asks the parts of a server, and says in the server's log what is new.

    Attributes:
        last: what was met at the last look.
    """

    def __init__(self) -> None:
        self._looks: list[Look] = []
        self.last: tuple[Trouble, ...] = ()

    def watch(self, look: Look) -> None:
        """Ask one more part from now on."""
        self._looks.append(look)

    def look(self) -> tuple[Trouble, ...]:
        """The parts that have failed or ended, as they are at this moment."""
        before = {trouble[:3] for trouble in self.last}
        self.last = tuple(trouble for look in self._looks for trouble in look())
        for trouble in self.last:
            if trouble[:3] not in before:
                logger.error("%s: %s", trouble.words, trouble.error)
        return self.last


def ended(task: asyncio.Task[None], part: str, words: str) -> Iterable[Trouble]:
    """The trouble of a task that should run as long as the server does."""
    if task.done():
        cause = None if task.cancelled() else task.exception()
        why = "it was cancelled" if cause is None else repr(cause)
        yield Trouble(part, "", words, WalError(why, hint="report this; a restart mends it"))
