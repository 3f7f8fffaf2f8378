"""Log: what `walsvc.open` gives. Appending is the writer's, reading the cursor's; here they meet."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import Any

from walsvc.config import WalConfig, check_timeout
from walsvc.errors import WalError
from walsvc.format.purge import check_way
from walsvc.keyring import KeyRing
from walsvc.log.commit.appending import AppendsTo, TakesRecords
from walsvc.log.commit.replicated import replica_of
from walsvc.log.extent.compaction import compact
from walsvc.log.extent.cutting import truncate_after
from walsvc.log.extent.hider import Hider
from walsvc.log.extent.hidings import Hidings
from walsvc.log.extent.keeping import Keeping
from walsvc.log.extent.purging import purge
from walsvc.log.extent.reclaim import Reclaimer
from walsvc.log.extent.rekey import use_keys
from walsvc.log.extent.singles import Singles
from walsvc.log.read.live import LiveSegments
from walsvc.log.read.reading import Reading
from walsvc.log.writer import WalWriter
from walsvc.model import Mode, RecoveryReport, Retention, Stats, Strict
from walsvc.scope import Opened
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


class Log(TakesRecords, Reading, OpensConsumers[Consumer], Opened):
    """A log that is open for appending and reading, in one event loop.

    Attributes:
        path: its directory.
        config: the options it was opened with.
        writer: its WalWriter; `append`, `append_nowait`, `append_batch`, `flush` and `wait_durable` are the writer's.
        report: what recovery found when it was opened.
    """

    def __init__(self, writer: WalWriter, report: RecoveryReport) -> None:
        super().__init__(LiveSegments(writer))
        self.config: WalConfig = writer.core.config
        self.loop: asyncio.AbstractEventLoop = writer.loop
        self.writer = writer
        self.report = report
        vars(self)["append"] = writer.append  # in the place of the method: the way to the buffer is one call shorter
        self.hubs: Hubs = Hubs(self.segments, writer)
        self._reclaimer = Reclaimer(writer.core, self.segments)
        self.hidings: Hidings = Hidings(writer.core, self.segments)
        self._hider = Hider(writer.core, self.segments, self._reclaimer, self.hidings)
        self._singles = Singles(writer.core, self.segments, self.hidings)
        self._keeping = Keeping(writer.core, self.segments, self._hider, self._reclaimer)

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
        replicated = replica_of(self.writer.core)
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
            self, self.writer, self.hubs, (self._hider, self._singles, self._keeping), check_name("topic", name)
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
        return await Registry(self.segments, self.writer, None).open(name, delivery, start)

    async def _open_shared(
        self, name: str, delivery: Delivery | type[Delivery], start: Start, options: SharedOptions
    ) -> SharedConsumer:
        refuse_lazy(delivery)
        return await self.hubs.open(None, name, start, options)

    async def consumers(self) -> list[ConsumerStatus]:
        """All consumers: those of the whole log, then those of each topic."""
        found = await Registry(self.segments, self.writer, None).list()
        for topic in self.topics():
            found += await Registry(self.segments, self.writer, topic).list()
        return found

    async def move_consumer(self, name: str, to: Start) -> None:
        """Set the position of a consumer of the whole log that is not open, durably."""
        await Registry(self.segments, self.writer, None).move(name, to)

    async def delete_consumer(self, name: str) -> None:
        """Forget a consumer of the whole log that is not open, durably."""
        await Registry(self.segments, self.writer, None).delete(name)

    # ---- retention

    async def hold(self, name: str, lsn: int) -> None:
        """Keep every record from `lsn` on until `release`, or until the hold is moved by another call. Durable on return.

        Reclaiming, limits and truncate_before respect it, also after reopening. BadOption where `lsn` is not in first_lsn
        to next_lsn.
        """
        check_name("holder", name)
        self.writer.core.health.check_call()
        await self.writer.core.changes.join(lambda: {"holds": {name: check_position(self.writer, lsn)}})
        self.writer.core.changes.passed(lsn)

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

    async def reclaim(self) -> int:
        """Drop the segments that every consumer and every holder has passed, and what limits say; returns how many records.

        Without any consumer or hold nothing is consumed, and nothing is dropped. A topic that nobody consumes holds nothing
        back: give it a consumer or a hold before.
        """
        return await self._reclaimer.reclaim()

    def retention(self, pins_max: int | None = None) -> Retention:
        """The segments that are kept, the pins that need them (the oldest `pins_max`; None: all), and the records dropped since opening."""
        return self._reclaimer.status(pins_max)

    # ---- purging

    async def purge(
        self, key_or_labels: Any = None, *, before: int | None = None, lsns: Iterable[int] | None = None
    ) -> int | None:
        """Hide records, whatever their topic: those below LSN `before` that have a key, or labels, or those with the LSNs in `lsns`.
        Durable when it returns.

        From then on no reading shows them, no consumer gets them; later records are not concerned, so purging a key is also
        its tombstone. They keep their LSNs; `compact` gives their space back. A hold does not protect from it. Records that a key or
        labels hide count as records, those that are named do not.

        Args:
            key_or_labels: text, bytes or an integer: records whose attribute "key" is equal. A mapping: records whose
                attributes have all of these labels, with these values (text, bytes, number, True or False); at least one.
                At most 1,024 bytes as JSON.
            before: 1 to next_lsn; None: next_lsn, that is, everything accepted before the call.
            lsns: instead of a key: LSNs of single records, at most 10,000, all below next_lsn. They are read before they are hidden.

        Returns:
            How many of the records in `lsns` were visible until then; None for a key or labels.

        Raises:
            BadOption: an argument is out of its bounds, or there are 65,536 marks, or ranges of single records, already; what
                `append` raises.
        """
        check_way(key_or_labels, before, lsns, topic=False)
        if lsns is not None:
            return await self._singles.purge(None, lsns)
        await purge(self.writer.core, key_or_labels, before, None)
        return None

    async def compact(self, on_segment: Callable[[int, int, int], None] | None = None) -> int:
        """Rewrite the sealed segments without what was purged; returns the bytes by which the log's files have shrunk.

        LSNs, counts and whatever was not purged stay as they are; the offsets in results of earlier appends no longer hold
        there. One segment after the other, each complete before it takes the old one's place: killed or cancelled at any
        moment, nothing is lost, and another call goes on. Needs room for one segment more. Appends and readers go on
        beside it; truncations and streamed batches wait for the segment at hand.

        Args:
            on_segment: called after each segment with: segments done, segments to do, bytes freed so far.

        Raises:
            BadOption: the log is in a JetStream stream, whose messages cannot be written anew.
            NoSpace: no room for the rewritten segment. Corruption: a segment is damaged and stays as it is. PathError:
            reading or writing failed. And what `append` raises.
        """
        return await compact(self.writer.core, on_segment)

    # ---- extent and end

    async def truncate_before(self, lsn: int, *, force: bool = False) -> None:
        """Drop all records below `lsn`; whole segments go, the rest is hidden. Durable when it returns.

        A consumer that has not passed them gets Truncated at its next call.

        Raises:
            BadOption: `lsn` is not in first_lsn to next_lsn (below first_lsn there is nothing to do), or somebody holds
                records below it and `force` is not set.
            NoSpace, PathError: a file cannot be removed now (or, where first_lsn has not moved, what is to be dropped cannot be
                looked at). The next truncation tries again.
        """
        await self._reclaimer.truncate_before(lsn, force=force)

    async def truncate_after(self, lsn: int) -> None:
        """Drop all records above `lsn`; the next append gets lsn + 1. Durable when it returns.

        From then on nobody is given what was dropped: a read that is under way ends at the cut, a follower or consumer that
        stood beyond it goes on with what is written in its place.

        Appends that arrive meanwhile wait.

        Raises:
            BadOption: `lsn` is not in first_lsn - 1 to next_lsn - 1.
            NoSpace, PathError: no room for it, and nothing was changed; or a file behind the cut cannot be removed now. The log ends
                with `lsn` then, all the same. Until the file is gone, which is tried again by itself, or by the next opening, calls
                that change the log get that error, too.
        """
        await truncate_after(self.writer.core, lsn)

    async def use_keys(self, keys: KeyRing) -> None:
        """Go on with another current key, or with other older ones, without stopping appends.

        If the current key changes, the next group begins a new segment under it, and the old segment gets only its seal.
        When this returns, that segment is durable. A plain log is encrypted from there on; what it held stays plain.

        Args:
            keys: the new ring. Its older keys must be those of all segments that are still there.

        Raises:
            MissingKey, WrongKey: a segment could not be read any more; nothing was changed. NoSpace: nor here.
            BadOption, Closed, DurabilityLost, WrongLoop.
        """
        await use_keys(self.writer.core, keys)

    async def seal(self) -> None:
        """Make everything durable and take no more appends, ever; reading goes on. Idempotent; see WalWriter.seal."""
        await self.writer.seal()

    @property
    def closing(self) -> bool:
        """True if `close` was called."""
        return self.writer.closing

    async def close(self, timeout: float | None = None) -> None:
        """Make everything durable that was called before, mark a clean close, release the log; see WalWriter.close.

        The replica gets a few seconds, and no more, for what it does not have yet; the rest follows when the log is opened
        again. Who waits for it gets Closed.
        """
        check_timeout(timeout)
        started = self.writer.core.health.loop.time()

        def left() -> float | None:
            return None if timeout is None else max(started + timeout - self.writer.core.health.loop.time(), 0.0)

        await self.hubs.close(left())
        replicated = self.writer.core.replicated
        if replicated is not None and replicated.shipping is not None:
            with contextlib.suppress(WalError, TimeoutError):
                async with asyncio.timeout(timeout):
                    await self.writer.ending.drain()
            await replicated.shipping.close(left())
        try:
            await self.writer.close(left())
        finally:
            self._reclaimer.stop()
            self._keeping.stop()
        await self._reclaimer.close()
        await self._keeping.close()

    def __repr__(self) -> str:
        return f"Log({self.path!r}, next_lsn={self.next_lsn}, durable_lsn={self.durable_lsn})"
