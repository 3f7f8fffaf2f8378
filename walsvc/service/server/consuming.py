"""Consumers of a log that clients have open: a connection's own, and those that it shares with others."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from typing import Any, TypeVar

from walsvc.api import Log
from walsvc.config import between
from walsvc.errors import BadOption, Closed, WalError
from walsvc.service.server.limits import STREAM_BYTES, STREAM_RECORDS
from walsvc.service.server.line import Line
from walsvc.service.server.streams import READ_UNITS, READER_BYTES_MAX, Stream
from walsvc.service.wire.columns import packed_labels, records_frame
from walsvc.service.wire.frames import Open
from walsvc.topics.consumer import Consumer
from walsvc.topics.delivery import AtLeastOnce, Delivery, StrictlyOnce
from walsvc.topics.hub import Hub
from walsvc.topics.leases import Lease
from walsvc.topics.names import Start
from walsvc.topics.shared import LocalConsumer, LocalDelivery
from walsvc.topics.sharing import OUTSTANDING_MAX
from walsvc.topics.supply import Place


class Holding(Stream):
    """A stream that holds a consumer open: it is the connection's until it is closed."""

    consumer: Consumer | LocalConsumer

    async def close(self) -> None:
        """Stop, and give the consumer free."""
        raise NotImplementedError


DELIVERY = [int, int, str]  # types of LSN, attempt and token
FIRST_RECORDS = 64  # of a consumer, before it is known how long their attributes are
HoldingT = TypeVar("HoldingT", bound=Holding)


class SharedStream(Holding):
    """A shared consumer of the log for a client. It sends nothing by itself."""

    def __init__(self, line: Line, id: int, consumer: LocalConsumer) -> None:
        super().__init__(line, id, 0)
        self.consumer: LocalConsumer = consumer

    async def answers(self, max_bytes: int, max_records: int, *, each: bool) -> AsyncIterator[dict[str, Any]]:
        """Answers of shared.next: one. With `each`, until each of `max_records` calls of the client has its record: all of them wait at the
        place of the first."""
        between("max_bytes", max_bytes, 1, 1 << 62)
        between("max_records", max_records, 1, OUTSTANDING_MAX if each else 1 << 62)
        if not each:
            yield await self._next(max_bytes, max_records, Place())
            return
        place = Place(max_records)
        while place.calls:
            answer = await self._next(max_bytes, place.calls, place)
            place.calls -= len(answer["attempts"])
            yield {**answer, "more": place.calls}

    async def _next(self, max_bytes: int, max_records: int, place: Place) -> dict[str, Any]:
        """The next records, one at least. Given up it takes nothing."""
        hub = self.consumer.open_hub()
        given = await self.consumer.batch_at(place, min(max_bytes, STREAM_BYTES), min(max_records, STREAM_RECORDS))
        try:
            await self._line.writable()
        except BaseException:
            for each in given:
                hub.unseen(each.lease)
            raise
        return self._answer(hub, given)

    async def ahead(self, max_bytes: int, max_records: int) -> dict[str, Any] | None:
        """What is there and the client will ask for, as an answer of shared.next. None: nothing, or others wait for it, or the client
        does not take what it is sent."""
        line = self._line
        if not max_records or line.leaving or line.stuck or line.share.full:
            return None
        given = await self.consumer.ahead(min(max_bytes, STREAM_BYTES), min(max_records, STREAM_RECORDS))
        return self._answer(self.consumer.open_hub(), given) if given else None

    def _answer(self, hub: Hub, given: list[LocalDelivery]) -> dict[str, Any]:
        """Deliveries as a client is told of them. What is too long for one answer goes out again, as if it had not been out."""
        labels: list[bytes] = []
        size = 0
        for index, each in enumerate(given):
            packed = packed_labels(each.record)
            size += len(packed)
            if size > STREAM_BYTES and index:
                for late in given[index:]:
                    hub.unseen(late.lease)
                del given[index:]
                break
            labels.append(packed)
        frame = records_frame(self.id, 0, [each.record for each in given], labels, [])
        now = self._loop.time()
        left = [None if each.deadline is None else each.deadline - now for each in given]
        attempts = [each.attempt for each in given]
        return {"records": list(frame[2:-1]), "attempts": attempts, "left": left, "token": hub.past.token}

    async def leases(self, rows: list[Any]) -> list[Lease]:
        """The deliveries that a client speaks of. Raises LeaseLost, BadOption."""
        found: list[Lease] = []
        worker, jobs = self.consumer.worker, self.consumer.open_hub().leases.jobs
        for row in rows:
            if type(row) is not list or [*map(type, row)] != DELIVERY:
                raise BadOption("a delivery is [lsn, attempt, token]")
            lsn, attempt, token = row
            hub, job = self.consumer.open_hub(), jobs.get(lsn)
            if job is not None:
                found.append(hub.spoken_of(job, attempt, token, worker))
            else:
                found.append(await hub.find(lsn, attempt, token, worker))
        return found

    async def close(self) -> None:
        """Others get what the client had, at once."""
        await self.consumer.close()


