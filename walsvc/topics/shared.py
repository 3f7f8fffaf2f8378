"""Shared consumers as programs see them: a work queue over a topic, and the deliveries that it hands out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from walsvc.config import between
from walsvc.errors import BadOption, Closed, LeaseLost, WalError
from walsvc.model import Record
from walsvc.scope import Scoped
from walsvc.tasks import TaskLock
from walsvc.topics.acking import AS_USUAL, Keeping, Terms
from walsvc.topics.delivering import BATCH_BYTES, BATCH_RECORDS
from walsvc.topics.names import ConsumerStatus, Start
from walsvc.topics.pending import Pending, claim, delivered_lsn, out_of, pending_of, settle, take_new
from walsvc.topics.registry import status_of_hub
from walsvc.topics.sharing import Sharing, check_delay, check_lease
from walsvc.topics.supply import Place

if TYPE_CHECKING:
    from types import TracebackType

    from walsvc.topics.feed import Out
    from walsvc.topics.hub import Hub
    from walsvc.topics.leases import Lease


class Delivery(ABC):
    """One record, out with one worker. As a context manager it is acknowledged on success and given back on an exception.

    Attributes:
        record: the record.
        attempt: 1 for the first delivery of the record. After a crash it may be one too low.
    """

    __slots__ = ("_ended", "attempt", "record")

    def __init__(self, record: Record, attempt: int) -> None:
        self.record: Record = record
        self.attempt: int = attempt
        self._ended = False

    @property
    @abstractmethod
    def deadline(self) -> float | None:
        """When others may get the record, on the loop's clock, as asyncio.timeout_at takes it; None: never."""

    async def ack(self) -> None:
        """The record is done, durably when this returns: nobody gets it again.

        That may be in any order, and also behind the deadline as long as nobody else has got the record.

        Raises:
            LeaseLost: somebody else has it, or the dead-letter topic. NoSpace: try again when there is room. Closed,
            DurabilityLost.
        """
        await self._ack()
        self._ended = True

    async def nak(self, delay: float = 0.0) -> None:
        """Give the record back: it goes out again, after `delay` seconds (0 to a year), or to the dead-letter topic if that was
        its last attempt. Raises LeaseLost and what `ack` raises."""
        check_delay("delay", delay)
        await self._nak(delay)
        self._ended = True

    async def extend(self, seconds: float) -> None:
        """Have the record until `seconds` (0.001 to 604,800) from now. LeaseLost behind the deadline."""
        check_lease("seconds", seconds)
        await self._extend(seconds)

    @abstractmethod
    async def _ack(self) -> None: ...
    @abstractmethod
    async def _nak(self, delay: float) -> None: ...
    @abstractmethod
    async def _extend(self, seconds: float) -> None: ...

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ended:
            return
        if error is None:
            await self.ack()
            return
        try:
            await self.nak()
        except LeaseLost:
            pass  # somebody has it
        except WalError as failed:
            error.add_note(f"the record was not given back: {failed}")

    def __repr__(self) -> str:
        return f"Delivery(lsn={self.record.lsn}, attempt={self.attempt})"


