"""A transaction of a log behind a server: collected here, sent as one call, decided there."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

from walsvc.config import one_of
from walsvc.errors import BadOption, ProtocolError
from walsvc.log.commit.results import BatchResult, Part
from walsvc.model import AppendResult, Mode, Quorum, Relaxed, Strict
from walsvc.service.client.common import Common
from walsvc.service.client.consumer import RemoteConsumer
from walsvc.service.client.delivery import RemoteDelivery
from walsvc.service.client.labels import MODES
from walsvc.service.wire.frames import OVERHEAD_BYTES
from walsvc.topics.transaction import Transaction


class RemoteTransaction(Transaction):
    """See walsvc.Transaction, whose interface this is."""

    def __init__(self, common: Common, mode: Mode) -> None:
        super().__init__(mode)
        self._common = common
        self._session = common.session
        self._deliveries: list[RemoteDelivery] = []
        self._positions: list[tuple[RemoteConsumer, int]] = []
        self._session.check(changes=True)
        one_of("mode", mode, (Strict, Relaxed, Quorum))

    def _path(self) -> str:
        return self._session.address.url

    def _limits(self) -> tuple[int, int]:
        limits = self._session.limits
        return limits["record_bytes"], limits["frame_bytes"] - OVERHEAD_BYTES // 2

    def _ack(self, done: Any, lsn: int | None) -> None:
        if isinstance(done, RemoteDelivery) and done.home.is_of(self._session):
            done.home.check()
            self._deliveries.append(done)
        elif isinstance(done, RemoteConsumer) and lsn is not None and done.is_of(self._session):
            done.check_ack(lsn)
            self._positions.append((done, lsn))
        else:
            raise BadOption(f"{done!r} is no consumer, or of another log")

    async def _commit(self) -> Sequence[AppendResult]:
        session = self._session
        session.need("transact", "transactions")
        appends, lengths = [], array("I")
        for payload, (topic, labels) in zip(self._payloads, self._rows, strict=True):
            extra = 0 if labels is None else labels.attributes_bytes
            appends.append([topic, 0 if labels is None else labels.type, payload[:extra], payload[extra:]])
            lengths.append(len(payload))
        answer = await session.call(
            "transact",
            mode=MODES[self.mode],
            appends=appends,
            conditions=[list(each) for each in self._conditions],
            deliveries=[[each.home.id, *each.said().values()] for each in self._deliveries],
            positions=[[consumer.id, lsn] for consumer, lsn in self._positions],
        )
        for consumer, lsn in self._positions:
            consumer.acknowledged_there(lsn)
        for topic, _ in self._rows:
            if topic is not None:
                self._common.topics.setdefault(topic)
        if not appends:
            return ()
        try:
            ((lsn, count, segment, offset),) = answer["places"]
            if count != len(lengths):
                raise ProtocolError("the answer to transact is of another one")
            parts = [Part(lsn, segment, offset, lengths)]
            return BatchResult(parts, durable=bool(answer["durable"]), sync_us=int(answer["sync_us"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ProtocolError(f"the answer to transact is none: {error}") from None
