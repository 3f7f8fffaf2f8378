"""A topic of a log behind a server."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterable, Iterable, Mapping
from typing import Any

from walsvc.log.commit.ack import Ack
from walsvc.log.commit.results import BatchResult
from walsvc.model import AppendResult, Mode, Strict
from walsvc.service.client.batches import append_batch
from walsvc.service.client.common import Common
from walsvc.service.client.consumer import RemoteConsumer
from walsvc.topics.delivery import Delivery
from walsvc.topics.names import ConsumerStatus, Start
from walsvc.topics.opening import OpensConsumers
from walsvc.topics.reading import Reads, TopicReading
from walsvc.topics.shared import SharedConsumer
from walsvc.topics.sharing import SharedOptions, with_not_before


class RemoteTopic(TopicReading, OpensConsumers[RemoteConsumer]):
    """See walsvc.Topic, whose interface this is; get it by `log.topic(name)`.

    Attributes:
        name: its name.
    """

    def __init__(self, log: Reads, common: Common, name: str) -> None:
        super().__init__(log, name)
        self._common = common

    # ---- appending

    def append(  # noqa: PLR0917  keywords only would make each call dearer
        self,
        payload: bytes | bytearray | memoryview,
        mode: Mode = Strict,
        type: int = 0,
        attributes: Mapping[str, Any] | None = None,
        expected: int | None = None,
        dedupe: str | None = None,
        *,
        not_before: datetime.datetime | float | None = None,
    ) -> Ack[AppendResult]:
        """Append one record to the topic; see WalWriter.append."""
        ack: Ack[AppendResult] = self._common.append_to(
            self.name,
            payload,
            mode,
            type,
            with_not_before(attributes, not_before),
            expected=expected,
            dedupe=dedupe,
            wait=True,
        )
        return ack

    def append_nowait(  # noqa: PLR0917  keywords only would make each call dearer
        self,
        payload: bytes | bytearray | memoryview,
        mode: Mode = Strict,
        type: int = 0,
        attributes: Mapping[str, Any] | None = None,
        expected: int | None = None,
        dedupe: str | None = None,
        *,
        not_before: datetime.datetime | float | None = None,
    ) -> asyncio.Future[AppendResult]:
        """Like append, but raises Backpressure where append would have to wait for room."""
        future: asyncio.Future[AppendResult]
        future = self._common.append_to(
            self.name,
            payload,
            mode,
            type,
            with_not_before(attributes, not_before),
            expected=expected,
            dedupe=dedupe,
            wait=False,
        )
        return future

    def append_batch(
        self,
        payloads: Iterable[bytes | bytearray | memoryview] | AsyncIterable[bytes | bytearray | memoryview],
        mode: Mode = Strict,
        expected: int | None = None,
    ) -> Ack[BatchResult]:
        """Append several records to the topic atomically; see WalWriter.append_batch."""
        future = append_batch(self._common.appends, payloads, mode, self.name, expected=expected)
        self._common.notice(self.name, future)
        return future

    # ---- looking

    async def count(self) -> int:
        """How many records of the topic are visible."""
        count: int = await self._common.session.call("topic.count", topic=self.name)
        return count

    async def first_lsn(self) -> int | None:
        """LSN of the topic's first visible record, None if there is none."""
        lsn: int | None = await self._common.session.call("topic.first_lsn", topic=self.name)
        return lsn

    async def last_lsn(self) -> int | None:
        """LSN of the topic's last record, None if there is none."""
        lsn: int | None = await self._common.session.call("topic.last_lsn", topic=self.name)
        return lsn

    async def purge(self, key_or_labels: Any, *, before: int | None = None) -> None:
        """Hide the topic's records below LSN `before` that have a key, or labels; see RemoteLog.purge."""
        await self._common.purge(key_or_labels, before, self.name)

    # ---- consumers

    async def _open_consumer(self, name: str, delivery: Delivery | type[Delivery], start: Start) -> RemoteConsumer:
        return await self._common.open_consumer(self.name, name, delivery, start)

    async def _open_shared(
        self, name: str, delivery: Delivery | type[Delivery], start: Start, options: SharedOptions
    ) -> SharedConsumer:
        return await self._common.open_shared(self.name, name, delivery, start, options)

    async def consumers(self) -> list[ConsumerStatus]:
        """The topic's consumers, by name."""
        return await self._common.list_consumers(topic=self.name)

    async def move_consumer(self, name: str, to: Start) -> None:
        """Set the position of a consumer that is not open, durably. InUse, BadOption (also: no such consumer)."""
        await self._common.session.call("move_consumer", name=name, to=to, topic=self.name)

    async def delete_consumer(self, name: str) -> None:
        """Forget a consumer that is not open, durably: it holds nothing back any more. InUse, BadOption."""
        await self._common.session.call("delete_consumer", name=name, topic=self.name)

    async def redrive(self, name: str) -> int:
        """Send the dead letters of a shared consumer back to the topic; see Topic.redrive."""
        sent: int = await self._common.session.call("redrive", topic=self.name, name=name)
        return sent

    def __repr__(self) -> str:
        return f"Topic({self.name!r})"
