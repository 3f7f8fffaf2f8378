"""Topics: named sequences of records on the one shared log. All topics share the group commit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Unpack

from walsvc.errors import Truncated
from walsvc.format.limits import KEY as LIMITS
from walsvc.format.limits import NO_LIMITS, TopicLimits, row_of
from walsvc.format.purge import check_way
from walsvc.keywords import Payload, TopicAppendOptions, spelled_out
from walsvc.log.commit.ack import Ack
from walsvc.log.commit.appending import AppendsTo
from walsvc.log.commit.group import Labels
from walsvc.log.commit.payload import NO_TYPE, is_type
from walsvc.log.extent.hider import Hider
from walsvc.log.extent.keeping import TopicLimiter
from walsvc.log.extent.purging import purge
from walsvc.log.extent.singles import Singles
from walsvc.log.read.counting import count_from
from walsvc.log.read.reader import cursor_at
from walsvc.log.read.reading import Reading
from walsvc.model import AppendResult, Mode, Strict
from walsvc.topics.appending import TakesTopicRecords
from walsvc.topics.consumer import Consumer
from walsvc.topics.delivery import Delivery
from walsvc.topics.names import ConsumerStatus, Start
from walsvc.topics.opening import OpensConsumers
from walsvc.topics.reading import TopicReading
from walsvc.topics.registry import Registry
from walsvc.topics.shared import SharedConsumer
from walsvc.topics.sharing import SharedOptions, refuse_lazy

if TYPE_CHECKING:
    from walsvc.log.read.segments import Segments
    from walsvc.log.writer import WalWriter
    from walsvc.topics.hubs import Hubs


class TopicReader(TopicReading):
    """The reading half of a topic of an embedded log."""

    def __init__(self, log: Reading, segments: Segments, name: str) -> None:
        super().__init__(log, name)
        self._segments = segments

    async def count(self) -> int:
        """How many records the topic has. Those that a purge by labels hides count; those that were truncated, or purged by themselves,
        do not.

        Reads at most the oldest segment (its opening snapshot, and what truncation hides in it), however long the log is.
        """
        await self._segments.reach()
        number = self._segments.topic_number(self.name)
        if number is None:
            return 0
        while True:
            try:
                count = await count_from(self._segments, self._segments.first_of(number), number)
            except Truncated:
                continue  # meanwhile
            return count if self._segments.topic_number(self.name) == number else 0

    async def limits(self) -> TopicLimits:
        """The limits that `retain` has set; each is None where there is no limit, all are where the log has no such topic."""
        await self._segments.reach()
        number = self._segments.topic_number(self.name)
        return NO_LIMITS if number is None else self._segments.metadata.limits.get(number, NO_LIMITS)

    async def first_lsn(self) -> int | None:
        """LSN of the topic's first visible record, None if there is none. Skips segments without the topic."""
        limit = await self._segments.reach()
        number = self._segments.topic_number(self.name)
        if number is None:
            return None
        while True:
            cursor = cursor_at(self._segments, self._segments.first_lsn, number)
            try:
                records = await cursor.take(limit)
            except Truncated:
                continue
            return records[0].lsn if records else None

    async def last_lsn(self) -> int | None:
        """LSN of the topic's last record, None if there is none that was not dropped. What a purge hides counts."""
        await self._segments.reach()
        number = self._segments.topic_number(self.name)
        if number is None:
            return None
        _, last = await self._segments.topic_sums(number)
        return last if last >= self._segments.first_of(number) else None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


