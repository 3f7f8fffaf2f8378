"""The end of a ring: the kernel lets go of all memory, the loop forgets the ring's event, and then the ring is given back."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref

from walsvc.disk.ring import SYNC_BIT, Ring

Watched = tuple[weakref.ref[asyncio.AbstractEventLoop], int]
"""The loop that watches a ring's event, and its thread."""


def drain(owner: int, ring: Ring, pins: dict[int, object], slots_each: int, watched: Watched | None = None) -> None:
    """Wait until the kernel has let go of all memory, then give the ring back. Runs once: at close, or when the disk is
    collected or the interpreter ends without close. What was queued but never taken (the newest) is not waited for, nor
    a sync whose write is through. A forked child must not touch its parent's ring."""
    if os.getpid() != owner:
        return
    for token in list(pins)[len(pins) - ring.unsubmitted() // slots_each :]:
        del pins[token]
    while pins:
        for token, _ in ring.reap():
            if not token & SYNC_BIT:
                pins.pop(token >> 1, None)
        if pins:
            ring.wait()
    loop = None if watched is None else watched[0]()
    if watched is None or loop is None or loop.is_closed():
        ring.close()
    elif threading.get_ident() == watched[1]:
        close_unwatched(loop, ring)
    else:  # the garbage collector ran in another thread
        try:
            loop.call_soon_threadsafe(close_unwatched, loop, ring)
        except RuntimeError:  # it was closed meanwhile
            ring.close()


def close_unwatched(loop: asyncio.AbstractEventLoop, ring: Ring) -> None:
    """Give a ring back whose event the loop watches."""
    loop.remove_reader(ring.event)
    ring.close()
