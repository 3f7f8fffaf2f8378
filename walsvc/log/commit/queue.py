"""Queue: appends that are not the plain case, or find no room, and turns at having the log alone.

Owns the order in which calls are accepted; `Accepting` takes one whose turn has come. Called by the Intake for what it does not
take, and by everybody who frees room.
"""

from __future__ import annotations

import asyncio
from array import array
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from walsvc.config import WalConfig
from walsvc.errors import Backpressure, Conflict, WalError, copy_of, from_source
from walsvc.format.producers import Request
from walsvc.log.commit.accepting import Accepting
from walsvc.log.commit.ack import Ack
from walsvc.log.commit.conditions import Conditions
from walsvc.log.commit.health import Health
from walsvc.log.commit.payload import Bounds
from walsvc.log.commit.placement import Placement
from walsvc.log.commit.queued import QueuedAppend
from walsvc.log.commit.relaxed import RelaxedTimer
from walsvc.log.commit.tail import Tail
from walsvc.log.commit.waits import Waits
from walsvc.log.commit.whole import whole
from walsvc.model import Strict
from walsvc.tasks import when_awaited
from walsvc.visible import counted


class Turn:
    """A turn at having the log alone. `end` must be called, once or more, whatever became of it."""

    __slots__ = ("_ended", "_queue", "granted")

    def __init__(self, queue: Queue, granted: asyncio.Future[None]) -> None:
        self._queue = queue
        self._ended = False
        self.granted: asyncio.Future[None] = granted

    def end(self, _: object = None) -> None:
        """Leave the queue, or let the appends go on that waited for this turn."""
        if not self._ended:
            self._queue.end_turn(self)

    def leave(self) -> bool:
        """For the queue: be over. True if the turn had come."""
        self._ended = True
        if self.granted.done() and not self.granted.cancelled() and self.granted.exception() is None:
            return True
        self.granted.cancel()
        return False