def several(deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
    """The deliveries that are to be acknowledged together. BadOption for what is no sequence of deliveries."""
    if not isinstance(deliveries, Sequence):
        raise BadOption(
            f"ack takes several deliveries, not {type(deliveries).__name__}",
            hint="one is acknowledged by delivery.ack()",
        )
    return deliveries


class LocalDelivery(Delivery):
    """A delivery of a log that is open here."""

    __slots__ = ("consumer", "lease")

    def __init__(self, consumer: LocalConsumer, out: Out) -> None:
        super().__init__(out.record, out.lease.attempt)
        self.consumer: LocalConsumer = consumer
        self.lease: Lease = out.lease

    @property
    def deadline(self) -> float | None:
        """See Delivery."""
        return self.lease.deadline

    async def _ack(self) -> None:
        await self.consumer.open_hub().ack([self.lease])

    async def _nak(self, delay: float) -> None:
        await self.consumer.open_hub().give_back(self.lease, delay)

    async def _extend(self, seconds: float) -> None:
        self.consumer.open_hub().extend(self.lease, seconds)


class SharedConsumer(Scoped, ABC):
    """A work queue: any number of tasks, processes and connections have it open at once, and each record goes to one of them.

    Get it by `await topic.consumer(name, shared=True)`. Records go out in the order of their LSNs, and are acknowledged in any.

    Attributes:
        name: its name.
        topic: its topic's name; None: the whole log.
        worker: of a consumer without lease: who it is; else None.
    """

    def __init__(self, topic: str | None, name: str, worker: str | None) -> None:
        self.topic = topic
        self.name = name
        self.worker = worker

    @property
    @abstractmethod
    def sharing(self) -> Sharing:
        """The options that all who have it open have in common."""

    @abstractmethod
    async def next(self) -> Delivery:
        """The next record that is free; waits for one, and while max_outstanding records are out. Cancelled it takes none.

        Raises:
            Closed: the consumer or the log is closed. Truncated: records that were not done have been dropped: seek goes on
            behind the gap. DurabilityLost.
        """

    @abstractmethod
    async def _batch(self, max_bytes: int, max_records: int) -> Sequence[Delivery]: ...

    async def read_batch(self, max_bytes: int = BATCH_BYTES, max_records: int = BATCH_RECORDS) -> Sequence[Delivery]:
        """The next records that are free: at least one, for which it waits; no more than `max_records`, and together no more
        payload than `max_bytes`, unless the first alone is larger."""
        between("max_bytes", max_bytes, 1, 1 << 62)
        between("max_records", max_records, 1, 1 << 62)
        return await self._batch(max_bytes, max_records)

    @abstractmethod
    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge several deliveries of this consumer, all or none of them; see Delivery.ack."""

    @abstractmethod
    async def status(self) -> ConsumerStatus:
        """The consumer's state: lag, records that are out, callers that wait."""

    async def lag(self) -> int:
        """How many records are not done, purged ones included."""
        lag = (await self.status()).lag
        return 0 if lag is None else lag

    @abstractmethod
    async def seek(self, to: Start) -> None:
        """Go on at `to` for all who have it open ("first", "next", or an LSN from first_lsn to next_lsn), durable on return.

        What is out is lost to those who have it; what was done and lies behind `to` goes out again.
        """

    @abstractmethod
    async def close(self) -> None:
        """Give back what this one has, at once; calls that wait get Closed. Others that have it open go on. Idempotent."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delivery:
        """For `async for`: the next delivery, which is to be acknowledged. Ends when the log or the consumer is closed."""
        try:
            return await self.next()
        except Closed:
            raise StopAsyncIteration from None

    def __repr__(self) -> str:
        of = "the log" if self.topic is None else repr(self.topic)
        return f"SharedConsumer({self.name!r} of {of})"


class LocalConsumer(SharedConsumer):
    """A shared consumer of a log that is open here."""

    def __init__(self, hub: Hub, worker: str | None) -> None:
        super().__init__(hub.topic, hub.name, worker)
        self._hub = hub
        self._unseen: list[Out] = []  # of a worker without lease: its own in the log, and not given to the caller yet
        self._keeping = TaskLock()
        hub.enter(self, worker)

    @property
    def sharing(self) -> Sharing:
        """See SharedConsumer."""
        return self._hub.sharing

    def open_hub(self) -> Hub:
        """For deliveries, and for the service: what all who have it open share. Raises Closed."""
        self._hub.check(self)
        return self._hub

    async def next(self) -> LocalDelivery:
        """See SharedConsumer."""
        if self.worker is None:
            return LocalDelivery(self, await self._hub.next(self))
        return (await self._held(1 << 62, 1, Place()))[0]

    async def _batch(self, max_bytes: int, max_records: int) -> Sequence[LocalDelivery]:
        return await self.batch_at(Place(), max_bytes, max_records)

    async def batch_at(self, place: Place, max_bytes: int, max_records: int) -> list[LocalDelivery]:
        """For the service: `read_batch` that waits at a place which the caller keeps from one batch to the next."""
        if self.worker is None:
            return [LocalDelivery(self, out) for out in await self._hub.batch(self, max_bytes, max_records, place)]
        return await self._held(max_bytes, max_records, place)

    async def ahead(self, max_bytes: int, max_records: int) -> list[LocalDelivery]:
        """For the service: what is there, before a caller asks for it; see Hub.ahead. A worker without lease gets nothing ahead."""
        if self.worker is not None:
            return []
        return [LocalDelivery(self, out) for out in await self._hub.ahead(self, max_bytes, max_records)]

    async def _held(self, max_bytes: int, max_records: int, place: Place) -> list[LocalDelivery]:
        """Deliveries that are durable before the caller gets them; one that gives up gets them the next time."""
        async with self._keeping:
            self._unseen = [out for out in self._unseen if self._hub.leases.is_out(out.lease)]
            if not self._unseen:
                self._unseen = await self._hub.batch(self, max_bytes, max_records, place)
            outs = self._unseen[:max_records]
            await self._hub.keep(Keeping(self._hub, [out.lease for out in outs]))
            del self._unseen[: len(outs)]
            return [LocalDelivery(self, out) for out in outs]

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """See SharedConsumer."""
        leases = [self._lease_of(each) for each in several(deliveries)]
        await self.open_hub().ack(leases)

    def _lease_of(self, delivery: Delivery) -> Lease:
        if not isinstance(delivery, LocalDelivery) or delivery.consumer is not self:
            raise BadOption(f"{delivery!r} is no delivery of {self!r}")
        return delivery.lease

    async def stocked(self) -> bool:
        """True if there is a record that nobody has: it may go out now, later, or once it is read. Raises Closed, Truncated."""
        return await self.open_hub().feed.stocked()

    # ---- without a lease: as Redis's groups ask it

    def pending(self) -> list[Pending]:
        """The records that workers have and have not acknowledged, by LSN."""
        return pending_of(self.open_hub())

    async def settle(self, lsns: Sequence[int]) -> int:
        """Acknowledge records, whoever has them, all in one group; returns how many were out."""
        return await settle(self.open_hub(), lsns)

    async def out_of(self, lsns: Sequence[int]) -> tuple[list[Lease], list[int]]:
        """Which of these records somebody has: the deliveries, and the LSNs of what is not there any more."""
        return await out_of(self.open_hub(), lsns)

    def delivered_lsn(self) -> int:
        """LSN up to which everything was delivered, or is not to be."""
        return delivered_lsn(self.open_hub())

    async def claim(self, lsns: Sequence[int], idle: float, terms: Terms = AS_USUAL) -> list[int]:
        """Take over records that others have had for `idle` seconds; returns the LSNs that this worker has now, durably."""
        assert self.worker is not None, "asked of workers without a lease"
        return await claim(self.open_hub(), self.worker, lsns, idle, terms)

    async def take_new(self, most: int) -> list[LocalDelivery]:
        """Up to `most` records that nobody has had, as many as are there; the worker has them durably."""
        return [LocalDelivery(self, out) for out in await take_new(self.open_hub(), self, most)]

    async def wait_for_new(self) -> None:
        """Wait until there may be one."""
        await self.open_hub().feed.supply.wait(Place())

    async def status(self) -> ConsumerStatus:
        """See SharedConsumer."""
        return await status_of_hub(self.open_hub())

    async def seek(self, to: Start) -> None:
        """See SharedConsumer."""
        await self.open_hub().seek(to)

    async def close(self) -> None:
        """See SharedConsumer."""
        await self._hub.leave(self)
