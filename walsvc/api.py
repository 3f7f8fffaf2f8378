"""Log: what `walsvc.open` gives. Appending is the writer's, reading the cursor's; here they meet."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from importlib import import_module
from types import TracebackType
from typing import Any

from walsvc.config import WalConfig
from walsvc.disk.base import Disk
from walsvc.disk.choose import open_disk
from walsvc.errors import BadOption, Closed, DurabilityLost, WalError
from walsvc.log.opening import open_writer, releasing
from walsvc.log.reader import Cursor
from walsvc.log.readonly import find
from walsvc.log.reclaim import Reclaimer
from walsvc.log.replicated import of_writer
from walsvc.log.retention import truncate_after
from walsvc.log.summaries import Summaries
from walsvc.log.topical import TopicCursor
from walsvc.log.writer import WalWriter
from walsvc.model import Record, RecoveryReport, Retention, Stats
from walsvc.topics.consumer import Consumer
from walsvc.topics.delivery import Delivery, StrictlyOnce
from walsvc.topics.names import ConsumerStatus, Start, check_name
from walsvc.topics.names import check_start as check_position
from walsvc.topics.readonly import ReadOnlyTopics
from walsvc.topics.registry import Registry
from walsvc.topics.topic import Topic


class Log:
    """A log that is open for appending and reading, in one event loop.

    Attributes:
        path: its directory.
        config: the options it was opened with.
        writer: its WalWriter; `append`, `append_nowait`, `append_batch`, `flush` and `wait_durable` are the writer's.
        report: what recovery found when it was opened.
    """

    def __init__(self, disk: Disk, config: WalConfig, writer: WalWriter, report: RecoveryReport) -> None:
        self._disk = disk
        self.path = disk.path
        self.config = config
        self.writer = writer
        self.report = report
        # bound once: the way from the caller to the buffer is one call long
        self.append = writer.append
        self.append_nowait = writer.append_nowait
        self.append_batch = writer.append_batch
        self.flush = writer.flush
        self.wait_durable = writer.wait_durable
        self._reclaimer = Reclaimer(writer, self)
        self._replication: Any = None  # walsvc.engines.replication.Replication, where there is one

    # ---- range

    @property
    def first_lsn(self) -> int:
        """LSN of the first visible record; next_lsn when there is none."""
        return self.writer._metadata.truncated

    @property
    def next_lsn(self) -> int:
        """LSN that the next accepted record gets."""
        return self.writer.next_lsn

    @property
    def durable_lsn(self) -> int:
        """Every record up to this LSN is on stable storage."""
        return self.writer.durable_lsn

    @property
    def replicated_lsn(self) -> int | None:
        """Every record up to this LSN is stored by the replica; None: the log is not replicated (`replicate=`)."""
        return None if self.writer._replicated is None else self.writer._replicated.lsn

    async def wait_replicated(self, lsn: int) -> int:
        """Wait until the replica has record `lsn`, starting its commit if nobody did; returns replicated_lsn.

        Raises:
            BadOption: `lsn` was not given out yet, or the log is not replicated. ReplicaLost: the replica follows no more.
            Truncated: truncate_after dropped the record meanwhile. Closed, DurabilityLost.
        """
        replicated = of_writer(self.writer)
        await self.writer.wait_durable(lsn)
        await replicated.wait(lsn)
        return replicated.lsn

    def stats(self) -> Stats:
        """A frozen picture: range, backend, counters."""
        return self.writer.stats()

    @property
    def epoch(self) -> int:
        """For readers: changes when a batch was given up, and its place is written anew."""
        return self.writer._rewinds

    async def look_again(self) -> bool:
        """For readers: the writer itself knows all its files."""
        return False

    @property
    def topic_names(self) -> Sequence[str | None]:
        """Names of the topics by their numbers; number 0 is none."""
        return self.writer._metadata.names

    @property
    def summaries(self) -> Summaries:
        """For readers: which topics sealed segments hold."""
        return self.writer._summaries

    def segment_ids(self) -> list[int]:
        """First LSNs of the segments, ascending."""
        return self.writer._segment_ids

    def segment_file(self, first_lsn: int) -> tuple[str, int]:
        """File name and length of a segment."""
        return f"{first_lsn:016x}.wal", self.writer._segment_bytes[first_lsn]

    # ---- reading

    async def read(
        self, start: int | None = None, stop: int | None = None, *, topic: str | None = None
    ) -> AsyncIterator[Record]:
        """Iterate over records in LSN order.

        Everything accepted before the call is made durable first, so a reader sees its own appends and never a record
        that a crash could take back.

        Args:
            start: first LSN; None: first_lsn.
            stop: LSN to stop before; None: next_lsn as it is now.
            topic: only records of this topic; what holds none of them is skipped.

        Raises:
            Truncated: `start` was dropped. Corruption: acknowledged data is damaged. BadOption: `start` below 1.
        """
        async for records in self.read_batches(start, stop, topic=topic):
            for record in records:
                yield record

    async def read_batches(
        self, start: int | None = None, stop: int | None = None, *, topic: str | None = None
    ) -> AsyncIterator[list[Record]]:
        """Like read, but yields lists, a group at a time: several times faster for small records."""
        self.writer._check_open()
        first = check_start(start, self.first_lsn)
        limit = self.next_lsn if stop is None else min(stop, self.next_lsn)
        if first < limit:
            await self.writer._durable(limit - 1)
        cursor = self._cursor(first, topic)
        if cursor is None:
            return
        while records := await cursor.take(limit):
            yield records

    async def follow(self, start: int | None = None, *, topic: str | None = None) -> AsyncIterator[Record]:
        """Iterate from `start` (None: first_lsn) over durable records, then wait for new ones, without polling.

        With `topic` over its records only, which may be none yet: other topics' appends wake nobody then. Ends when the log
        is closed; raises DurabilityLost when it fails, and what `read` raises.
        """
        self.writer._check_open()
        first = check_start(start, self.first_lsn)
        cursor = self._cursor(first, topic)
        while True:
            cursor = cursor or self._cursor(first, topic)
            for record in [] if cursor is None else await cursor.take(self.durable_lsn + 1):
                yield record
            if cursor is not None and cursor.next_lsn <= self.durable_lsn:
                continue
            try:
                if topic is None:
                    await self.writer._durable_above(self.durable_lsn)
                else:
                    await self.writer._topic_record(topic, self.durable_lsn + 1)
            except Closed:
                return

    def _cursor(self, start: int, topic: str | None) -> Cursor | None:
        """A cursor over the log or over a topic; None: there is no such topic yet."""
        if topic is None:
            return Cursor(self._disk, self, start)
        number = self.topic_number(topic)
        return None if number is None else TopicCursor(self._disk, self, start, number)

    # ---- topics and consumers

    def topic(self, name: str) -> Topic:
        """The topic `name`, 1 to 255 bytes in UTF-8. It exists in the log from its first record or consumer on."""
        return Topic(self, check_name("topic", name))

    def topics(self) -> list[str]:
        """Names of all topics, in the order in which they were made."""
        return list(self.writer._metadata.topics)

    def topic_number(self, name: str) -> int | None:
        """Number of a topic in the log; None: there is none of that name."""
        return self.writer._metadata.topics.get(name)

    async def consumer(
        self, name: str, delivery: Delivery | type[Delivery] = StrictlyOnce, start: Start = "first"
    ) -> Consumer:
        """Open consumer `name` of the whole log, making it if there is none; see Topic.consumer."""
        return await Registry(self, None).open(name, delivery, start)

    async def consumers(self) -> list[ConsumerStatus]:
        """All consumers: those of the whole log, then those of each topic."""
        found = await Registry(self, None).list()
        for topic in self.topics():
            found += await Registry(self, topic).list()
        return found

    async def move_consumer(self, name: str, to: Start) -> None:
        """Set the position of a consumer of the whole log that is not open, durably."""
        await Registry(self, None).move(name, to)

    async def delete_consumer(self, name: str) -> None:
        """Forget a consumer of the whole log that is not open, durably."""
        await Registry(self, None).delete(name)

    async def _settled(self) -> int:
        """For topics: make durable what was accepted; returns the LSN behind it."""
        self.writer._check_open()
        limit = self.next_lsn
        await self.writer._durable(limit - 1)
        return limit

    async def _sums(self, number: int) -> tuple[int, int]:
        """For topics: records of one ever, and the LSN of its last one."""
        return self.writer._topic_sums(number)

    # ---- retention

    async def hold(self, name: str, lsn: int) -> None:
        """Keep every record from `lsn` on until `release`, or until the hold is moved by another call. Durable on return.

        Reclaiming, limits and truncate_before respect it, also after reopening. BadOption where `lsn` is not in first_lsn
        to next_lsn.
        """
        check_name("holder", name)
        self.writer._check_call()
        await self.writer._join(lambda: {"holds": {name: check_position(self.writer, lsn)}})
        self._consumed(lsn)

    async def release(self, name: str) -> None:
        """Give up a hold, durably; nothing happens where there is none."""
        check_name("holder", name)
        self.writer._check_call()
        if name in self.writer._metadata.holds:
            await self.writer._join(lambda: {"holds": {name: None}})
            self._reclaimer.wake()

    def holds(self) -> dict[str, int]:
        """The holders and the lowest LSN that each of them needs."""
        return dict(self.writer._metadata.holds)

    async def reclaim(self) -> int:
        """Drop the segments that every consumer and every holder has passed, and what limits say; returns how many records.

        Without any consumer or hold nothing is consumed, and nothing is dropped. A topic that nobody consumes holds nothing
        back: give it a consumer or a hold before.
        """
        return await self._reclaimer.reclaim()

    def retention(self, pins_max: int | None = None) -> Retention:
        """What is kept, who needs it (the oldest `pins_max` needs; None: all), and what was dropped since opening."""
        return self._reclaimer.status(pins_max)

    def _consumed(self, lsn: int) -> None:
        """For consumers: one has passed `lsn`."""
        self._reclaimer.consumed(lsn)

    # ---- extent and end

    async def truncate_before(self, lsn: int, *, force: bool = False) -> None:
        """Drop all records below `lsn`; whole segments go, the rest is hidden. Durable when it returns.

        A consumer that has not passed them gets Truncated at its next call.

        Raises:
            BadOption: `lsn` is not in first_lsn to next_lsn (below first_lsn there is nothing to do), or somebody holds
                records below it and `force` is not set.
        """
        await self._reclaimer.truncate_before(lsn, force=force)

    async def truncate_after(self, lsn: int) -> None:
        """Drop all records above `lsn`; the next append gets lsn + 1. Durable when it returns.

        Appends that arrive meanwhile wait. Raises BadOption where `lsn` is not in first_lsn - 1 to next_lsn - 1.
        """
        await truncate_after(self.writer, lsn)

    async def seal(self) -> None:
        """Make everything durable and take no more appends, ever; reading goes on."""
        await self.writer.seal()

    async def close(self, timeout: float | None = None) -> None:
        """Make everything durable, mark a clean close, release the log; see WalWriter.close.

        The replica gets a few seconds, and no more, for what it does not have yet; the rest follows when the log is opened
        again. Who waits for it gets Closed.
        """
        started = self.writer._loop.time()
        if self._replication is not None:
            with contextlib.suppress(WalError, TimeoutError):
                async with asyncio.timeout(timeout):
                    await self.writer._durable(self.next_lsn - 1)
            await self._replication.close(timeout)
        if timeout is not None:
            timeout = max(timeout - (self.writer._loop.time() - started), 0.0)
        try:
            await self.writer.close(timeout)
        finally:
            self._reclaimer.stop()
        await self._reclaimer.close()

    async def __aenter__(self) -> Log:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            await self.close()
            return
        with contextlib.suppress(DurabilityLost):  # the body's own error says more
            await self.close()

    def __repr__(self) -> str:
        return f"Log({self.path!r}, next_lsn={self.next_lsn}, durable_lsn={self.durable_lsn})"


def check_start(start: int | None, first_lsn: int) -> int:
    """`start` or the first LSN; BadOption below 1."""
    if start is None:
        return first_lsn
    if start < 1:
        raise BadOption(f"start={start} is no LSN", hint="LSNs begin with 1")
    return start


SCHEMES = {
    "unix": "walsvc.service.client",
    "wal": "walsvc.service.client",
    "wals": "walsvc.service.client",
    "nats": "walsvc.engines.jetstream",
}
"""Where a log is that a URL names: a module, imported when it is needed, whose function `prepare(url, config, options)` checks
both at once and returns what opens the log."""
REPLICATION = "walsvc.engines.replication"  # imported when a log is replicated
URL = re.compile(r"([a-z][a-z0-9+.-]*)://")


class Opening:
    """What `walsvc.open` returns: `async with` it, or await it. Nothing happens before that."""

    def __init__(self, opener: Callable[[], Awaitable[Any]]) -> None:
        self._opener = opener
        self._log: Any = None

    def __await__(self) -> Any:
        return self._opener().__await__()

    async def __aenter__(self) -> Any:
        self._log = await self._opener()
        return self._log

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._log is not None, "__aexit__ without __aenter__"
        await self._log.__aexit__(kind, error, trace)


def open(target: str | os.PathLike[str], *, config: WalConfig | None = None, **overrides: Any) -> Opening:
    """Open the log in directory `target`, creating it if there is none, or the log that a URL names.

    Args:
        target: the directory; or unix:///path, wal://host:port, wals://host:port (a log behind `walsvc serve`, docs/SERVICE.md),
            nats://host:port/stream (docs/ENGINES.md).
        config: options; None: the defaults. For a directory only.
        **overrides: single options, see WalConfig; for a URL the options of its own kind.

    Returns:
        An object for `async with walsvc.open(...) as log` or `log = await walsvc.open(...)`.

    Raises:
        BadOption at once; when entered or awaited: Locked, PathError, Corruption, UnsupportedFormat, NoSpace.
    """
    if not isinstance(target, (str, os.PathLike)):
        raise BadOption(f"the log's path must be text or a path, not {type(target).__name__}")
    if isinstance(target, str) and (scheme := URL.match(target)) is not None:
        module = SCHEMES.get(scheme[1])
        if module is None:
            hint = ", ".join(f"{known}://" for known in SCHEMES)
            raise BadOption(f"{scheme[1]}:// is no kind of log", hint=f"a directory, or one of {hint}")
        opener: Callable[[], Awaitable[Any]] = import_module(module).prepare(target, config, overrides)
        return Opening(opener)
    options = WalConfig.of(config, overrides)
    if options.replicate is not None:
        import_module(REPLICATION).check_url(options.replicate)
    return Opening(partial(open_log, target, options))


async def open_log(target: str | os.PathLike[str], config: WalConfig) -> Any:
    """Choose a disk, recover, and give a Log (or a ReadOnlyLog)."""
    path = os.fspath(target)
    if config.namespace is not None:
        path = os.path.join(path, config.namespace)
    disk = await open_disk(path, config=config, loop=asyncio.get_running_loop(), exclusive=not config.read_only)
    return await open_on(disk, config)


async def open_on(disk: Disk, config: WalConfig) -> Any:
    """Open the log on a given disk; tests pass a simulated one. The disk is closed on any error."""
    async with releasing(disk):
        if config.read_only:
            return ReadOnlyTopics(disk, config, await find(disk))
        writer, report = await open_writer(disk, config)
    log = Log(disk, config, writer, report)
    if config.replicate is not None:
        log._replication = await import_module(REPLICATION).start(log, config.replicate)
    return log
