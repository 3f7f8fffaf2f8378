"""When the server's process looks for objects that only hold each other: not while many clients have something open.

CPython looks at all objects that have come since the start whenever they are a quarter more than at the last look. For the streams of a
hundred clients that is 0.2 s in which nobody is answered, and it finds nothing: what a client leaves is let go of at once but for a few
objects of its connection. Young objects are looked at as always, in steps of some thousand.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

LOOK_SECONDS = 1.0
NEVER = 1 << 30
# Of CPython's looks at objects of middle age, each of which stands for 7,000 objects more than there were:
GROWN = 10  # that much, and it is worth a look, if
OPEN_MAX = 1000  # no more connections, streams, calls and appends are there, of some 50 objects each: about 10 ms
GROWN_MAX = 500  # that much, and something must be wrong: memory matters more than a pause


def begin() -> None:
    """Keep all objects that are there to the end; from here on only `watch` looks at old ones."""
    gc.collect()
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, NEVER)


def is_due(grown: int, opened: int) -> bool:
    """True if old objects are to be looked at.

    Args:
        grown: CPython's looks at objects of middle age since the last look at old ones.
        opened: connections, streams, calls and appends.
    """
    return grown >= GROWN_MAX or (grown >= GROWN and opened <= OPEN_MAX)


async def watch(opened: Callable[[], int]) -> None:
    """Look at old objects when it is worth it; `opened`: connections, streams, calls and appends at this moment."""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        if is_due(gc.get_count()[2], opened()):
            gc.collect()
