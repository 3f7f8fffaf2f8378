"""The appends of one connection: APPEND and BATCH frames to the log, and the answers back."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from walsvc.api import Log
from walsvc.errors import Backpressure, BadOption, Denied, ProtocolError, WalError
from walsvc.format.producers import Request
from walsvc.log.commit.ack import all_done
from walsvc.log.group import Labels
from walsvc.log.payload import check_packed
from walsvc.log.producers import append_request, stream_request
from walsvc.log.replicated import Replicated, replica_of
from walsvc.model import Mode, Relaxed, Strict
from walsvc.service.server.auth import APPEND, Grant
from walsvc.service.server.parts import Parts
from walsvc.service.wire.frames import QUORUM, RELAXED, STRICT, Ack, Append, Batch, Credit
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
        self._pending_bytes = 0
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
        size = sum(map(len, frame.payloads))
        id = frame.id
        self._admit(id, size, frame.seq)
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
            )
        except WalError as error:
            self._connection.answer_error(id, error)
            return
        self._server.requests["append"] += 1
        self._pending_bytes += size
        self._pressure.charge(size)
        self._pressure.asked += 1
        if replicated is None:
            self._futures[id] = future
            future.add_done_callback(partial(self._answer, id, size))
        else:
            self._futures[id] = self._after(id, future, replicated, size)
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

    def _admit(self, id: int, size: int, seq: int) -> None:
        """Raise what ends a connection that does not keep to its credit or to the order of its requests."""
        if id in self or self._connection.has_session(id):
            raise ProtocolError(f"request {id} is not answered yet, and its id came again")
        if self._pending_bytes and self._pending_bytes + size > self._limits.pending_bytes:
            raise Backpressure(
                f"{self._pending_bytes + size} payload bytes are unanswered on this connection",
                expected=f"at most {self._limits.pending_bytes}",
                hint="wait for answers before sending more",
            )
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
            self._admit(frame.id, size, frame.seq)
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
        elif self._pending_bytes + size > max(self._limits.pending_bytes, size):
            raise Backpressure(
                f"{self._pending_bytes + size} payload bytes are unanswered on this connection",
                expected=f"at most {self._limits.pending_bytes}",
                hint="a batch in parts waits for CREDIT",
            )
        parts.add(frame, size)
        self._pending_bytes += size
        self._pressure.charge(size)
        if parts.future is None:
            self._begin_batch(frame.id, parts)
        self._server.relieve(self._connection)

    def _begin_batch(self, id: int, parts: Parts) -> None:
        """Give a batch to the log: whole where it is small, else as soon as there is a group of it, since the log is held up
        from then on until its end."""
        first, config = parts.first, self._log.config
        small = parts.bytes <= min(config.max_group_bytes, config.max_batch_bytes)
        if small and not parts.last:
            return
        try:
            if small:
                payloads = list(parts.payloads)
                request = self._request(first)
                self._start(
                    id,
                    parts,
                    append_request(self._writer.core, payloads, MODES[first.mode], topic=first.topic, request=request),
                )
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
            parts.future = self._after(id, future, parts.replicated, 0)

    def _after(self, id: int, future: asyncio.Future[Any], replicated: Replicated, size: int) -> asyncio.Future[Any]:
        """The future of a request that waits for the replica, too. What it holds of the server is given free as soon as the
        log has answered, so that no outage of the replica stops anybody who does not wait for it."""
        answer = replicated.after(future)
        future.add_done_callback(partial(self._stored, id, size, answer))
        answer.add_done_callback(partial(self._tell, id))
        return answer

    def _stored(self, id: int, size: int, answer: asyncio.Future[Any], _: asyncio.Future[Any]) -> None:
        if id in self._batches:
            self._drop(id)
        self._futures.pop(id, None)
        if not answer.done():
            self._waiting[id] = answer
        self._release(size)

    def _streamed(self, first: Batch, parts: Parts) -> Any:
        """Give the log a batch of which more parts may come."""
        source = parts.source(self._limits, lambda credit: self._consumed(first.id, parts, credit))
        return stream_request(self._writer.core, source, first.topic, self._request(first))

    def _consumed(self, id: int, parts: Parts, credit: int) -> None:
        if self._batches.get(id) is not parts:
            return
        parts.bytes -= credit
        self._pending_bytes -= credit
        self._pressure.charge(-credit)
        if credit and not parts.last:
            self._connection.send(Credit(id, credit))

    def _drop(self, id: int) -> None:
        """A batch is over."""
        parts = self._batches.pop(id)
        parts.payloads.clear()
        self._pending_bytes -= parts.bytes
        self._pressure.charge(-parts.bytes)
        parts.bytes = 0

    @property
    def streaming(self) -> bool:
        """Whether the log waits for more of a batch of this connection, which must be read then."""
        return any(parts.future is not None and not parts.last for parts in self._batches.values())

    @property
    def gathering(self) -> bool:
        """Whether there is a part of a batch that has not gone to the log yet."""
        return any(parts.future is None for parts in self._batches.values())

    # ---- answering

    def _answer_batch(self, id: int, future: asyncio.Future[Any]) -> None:
        if id in self._batches:
            self._drop(id)
        self._answer(id, 0, future)

    def _answer(self, id: int, size: int, future: asyncio.Future[Any]) -> None:
        """The log has answered: ACK or ERROR."""
        self._futures.pop(id, None)
        self._release(size)
        self._tell(id, future)

    def _release(self, size: int) -> None:
        """The log has answered a request of so many bytes."""
        self._pending_bytes -= size
        self._pressure.charge(-size)
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
            connection.send(
                Ack(id, [list(place) for place in result.places], result.durable, result.sync_us, connection.state)
            )
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
