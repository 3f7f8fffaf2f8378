"""A topic of a log behind a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Unpack

from walsvc.log.filter import Chosen
from walsvc.log.lazy import LazyRecord
from walsvc.log.results import BatchResult
from walsvc.model import AppendResult, Mode, ReadStats, Record, Strict
from walsvc.service.client_batches import append_batch
from walsvc.service.remote_consumer import RemoteConsumer
from walsvc.topics.delivery import Delivery, StrictlyOnce
from walsvc.topics.names import ConsumerStatus, Start

if TYPE_CHECKING:
    from walsvc.service.remote import RemoteLog


class RemoteTopic:
    """See walsvc.Topic, whose interface this is; get it by `log.topic(name)`.

    Attributes:
        name: its name.
    """

    def __init__(self, log: RemoteLog, name: str) -> None:
        self.name = name
        self._log = log

    # ---- appending

    def append(
        self,
        payload: bytes | bytearray | memoryview,
        mode: Mode = Strict,
        type: int = 0,
        attributes: Mapping[str, Any] | None = None,
    ) -> asyncio.Future[AppendResult]:
        """Append one record to the topic; see WalWriter.append."""
        return self._log._append_topic(self.name, payload, mode, type, attributes, wait=True)

    def append_nowait(
        self,
        payload: bytes | bytearray | memoryview,
        *,
        mode: Mode = Strict,
        type: int = 0,
        attributes: Mapping[str, Any] | None = None,
    ) -> asyncio.Future[AppendResult]:
        """Like append, but raises Backpressure where append would have to wait for room."""
        return self._log._append_topic(self.name, payload, mode, type, attributes, wait=False)

    def append_batch(
        self,
        payloads: Iterable[bytes | bytearray | memoryview] | AsyncIterable[bytes | bytearray | memoryview],
        *,
        mode: Mode = Strict,
    ) -> asyncio.Future[BatchResult]:
        """Append several records to the topic atomically; see WalWriter.append_batch."""
        future = append_batch(self._log._appends, payloads, mode, self.name)
        self._log._notice_topic(self.name, future)
        return future

    # ---- reading

    def read(
        self,
        start: int | None = None,
        stop: int | None = None,
        *,
        stats: ReadStats | None = None,
        **chosen: Unpack[Chosen],
    ) -> AsyncIterator[Record]:
        """Iterate over the topic's records; `start` and `stop` are LSNs of the log. See RemoteLog.read."""
        return self._log.read(start, stop, topic=self.name, stats=stats, **chosen)

    def read_batches(
        self,
        start: int | None = None,
        stop: int | None = None,
        *,
        stats: ReadStats | None = None,
        **chosen: Unpack[Chosen],
    ) -> AsyncIterator[list[Record]]:
        """Like read, but yields lists as they come over the connection."""
        return self._log.read_batches(start, stop, topic=self.name, stats=stats, **chosen)

    def read_lazy(
        self,
        start: int | None = None,
        stop: int | None = None,
        *,
        stats: ReadStats | None = None,
        **chosen: Unpack[Chosen],
    ) -> AsyncIterator[LazyRecord]:
        """Like read, in the form of Log.read_lazy; see RemoteLog.read_lazy."""
        return self._log.read_lazy(start, stop, topic=self.name, stats=stats, **chosen)

    def follow(
        self, start: int | None = None, *, stats: ReadStats | None = None, **chosen: Unpack[Chosen]
    ) -> AsyncIterator[Record]:
        """Iterate over the topic's durable records, then wait for new ones. See Log.follow."""
        return self._log.follow(start, topic=self.name, stats=stats, **chosen)

    async def count(self) -> int:
        """How many records of the topic are visible."""
        count: int = await self._log._session.call("topic.count", topic=self.name)
        return count

    async def first_lsn(self) -> int | None:
        """LSN of the topic's first visible record, None if there is none."""
        lsn: int | None = await self._log._session.call("topic.first_lsn", topic=self.name)
        return lsn

    async def last_lsn(self) -> int | None:
        """LSN of the topic's last record, None if there is none."""
        lsn: int | None = await self._log._session.call("topic.last_lsn", topic=self.name)
        return lsn

    async def purge(self, key_or_labels: Any, *, before: int | None = None) -> None:
        """Hide the topic's records below LSN `before` that have a key, or labels; see RemoteLog.purge."""
        await self._log._purge(key_or_labels, before, self.name)

    # ---- consumers

    async def consumer(
        self, name: str, delivery: Delivery | type[Delivery] = StrictlyOnce, start: Start = "first"
    ) -> RemoteConsumer:
        """Open the topic's consumer `name`, making it if there is none; see Topic.consumer."""
        return await self._log._open_consumer(self.name, name, delivery, start)

    async def consumers(self) -> list[ConsumerStatus]:
        """The topic's consumers, by name."""
        return await self._log._consumers_of(topic=self.name)

    async def move_consumer(self, name: str, to: Start) -> None:
        """Set the position of a consumer that is not open, durably. InUse, BadOption (also: no such consumer)."""
        await self._log._session.call("move_consumer", name=name, to=to, topic=self.name)

    async def delete_consumer(self, name: str) -> None:
        """Forget a consumer that is not open, durably: it holds nothing back any more. InUse, BadOption."""
        await self._log._session.call("delete_consumer", name=name, topic=self.name)

    def __repr__(self) -> str:
        return f"Topic({self.name!r})"
