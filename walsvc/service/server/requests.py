"""The appends of one connection: APPEND and BATCH frames to the log, and the answers back."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from walsvc.api import Log
from walsvc.errors import Backpressure, BadOption, Denied, ProtocolError, WalError
from walsvc.format.producers import Request
from walsvc.log.commit.ack import all_done
from walsvc.log.commit.group import Labels
from walsvc.log.commit.payload import check_packed
from walsvc.log.commit.producers import append_request, stream_request
from walsvc.log.commit.replicated import Replicated, replica_of
from walsvc.model import Mode, Relaxed, Strict
from walsvc.service.server.auth import Grant
from walsvc.service.server.parts import Parts
from walsvc.service.wire.frames import APPEND_COST, QUORUM, RECORD_COST, RELAXED, STRICT, Ack, Append, Batch, Credit
from walsvc.service.wire.methods import APPEND
from walsvc.service.wire.window import Window
from walsvc.topics.names import check_name

if TYPE_CHECKING:
    from walsvc.service.server.connection import Connection

CANCELLED = "the request was cancelled; what had been accepted of it stays"
MODES: dict[int, Mode] = {STRICT: Strict, RELAXED: Relaxed, QUORUM: Strict}  # what the log is asked for
WAITING_MAX = 16  # times the limit of requests: how many may wait for the replica, of which hardly anything is kept


class Requests:
    """What a connection has asked to append and has not been answered."""

    def __init__(self, connection: Connection, log: Log, grant: Grant, producer: int) -> None:
        self._connection = connection
        self._server = connection.server
        self._log = log
        self._writer = log.writer
        self._may = APPEND in grant.rights
        self._producer = producer
        self._limits = connection.limits
        self._pressure = connection.server.pressure
        self._futures: dict[int, asyncio.Future[Any]] = {}
        self._batches: dict[int, Parts] = {}
        self._waiting: dict[int, asyncio.Future[Any]] = {}  # the log has their records, and the replica not yet
        self._window = Window(self._limits.pending_bytes)  # payloads with APPEND_COST that are not answered
        self._pending_records = 0  # of how many records
        self._seq = 0  # the highest that came on this connection
        self._attributes = b""  # that were found good last

    def __contains__(self, id: int) -> bool:
        return id in self._futures or id in self._batches or id in self._waiting

    @property
    def unanswered(self) -> int:
        """Requests that the log has not answered."""
        return len(self._futures) + len(self._batches)

    # ---- arriving

    def append(self, frame: Append) -> None:
        """APPEND."""
        size, count = sum(map(len, frame.payloads)), len(frame.payloads)
        id = frame.id
        self._admit(frame, size)
        try:
            payloads, labels = frame.payloads, None
            if not self._may:
                raise Denied("this token may not append", hint='it needs the right "append"')
            if not payloads:
                raise BadOption("an APPEND frame has no payload")
            if frame.topic is not None:
                check_name("topic", frame.topic)
            if frame.attributes or frame.type:
                payloads, labels = self._labelled(frame)
            replicated = self._replicated(frame.mode)
            future = append_request(
                self._writer.core,
                payloads,
                MODES[frame.mode],
                labels=labels,
                topic=frame.topic,
                request=self._request(frame),
                expected=frame.expected,
                dedupe=frame.dedupe,
            )
        except WalError as error:
            self._connection.answer_error(id, error)
            return
        self._server.requests["append"] += 1
        self._hold(size, count)
        self._pressure.asked += 1
        if replicated is None:
            self._futures[id] = future
            future.add_done_callback(partial(self._answer, id, size, count))
        else:
            self._futures[id] = self._after(id, future, replicated, size, count)
        if self._pressure.over:
            self._server.relieve(self._connection)

    def _labelled(self, frame: Append) -> tuple[list[bytes], Labels]:
        """The payloads with their attributes in front."""
        if frame.type > 0xFFFF:
            raise BadOption(f"type={frame.type} is out of bounds", hint="allowed: 0 to 65535")
        packed = frame.attributes
        if packed and packed != self._attributes:
            check_packed(packed)
            self._attributes = packed
        payloads = [packed + payload for payload in frame.payloads] if packed else frame.payloads
        return payloads, Labels(frame.type, 0, len(packed))

    def _admit(self, frame: Append | Batch, size: int) -> None:
        """Raise what ends a connection that does not keep to its credit or to the order of its requests."""
        id, seq = frame.id, frame.seq
        if id in self or self._connection.has_session(id):
            raise ProtocolError(f"request {id} is not answered yet, and its id came again")
        if not self._window.fits(size + APPEND_COST * len(frame.payloads)):
            raise self._over_credit(size, frame, "wait for answers before sending more")
        if self.unanswered >= self._limits.requests:
            raise Backpressure(
                f"{self.unanswered} requests are unanswered on this connection",
                expected=f"at most {self._limits.requests}",
                hint="wait for answers before sending more",
            )
        if seq:
            if seq <= self._seq:
                raise ProtocolError(f"request number {seq} came after {self._seq}", hint="they ascend on a connection")
            self._seq = seq

    def _over_credit(self, size: int, frame: Append | Batch, hint: str) -> Backpressure:
        records = self._pending_records + len(frame.payloads)
        pending = self._window.used - APPEND_COST * self._pending_records + size
        return Backpressure(
            f"{pending} payload bytes are unanswered on this connection, of {records} records",
            expected=f"at most {self._window.size} with {APPEND_COST} for each record",
            hint=hint,
        )

    def _request(self, frame: Append | Batch) -> Request | None:
        if not self._producer or not frame.seq:
            return None
        return Request(self._producer, frame.seq, min(frame.done, frame.seq), frame.since)

    def _replicated(self, mode: int) -> Replicated | None:
        """The replica that a request of this mode waits for, after the log. Raises what makes that vain."""
        if mode not in MODES:
            raise BadOption(f"mode {mode} is not known", hint="0: Strict, 1: Relaxed, 2: Quorum")
        if mode != QUORUM:
            return None
        if len(self._waiting) >= WAITING_MAX * self._limits.requests:
            raise Backpressure(
                f"{len(self._waiting)} requests of this connection wait for the replica, which is behind",
                expected=f"at most {WAITING_MAX * self._limits.requests}",
                hint="wait for answers, or append with mode=Strict",
            )
        return replica_of(self._writer.core)

    # ---- batches

    def batch(self, frame: Batch) -> None:
        """BATCH."""
        size = sum(map(len, frame.payloads))
        parts = self._batches.get(frame.id)
        if parts is None:
            if frame.part > 0:
                return  # of a batch that is answered already: repeated, refused or cancelled
            self._admit(frame, size)
            try:
                if not self._may:
                    raise Denied("this token may not append", hint='it needs the right "append"')
                replicated = self._replicated(frame.mode)
                if frame.topic is not None:
                    check_name("topic", frame.topic)
                request = self._request(frame)
                known = request is not None and self._writer.core.metadata.producers.find(request) is not None
            except WalError as error:
                self._connection.answer_error(frame.id, error)
                return
            self._server.requests["batch"] += 1
            parts = self._batches[frame.id] = Parts(frame, replicated)
            if known:
                self._start(frame.id, parts, self._streamed(frame, parts))
            elif frame.since:
                self._connection.send(Credit(frame.id, 0))  # a client that cannot send all of it again must know
        elif frame.part != parts.following:
            raise ProtocolError(f"part {frame.part} of batch {frame.id} came", expected=f"part {parts.following}")
        elif not self._window.fits(size + APPEND_COST * len(frame.payloads)):
            raise self._over_credit(size, frame, "a batch in parts waits for CREDIT")
        parts.add(frame, size)
        self._hold(size, len(frame.payloads))
        if parts.future is None:
            self._begin_batch(frame.id, parts)
        self._server.relieve(self._connection)

    def _begin_batch(self, id: int, parts: Parts) -> None:
        """Give a batch to the log: whole where it is small, else as soon as there is a group of it, since the log is held up
        from then on until its end."""
        first, config = parts.first, self._log.config
        small = parts.bytes + RECORD_COST * parts.records <= min(config.max_group_bytes, config.max_batch_bytes)
        if small and not parts.last:
            return
        try:
            if small:
                payloads = list(parts.payloads)
                request = self._request(first)
                future = append_request(
                    self._writer.core,
                    payloads,
                    MODES[first.mode],
                    topic=first.topic,
                    request=request,
                    expected=first.expected,
                )
                self._start(id, parts, future)
            else:
                self._start(id, parts, self._streamed(first, parts))
        except WalError as error:
            self._drop(id)
            self._connection.answer_error(id, error)

    def _start(self, id: int, parts: Parts, future: asyncio.Future[Any]) -> None:
        self._pressure.asked += 1
        if parts.replicated is None:
            parts.future = future
            future.add_done_callback(partial(self._answer_batch, id))
        else:
            parts.future = self._after(id, future, parts.replicated, 0, 0)

    def _after(
        self, id: int, future: asyncio.Future[Any], replicated: Replicated, size: int, count: int
    ) -> asyncio.Future[Any]:
        """The future of a request that waits for the replica, too. What it holds of the server is given free as soon as the
        log has answered, so that no outage of the replica stops anybody who does not wait for it."""
        answer = replicated.after(future)
        future.add_done_callback(partial(self._stored, id, size, count, answer))
        answer.add_done_callback(partial(self._tell, id))
        return answer

    def _stored(self, id: int, size: int, count: int, answer: asyncio.Future[Any], _: asyncio.Future[Any]) -> None:
        if id in self._batches:
            self._drop(id)
        self._futures.pop(id, None)
        if not answer.done():
            self._waiting[id] = answer
        self._release(size, count)

    def _streamed(self, first: Batch, parts: Parts) -> Any:
        """Give the log a batch of which more parts may come."""
        source = parts.source(self._limits, partial(self._consumed, first.id, parts))
        request = self._request(first)
        return stream_request(self._writer.core, source, first.topic, request, expected=first.expected)

    def _consumed(self, id: int, parts: Parts, taken: int, records: int) -> None:
        if self._batches.get(id) is not parts:
            return
        parts.bytes -= taken
        parts.records -= records
        self._hold(-taken, -records)
        if records and not parts.last:
            self._connection.send(Credit(id, taken + APPEND_COST * records))

    def _drop(self, id: int) -> None:
        """A batch is over."""
        parts = self._batches.pop(id)
        parts.payloads.clear()
        self._hold(-parts.bytes, -parts.records)
        parts.bytes = parts.records = 0

    @property
    def streaming(self) -> bool:
        """Whether the log waits for more of a batch of this connection, which must be read then."""
        return any(parts.future is not None and not parts.last for parts in self._batches.values())

    @property
    def gathered(self) -> int:
        """How much is held of batches that have not gone to the log yet, bytes and records together."""
        return (
            sum(parts.bytes + parts.records for parts in self._batches.values() if parts.future is None)
            if self._batches
            else 0
        )

    @property
    def gathering(self) -> bool:
        """Whether there is a part of a batch that has not gone to the log yet."""
        return any(parts.future is None for parts in self._batches.values())

    # ---- answering

    def _answer_batch(self, id: int, future: asyncio.Future[Any]) -> None:
        if id in self._batches:
            self._drop(id)
        self._answer(id, 0, 0, future)

    def _answer(self, id: int, size: int, count: int, future: asyncio.Future[Any]) -> None:
        """The log has answered: ACK or ERROR."""
        self._futures.pop(id, None)
        self._release(size, count)
        self._tell(id, future)

    def _hold(self, size: int, count: int) -> None:
        """So many more payload bytes and records are held, or fewer: a record without payload is an object, too."""
        self._window.take(size + APPEND_COST * count)
        self._pending_records += count
        self._pressure.charge(size + RECORD_COST * count)

    def _release(self, size: int, count: int) -> None:
        """The log has answered a request of so many bytes and records."""
        self._hold(-size, -count)
        self._pressure.answered()

    def _tell(self, id: int, future: asyncio.Future[Any]) -> None:
        """ACK or ERROR."""
        self._waiting.pop(id, None)
        connection = self._connection
        if future.cancelled():
            connection.answer_error(id, WalError(CANCELLED))
            return
        error = future.exception()
        if error is None:
            result = future.result()
            places = [list(place) for place in result.places]
            duplicate = result[0].encoded_len if getattr(result, "duplicate", False) else None
            connection.send(Ack(id, places, result.durable, result.sync_us, connection.state, duplicate))
        elif isinstance(error, WalError):
            connection.answer_error(id, error)
        else:
            connection.fail(error)

    # ---- ending

    def cancel(self, id: int) -> None:
        """CANCEL: what waits for room is not accepted any more; what was accepted stays, and only the wait ends."""
        if (future := self._futures.get(id) or self._waiting.get(id)) is not None:
            future.cancel()
        parts = self._batches.get(id)
        if parts is not None:
            if parts.future is not None:
                parts.future.cancel()
            else:
                self._drop(id)
                self._connection.answer_error(id, WalError(CANCELLED))

    def give_up(self) -> None:
        """The connection is over: nobody waits, and what is not accepted never will be."""
        for future in [*self._futures.values(), *self._waiting.values()]:
            future.cancel()
        for id, parts in list(self._batches.items()):
            if parts.future is not None:
                parts.future.cancel()
            else:
                self._drop(id)

    async def settled(self) -> None:
        """Wait until everything that came whole is answered; a batch whose end is missing is given up."""
        for parts in list(self._batches.values()):
            if parts.future is not None and not parts.last:
                parts.future.cancel()
        waiting = [*self._futures.values(), *self._waiting.values()]
        waiting += [parts.future for parts in self._batches.values() if parts.future is not None]
        if waiting:
            await all_done(waiting)
