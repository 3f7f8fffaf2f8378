"""The shared consumers of one log that are open: opening, and giving back everything when the log is closed."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from walsvc.errors import BadOption
from walsvc.format.queues import KEY
from walsvc.tasks import TaskLock
from walsvc.topics.dead import REDRIVE, REDRIVE_LEASE, send_back
from walsvc.topics.hub import Hub, Shared
from walsvc.topics.names import Start, check_name, key_of
from walsvc.topics.registry import Registry
from walsvc.topics.shared import LocalConsumer
from walsvc.topics.sharing import SharedOptions, check_same, sharing_of

if TYPE_CHECKING:
    from walsvc.log.read.segments import Segments
    from walsvc.log.writer import WalWriter


class Hubs:
    """Shared consumers that are open, by their keys in the metadata. Loop thread only."""

    def __init__(self, segments: Segments, writer: WalWriter) -> None:
        self._segments = segments
        self._writer = writer
        self._hubs: dict[str, Hub] = {}
        self._redriving = TaskLock()
        self._opening = TaskLock()  # else two who open a new one would both make it

    def get(self, key: str) -> Hub | None:
        """The shared consumer of that key, if it is open."""
        return self._hubs.get(key)

    async def open(self, topic: str | None, name: str, start: Start, options: SharedOptions) -> LocalConsumer:
        """See Topic.consumer."""
        check_name("consumer", name)
        core, worker = self._writer.core, options.get("worker")
        core.health.check_open()
        async with self._opening:
            number = 0 if topic is None else core.metadata.topics.get(topic)
            key = "" if number is None else key_of(number, name)
            hub = self._hubs.get(key)
            if hub is not None and not hub.holders:
                await hub.ended()
                hub = None
            window = core.metadata.queues.get(key)
            sharing = sharing_of(topic, options, {} if window is None else window.options)
            if hub is not None:
                check_same(name, self._segments.disk.path, hub.sharing, sharing)
                return LocalConsumer(hub, worker)
            place = Shared(0, 0)
            key = await Registry(self._segments, self._writer, topic).claim(name, start, place)
            try:
                window = core.metadata.queues.get(key)
                if window is None or window.options != sharing.packed():
                    await core.changes.join(lambda: {KEY: {key: {"options": sharing.packed()}}})
            except BaseException:
                del core.changes.places[key]
                raise
            place.hub = hub = Hub(
                self._segments, self._writer, topic, name, key=key, sharing=sharing, ended=self._ended
            )
            self._hubs[key] = hub
            return LocalConsumer(hub, worker)

    async def redrive(self, topic: str, name: str) -> int:
        """See Topic.redrive."""
        check_name("consumer", name)
        metadata = self._writer.core.metadata
        self._writer.core.health.check_call()
        window = metadata.queues.get(key_of(metadata.topics.get(topic, 0), name))
        dead = None if window is None else window.options.get("dead_letter")
        if dead is None or topic not in metadata.topics:
            raise BadOption(
                f"topic {topic!r} has no shared consumer {name!r} with a dead-letter topic",
                path=self._segments.disk.path,
                hint="walsvc consumers ls PATH lists them",
            )
        if dead not in metadata.topics:
            return 0
        limit = await self._segments.reach()
        async with self._redriving:
            worker = await self.open(dead, REDRIVE, "first", {"lease": REDRIVE_LEASE})
            try:
                return await send_back(worker.open_hub(), worker, (topic, name), limit)
            finally:
                await worker.close()

    def _ended(self, hub: Hub) -> None:
        self._hubs.pop(hub.key, None)
        self._writer.core.changes.places.pop(hub.key, None)

    async def close(self, timeout: float | None) -> None:
        """The log is being closed: what is out goes back, and how often it was delivered is kept, if that can be in time."""
        leaving = [hub.leave(face) for hub in self._hubs.values() for face in list(hub.holders)]
        if leaving:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await asyncio.gather(*leaving, return_exceptions=True)