class ConsumerStream(Holding):
    """A consumer of the log for a client. It is the connection's until it is closed."""

    def __init__(self, line: Line, id: int, credit: int, consumer: Consumer) -> None:
        super().__init__(line, id, credit)
        self.consumer: Consumer = consumer
        self._moving = asyncio.Lock()
        self._records_max = FIRST_RECORDS  # that are read at once: fewer where they have long attributes

    async def deliver(self) -> None:
        """Send what the consumer reads until this is cancelled. After an error it waits to be moved."""
        while True:
            await self.rest()
            await self._line.pace.turn(READ_UNITS)
            try:
                size = min(self._window.left, STREAM_BYTES)
                records = await self.consumer.read_batch(size, self._records_max)
            except WalError as error:
                self._line.answer_error(self.id, error)
                if isinstance(error, Closed):
                    return
                await self._loop.create_future()  # until it is cancelled: seek begins anew
            else:
                turns, labels = self.consumer.turns, 0
                for record in records:
                    labels += self.add(record)
                    if self._labels_bytes >= STREAM_BYTES:
                        self.flush(turns)
                self.flush(turns)
                self._records_max = max(min(STREAM_RECORDS, STREAM_BYTES * len(records) // (labels + 1)), 1)

    def _held(self) -> int:
        return READER_BYTES_MAX if self.consumer.reads_ahead else 0

    def let_go(self) -> None:
        self.consumer.let_go()

    def begin(self) -> None:
        """Deliver from the consumer's position on."""
        self.start(self.deliver())

    async def seek(self, to: Start) -> int:
        """See Consumer.seek; returns the position."""
        async with self._moving:
            try:
                await self.stop()
                await self.consumer.seek(to)
            finally:
                self.begin()
            return self.consumer.position

    async def close(self) -> None:
        """Stop and give the name free."""
        async with self._moving:
            await self.stop()
            await self.consumer.close()


async def open_shared(log: Log, line: Line, frame: Open, args: dict[str, Any]) -> tuple[Stream, dict[str, Any]]:
    """The shared consumer that an OPEN asks for."""
    owner: Any = log if args["topic"] is None else log.topic(args["topic"])
    consumer: LocalConsumer = await owner.consumer(args["name"], start=args["start"], shared=True, **args["options"])
    return SharedStream(line, frame.id, consumer), {"sharing": dataclasses.asdict(consumer.sharing)}


async def open_consumer(log: Log, line: Line, frame: Open, args: dict[str, Any]) -> tuple[Stream, dict[str, Any]]:
    """The consumer that an OPEN asks for."""
    every = args["persist_every"]
    delivery: Delivery = StrictlyOnce() if every == 1 else AtLeastOnce(every)
    owner: Any = log if args["topic"] is None else log.topic(args["topic"])
    consumer: Consumer = await owner.consumer(args["name"], delivery, args["start"])
    consumer.turn = line.share.turn
    stream = ConsumerStream(line, frame.id, frame.credit, consumer)
    stream.begin()
    return stream, {"position": consumer.position, "topic": consumer.topic}


OPENED = {"consumer": open_consumer, "shared": open_shared}
