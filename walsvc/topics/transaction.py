"""Transactions: appends to several topics, acknowledgements and conditions that become durable together, or not at all.

What is collected is one group: a group is valid as a whole or not at all, so it needs no protocol of its own. Decided in the step
in which the log accepts it: the conditions hold, and every delivery is still its worker's; else nothing of it is there.
"""

from __future__ import annotations

import datetime
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from walsvc.config import between
from walsvc.errors import BadOption, Closed, RecordTooLarge
from walsvc.format.group import INDEX_BYTES_MAX
from walsvc.format.meta import merge
from walsvc.log.commit.conditions import check_expected
from walsvc.log.commit.group import Labels
from walsvc.log.commit.payload import pack_attributes, to_bytes
from walsvc.log.commit.queued import Expected, Joined, Joining, Labelled, QueuedAppend
from walsvc.model import AppendResult, Mode, Quorum, Strict
from walsvc.topics.consumer import Consumer
from walsvc.topics.names import check_name
from walsvc.topics.shared import Delivery, LocalDelivery
from walsvc.topics.sharing import with_not_before

if TYPE_CHECKING:
    from types import TracebackType

    from walsvc.log.writer import WalWriter
    from walsvc.topics.hub import Hub
    from walsvc.topics.leases import Lease


class Transaction(ABC):
    """Collects what is to be durable together. Get it by `log.transaction()`; `async with` commits it at the end of the block, and
    an exception out of the block leaves everything as it was. Nothing happens before `commit`.

    Attributes:
        mode: when it is answered, as of append. Quorum waits until the replica has all of it, acknowledgements too.
        results: where its records are, in the order of the appends, once it is committed.
    """

    def __init__(self, mode: Mode) -> None:
        self.mode: Mode = mode
        self.results: Sequence[AppendResult] = ()
        self._payloads: list[bytes] = []
        self._rows: list[Labelled] = []
        self._conditions: list[Expected] = []
        self._size = 0
        self._over = False

    def append(
        self,
        payload: bytes | bytearray | memoryview,
        type: int = 0,
        attributes: Mapping[str, Any] | None = None,
        *,
        topic: str | None = None,
        expected: int | None = None,
        not_before: datetime.datetime | float | None = None,
    ) -> None:
        """Append one record.

        Args:
            payload, type, attributes: as of Log.append.
            topic: to which topic, by name; None: to none.
            expected: as `expect` for that topic, or for the log.
            not_before: as of Topic.append.

        Raises:
            RecordTooLarge: the payload is over max_record_bytes, or all of it over max_group_bytes. BadPayload, BadOption.
        """
        check_expected(expected)
        self.append_packed(payload, type, pack_attributes(with_not_before(attributes, not_before)), topic)
        if expected is not None:
            self._conditions.append(Expected(topic, expected))

    def append_packed(self, payload: Any, type: int, packed: bytes, topic: str | None) -> None:
        """`append`, with attributes that are encoded."""
        self._check()
        piece = to_bytes(payload)
        between("type", type, 0, 0xFFFF)
        name = None if topic is None else check_name("topic", topic)
        record_bytes_max, group_bytes_max = self._limits()
        size = self._size + len(packed) + len(piece) + INDEX_BYTES_MAX
        if len(piece) > record_bytes_max or size > group_bytes_max:
            raise RecordTooLarge(
                f"the payload has {len(piece)} bytes, and the transaction with it {size}",
                path=self._path(),
                expected=f"at most {record_bytes_max} of a payload, and {group_bytes_max} of a transaction",
                hint="the transaction is as it was before; commit it, and append the rest in another one",
            )
        self._size = size
        self._payloads.append(packed + piece)
        self._rows.append(Labelled(name, Labels(type, 0, len(packed)) if type or packed else None))

    def expect(self, lsn: int, *, topic: str | None = None) -> None:
        """Commit only if the topic, or (None) the log, ends with record `lsn` before the transaction; 0: with none that is visible.
        BadOption."""
        self._check()
        if lsn is None:
            raise BadOption("expect needs an LSN", hint="0 where there is no record")
        check_expected(lsn)
        self._conditions.append(Expected(None if topic is None else check_name("topic", topic), lsn))

    def ack(self, done: Any, lsn: int | None = None) -> None:
        """Acknowledge.

        Args:
            done: a delivery of a shared consumer, or a consumer that nobody shares.
            lsn: of such a consumer: everything up to this record is done.

        Raises:
            BadOption: it is of another log, or was not delivered yet. Closed.
        """
        self._check()
        if isinstance(done, Delivery) != (lsn is None):
            raise BadOption(f"{done!r} cannot be acknowledged so", hint="ack(delivery), or ack(consumer, record.lsn)")
        self._ack(done, lsn)

    async def commit(self) -> Sequence[AppendResult]:
        """Make all of it durable, as `mode` says; returns where its records are. It can be committed once.

        Cancelled before it is accepted, nothing is done; later, only the wait ends.

        Raises:
            Conflict: a condition does not hold. LeaseLost: a delivery is somebody else's by now. Either way nothing is done.
            NoSpace, Closed, DurabilityLost, and for Quorum ReplicaLost; over the service also OutcomeUnknown.
        """
        self._check()
        self._over = True
        self.results = await self._commit()
        return self.results

    def _check(self) -> None:
        if self._over:
            raise Closed("the transaction is over", path=self._path(), hint="begin another one: log.transaction()")

    @abstractmethod
    def _path(self) -> str: ...
    @abstractmethod
    def _limits(self) -> tuple[int, int]:
        """Bytes of a payload and of a transaction, at most."""

    @abstractmethod
    def _ack(self, done: Any, lsn: int | None) -> None: ...
    @abstractmethod
    async def _commit(self) -> Sequence[AppendResult]: ...

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and not self._over:
            await self.commit()
        self._over = True


