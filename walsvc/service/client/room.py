"""Room for a client's calls: a server takes so many unanswered ones of a connection, and ends one that has more. The rest wait here.

A call that waits for room keeps back no append behind it, and calls that may stay unanswered for long have a share of their own: next() of
shared consumers waits for records, wait_durable and wait_replicated for a disk and a replica. Each shared consumer has one call of next()
at least, or its records would wait for others' consumers.
"""

from __future__ import annotations

import asyncio
from collections import Counter

from walsvc.service.client.order import FrameWaiter, SendOrder

CALLS = 1024  # of a connection, where the server does not say it
CALLS_SHARED = 8  # with fewer there are no shares
ASKING, WAITING, DOING = "asking", "waiting", "doing"
LONG = {"shared.next": ASKING, "wait_durable": WAITING, "wait_replicated": WAITING}
GETS = 64  # records by their LSN that are asked for at a time: each is a stream, of which the server takes 256


class Room:
    """Which calls are at the server, and which wait.

    Args:
        order: through which those that waited are sent.

    Attributes:
        gets: held while a record is read by its LSN.
    """

    def __init__(self, order: SendOrder) -> None:
        self.gets: asyncio.Semaphore = asyncio.Semaphore(GETS)
        self._order = order
        self._sizes: dict[str, int] = {}
        self._inside: dict[int, tuple[str, int | None]] = {}  # by id: the share, and the consumer that asks
        self._used: Counter[str | int] = Counter()  # of each share, and by each consumer
        self._parked: dict[str, dict[int, tuple[FrameWaiter, int | None]]] = {ASKING: {}, WAITING: {}, DOING: {}}
        self.begin(CALLS)

    def begin(self, calls: int) -> None:
        """There is another connection, whose server takes so many calls."""
        if calls < CALLS_SHARED:
            self._sizes = {DOING: max(calls - 1, 1)}
        else:  # the rest is for streams that are being opened, and for one next() of each consumer
            self._sizes = {ASKING: max(calls // 16, 1), WAITING: max(calls // 16, 1), DOING: calls * 3 // 8}

    def clear(self) -> None:
        """There is no connection, and nothing at a server: all that is not answered is sent again."""
        self._inside.clear()
        self._used.clear()
        for waiting in self._parked.values():
            waiting.clear()

    def enter(self, id: int, request: FrameWaiter, method: str, consumer: int | None = None) -> bool:
        """True if a call may be sent now; else it is sent when there is room."""
        share = LONG.get(method, DOING)
        if share not in self._sizes:
            share = DOING
        lone = share == ASKING and not self._used[consumer or 0]
        if self._used[share] >= self._sizes[share] and not lone:
            self._parked[share][id] = request, consumer
            return False
        self._inside[id] = share, consumer
        self._used[share] += 1
        if consumer is not None:
            self._used[consumer] += 1
        return True

    def has(self, id: int) -> bool:
        """True if a call is at the server."""
        return id in self._inside

    def leave(self, id: int) -> bool:
        """A call is over: answered, failed, or its caller has gone. The next one is sent. False: it was not at the server."""
        self._order.forget(id)
        for waiting in self._parked.values():
            waiting.pop(id, None)
        if id not in self._inside:
            return False
        share, consumer = self._inside.pop(id)
        self._used[share] -= 1
        if consumer is not None:
            self._used[consumer] -= 1
            if not self._used[consumer]:
                del self._used[consumer]
        self._send_next(share, consumer)
        return True

    def _send_next(self, share: str, consumer: int | None) -> None:
        waiting = self._parked[share]
        own = consumer is not None and not self._used[consumer] and share == ASKING
        chosen = next((id for id, (_, of) in waiting.items() if of == consumer), None) if own else None
        if chosen is None and self._used[share] < self._sizes[share]:
            chosen = next(iter(waiting), None)
        if chosen is not None:
            request, _ = waiting.pop(chosen)
            self._order.add([(chosen, request)])
