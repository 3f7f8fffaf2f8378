"""The consumers of a topic, or of the whole log, by name: opening, listing, moving, deleting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from walsvc.errors import BadOption, InUse
from walsvc.log.commit.changes import Standing
from walsvc.log.read.counting import count_behind
from walsvc.log.read.segments import Segments
from walsvc.topics.consumer import Consumer
from walsvc.topics.delivery import Delivery, check_delivery
from walsvc.topics.hub import Hub, Shared
from walsvc.topics.names import (
    WHOLE_LOG,
    ConsumerStatus,
    Start,
    check_name,
    check_start,
    key_of,
    parse_key,
    status_of,
)
from walsvc.topics.standing import deleted, moved

if TYPE_CHECKING:
    from walsvc.log.writer import WalWriter


class Registry:
    """Consumers of one topic; `topic` None: of the whole log."""

    def __init__(self, segments: Segments, writer: WalWriter, topic: str | None) -> None:
        self._segments = segments
        self._writer = writer
        self._topic = topic

    @property
    def _number(self) -> int | None:
        return WHOLE_LOG if self._topic is None else self._writer.core.metadata.topics.get(self._topic)

    async def open(self, name: str, delivery: Delivery | type[Delivery], start: Start) -> Consumer:
        """See Topic.consumer."""
        check_name("consumer", name)
        way = check_delivery(delivery)
        self._writer.core.health.check_open()
        while (place := self._used(name)) is not None and place.leaving is not None:
            await asyncio.wait([place.leaving])
            self._writer.core.health.check_open()
        place = Standing(0, 0)
        key = await self.claim(name, start, place)
        return Consumer(
            self._segments, self._writer, self._topic, name, number=parse_key(key)[0], delivery=way, place=place
        )

    async def claim(self, name: str, start: Start, place: Standing) -> str:
        """Take a consumer's name, in the step that finds it free, and make the consumer, and its topic, where they are new;
        returns its key. The name is given free again where that fails or is cancelled."""
        metadata, places, key = self._writer.core.metadata, self._writer.core.changes.places, ""

        def change() -> dict[str, Any]:
            nonlocal key
            if key:
                places.pop(key, None)  # there was no room in an earlier turn
                key = ""
            number, made = self._number, dict[str, Any]()
            if number is None:
                assert self._topic is not None
                number = metadata.topics.given + 1
                made["topics"] = {self._topic: number}
            wanted = key_of(number, name)
            self._refuse_used(wanted, name)
            known = metadata.positions.get(wanted)  # somebody else may have been faster
            position = check_start(self._writer, start, number) if known is None else known
            made["positions"] = {wanted: position}
            place.position = place.following = position
            key, places[wanted] = wanted, place
            return made

        unsure = self._writer.core.changes.unsure
        if (
            self._number is not None
            and (known := key_of(self._number, name)) in metadata.positions
            and known not in unsure
        ):
            change()
            return key
        try:
            await self._writer.core.changes.join(change)
        except BaseException:
            if key:
                places.pop(key, None)
                unsure.add(key)
            raise
        unsure.discard(key)
        return key

    async def list(self) -> list[ConsumerStatus]:
        """See Topic.consumers."""
        self._writer.core.health.check_open()
        found = []
        for key in sorted(self._writer.core.metadata.positions):
            number, name = parse_key(key)
            if number == self._number:
                found.append(await self._status(number, name, key, await self._segments.reach()))
        return found

    async def status(self, name: str) -> ConsumerStatus | None:
        """One consumer, None where there is none. For onlookers: unlike list() it makes nothing durable, and what is still to be
        written is not counted in the lag."""
        self._writer.core.health.check_open()
        number = self._number
        if number is None or key_of(number, name) not in self._writer.core.metadata.positions:
            return None
        return await self._status(number, name, key_of(number, name), self._writer.durable_lsn + 1)

    async def _status(self, number: int, name: str, key: str, limit: int) -> ConsumerStatus:
        if isinstance(place := self._writer.core.changes.places.get(key), Shared) and place.hub is not None:
            return await status_of_hub(place.hub)
        metadata = self._writer.core.metadata
        position, window = 0, None

        def stands() -> int:
            nonlocal position, window
            position, window = metadata.positions.get(key, limit), metadata.queues.get(key)
            return position

        lag = await lag_of(self._segments, stands, number, limit)
        return status_of(name, self._topic, position, lag, window, in_use=key in self._writer.core.changes.places)

    async def move(self, name: str, to: Start) -> None:
        """See Topic.move_consumer."""
        metadata = self._writer.core.metadata
        await self._change(name, lambda key: moved(metadata, key, check_start(self._writer, to, parse_key(key)[0])))

    async def delete(self, name: str) -> None:
        """See Topic.delete_consumer."""
        await self._change(name, lambda key: deleted(self._writer.core.metadata, key))
        self._writer.core.changes.passed(self._writer.next_lsn)

    async def _change(self, name: str, wanted: Callable[[str], dict[str, Any]]) -> None:
        """Change the state of a consumer that is there and not in use when the change's turn has come; `wanted(key)` says how."""
        check_name("consumer", name)
        self._writer.core.health.check_open()
        key = ""

        def change() -> dict[str, Any]:
            nonlocal key
            key = "" if self._number is None else key_of(self._number, name)
            if key not in self._writer.core.metadata.positions:
                where = "the log" if self._topic is None else f"topic {self._topic!r}"
                raise BadOption(f"{where} has no consumer {name!r}", path=self._segments.disk.path)
            self._refuse_used(key, name)
            return wanted(key)

        try:
            await self._writer.core.changes.join(change)
        except asyncio.CancelledError:
            if key:
                self._writer.core.changes.unsure.add(key)
            raise

    def _used(self, name: str) -> Standing | None:
        """The state of a consumer that is open, or being closed."""
        return None if self._number is None else self._writer.core.changes.places.get(key_of(self._number, name))

    def _refuse_used(self, key: str, name: str) -> None:
        if key in self._writer.core.changes.places:
            raise InUse(
                f"consumer {name!r} is open already",
                path=self._segments.disk.path,
                hint="close it first, or use another name",
            )


async def status_of_hub(hub: Hub) -> ConsumerStatus:
    """The status of a shared consumer that is open; see Log.consumers."""
    core = hub.writer.core
    core.health.check_open()
    position = done = 0

    def stands() -> int:
        nonlocal position, done
        position, done = hub.feed.position, sum(hub.feed.window.records)
        return position

    lag = await lag_of(hub.writer.segments, stands, parse_key(hub.key)[0], core.catalog.durable_lsn + 1)
    return ConsumerStatus(
        hub.name,
        hub.topic,
        position,
        None if lag is None else max(lag - done, 0),
        True,
        shared=True,
        outstanding=hub.leases.out,
        waiting=hub.feed.waiting,
        redeliveries=hub.leases.redeliveries,
        dead_letters=hub.dead,
        oldest_seconds=hub.feed.oldest_seconds(),
    )


async def lag_of(segments: Segments, stands: Callable[[], int], number: int, limit: int) -> int | None:
    """How many records a consumer has before it; None where some of them were dropped.

    Args:
        segments: of the log.
        stands: says where the consumer stands; asked again after each look at the log.
        number: of its topic, or WHOLE_LOG.
        limit: of the whole log, the LSN behind its last record.
    """
    if number == WHOLE_LOG:
        return max(limit - position, 0) if (position := stands()) >= segments.first_lsn else None
    lag = await count_behind(segments, stands, number)
    return None if lag is None else max(lag, 0)  # the topic may have gone meanwhile
