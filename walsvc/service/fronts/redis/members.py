"""The members of groups that have asked something, in each log: a client that gives a worker's name is that worker, on any connection.

They stay open while the log has a client of this front, so that others may delete a group, or its topic, once the last one is gone.
A consumer with a lease is no group: opened without one, it would be lost to the programs whose work queue it is.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from walsvc.service.fronts.access import kept_options
from walsvc.service.fronts.redis.replies import Failure
from walsvc.service.server.keyed import KeyedLocks
from walsvc.service.server.state import has_consumer
from walsvc.topics.shared import LocalConsumer

if TYPE_CHECKING:
    from walsvc.interface import Topic
    from walsvc.topics.pending import Pending

SETTING_UP = "-"  # the worker under whose name a group is made and asked; it never has anything
Group = tuple[str, str]


class Members:
    """The open places of one log's groups, by topic, group and worker. They end with the log.

    Attributes:
        clients: that have this log.
        waiting: those that wait for its entries, in groups or not.
    """

    def __init__(self, log: Any) -> None:
        self.clients: int = 0
        self.waiting: int = 0
        self._log: Callable[[], Any] = ref(log)
        self._places: dict[Group, dict[str, LocalConsumer]] = {}
        self._turns: KeyedLocks[Group] = KeyedLocks()
        self._named: dict[tuple[Group, str], float] = {}  # those that are consumers for Redis, and when they asked last

    @contextmanager
    def blocked(self) -> Iterator[None]:
        """Count a client that waits in the block."""
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1

    def exists(self, topic: Topic, name: str) -> bool:
        """True if the topic has a consumer of that name."""
        return has_consumer(self._log(), (topic.name, name))

    def leased(self, topic: Topic, name: str) -> bool:
        """True if the topic's consumer of that name is a work queue with a lease."""
        return kept_options(self._log(), topic.name, name).get("lease") is not None

    def refuse_leased(self, topic: Topic, name: str) -> None:
        """Raise Failure for a work queue with a lease."""
        if self.leased(topic, name):
            raise Failure(f"INUSE consumer '{name}' of '{topic.name}' is a work queue with a lease, and no group")

    def making(self, topic: Topic, name: str) -> AbstractAsyncContextManager[None]:
        """Keep others from finding a group that is half made."""
        return self._turns.turn((topic.name, name))

    async def find(self, topic: Topic, name: str, worker: str | None) -> LocalConsumer | None:
        """A worker's place in a group, None: any place; None where there is no such group. Raises Failure, InUse, BadOption:
        the consumer is none of Redis's."""
        group, who = (topic.name, name), worker or SETTING_UP
        if (place := self._places.get(group, {}).get(who)) is not None:
            return place
        async with self._turns.turn(group):  # a group that is destroyed meanwhile would be made anew
            places = self._places.get(group, {})
            if who in places:
                return places[who]
            if not places:
                if not self.exists(topic, name):
                    return None
                self.refuse_leased(topic, name)
            place = await self._open(topic, name, who)
            self._places.setdefault(group, {})[who] = place
            return place

    async def _open(self, topic: Topic, name: str, worker: str) -> LocalConsumer:
        opened: Any = await topic.consumer(name, shared=True, lease=None, worker=worker)
        assert isinstance(opened, LocalConsumer), "the log is open in this process"
        return opened

    def name(self, topic: Topic, name: str, worker: str) -> None:
        """Note that a worker is a consumer of the group, and has asked something: a claim of nothing makes none."""
        self._named[(topic.name, name), worker] = time.time()

    def workers(self, topic: Topic, name: str) -> list[str]:
        """The consumers of a group that are known besides those that have something."""
        return [worker for group, worker in self._named if group == (topic.name, name)]

    def seen(self, topic: Topic, name: str, worker: str, pending: list[Pending]) -> float:
        """Unix time at which a consumer has asked something; of one from before the log was opened, when it got what it has."""
        asked = self._named.get(((topic.name, name), worker))
        return max((each.since for each in pending), default=time.time()) if asked is None else asked

    async def leave(self, topic: Topic, name: str, worker: str) -> None:
        """Forget a worker that is no consumer of the group any more."""
        self._named.pop(((topic.name, name), worker), None)
        place = self._places.get((topic.name, name), {}).pop(worker, None)
        if place is not None:
            await place.close()

    async def rest(self) -> None:
        """Close what is open, unless a client has come. What workers have stays theirs."""
        for group in list(self._places):
            async with self._turns.turn(group):
                if self.clients:
                    return
                for place in list(self._places.pop(group, {}).values()):
                    await place.close()

    @asynccontextmanager
    async def going(self, topic: Topic, name: str) -> AsyncIterator[None]:
        """Forget a group, which is destroyed in the block: nobody finds it before the end."""
        group = (topic.name, name)
        async with self._turns.turn(group):
            self._named = {each: seen for each, seen in self._named.items() if each[0] != group}
            for place in list(self._places.pop(group, {}).values()):
                await place.close()
            yield


_OF_LOG: WeakKeyDictionary[Any, Members] = WeakKeyDictionary()


def members_of(log: Any) -> Members:
    """The members of a log's groups."""
    found = _OF_LOG.get(log)
    if found is None:
        found = _OF_LOG[log] = Members(log)
    return found
