"""The consumers of a topic, or of the whole log, by name: opening, listing, moving, deleting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from walsvc.errors import BadOption, InUse
from walsvc.log.counting import count_before
from walsvc.log.joining import Place
from walsvc.topics.consumer import Consumer
from walsvc.topics.delivery import Delivery, check_delivery
from walsvc.topics.names import WHOLE_LOG, ConsumerStatus, Start, check_name, check_start, key_of, parse_key

if TYPE_CHECKING:
    from walsvc.topics.topic import Source


class Registry:
    """Consumers of one topic; `topic` None: of the whole log."""

    def __init__(self, log: Source, topic: str | None) -> None:
        self._log = log
        self._writer = log.writer
        self._topic = topic

    @property
    def _number(self) -> int | None:
        return WHOLE_LOG if self._topic is None else self._writer._metadata.topics.get(self._topic)

    async def open(self, name: str, delivery: Delivery | type[Delivery], start: Start) -> Consumer:
        """See Topic.consumer."""
        check_name("consumer", name)
        way = check_delivery(delivery)
        self._writer.health.check_open()
        if self._number is None or key_of(self._number, name) not in self._writer._metadata.positions:
            await self._create(name, start)
        number = self._number
        assert number is not None, "creating the consumer made its topic"
        key = key_of(number, name)
        self._refuse_used(key, name)
        position = self._writer._metadata.positions[key]
        place = self._writer._places[key] = Place(position, position)
        return Consumer(self._log, self._topic, name, number=number, delivery=way, place=place)

    async def _create(self, name: str, start: Start) -> None:
        """Make the consumer, and the topic if it is new, in one durable change."""

        def change() -> dict[str, Any]:
            number, made = self._number, dict[str, Any]()
            if number is None:
                assert self._topic is not None
                number = len(self._writer._metadata.names)
                made["topics"] = {self._topic: number}
            key = key_of(number, name)
            known = self._writer._metadata.positions.get(key)  # somebody else may have been faster
            made["positions"] = {key: check_start(self._writer, start) if known is None else known}
            return made

        await self._writer._join(change)

    async def list(self) -> list[ConsumerStatus]:
        """See Topic.consumers."""
        self._writer.health.check_open()
        found = []
        for key in sorted(self._writer._metadata.positions):
            number, name = parse_key(key)
            if number == self._number:
                found.append(await self._status(number, name, key, await self._log._settled()))
        return found

    async def status(self, name: str) -> ConsumerStatus | None:
        """One consumer, None where there is none. For onlookers: unlike list() it makes nothing durable, and what is still to be
        written is not counted in the lag."""
        self._writer.health.check_open()
        number = self._number
        if number is None or key_of(number, name) not in self._writer._metadata.positions:
            return None
        return await self._status(number, name, key_of(number, name), self._writer.durable_lsn + 1)

    async def _status(self, number: int, name: str, key: str, limit: int) -> ConsumerStatus:
        position = self._writer._metadata.positions.get(key, limit)
        lag: int | None = None
        if position >= self._log.first_lsn and number == WHOLE_LOG:
            lag = max(limit - position, 0)
        elif position >= self._log.first_lsn:
            total, _ = self._writer._topic_sums(number)
            lag = total - await count_before(self._log._disk, self._log, position, number)
        return ConsumerStatus(name, self._topic, position, lag, key in self._writer._places)

    async def move(self, name: str, to: Start) -> None:
        """See Topic.move_consumer."""
        key = self._existing(name)
        await self._writer._join(lambda: {"positions": {key: check_start(self._writer, to)}})

    async def delete(self, name: str) -> None:
        """See Topic.delete_consumer."""
        key = self._existing(name)
        await self._writer._join(lambda: {"positions": {key: None}})
        self._log._consumed(self._writer.next_lsn)

    def _existing(self, name: str) -> str:
        check_name("consumer", name)
        self._writer.health.check_open()
        key = "" if self._number is None else key_of(self._number, name)
        if key not in self._writer._metadata.positions:
            where = "the log" if self._topic is None else f"topic {self._topic!r}"
            raise BadOption(f"{where} has no consumer {name!r}", path=self._log.path)
        self._refuse_used(key, name)
        return key

    def _refuse_used(self, key: str, name: str) -> None:
        if key in self._writer._places:
            raise InUse(
                f"consumer {name!r} is open already", path=self._log.path, hint="close it first, or use another name"
            )
