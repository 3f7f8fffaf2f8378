"""Common: the calls that a log behind a server, its topics and its consumers share."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Unpack
from weakref import WeakSet

from walsvc.format.purge import check_way, labels_of, lsns_of
from walsvc.keywords import AppendOptions, BatchOptions, Payload, Payloads
from walsvc.log.commit.ack import Ack
from walsvc.log.commit.results import BatchResult
from walsvc.model import Mode
from walsvc.service.client.appends import Appends
from walsvc.service.client.batches import append_batch
from walsvc.service.client.consumer import RemoteConsumer
from walsvc.service.client.session import Session
from walsvc.service.client.shared import RemoteShared
from walsvc.service.client.stock import KEPT_SECONDS
from walsvc.tasks import begin_task
from walsvc.topics.delivery import Delivery, check_delivery
from walsvc.topics.names import ConsumerStatus, Start, check_name
from walsvc.topics.sharing import SharedOptions, refuse_lazy


class Common:
    """The calls of which a RemoteLog and a RemoteTopic are two forms: for the log `topic` is None. It belongs to one RemoteLog.

    Attributes:
        session: the connection.
        appends: this client's appends.
        topics: names of the topics that this client has heard of.
        consumers: this client's consumers that are open, by the numbers of their streams.
        prefetching: its shared ones that may have deliveries before callers ask for them.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.appends: Appends = Appends(session)
        self.topics: dict[str, None] = {}
        self.consumers: dict[int, RemoteConsumer] = {}
        self.prefetching: WeakSet[RemoteShared] = WeakSet()
        self._first: dict[Any, str] = {}  # appends to topics not heard of yet, that are not known to have ended

    def append_to(
        self,
        topic: str | None,
        payload: Payload,
        mode: Mode,
        type: int,
        attributes: Mapping[str, Any] | None,
        *,
        options: AppendOptions,
        wait: bool,
    ) -> Any:
        """Append to the log or to a topic; with `wait` it waits for room, and the answer is an Ack."""
        future = self.appends.enter(payload, mode, type, attributes, topic, wait=wait, **options)
        self._notice(topic, future)
        return future

    def append_batch_to(
        self, topic: str | None, payloads: Payloads, mode: Mode, **options: Unpack[BatchOptions]
    ) -> Ack[BatchResult]:
        """Append a batch to the log or to a topic."""
        answer = append_batch(self.appends, payloads, mode, topic, **options)
        self._notice(topic, answer)
        return answer

    def _notice(self, topic: str | None, future: Any) -> None:
        """A topic exists from its first record on: list it once this append has succeeded."""
        if topic is not None and topic not in self.topics:
            self._first[future] = topic
            future.add_done_callback(self._made)

    def _made(self, done: Any) -> None:
        if (topic := self._first.pop(done, None)) is not None and not done.cancelled() and done.exception() is None:
            self.topics.setdefault(topic)

    def list_topics(self) -> list[str]:
        """Topics that this client has heard of. A task that awaited an append may run before that append's callbacks."""
        for done in [each for each in self._first if each.done()]:
            self._made(done)
        return list(self.topics)

    async def open_consumer(
        self, topic: str | None, name: str, delivery: Delivery | type[Delivery], start: Start
    ) -> RemoteConsumer:
        """See Topic.consumer."""
        self.session.check(changes=True)
        check_name("consumer", name)
        way = check_delivery(delivery)
        consumer = RemoteConsumer(self.session, self.consumers, topic, name, delivery=way, start=start)
        await consumer.opened()
        if topic is not None:
            self.topics.setdefault(topic)
        return consumer

    async def open_shared(
        self, topic: str | None, name: str, delivery: Delivery | type[Delivery], start: Start, options: SharedOptions
    ) -> RemoteShared:
        """See Topic.consumer."""
        self.session.check(changes=True)
        check_name("consumer", name)
        refuse_lazy(delivery)
        consumer = RemoteShared(self.session, topic, name, start=start, options=options)
        await consumer.opened()
        if options.get("prefetch"):
            self.prefetching.add(consumer)
        if topic is not None:
            self.topics.setdefault(topic)
        return consumer

    async def return_ahead(self) -> None:
        """Close the shared consumers that may have deliveries of which no caller knows: they go back as if they had not been out."""
        if closing := [begin_task(each.close()) for each in self.prefetching]:
            await asyncio.wait(closing, timeout=KEPT_SECONDS)

    async def list_consumers(self, **topic: str) -> list[ConsumerStatus]:
        """The consumers of a topic, or all."""
        return [ConsumerStatus(**row) for row in await self.session.call("consumers", **topic)]

    async def purge(
        self,
        topic: str | None,
        key_or_labels: Any,
        before: int | None,
        lsns: Iterable[int] | None,
        keep: int | None = None,
    ) -> int | None:
        """See RemoteLog.purge and RemoteTopic.purge."""
        self.session.check(changes=True)
        check_way(key_or_labels, before, lsns, keep, topic=topic is not None)
        if key_or_labels is not None:
            await self.session.call("purge", labels=labels_of(key_or_labels), before=before, topic=topic)
            return None
        self.session.need("hide", "hiding records of a topic, or single ones")
        count: int
        if lsns is not None:
            count = await self.session.call("purge_lsns", lsns=lsns_of(lsns), topic=topic)
        else:
            count = await self.session.call("topic.purge", topic=topic, before=before, keep=keep)
        return count