class Queue:
    """The queue in front of the filling group. Loop thread only.

    Args:
        accepting: takes an entry whose turn has come.
        first: called before the queue moves up: changes of metadata do not starve behind appends.
        new_ack: makes the answer of an append.

    Attributes:
        bounds: how long what is appended may be.
        conditions: decides whether an append may be accepted.
        relaxed: the timer of Relaxed records.
    """

    def __init__(
        self,
        config: WalConfig,
        placement: Placement,
        accepting: Accepting,
        *,
        path: str,
        conditions: Conditions,
        relaxed: RelaxedTimer,
        tail: Tail,
        waits: Waits,
        health: Health,
        first: Callable[[], None],
        new_ack: Callable[[], Any],
    ) -> None:
        self.new_ack = new_ack
        self.bounds: Bounds = Bounds(config, path)
        self.conditions: Conditions = conditions
        self.relaxed: RelaxedTimer = relaxed
        self._path = path
        self._config = config
        self._placement = placement
        self._accepting = accepting
        self._tail = tail
        self._waits = waits
        self._health = health
        self._first = first
        self._waiting: OrderedDict[QueuedAppend, None] = OrderedDict()  # those that are cancelled leave it
        self._holds = 0
        self._refusal: WalError | None = None  # while those who wait are told

    # ---- looking

    @property
    def waiting(self) -> list[asyncio.Future[Any]]:
        """Calls that wait for room or for a turn, in order."""
        return [entry.future for entry in self._waiting]

    @property
    def length(self) -> int:
        """Calls that wait for room or for a turn."""
        return len(self._waiting)

    @property
    def held(self) -> bool:
        """True if somebody has the log alone: appends wait until it is through."""
        return self._holds > 0

    def refusal(self) -> WalError | None:
        """The error that every waiting call gets: the log has ended, or they are refused; None: they wait on."""
        if (ended := self._health.ended()) is not None or self._refusal is None:
            return ended
        return copy_of(self._refusal)

    def no_space(self) -> WalError | None:
        """The error for those who wait for a segment, when the last preparation of one met a shortage, or they are refused."""
        if self._refusal is not None:
            return copy_of(self._refusal)
        return self._tail.no_space(self._placement.next_lsn)

    # ---- entering

    @whole("accepting a record")
    def enter(self, entry: QueuedAppend, *, wait: bool = True) -> Ack[Any]:
        """Accept an entry, or let it wait for room."""
        no_space = self.no_space()  # accepting starts another attempt, and forgets the last one
        try:
            if not self._holds and not self._waiting and self._accepting.accept(entry):
                return cast("Ack[Any]", entry.future)
        except Conflict as conflict:
            entry.future.set_exception(conflict)
            return cast("Ack[Any]", entry.future)
        if not wait:
            if no_space is not None and not self._waits_for_others(entry):
                raise no_space
            raise Backpressure(
                f"no room: {self._placement.unwritten_bytes} bytes are pending, and {counted(len(self._waiting), 'append')} before this one",
                path=self._path,
                lsn=self._placement.next_lsn,
                expected=f"at most {self._config.max_pending_bytes} pending bytes and a prepared segment",
                hint="await append instead, or try again later",
            )
        self._add(entry)
        self._placement.intake.want()
        return cast("Ack[Any]", entry.future)

    @whole("accepting records")
    def enter_plain(
        self, payloads: list[bytes], lengths: array[int], size: int, *, answer: Any, request: Request | None
    ) -> bool:
        """Accept records without labels where that takes no closer look; False: it does. See Accepting.accept_plain."""
        return self._accepting.accept_plain(payloads, lengths, size, answer=answer, request=request)

    def _add(self, entry: QueuedAppend) -> None:
        """Let an entry wait, behind all others. Cancelled while it waits it leaves the queue at once."""
        self._waiting[entry] = None
        entry.future.add_done_callback(partial(self._leave, entry))
        self._placement.hold(True)
        if self._health.in_source:
            refuse_own = partial(self._refuse_own, entry)
            when_awaited(asyncio.current_task(), entry.future, refuse_own)

    def _refuse_own(self, entry: QueuedAppend) -> None:
        """The source of a batch waits for an append behind its batch."""
        entry.future.set_exception(from_source(self._path))
        self.move_up()

    @whole("leaving the queue")
    def _leave(self, entry: QueuedAppend, future: asyncio.Future[Any]) -> None:
        if future.cancelled() and entry in self._waiting:
            del self._waiting[entry]
            self.move_up()  # it may have been the one that the others waited for

    # ---- having the log alone

    @whole("taking a turn")
    def take_turn(self) -> Turn:
        """Queue for having the log alone: every append called before comes first, every later one waits."""
        entry = QueuedAppend([], Strict, None, batch=False, future=self._health.loop.create_future())
        if self._holds or self._waiting:
            self._add(entry)
        else:
            self.hold(1)
            entry.future.set_result(None)
        return Turn(self, entry.future)

    @whole("ending a turn")
    def end_turn(self, turn: Turn) -> None:
        """For Turn.end."""
        if turn.leave():
            self.hold(-1)

    @whole("holding appends")
    def hold(self, change: int) -> None:
        """Let new appends wait (1), or no longer (-1)."""
        self._holds += change
        if self._holds:
            self._placement.hold(True)
        else:
            self.move_up()

    @whole("refusing calls that wait")
    def refuse(self, error: WalError) -> None:
        """Give `error` to every call that waits for room or for a turn. Later calls wait."""
        self._refusal = error
        try:
            self.look_again()
        finally:
            self._refusal = None

    async def room_change(self, *, metadata: bool = False) -> None:
        """Wait for a change of what room there is, for records or for `metadata`. Raises what ends all waiting: NoSpace,
        DurabilityLost."""
        await self._waits.room()
        self._health.raise_failure()
        lent = metadata and self._tail.spares.fitting(metadata=True) is not None
        if not lent and (no_space := self.no_space()) is not None:
            raise no_space

    # ---- moving up

    @whole("going on with a prepared segment")
    def spare_ready(self) -> None:
        """A preparation of a segment has ended. A shortage is the callers' matter; any other error is terminal."""
        error = self._tail.spares.error
        if self._health.released:
            return
        if error is not None and self.no_space() is None:
            place = (self._tail.segment.id, 0, self._placement.next_lsn)
            self._health.fail("preparing the next segment failed", error, place)
        self.move_up()

    @whole("accepting what waited")
    def move_up(self) -> None:
        """Room may have become available, or never will: let the queue move up, in order; tell it of a shortage."""
        self.look_again()

    def look_again(self) -> None:
        """Do so for callers that fail the log themselves where an exception cuts it short."""
        self._first()
        while self._waiting:
            entry = next(iter(self._waiting))
            if not entry.future.done():
                try:
                    if not self._admit(entry):
                        if not self._placement.group.empty:
                            self._placement.intake.want()
                        break
                except WalError as error:
                    if not entry.future.done():
                        entry.future.set_exception(error)
            self._waiting.pop(entry, None)
        self._placement.hold(self._holds > 0 or bool(self._waiting))
        self._waits.wake_room()
        if self._health.over:
            self._waits.wake_beyond(self._placement.next_lsn)
            self._waits.wake_topics()

    def _admit(self, entry: QueuedAppend) -> bool:
        """Give the first entry of the queue what it waits for; False if it must go on waiting. Raises what ends its wait."""
        if (error := self.refusal()) is not None:
            raise error
        if self._holds:
            return False
        if entry.payloads:
            no_space = self.no_space()
            if self._accepting.accept(entry, prepare=no_space is None):
                return True
            if no_space is not None and not self._waits_for_others(entry):
                raise no_space
            return False
        self._holds += 1  # the turn of one that wants the log for itself
        entry.future.set_result(None)
        return True

    def _waits_for_others(self, entry: QueuedAppend) -> bool:
        """True if an entry that is not accepted would have to wait also where segments could be prepared: for a turn to end, or for
        pending bytes to become durable. A shortage is not its matter."""
        return self._holds > 0 or self._accepting.over_pending(entry)
