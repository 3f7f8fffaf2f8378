"""A topic of a log behind a server."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from walsvc.format.limits import TopicLimits
from walsvc.log.commit.appending import AppendsTo
from walsvc.service.client.common import Common
from walsvc.service.client.consumer import RemoteConsumer
from walsvc.topics.appending import TakesTopicRecords
from walsvc.topics.delivery import Delivery
from walsvc.topics.names import ConsumerStatus, Start
from walsvc.topics.opening import OpensConsumers
from walsvc.topics.reading import Reads, TopicReading
from walsvc.topics.shared import SharedConsumer
from walsvc.topics.sharing import SharedOptions


class RemoteTopic(TakesTopicRecords, TopicReading, OpensConsumers[RemoteConsumer]):
    """See walsvc.Topic, whose interface this is; get it by `log.topic(name)`.

    Attributes:
        name: its name.
    """

    def __init__(self, log: Reads, common: Common, name: str) -> None:
        super().__init__(log, name)
        self._common = common

    # ---- appending

    def _place(self) -> tuple[AppendsTo, str | None]:
        return self._common, self.name

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

    async def truncate_before(self, lsn: int, *, force: bool = False) -> None:
        """Drop the topic's records below `lsn`, and no other topic's; see Topic.truncate_before."""
        self._common.session.check(changes=True)
        self._common.session.need("hide", "truncating a topic")
        await self._common.session.call("topic.truncate_before", topic=self.name, lsn=lsn, force=force)

    async def retain(
        self, *, records: int | None = None, bytes: int | None = None, seconds: float | None = None
    ) -> None:
        """Keep no more of the topic than this from now on; see Topic.retain."""
        limits, session = TopicLimits(records, bytes, seconds).check(), self._common.session
        session.check(changes=True)
        session.need("hide", "limits of a topic")
        await session.call("topic.retain", topic=self.name, **limits._asdict())
        self._common.topics.setdefault(self.name)

    async def limits(self) -> TopicLimits:
        """The limits that `retain` has set; see Topic.limits."""
        self._common.session.need("hide", "limits of a topic")
        return TopicLimits(*await self._common.session.call("topic.limits", topic=self.name))

    async def purge(
        self,
        key_or_labels: Any = None,
        *,
        before: int | None = None,
        lsns: Iterable[int] | None = None,
        keep: int | None = None,
    ) -> int | None:
        """Hide records of the topic; see Topic.purge, and RemoteLog.purge for what a lost connection does."""
        return await self._common.purge(self.name, key_or_labels, before, lsns, keep)

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
