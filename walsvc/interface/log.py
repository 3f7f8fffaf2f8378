"""Log: appending, reading, what is kept and what goes, and the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

from walsvc.interface.appending import Appending

if TYPE_CHECKING:
    import datetime
    from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
    from types import TracebackType
    from typing import Any, Unpack

    from walsvc.config import WalConfig
    from walsvc.interface.topic import Topic
    from walsvc.keyring import KeyRing
    from walsvc.log.read.filter import Wanted
    from walsvc.log.read.lazy import LazyRecord
    from walsvc.model import Mode, ReadStats, Record, RecoveryReport, Retention, Stats
    from walsvc.service.client.config import ClientConfig
    from walsvc.topics.names import Start
    from walsvc.topics.transaction import Transaction


@runtime_checkable
class Log(Appending, Protocol):
    """A log, in one event loop. Get it by `walsvc.open`; leaving its `async with` block closes it.

    Attributes:
        path: its directory, or its URL.
        config: the options it was opened with.
        report: what recovery found when it was opened.
        first_lsn: LSN of the first visible record; next_lsn when there is none.
        next_lsn: LSN that the next accepted record gets.
        durable_lsn: every record up to this LSN is on stable storage.
        replicated_lsn: every record up to this LSN is stored by the replica; None: there is none.
    """

    @property
    def path(self) -> str: ...
    @property
    def config(self) -> WalConfig | ClientConfig: ...
    @property
    def report(self) -> RecoveryReport: ...
    @property
    def first_lsn(self) -> int: ...
    @property
    def next_lsn(self) -> int: ...
    @property
    def durable_lsn(self) -> int: ...
    @property
    def replicated_lsn(self) -> int | None: ...

    def stats(self) -> Stats:
        """A frozen picture: range, backend, counters."""
        ...

    async def get(self, lsn: int) -> Record | None:
        """Return the record with this LSN, or None where it was purged. Truncated: it was dropped; BadOption: it is still to come."""
        ...

    async def refresh(self) -> int:
        """Look at what only comes when it is asked for: of a served log topics, holds, retention; of one that is only read,
        what its writer has added. Returns next_lsn."""
        ...

    def transaction(self, mode: Mode = ...) -> Transaction:
        """Appends to several topics, acknowledgements and conditions that become durable together, or not at all."""
        ...

    async def flush(self) -> int:
        """Wait until everything appended so far is durable; returns durable_lsn."""
        ...

    async def wait_durable(self, lsn: int) -> int:
        """Wait until record `lsn` is durable, starting its commit if nobody did; returns durable_lsn."""
        ...

    async def wait_replicated(self, lsn: int | None = ...) -> int:
        """Wait until the replica has record `lsn` (None: everything so far), and all acknowledgements, truncations and other changes
        that were answered before; returns replicated_lsn. BadOption: the log is not replicated."""
        ...

    def read(
        self,
        start: int | None = ...,
        stop: int | None = ...,
        *,
        reverse: bool = ...,
        **wanted: Unpack[Wanted],
    ) -> AsyncGenerator[Record, None]:
        """Iterate over records in LSN order; everything accepted before the call is made durable first.

        Args:
            start: first LSN; None: first_lsn.
            stop: LSN to stop before; None: next_lsn as it is now.
            reverse: from the record before `stop` down to `start`.
            stats: counts what reading costs, while it goes on.
            topic: only records of this topic.
            types: record types that the caller understands. Other optional ones are skipped.
            where: label to value, or to a collection of values of which one is enough; all labels must fit.
            since, until: aware datetimes; only records from `since` on and before `until`.

        Raises:
            Truncated, Closed, Corruption, BadOption, UnsupportedFormat (a required type that is not among `types`).
        """
        ...

    def read_batches(
        self,
        start: int | None = ...,
        stop: int | None = ...,
        **wanted: Unpack[Wanted],
    ) -> AsyncGenerator[list[Record], None]:
        """Like read, but yields lists, a group at a time: several times faster for small records."""
        ...

    def read_lazy(
        self,
        start: int | None = ...,
        stop: int | None = ...,
        **wanted: Unpack[Wanted],
    ) -> AsyncGenerator[LazyRecord, None]:
        """Like read, but payloads are fetched when they are asked for: `await record.payload()`."""
        ...

    def follow(self, start: int | None = ..., **wanted: Unpack[Wanted]) -> AsyncGenerator[Record, None]:
        """Iterate from `start` (None: first_lsn) over durable records, then wait for new ones."""
        ...

    async def seek_time(self, moment: datetime.datetime, *, stats: ReadStats | None = ...) -> int:
        """The LSN of the first visible record with a timestamp of `moment` or later; next_lsn when there is none."""
        ...

    def topic(self, name: str) -> Topic:
        """The topic `name`, 1 to 255 bytes in UTF-8. It exists in the log from its first record or consumer on."""
        ...

    def topics(self) -> list[str]:
        """Names of all topics, in the order in which they were made."""
        ...

    async def has_topic(self, name: str) -> bool:
        """True if the topic `name` exists: it has had a record or a consumer. One look-up, however many topics there are.
        BadOption: no topic can have that name."""
        ...

    async def delete_topic(self, name: str) -> None:
        """Hide a topic's records, and free its name and its consumers. Durable on return. What is appended to the name later begins
        an empty topic. InUse: one of its consumers is open; BadOption: there is no such topic."""
        ...

    async def hold(self, name: str, lsn: Start) -> None:
        """Keep every record from `lsn` on until `release`, or until the hold is moved by another call. Durable on return."""
        ...

    async def release(self, name: str) -> None:
        """Give up a hold, durably; nothing happens where there is none."""
        ...

    def holds(self) -> dict[str, int]:
        """The holders and the lowest LSN that each of them needs."""
        ...

    async def reclaim(self) -> int:
        """Drop the segments that every consumer and every holder has passed; returns how many records."""
        ...

    def retention(self) -> Retention:
        """Segments that are kept, the pins that need them, and the records dropped since opening."""
        ...

    async def purge(
        self,
        key_or_labels: str | bytes | int | Mapping[str, Any] | None = ...,
        *,
        before: int | None = ...,
        lsns: Iterable[int] | None = ...,
    ) -> int | None:
        """Hide the records below LSN `before` (None: all so far) that have a key, or labels, or those with the LSNs in `lsns`. Durable
        on return: how many of those were visible, None for a key or labels."""
        ...

    async def compact(self, on_segment: Callable[[int, int, int], None] | None = ...) -> int:
        """Rewrite the sealed segments without what was purged; returns the bytes by which the log's files have shrunk."""
        ...

    async def truncate_before(self, lsn: int, *, force: bool = ...) -> None:
        """Drop all records below `lsn`. BadOption: somebody holds records below it, and `force` is not set."""
        ...

    async def truncate_after(self, lsn: int) -> None:
        """Drop all records above `lsn`; the next append gets lsn + 1. Durable when it returns."""
        ...

    async def use_keys(self, keys: KeyRing) -> None:
        """Go on with another current key, or with other older ones, without stopping appends."""
        ...

    async def seal(self) -> None:
        """Make everything durable and take no more appends, in this opening or any later one. Idempotent."""
        ...

    async def close(self, timeout: float | None = ...) -> None:
        """Make everything durable that was called before, and release the log. Idempotent. WalTimeout: not in time."""
        ...

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
