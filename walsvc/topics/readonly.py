"""Topics of a log that is opened with read_only=True."""

from __future__ import annotations

from walsvc.log.read.pins import pins_of
from walsvc.log.read.readonly import ReadOnlyLog, Refusing, RefusingLater, refuse_later
from walsvc.model import Retention
from walsvc.topics.names import ConsumerStatus, check_name, key_of, parse_key, status_of
from walsvc.topics.registry import lag_of
from walsvc.topics.topic import TopicReader


class ReadOnlyTopic(TopicReader):
    """The reading half of a topic; what would write raises Closed, as of its log."""

    def __init__(self, log: ReadOnlyTopics, name: str) -> None:
        super().__init__(log, log.segments, name)
        self._log = log
        self.append: Refusing = log.append
        self.append_nowait: Refusing = log.append
        self.append_batch: Refusing = log.append
        self.consumer: RefusingLater = log.consumer
        self.move_consumer: RefusingLater = log.consumer
        self.delete_consumer: RefusingLater = log.consumer
        self.purge: RefusingLater = log.consumer
        self.truncate_before: RefusingLater = log.consumer
        self.retain: RefusingLater = log.consumer
        self.redrive: RefusingLater = log.consumer

    async def consumers(self) -> list[ConsumerStatus]:
        """The topic's consumers, by name; see ReadOnlyTopics.consumers."""
        return [each for each in await self._log.consumers() if each.topic == self.name]


class ReadOnlyTopics(ReadOnlyLog):
    """A ReadOnlyLog with the reading half of topics, and a look at consumers and retention."""

    replicated_lsn: int | None = None  # only the writer knows

    def topic(self, name: str) -> ReadOnlyTopic:
        """The topic `name`, for reading, following and counting."""
        return ReadOnlyTopic(self, check_name("topic", name))

    def topics(self) -> list[str]:
        """Names of all topics, in the order in which they were made."""
        return list(self.segments.metadata.topics)

    async def has_topic(self, name: str) -> bool:
        """True if the topic `name` exists, as far as its writer has made the log durable."""
        check_name("topic", name)
        await self.segments.reach()
        return self.segments.topic_number(name) is not None

    def holds(self) -> dict[str, int]:
        """The holders and the lowest LSN that each of them needs."""
        return dict(self.segments.metadata.holds)

    def retention(self) -> Retention:
        """Segments that are kept, and the pins that need them."""
        lengths = self.segments.sizes
        return Retention(
            first_lsn=self.first_lsn,
            next_lsn=self.next_lsn,
            segments=len(lengths),
            bytes=sum(lengths.values()),
            pins=pins_of(self.segments.metadata, self.next_lsn, lengths),
        )

    async def consumers(self) -> list[ConsumerStatus]:
        """All consumers, those of the whole log first; `in_use` is False, since only the writer knows."""
        limit = await self.segments.reach()
        names = sorted(map(parse_key, self.segments.metadata.positions))
        return [await self._status(number, name, limit) for number, name in names]

    async def _status(self, number: int, name: str, limit: int) -> ConsumerStatus:
        key, position, window = key_of(number, name), 0, None

        def stands() -> int:
            nonlocal position, window
            metadata = self.segments.metadata  # another one after each look at the log
            position, window = metadata.positions.get(key, limit), metadata.queues.get(key)
            return position

        lag = await lag_of(self.segments, stands, number, limit)
        return status_of(name, self.segments.topics.names.get(number), position, lag, window, in_use=False)

    # calls that write raise Closed, as in ReadOnlyLog
    consumer: RefusingLater = refuse_later
    move_consumer: RefusingLater = refuse_later
    delete_consumer: RefusingLater = refuse_later
    delete_topic: RefusingLater = refuse_later
    hold: RefusingLater = refuse_later
    release: RefusingLater = refuse_later
    reclaim: RefusingLater = refuse_later
    purge: RefusingLater = refuse_later
    compact: RefusingLater = refuse_later
    wait_replicated: RefusingLater = refuse_later
