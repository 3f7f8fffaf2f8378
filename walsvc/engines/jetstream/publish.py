"""Publishing: every message at the one sequence that is its own, in order, several on their way at a time.

Each message names the sequence that must be the stream's last one before it (Nats-Expected-Last-Sequence), so the stream
takes it at its place or not at all: no gap, no order but ours, no second copy however often it is sent, and nothing from a
writer whose place somebody else has taken.

A message whose acknowledgement does not come is not given up at once: a leader may have died with it. Nothing new is sent
then. Message by message, oldest first, the stream is asked what it has at that sequence:

    the very same bytes     it is stored, only the answer was lost
    other bytes             another writer has taken the stream over: TakenOver
    nothing                 it is sent again, as long as the time lasts; it cannot be stored twice

Only when the time is over, or the stream refuses for a reason that stays, is the outcome a failure. It is terminal, as a
failed sync is: nobody may be told that a record is safe behind one of which that is not known.
"""

from __future__ import annotations

import asyncio
import errno
import json
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from walsvc.disk.base import TakenOver
from walsvc.engines.jetstream.channel import Channel
from walsvc.engines.jetstream.message import WINDOW, BadMessage, Kind, Message, decode_message, encode_message
from walsvc.engines.jetstream.options import PAUSE_SECONDS, REQUEST_SECONDS
from walsvc.engines.jetstream.sent import Done, Sent, sequence_acknowledged
from walsvc.engines.jetstream.stream import ApiError, Stream
from walsvc.errors import WalError
from walsvc.tasks import begin_task

if TYPE_CHECKING:
    from nats.aio.msg import Msg

WRONG_LAST_SEQUENCE = 10071
FULL = frozenset({10002, 10023, 10047, 10054, 10077})
"""JetStream's codes for no room: of the account, of the server, of its store, for this message, of the stream."""
WATCH_SECONDS = REQUEST_SECONDS / 2


class LastStored(NamedTuple):
    """The last message that is stored.

    Attributes:
        sequence: its own.
        base: sequence of the newest whole directory that it names.
    """

    sequence: int
    base: int