class Topic(TakesTopicRecords, TopicReader, OpensConsumers[Consumer]):
    """A topic of a log that is open for writing; get it by `log.topic(name)`, which costs nothing and writes nothing.

    The topic exists in the log from its first record or consumer on.
    """

    def __init__(
        self, log: Reading, writer: WalWriter, hubs: Hubs, hiders: tuple[Hider, Singles, TopicLimiter], name: str
    ) -> None:
        super().__init__(log, writer.segments, name)
        self._writer = writer
        self._hider, self._singles, self._keeping = hiders
        self._hubs = hubs
        self._intake = writer.core.placement.intake
        self._labels: Labels | None = None
        self._names = writer.core.metadata.topics.names

    # ---- appending

    @spelled_out(TopicAppendOptions)
    def append(
        self,
        payload: Payload,
        mode: Mode = Strict,
        type: int = NO_TYPE,
        attributes: Mapping[str, Any] | None = None,
        **options: Unpack[TopicAppendOptions],
    ) -> Ack[AppendResult]:
        """Append one record to the topic; see TakesTopicRecords.append."""
        if options or attributes is not None:
            return super().append(payload, mode, type, attributes, **options)
        labels = self._labels
        if labels is None or labels.type is not type or labels.topic not in self._names:
            labels = self._labels = self._labels_of(type)
        return self._intake.append_labelled(payload, labels, self.name, mode, type)

    def _place(self) -> tuple[AppendsTo, str | None]:
        return self._writer, self.name

    def _labels_of(self, type: int) -> Labels | None:
        """The labels of a record of a type; None while the topic has no number, or for what is no type."""
        number = self._writer.core.metadata.topics.get(self.name)
        return Labels(type, number) if number is not None and is_type(type) else None

    async def truncate_before(self, lsn: int, *, force: bool = False) -> None:
        """Drop the topic's records below `lsn`, and no other topic's: no reading shows them any more, and a log without other records
        there gets their space back by `compact`. Durable when it returns, in a group with other changes.

        A consumer of the topic that has not passed them gets Truncated at its next call, as at Log.truncate_before; one that has moves
        up. Consumers of the whole log pass over them. Nothing happens where the log has no such topic, or nothing below.

        Args:
            lsn: 1 to the log's next_lsn, which drops all that the topic has: it goes by itself then, see Log.delete_topic.
            force: also where a hold keeps the log's records below.

        Raises:
            BadOption: `lsn` is out of its bounds, or somebody holds records below it and `force` is not set; what `append` raises.
        """
        await self._hider.truncate_before(self.name, lsn, force=force)

    async def retain(
        self, *, records: int | None = None, bytes: int | None = None, seconds: float | None = None
    ) -> None:
        """Keep no more of the topic than this, from now on and after restarts: what is over a limit is dropped from its beginning, as by
        truncate_before, at this call and then about once a second. Without any limit the topic has none any more. The topic is made if
        there is none. Durable when it returns.

        The limits of the log, `retain_bytes` and `retain_seconds`, go on for all topics. As by them a consumer that has not passed what
        goes gets Truncated, and a hold keeps what it holds.

        Args:
            records: the newest ones that stay, 1 or more.
            bytes: payload bytes of the records that stay, 1 or more.
            seconds: age of the records that stay, above 0, by the clock that makes them younger.

        Raises:
            BadOption: a limit is out of its bounds; what `append` raises.
        """
        core, limits = self._writer.core, TopicLimits(records, bytes, seconds).check()
        core.health.check_call()
        number = 0

        def change() -> dict[str, Any]:
            nonlocal number
            known = core.metadata.topics.get(self.name)
            number = core.metadata.topics.given + 1 if known is None else known
            made: dict[str, Any] = {LIMITS: row_of(number, limits)}
            return made if known is not None else {"topics": {self.name: number}, **made}

        await core.changes.join(change)
        if core.metadata.limits.get(number) == limits:
            await self._keeping.look(number)
        self._keeping.wake()

    async def purge(
        self,
        key_or_labels: Any = None,
        *,
        before: int | None = None,
        lsns: Iterable[int] | None = None,
        keep: int | None = None,
    ) -> int | None:
        """Hide records of the topic; other topics' stay. Durable when it returns. A hold does not protect from it, and consumers go on
        behind what is hidden without being told.

        Args:
            key_or_labels: records with this key, or these labels, see Log.purge; with `before` only those below it.
            before: without a key: all records below this LSN, 1 to the log's next_lsn.
            lsns: the records with these LSNs, those of other topics left out; see Log.purge.
            keep: all records but for the newest `keep` ones, 0 or more.

        Returns:
            How many records were hidden by it; None for a key or labels.

        Raises:
            BadOption: not one of these ways, or an argument out of its bounds; what Log.purge raises.
        """
        check_way(key_or_labels, before, lsns, keep)
        if key_or_labels is not None:
            await purge(self._writer.core, key_or_labels, before, self.name)
            return None
        if lsns is not None:
            return await self._singles.purge(self.name, lsns)
        if keep is not None:
            return await self._hider.purge_all_but(self.name, keep)
        return await self._hider.purge_below(self.name, before)

    # ---- consumers

    async def _open_consumer(self, name: str, delivery: Delivery | type[Delivery], start: Start) -> Consumer:
        return await Registry(self._segments, self._writer, self.name).open(name, delivery, start)

    async def _open_shared(
        self, name: str, delivery: Delivery | type[Delivery], start: Start, options: SharedOptions
    ) -> SharedConsumer:
        refuse_lazy(delivery)
        return await self._hubs.open(self.name, name, start, options)

    async def consumers(self) -> list[ConsumerStatus]:
        """The topic's consumers, by name."""
        return await Registry(self._segments, self._writer, self.name).list()

    async def move_consumer(self, name: str, to: Start) -> None:
        """Set the position of a consumer that is not open, durably. InUse, BadOption (also: no such consumer)."""
        await Registry(self._segments, self._writer, self.name).move(name, to)

    async def delete_consumer(self, name: str) -> None:
        """Forget a consumer that is not open, durably: it holds nothing back any more. InUse, BadOption."""
        await Registry(self._segments, self._writer, self.name).delete(name)

    async def redrive(self, name: str) -> int:
        """Send the dead letters of the topic's shared consumer `name` back to the topic, durably: payload, type and labels as they
        were, as new records, which are delivered from the first attempt on. Returns how many.

        Each is sent back once, whatever interrupts it. Others' dead letters in the same topic stay. The topic of dead letters gets
        a consumer "redrive", so from then on retention keeps those that were not sent back. BadOption: there is no such consumer.
        """
        return await self._hubs.redrive(self.name, name)