class LocalTransaction(Transaction):
    """A transaction of a log that is open here."""

    def __init__(self, writer: WalWriter, mode: Mode) -> None:
        super().__init__(mode)
        self._writer = writer
        self._acks: dict[Hub, tuple[dict[Lease, None], dict[int, None]]] = {}  # leases and LSNs, in order
        self._joinings: list[Joining] = []
        self._passed: list[Consumer] = []
        writer.core.health.check_append(Strict if mode is Quorum else mode)
        if mode is Quorum:
            writer.core.replica()  # raises where there is none

    def _path(self) -> str:
        return self._writer.core.disk.path

    def _limits(self) -> tuple[int, int]:
        config = self._writer.core.config
        return config.max_record_bytes, config.max_group_bytes

    def _ack(self, done: Any, lsn: int | None) -> None:
        if isinstance(done, LocalDelivery):
            hub = done.consumer.open_hub()
            if hub.writer is not self._writer:
                raise BadOption(f"{done!r} is of another log")
            self.acknowledge(hub, [done.lease])
            return
        if not isinstance(done, Consumer) or lsn is None or not done.is_of(self._writer):
            raise BadOption(f"{done!r} is no consumer, or of another log")
        self._joinings.append(done.acking(lsn))
        self._passed.append(done)

    def acknowledge(self, hub: Hub, leases: Sequence[Lease], vanished: Sequence[int] = ()) -> int:
        """Acknowledge deliveries of a shared consumer, and what its workers had and is not there any more, by LSN; returns how many of
        them were not part of it before."""
        ours, gone = self._acks.setdefault(hub, ({}, {}))
        before = len(ours) + len(gone)
        ours.update(dict.fromkeys(leases))
        gone.update(dict.fromkeys(vanished))
        return len(ours) + len(gone) - before

    async def _commit(self) -> Sequence[AppendResult]:
        core, mode = self._writer.core, Strict if self.mode is Quorum else self.mode
        core.health.check_call(mode)
        joinings: list[Joining] = [
            *(hub.acking([*leases], [*vanished]) for hub, (leases, vanished) in self._acks.items()),
            *self._joinings,
        ]
        results: Sequence[AppendResult] = ()
        if self._payloads:
            entry = QueuedAppend(
                self._payloads,
                mode,
                None,
                batch=True,
                future=core.queue.new_ack(),
                joining=together(joinings) if joinings else None,
                rows=self._rows,
                conditions=self._conditions,
            )
            answer = core.queue.enter(entry)
            results = await (core.replica().after(answer) if self.mode is Quorum else answer)
        elif joinings or self._conditions:
            await core.changes.join(together([Joined(self._conditions_hold, lambda: None), *joinings]))
            if self.mode is Quorum:
                await core.replica().wait_changes(core.catalog.changed)
        for position in [*(hub.feed.position for hub in self._acks), *(each.position for each in self._passed)]:
            core.changes.passed(position)
        return results

    def _conditions_hold(self) -> dict[str, Any]:
        """A change of nothing; raises Conflict."""
        for topic, lsn in self._conditions:
            self._writer.core.queue.conditions.check(topic, lsn)
        return {}


def together(joinings: Sequence[Joining]) -> Joining:
    """Several changes as one."""

    def change() -> dict[str, Any]:
        whole: dict[str, Any] = {}
        for each in joinings:
            merge(whole, each.change())
        return whole

    def accepted() -> None:
        for each in joinings:
            each.accepted()

    return Joined(change, accepted)