class Publisher:
    """The writer of a stream. Loop thread only.

    Attributes:
        epoch: its number.
        base: sequence of the newest whole directory.
        next_sequence: where the next message goes.
        stored: the last message that is stored.
    """

    def __init__(self, stream: Stream, *, stream_id: int, epoch: int, base: int, last: int, last_crc: int) -> None:
        self._stream = stream
        self._stream_id = stream_id
        self.epoch = epoch
        self.base: int = base
        self.next_sequence: int = last + 1
        self.stored: LastStored = LastStored(last, base)
        self._last_crc = last_crc
        self._queue: deque[Sent] = deque()  # not sent yet
        self._in_flight: deque[Sent] = deque()
        self._failure: OSError | None = None
        self._wake = asyncio.Event()
        self._trouble = False
        self._channel = Channel(stream)
        self._task: asyncio.Task[None] | None = None
        self._stopped = False

    async def start(self) -> None:
        """Listen for acknowledgements, and begin to send."""
        await self._channel.open(self._answered)
        self._task = begin_task(self._run())

    async def stop(self) -> None:
        """Wait until everything on its way has an outcome, then end."""
        while self._queue or self._in_flight:
            await self.flushed()
        await self.abort()

    async def abort(self) -> None:
        """End at once. Messages on their way get no outcome."""
        self._stopped = True
        while self._task is not None and not self._task.done():
            self._task.cancel()  # again and again: nats-py swallows one while it publishes
            await asyncio.wait([self._task], timeout=PAUSE_SECONDS)
        await self._channel.close()

    async def flushed(self) -> bool:
        """Wait until every message that was put before has an outcome; returns True if all are stored."""
        sent = next((each[-1] for each in (self._queue, self._in_flight) if each), None)
        if sent is None:
            return self._failure is None
        outcome: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        done = sent.done

        def told(error: OSError | None) -> None:
            done(error)
            if not outcome.done():
                outcome.set_result(error is None)

        sent.done = told
        return await outcome

    # ---- taking

    def put(self, message: Message, done: Done) -> None:
        """Send a message as the next one: sequence, epoch, base and checks are filled in here. Never waits.

        `done` is called on the loop, in order of the calls: with None when a majority has stored the message, with the error
        otherwise. After one error every later message has one, too.
        """
        sequence = self.next_sequence
        if message.kind == Kind.DIRECTORY and message.part == message.parts - 1:
            self.base = sequence - message.part  # not before it is whole
        placed = message._replace(
            stream_id=self._stream_id,
            sequence=sequence,
            epoch=self.epoch,
            base=self.base,
            previous_crc=self._last_crc,
        )
        data, self._last_crc = encode_message(placed)
        self.next_sequence = sequence + 1
        self._queue.append(Sent(sequence, self.base, data, done))
        if self._failure is None:
            self._wake.set()
        else:
            asyncio.get_running_loop().call_soon(self._tell_failure)

    # ---- sending

    async def _run(self) -> None:
        try:
            while self._failure is None and not self._stopped:
                if self._trouble:
                    await self._settle()
                elif self._queue and len(self._in_flight) < WINDOW:
                    await self._send(self._queue.popleft())
                else:
                    await self._wait()
        except asyncio.CancelledError:
            if not self._stopped:
                self._fail(OSError(errno.ECANCELED, "the task that publishes was cancelled from outside"))
            raise
        except Exception as error:  # noqa: BLE001  whatever ends this task, those who wait must hear of it
            self._fail(error if isinstance(error, OSError) else OSError(errno.EIO, f"publishing ended: {error!r}"))

    async def _wait(self) -> None:
        """Wait until there is something to do. An acknowledgement that does not come in time is trouble, too."""
        try:
            async with asyncio.timeout(WATCH_SECONDS if self._in_flight else None):
                await self._wake.wait()
            self._wake.clear()
        except TimeoutError:
            late = time.monotonic() - REQUEST_SECONDS
            self._trouble = self._trouble or any(sent.sent_at < late for sent in self._in_flight)

    async def _send(self, sent: Sent) -> None:
        from nats.errors import Error

        self._in_flight.append(sent)
        sent.sent_at = time.monotonic()
        try:
            await self._channel.publish(sent)
        except Error:
            self._trouble = True

    async def _answered(self, reply: Msg) -> None:
        """An acknowledgement, or a refusal, of one message."""
        sequence = int(reply.subject.rpartition(".")[2])
        if sequence_acknowledged(reply.data) != sequence:
            self._trouble = True
            self._wake.set()
            return
        for sent in self._in_flight:
            if sent.sequence == sequence:
                sent.acknowledged = True
        self._complete()

    def _complete(self) -> None:
        """Call `done` of the messages that are stored, in order."""
        if self._failure is not None:
            return
        while self._in_flight and self._in_flight[0].acknowledged:
            sent = self._in_flight.popleft()
            self.stored = LastStored(sent.sequence, sent.base)
            sent.done(None)
            self._wake.set()

    # ---- trouble

    async def _settle(self) -> None:
        """Find out what became of the messages on their way, oldest first, sending again what the stream does not have."""
        reason: object = "no acknowledgement came"
        try:
            async with asyncio.timeout(self._stream.timeout) as limit:
                while self._in_flight:
                    sent = self._in_flight[0]
                    if not sent.acknowledged:
                        reason = await self._settle_one(sent) or reason
                    if self._failure is not None or self._stopped:
                        return
                    if sent.acknowledged:
                        self._complete()
                    elif limit.expired():
                        raise TimeoutError  # it was swallowed
                    else:
                        await asyncio.sleep(PAUSE_SECONDS)
            self._trouble = False
        except TimeoutError:
            self._fail(OSError(errno.ETIMEDOUT, f"no majority acknowledged within {self._stream.timeout} s: {reason}"))
        except WalError as error:
            self._fail(OSError(errno.ETIMEDOUT, error.message))

    async def _settle_one(self, sent: Sent) -> object:
        """One attempt to have one message acknowledged; returns why it was not."""
        from nats.errors import Error, NoRespondersError

        stored = await self._stream.stored(sent.sequence)
        if stored is not None:
            sent.acknowledged = stored == sent.data
            if not sent.acknowledged:
                self._fail(self._taken_over(stored, sent.sequence))
            return None
        try:
            reply = await self._channel.request(sent)
        except NoRespondersError as error:
            return error if await self._stream.info() else "the stream is gone; somebody has deleted it"
        except Error as error:
            return error or type(error).__name__
        sent.acknowledged = sequence_acknowledged(reply.data) == sent.sequence
        if sent.acknowledged:
            return None
        refusal = refusal_of(reply)
        if refusal.code in FULL:
            self._fail(OSError(errno.ENOSPC, f"JetStream has no room: {refusal}"))
        elif refusal.code == WRONG_LAST_SEQUENCE:
            await self._check_last(sent.sequence)
        return refusal

    async def _check_last(self, sequence: int) -> None:
        """Fail where the stream's last message is not the one before ours: either another writer has gone on, or the stream has lost
        what it had acknowledged."""
        info = await self._stream.info()
        last = -1 if info is None else info["state"]["last_seq"]
        if last < sequence - 1:
            self._fail(
                OSError(errno.EIO, f"the stream ends with message {last}, though {sequence - 1} had been acknowledged")
            )
        elif last > sequence and (stored := await self._stream.stored(last)) is not None:
            self._settle_purged(stored, last)

    def _settle_purged(self, stored: bytes, last: int) -> None:
        """Fail where another writer has gone on and may have purged our place."""
        try:
            other = decode_message(stored, stream_id=self._stream_id, sequence=last)
            taken = other.epoch > self.epoch or other.kind == Kind.CLAIM
        except BadMessage:
            taken = True
        if taken:
            self._fail(self._taken_over(stored, last))

    def _taken_over(self, stored: bytes, sequence: int) -> TakenOver:
        try:
            other = decode_message(stored, stream_id=self._stream_id, sequence=sequence)
            by = "it is being opened elsewhere"
            if other.kind != Kind.CLAIM:
                by = f"epoch {other.epoch} has followed {self.epoch}"
        except BadMessage:
            by = "by something else than a walsvc log"
        return TakenOver(errno.ESTALE, f"another writer has taken the stream over at message {sequence}: {by}")

    def _fail(self, error: OSError) -> None:
        if self._failure is None:
            self._failure = error
        self._tell_failure()

    def _tell_failure(self) -> None:
        """Give everything that has no outcome yet the failure."""
        while self._in_flight or self._queue:
            sent = (self._in_flight or self._queue).popleft()
            sent.done(self._failure)


def refusal_of(reply: Msg) -> ApiError:
    """Why the stream did not take a message; with code 0 where it did."""
    return ApiError(json.loads(reply.data or b"{}").get("error", {}))
