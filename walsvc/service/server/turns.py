"""Whose turn it is: what the server does for its clients, a bounded part of each turn of the loop.

asyncio runs whatever is ready before it looks at the sockets again, so a thousand clients that each ask for a little hold up
everybody for a thousand littles. Here work is counted. What is over in a turn of the loop waits for the next one, and a client of
which the server has done little of late comes before those that keep it busy, as new flows come before old ones in FQ-CoDel (RFC 8290,
section 4.2). These take turns, and each turn of the loop does something for one of them. So it does for what clients that are gone have
left: a thousand calls and streams to be ended, of many clients at once where their machine has died.

Work is counted in units, of what is known beforehand, and not in seconds: so the order is the same on every machine.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from walsvc.service.server.gate import Gate

TURN = 256  # units in one turn of the loop, about 2 ms: a unit is about what the shortest frame costs
SLICE = 32  # of one client, before others have their turn
# After a light client has come: about as many as an append takes from its frame to its answer on a quick disk.
HURRIED_TURNS = 16
# Of consumers at a time: all that one group of the log has made durable goes on in the same turn of the loop.
HEAVY_OPENINGS = 16
LIGHT = 256  # a client is light up to so many units, of which
UNITS_PER_SECOND = 512  # so many are forgotten in a second
APPEND_UNITS = 4  # a request to append, with its answer
CALL_UNITS = 8  # a call: a task, its answer, and what the log does for it
QUEUED_UNITS = 2  # a call that waits for its turn
OPEN_UNITS = 4  # the task of an opening, which waits for its turn
ACCEPT_UNITS = 16  # a client that comes, and its end
HELLO_UNITS = 16  # its HELLO, with WELCOME or a denial
CONSUMER_UNITS = 16  # a consumer that is opened or closed
RECORDS_A_UNIT = 32
LEFT_A_UNIT = 2  # calls and streams of a client that is gone, which are put down to be ended
BYTES_A_UNIT = 32 << 10  # copied once or twice


def units_of(size: int, records: int) -> int:
    """Units of what is in a frame: bytes and records."""
    return size // BYTES_A_UNIT + records // RECORDS_A_UNIT


class Turns:
    """See the head of this file.

    Attributes:
        left: units that this turn of the loop has left; 0 or less: none.
        openings: of consumers, by heavy clients.
    """

    def __init__(self) -> None:
        self.left: int = TURN
        self.openings: Gate = Gate(HEAVY_OPENINGS)
        self._hurried = 0  # so many more turns are short for heavy clients
        self._light: deque[tuple[Pace, Callable[[], None], int]] = deque()
        self._heavy: deque[tuple[Pace, Callable[[], None], int]] = deque()
        self._left: deque[tuple[Callable[[], None], int]] = deque()  # by clients that are gone
        self._cleared = 0  # units of that in this turn
        self._due = False

    def pace(self) -> Pace:
        """For a new client."""
        return Pace(self)

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return len(self._light) + len(self._heavy)

    @property
    def free(self) -> bool:
        """True if nobody waits, and the part of heavy clients is not used up."""
        return self.left > self._kept and not self._light and not self._heavy

    @property
    def _kept(self) -> int:
        """Units of a turn that are not for heavy clients."""
        return TURN - SLICE if self._hurried else TURN // 2

    def hurry(self) -> None:
        """A light client has come while others keep the server busy: it waits for some turns of the loop until its answer is
        there, so these are short."""
        self._hurried = HURRIED_TURNS

    def spend(self, units: int) -> None:
        """So much is being done."""
        self.left -= units
        if self.left * 2 < TURN:  # until then it does not matter how many turns of the loop it was
            self._schedule()

    def wait(self, pace: Pace, go_on: Callable[[], None], units: int) -> None:
        """Call `go_on` when it is a client's turn."""
        (self._light if pace.light else self._heavy).append((pace, go_on, units))
        self._schedule()

    def clear(self, do: Callable[[], None], units: int) -> None:
        """Do something that a client has left which is gone: now, or when the slice of this turn is used up, in one that follows."""
        if self._cleared < SLICE and not self._left:
            self._cleared += units
            do()
        else:
            self._left.append((do, units))
        self._schedule()

    def _schedule(self) -> None:
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        """A turn of the loop begins. Half of it at least is for what comes in it from light clients."""
        self._due, self.left = False, TURN
        try:
            self._clear_slice()  # first: more of it must not come than goes
            while self._light and self.left > 0:
                self._grant(self._light)
            if self._heavy:
                self._grant(self._heavy)
            while self._heavy and self.left > self._kept:
                self._grant(self._heavy)
            if self._hurried:
                self._hurried -= 1
        finally:
            if self._light or self._heavy or self._left:
                self._schedule()

    def _clear_slice(self) -> None:
        self._cleared = 0
        while self._left and self._cleared < SLICE:
            do, units = self._left.popleft()
            self._cleared += units
            do()
        self.left -= self._cleared

    def _grant(self, queue: deque[tuple[Pace, Callable[[], None], int]]) -> None:
        pace, go_on, units = queue.popleft()
        if pace.over:
            self.left -= 1  # thousands may be left of clients that are gone
            return
        if units:
            pace.did(units)
        go_on()


class Pace:
    """The work that the server has done for one client of late; it decides whether more is done at once.

    Attributes:
        over: the client is gone, and has no turns: whoever waits for one waits until it is cancelled.
    """

    __slots__ = ("_at", "_loop", "_turns", "_work", "over")

    def __init__(self, turns: Turns) -> None:
        self.over: bool = False
        self._turns = turns
        self._loop = asyncio.get_running_loop()
        self._work = 2.0 * LIGHT  # or who comes again and again would always be light
        self._at = self._loop.time()

    @property
    def light(self) -> bool:
        """The server has done little for it of late."""
        return self._work <= LIGHT or self._work - (self._loop.time() - self._at) * UNITS_PER_SECOND <= LIGHT

    @property
    def may_go(self) -> bool:
        """True if more may be done for it in this turn of the loop. Where not, it waits by `later`."""
        turns = self._turns
        if turns.free:
            return True
        if not self.light:
            return False
        turns.hurry()
        return turns.left > 0

    def did(self, units: int) -> None:
        """So much was done for it."""
        now = self._loop.time()
        self._work = max(self._work - (now - self._at) * UNITS_PER_SECOND, 0.0) + units
        self._at = now
        self._turns.spend(units)

    def later(self, go_on: Callable[[], None]) -> None:
        """Call `go_on` when it is its turn. It says by `did` what it has done."""
        self._turns.wait(self, go_on, 0)

    async def turn(self, units: int) -> None:
        """Wait until so much may be done for it."""
        if self.may_go and not self.over:
            self.did(units)
            return
        granted: asyncio.Future[None] = self._loop.create_future()
        self._turns.wait(self, lambda: None if granted.done() else granted.set_result(None), units)
        await granted
