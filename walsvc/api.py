"""Log: what `walsvc.open` gives. Appending is the writer's, reading the cursor's; here they meet."""

from __future__ import annotations

import asyncio
import contextlib

from walsvc.config import WalConfig, check_timeout
from walsvc.errors import WalError
from walsvc.log.commit.appending import AppendsTo, TakesRecords
from walsvc.log.extent.trims import Trims
from walsvc.log.read.reading import Reading
from walsvc.log.writer import WalWriter
from walsvc.model import Mode, RecoveryReport, Stats, Strict
from walsvc.scope import Dropped, Opened
from walsvc.topics.consumer import Consumer
from walsvc.topics.deleting import delete_topic
from walsvc.topics.delivery import Delivery
from walsvc.topics.hubs import Hubs
from walsvc.topics.names import ConsumerStatus, Start, check_name
from walsvc.topics.names import check_start as check_position
from walsvc.topics.opening import OpensConsumers
from walsvc.topics.registry import Registry
from walsvc.topics.shared import SharedConsumer
from walsvc.topics.sharing import SharedOptions, refuse_lazy
from walsvc.topics.topic import Topic
from walsvc.topics.transaction import LocalTransaction, Transaction


class Log(TakesRecords, Reading, Trims, OpensConsumers[Consumer], Opened):
    """A log that is open for appending and reading, in one event loop.

    Attributes:
        path: its directory.
        config: the options it was opened with.
        writer: its WalWriter; `append`, `append_nowait`, `append_batch`, `flush` and `wait_durable` are the writer's.
        report: what recovery found when it was opened.
    """

    def __init__(self, writer: WalWriter, report: RecoveryReport, dropped: Dropped = Dropped.SILENT) -> None:
        super().__init__(writer.segments)
        self.config: WalConfig = writer.core.config
        self.writer = writer
        self.report = report
        vars(self)["append"] = writer.append  # in the place of the method: the way to the buffer is one call shorter
        self._hubs = Hubs(writer.segments, writer)
        Trims.__init__(self, writer.core, writer.segments)
        self._opens(dropped)

    # ---- appending: the writer's

    def _place(self) -> tuple[AppendsTo, str | None]:
        return self.writer, None

    def transaction(self, mode: Mode = Strict) -> Transaction:
        """Appends to several topics, acknowledgements and conditions that become durable together, or not at all; see Transaction.

        Raises:
            Closed, DurabilityLost, WrongLoop; for Quorum also BadOption, ReplicaLost.
        """
        return LocalTransaction(self.writer, mode)

    async def flush(self) -> int:
        """Wait until everything appended so far is durable; returns durable_lsn. See WalWriter.flush."""
        return await self.writer.flush()

    async def wait_durable(self, lsn: int) -> int:
        """Wait until record `lsn` is durable, starting its commit if nobody did; returns durable_lsn. BadOption: `lsn` was not
        given out yet."""
        return await self.writer.wait_durable(lsn)

    # ---- state

    @property
    def replicated_lsn(self) -> int | None:
        """Every record up to this LSN is stored by the replica; None: the log is not replicated (`replicate=`)."""
        return None if self.writer.core.replicated is None else self.writer.core.replicated.lsn

    async def wait_replicated(self, lsn: int | None = None) -> int:
        """Wait until the replica has record `lsn`, starting its commit if nobody did, and every change without an LSN that was
        answered before the call: acknowledgements, truncations, purges, holds, consumers that were made, moved or deleted. A copy
        of the replica then has all of that.

        Args:
            lsn: 0 to next_lsn - 1; 0: only those changes. None: everything that was accepted before the call, which is flushed.

        Returns:
            replicated_lsn.

        Raises:
            BadOption: `lsn` was not given out yet, or the log is not replicated. ReplicaLost: the replica follows no more.
            Truncated: truncate_after dropped the record meanwhile. Closed, DurabilityLost.
        """
        replicated = self.writer.core.replica()
        if lsn is None:
            await self.flush()
            lsn = self.durable_lsn
        else:
            await self.writer.wait_durable(lsn)
        await asyncio.gather(replicated.wait(lsn), replicated.wait_changes(self.writer.core.catalog.changed))
        return replicated.lsn

    async def refresh(self) -> int:
        """Return next_lsn: here everything is known. For programs that may also get a served log, which has to ask."""
        return self.next_lsn

    def stats(self) -> Stats:
        """A frozen picture: range, backend, counters."""
        return self.writer.stats()

    # ---- topics and consumers

    def topic(self, name: str) -> Topic:
        """The topic `name`, 1 to 255 bytes in UTF-8. It exists in the log from its first record or consumer on."""
        return Topic(
            self, self.writer, self._hubs, (self._hider, self._singles, self._keeping), check_name("topic", name)
        )

    def topics(self) -> list[str]:
        """Names of all topics, in the order in which they were made."""
        return list(self.writer.core.metadata.topics)

    async def has_topic(self, name: str) -> bool:
        """True if the topic `name` exists: it has had a record or a consumer. One look-up, however many topics there are."""
        return check_name("topic", name) in self.writer.core.metadata.topics

    async def delete_topic(self, name: str) -> None:
        """Delete a topic: its records are hidden from all reading, its name and its consumers are free. Durable when it returns.

        What is appended to the name from then on, by callers who have not heard of it, too, is a new topic, which begins empty:
        without records, consumers, callers' keys and purge marks. A follower of the name goes on with it. The records keep their
        LSNs, and their room in the files until these are truncated or compacted (`compact`). truncate_after does not bring a topic
        back. A hold does not protect from it.

        A topic goes by itself when truncation or retention has dropped the last of its records, unless it has a consumer, or
        callers' keys that are remembered.

        Raises:
            BadOption: there is no such topic. InUse: one of its consumers is open. And what `append` raises.
        """
        await delete_topic(self.writer.core, name)

    async def _open_consumer(self, name: str, delivery: Delivery | type[Delivery], start: Start) -> Consumer:
        return await Registry(self._segments, self.writer, None).open(name, delivery, start)

    async def _open_shared(
        self, name: str, delivery: Delivery | type[Delivery], start: Start, options: SharedOptions
    ) -> SharedConsumer:
        refuse_lazy(delivery)
        return await self._hubs.open(None, name, start, options)

    async def consumers(self) -> list[ConsumerStatus]:
        """All consumers: those of the whole log, then those of each topic."""
        found = await Registry(self._segments, self.writer, None).list()
        for topic in self.topics():
            found += await Registry(self._segments, self.writer, topic).list()
        return found

    async def move_consumer(self, name: str, to: Start) -> None:
        """Set the position of a consumer of the whole log that is not open, durably."""
        await Registry(self._segments, self.writer, None).move(name, to)

    async def delete_consumer(self, name: str) -> None:
        """Forget a consumer of the whole log that is not open, durably."""
        await Registry(self._segments, self.writer, None).delete(name)

    # ---- holds

    async def hold(self, name: str, lsn: Start) -> None:
        """Keep every record from `lsn` on until `release`, or until the hold is moved by another call. Durable on return.

        Reclaiming, limits and truncate_before respect it, also after reopening. BadOption where `lsn` is not in first_lsn
        to next_lsn, nor "first" or "next".
        """
        check_name("holder", name)
        self.writer.core.health.check_call()
        await self.writer.core.changes.join(lambda: {"holds": {name: check_position(self.writer, lsn)}})
        self.writer.core.changes.passed(self.writer.core.metadata.holds.get(name, 0))

    async def release(self, name: str) -> None:
        """Give up a hold, durably; nothing happens where there is none."""
        check_name("holder", name)
        self.writer.core.health.check_call()
        if name in self.writer.core.metadata.holds or self.writer.core.changes.length:  # a hold may be on its way
            await self.writer.core.changes.join(lambda: {"holds": {name: None}})
            self._reclaimer.wake()

    def holds(self) -> dict[str, int]:
        """The holders and the lowest LSN that each of them needs."""
        return dict(self.writer.core.metadata.holds)

    # ---- the end

    async def seal(self) -> None:
        """Make everything durable and take no more appends, ever; reading goes on. Idempotent; see WalWriter.seal."""
        await self.writer.seal()

    def _is_open(self) -> bool:
        return not self.writer.core.health.closing

    async def close(self, timeout: float | None = None) -> None:
        """Make everything durable that was called before, mark a clean close, release the log; see WalWriter.close.

        The replica gets a few seconds, and no more, for what it does not have yet; the rest follows when the log is opened
        again. Who waits for it gets Closed.
        """
        check_timeout(timeout)
        started = self.writer.core.health.loop.time()

        def left() -> float | None:
            return None if timeout is None else max(started + timeout - self.writer.core.health.loop.time(), 0.0)

        await self._hubs.close(left())
        replicated = self.writer.core.replicated
        if replicated is not None and replicated.shipping is not None:
            with contextlib.suppress(WalError, TimeoutError):
                async with asyncio.timeout(timeout):
                    await self.writer.ending.drain()
            await replicated.shipping.close(left())
        try:
            await self.writer.close(left())
        finally:
            self._stop_trimming()
        await self._end_trimming()

    def __repr__(self) -> str:
        return f"Log({self.path!r}, next_lsn={self.next_lsn}, durable_lsn={self.durable_lsn})"
