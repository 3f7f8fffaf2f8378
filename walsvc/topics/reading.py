"""Reading one topic, the part that every kind of log shares."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol, Unpack

from walsvc.log.read.filter import Chosen, Wanted
from walsvc.log.read.lazy import LazyRecord
from walsvc.model import Record


class Reads(Protocol):
    """The calls of a log by which a topic is read."""

    def read(
        self, start: int | None = None, stop: int | None = None, *, reverse: bool = False, **wanted: Unpack[Wanted]
    ) -> AsyncGenerator[Record, None]: ...
    def read_batches(
        self, start: int | None = None, stop: int | None = None, **wanted: Unpack[Wanted]
    ) -> AsyncGenerator[list[Record], None]: ...
    def read_lazy(
        self, start: int | None = None, stop: int | None = None, **wanted: Unpack[Wanted]
    ) -> AsyncGenerator[LazyRecord, None]: ...
    def follow(self, start: int | None = None, **wanted: Unpack[Wanted]) -> AsyncGenerator[Record, None]: ...


class TopicReading:
    """How records of a topic are read, of whatever kind of log: as the log's own, with the topic as one more filter.

    Attributes:
        name: its name.
    """

    def __init__(self, log: Reads, name: str) -> None:
        self.name = name
        self._reads = log

    def read(
        self, start: int | None = None, stop: int | None = None, *, reverse: bool = False, **chosen: Unpack[Chosen]
    ) -> AsyncGenerator[Record, None]:
        """Iterate over the topic's records; `start` and `stop` are LSNs of the log. See the log's read for all arguments."""
        return self._reads.read(start, stop, reverse=reverse, topic=self.name, **chosen)

    def read_batches(
        self, start: int | None = None, stop: int | None = None, **chosen: Unpack[Chosen]
    ) -> AsyncGenerator[list[Record], None]:
        """Like read, but yields lists; see the log's read_batches."""
        return self._reads.read_batches(start, stop, topic=self.name, **chosen)

    def read_lazy(
        self, start: int | None = None, stop: int | None = None, **chosen: Unpack[Chosen]
    ) -> AsyncGenerator[LazyRecord, None]:
        """Like read, but for payloads on demand; see the log's read_lazy."""
        return self._reads.read_lazy(start, stop, topic=self.name, **chosen)

    def follow(self, start: int | None = None, **chosen: Unpack[Chosen]) -> AsyncGenerator[Record, None]:
        """Iterate over the topic's durable records, then wait for new ones. See the log's follow."""
        return self._reads.follow(start, topic=self.name, **chosen)

    async def last_lsn(self) -> int | None:
        """LSN of the topic's last record, None if there is none."""
        raise NotImplementedError

    async def last(self) -> Record | None:
        """The topic's last record that is visible; None: it has none. What was accepted before the call is durable then.

        Raises:
            As read.
        """
        last = await self.last_lsn()
        if last is not None:
            async for record in self.read(stop=last + 1, reverse=True):
                return record
        return None
