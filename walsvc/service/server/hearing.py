"""The incoming side of a connection: bytes to frames, and each frame to the part that carries it out, a slice in each turn."""

from __future__ import annotations

import asyncio
from typing import Protocol

from walsvc.errors import Backpressure, WalError
from walsvc.service.server.budget import Share
from walsvc.service.server.progress import Watch
from walsvc.service.server.turns import APPEND_UNITS, HELLO_UNITS, OPEN_UNITS, QUEUED_UNITS, SLICE, Pace, units_of
from walsvc.service.wire.frames import FIRST, FROM_CLIENT, HELLO_BYTES_MAX, Append, Batch, Call, Frame, Hello, Open
from walsvc.service.wire.protocol import FrameReader

WHY = "slice"
UNITS: dict[type[Frame], int] = {Hello: HELLO_UNITS, Call: QUEUED_UNITS, Open: OPEN_UNITS}


class Hearer(Protocol):
    """The connection."""

    share: Share
    leaving: bool

    @property
    def hears(self) -> bool:
        """True if the next frame may be done now: the client reads its answers, and its log is open."""

    @property
    def streaming(self) -> bool:
        """True if the log waits for more of a batch from there, and all others wait for the log."""

    @property
    def gathered(self) -> int:
        """The bytes that are held of batches that have not gone to the log yet."""

    def do(self, frame: Frame) -> None:
        """Do what a frame says. Raises what ends the connection."""

    def leave(self, error: WalError, reason: str) -> None:
        """End the connection."""

    def pause_reading(self, why: str) -> None:
        """Read nothing more for this reason."""

    def resume_reading(self, *why: str) -> None:
        """These reasons are gone."""


class Hearing:
    """Takes what a client says.

    Attributes:
        frames: how many came since that was asked last.
        more: another one may be done right behind the one that is being done.
    """

    def __init__(self, hearer: Hearer, pace: Pace, watch: Watch) -> None:
        self.frames: int = 0
        self.more: bool = False
        self._loop = asyncio.get_running_loop()
        self._hearer = hearer
        self._pace = pace
        self._watch = watch
        self._reader = FrameReader(FIRST, HELLO_BYTES_MAX)
        self._behind = False  # there may be more frames here, and it is not read from meanwhile
        self._waiting = False  # for its turn
        self._gathers = False  # a part of a batch has come

    @property
    def behind(self) -> bool:
        """True if frames are here that nobody has looked at."""
        return self._behind

    @property
    def foreign(self) -> str | None:
        """The protocol that the client speaks instead, where it is known."""
        return self._reader.foreign

    def welcome(self, frame_bytes: int) -> None:
        """From now on every frame of a client may come, up to so many bytes."""
        self._reader.table = FROM_CLIENT
        self._reader.body_bytes_max = frame_bytes

    def end(self) -> None:
        """Nothing more comes, and what has come of a frame is of no use."""
        self._reader = FrameReader(FIRST, HELLO_BYTES_MAX)

    def receive(self, data: bytes) -> None:
        """Take note of bytes that came."""
        self._watch.heard = True
        self._reader.receive(data)
        self.go_on()

    def go_on(self) -> None:
        """Do what is here, now or when it is this client's turn."""
        if self._hearer.leaving or self._waiting:
            return
        if self._pace.may_go or self._hearer.streaming:
            self._take()
        else:
            self._wait()
            self._count()

    def _wait(self) -> None:
        self._waiting = True
        self._set_behind(behind=True)
        self._pace.later(self._in_turn)

    def _in_turn(self) -> None:
        self._waiting = False
        if not self._hearer.leaving:
            self._take()

    def _take(self) -> None:
        """Do what the next frames say; the first that is wrong ends the connection."""
        hearer = self._hearer
        try:
            more = self._take_slice()
        except WalError as error:
            reason = "protocol"
            if isinstance(error, Backpressure):
                reason = "credit"
            elif self._reader.over_limit:
                reason = "frame"
            hearer.leave(error, reason)
            return
        if hearer.leaving:
            return
        if more and hearer.hears:
            self._wait()
        elif more != self._behind:
            self._set_behind(behind=more)
        if self._reader.more or self._gathers or self._watch.holding or hearer.share.arrived:
            self._count()

    def _take_slice(self) -> bool:
        """Do what the next frames say; True: there may be more of them."""
        hearer, reader = self._hearer, self._reader
        work, more = 0, False
        while reader.more and not hearer.leaving:
            if work >= SLICE or not hearer.hears:
                more = True
                break
            frame = reader.next_frame()
            if frame is None:
                break
            self.frames += 1
            kind = type(frame)
            if kind is Append or kind is Batch:
                work += APPEND_UNITS + units_of(reader.frame_bytes, len(frame.payloads))  # type: ignore[union-attr]
                self._gathers |= kind is Batch
            else:
                work += UNITS.get(kind, 1) + units_of(reader.frame_bytes, 0)
            self.more = reader.more
            hearer.do(frame)
        self.more = False
        if work:
            self._pace.did(work)
        return more

    def _set_behind(self, *, behind: bool) -> None:
        self._behind = behind
        if behind:
            self._hearer.pause_reading(WHY)
        else:
            self._hearer.resume_reading(WHY)

    def _count(self) -> None:
        """Tell the budget and the watch what is held of what is not complete."""
        share, incoming = self._hearer.share, self._reader.incomplete_bytes
        if incoming or share.arrived:
            share.arrive(incoming)
            share.check()
        gathered = self._hearer.gathered
        self._gathers = gathered > 0
        if incoming or gathered or self._watch.holding:
            self._watch.holds(incoming, gathered, self._reader.expected_bytes, self._loop.time())
