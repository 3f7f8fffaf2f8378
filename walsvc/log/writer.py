"""WalWriter: the append side of a log, a face on the parts in walsvc.log.commit.

Group commit reads as a three-way choice (okaywal): a record is already durable, or somebody is committing and takes it
along, or this append starts the commit. `append` is a plain function that returns a future, not a coroutine: gather and
wait_for take it as it is, and no task is needed for an append in flight.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import AsyncIterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

from walsvc.config import WalConfig
from walsvc.disk.base import Disk
from walsvc.disk.pool import imported
from walsvc.errors import BadOption, not_given_out
from walsvc.keywords import AppendOptions, Payloads
from walsvc.log.commit.ack import Ack, ack_of
from walsvc.log.commit.appending import AppendsTo, TakesRecords
from walsvc.log.commit.batch import stream_batch
from walsvc.log.commit.batch_source import head_of_batch, whole_batch
from walsvc.log.commit.catalog import View
from walsvc.log.commit.conditions import check_expected
from walsvc.log.commit.core import Core, StartingPoint, put_together
from walsvc.log.commit.encoding import measure
from walsvc.log.commit.ending import Ending
from walsvc.log.commit.entering import append_pieces, append_record
from walsvc.log.commit.entries import Pieces
from walsvc.log.commit.intake import Intake
from walsvc.log.commit.payload import iterator_of
from walsvc.log.commit.results import BatchResult
from walsvc.log.commit.stats import stats_of
from walsvc.log.read.live import LiveSegments
from walsvc.model import AppendResult, Entry, Mode, Quorum, Stats, Strict, is_lsn
from walsvc.scope import Dropped, Opened, Opening

if TYPE_CHECKING:
    from walsvc.open_keywords import LogOptions


class WalWriter(TakesRecords, Opened):
    """Appends to a log. Get it from `walsvc.open(...)` as `log.writer`, or alone by `await WalWriter.open(path)`.

    Belongs to one event loop; every method raises WrongLoop elsewhere (another loop or thread, a forked child), Closed
    after close or seal, and DurabilityLost after the first failed write or sync.

    Attributes:
        core: its parts, for the modules of walsvc that extend the log.
        ending: seals and closes it.
        segments: what readers, topics and engines see of the log.
    """

    def __init__(self, disk: Disk, config: WalConfig, start: StartingPoint) -> None:
        self.core: Core = put_together(disk, config, start, self._append_slowly)
        self.path: str = disk.path
        self.ending: Ending = Ending(self.core)
        self.segments: LiveSegments = LiveSegments(self.core, self.ending)
        self._opens(Dropped.TELLS)
        intake = self.core.placement.intake
        # in the method's place: the way from the caller to the buffer is one call long
        vars(self)["append"] = intake.append
        INTAKES.add(intake)

    @classmethod
    def open(
        cls, path: str | bytes | os.PathLike[Any], *, config: WalConfig | None = None, **overrides: Unpack[LogOptions]
    ) -> Opening[WalWriter]:
        """Open (or create) the log in directory `path` for appending: `async with WalWriter.open(path) as writer`, or
        `writer = await WalWriter.open(path)`. Options and errors as in `walsvc.open`."""
        options = WalConfig.of(config, {**overrides, "read_only": False})
        if options.replicate is not None:
            raise BadOption("a WalWriter alone is not replicated", hint="walsvc.open(path, replicate=...)")
        return Opening(partial(cls._open, path, options))

    @classmethod
    async def _open(cls, path: str | bytes | os.PathLike[Any], config: WalConfig) -> WalWriter:
        await imported("walsvc.disk.choose", "walsvc.log.opening")
        from walsvc.disk.choose import open_disk
        from walsvc.log.extent.rekey import check_newest
        from walsvc.log.opening import open_writer, releasing

        check = partial(check_newest, config.keys)
        disk = await open_disk(path, config=config, loop=asyncio.get_running_loop(), exclusive=True, check=check)
        async with releasing(disk):
            writer, _ = await open_writer(disk, config)
        writer.ending.alone = True
        return writer

    # ---- appending

    def _place(self) -> tuple[AppendsTo, str | None]:
        return self, None

    def append_to(
        self,
        topic: str | None,
        payload: Any,
        mode: Mode,
        type: int,
        attributes: Mapping[str, Any] | None,
        *,
        options: AppendOptions,
        wait: bool,
    ) -> Any:
        """Append one record to a topic, or to none; `wait` for room as append does, or never, as append_nowait."""
        core = self.core
        if mode is Quorum:
            replica = core.replica()  # raises before anything is appended
            return replica.after(self.append_to(topic, payload, Strict, type, attributes, options=options, wait=wait))
        return append_record(core, payload, mode, type=type, attributes=attributes, topic=topic, **options, wait=wait)

    def _append_slowly(  # noqa: PLR0917  called by C
        self,
        payload: Any,
        mode: Mode,
        type: int,
        attributes: Mapping[str, Any] | None,
        topic: str | None,
        expected: int | None = None,
        dedupe: str | None = None,
    ) -> Ack[AppendResult]:
        """Append what the intake does not take."""
        options: AppendOptions = {"expected": expected, "dedupe": dedupe}
        ack: Ack[AppendResult] = self.append_to(topic, payload, mode, type, attributes, options=options, wait=True)
        return ack

    def append_batch_to(
        self, topic: str | None, payloads: Payloads, mode: Mode, expected: int | None = None
    ) -> Ack[BatchResult]:
        """append_batch, to a topic or to none."""
        core = self.core
        if mode is Quorum:
            return core.replica().after(self.append_batch_to(topic, payloads, Strict, expected))
        core.health.check_append(mode)
        check_expected(expected)
        if isinstance(payloads, AsyncIterable):
            return ack_of(stream_batch(core, Pieces(), payloads, topic, expected=expected))
        if isinstance(payloads, (list, tuple)) and not isinstance(payloads, Entry):
            pieces, rest = whole_batch(core.queue.bounds, payloads)
        else:
            pieces, rest = head_of_batch(core.queue.bounds, iterator_of(payloads))
        if rest is not None:
            return ack_of(stream_batch(core, pieces, rest, topic, expected=expected))
        lengths, size, _ = measure(pieces.payloads)
        return append_pieces(core, pieces, lengths, size, mode, topic=topic, expected=expected)

    # ---- waiting and ending

    async def flush(self) -> int:
        """Wait until everything appended so far is durable: appends that wait for room, and batches whose source has not ended,
        are waited for, too. Also on a sealed log.

        Sees that the log's directory, LOCK and newest segment are still the files that were opened, as closing, truncating and
        each change of segments do: DurabilityLost otherwise. An append between two of these may be answered although somebody
        has removed or replaced the file that it went to.

        Returns:
            durable_lsn, in bytes-on-disk terms the last LSN that a crash cannot take back.
        """
        return await self.ending.flush()

    async def wait_durable(self, lsn: int) -> int:
        """Wait until record `lsn` is durable, starting its commit if nobody did; returns durable_lsn. Also on a sealed log.

        Raises:
            BadOption: `lsn` was not given out yet.
        """
        core = self.core
        core.health.check_running()
        if not is_lsn(lsn) or not 0 <= lsn < core.next_lsn:
            raise not_given_out(lsn, core.next_lsn, core.disk.path)
        return await core.durable(lsn)

    async def seal(self) -> None:
        """Make everything durable and take no more appends, in this opening or any later one; reading goes on. Idempotent.

        Appends called meanwhile wait, and get Closed when it is done.
        """
        await self.ending.seal()

    def _is_open(self) -> bool:
        return self.ending.alone and not self.core.health.closing

    async def close(self, timeout: float | None = None) -> None:
        """Make everything durable that was called before, mark the log as closed in order, and release it. Idempotent.

        Appends that wait for room get it first, as do truncations that wait their turn. A streamed batch whose asynchronous
        source has not ended is given up: its caller gets Closed, as does every later call.

        Args:
            timeout: seconds for all of it; None: as long as it takes.

        Raises:
            WalTimeout: not done in time. Appends that still wait for room get Closed. Closing goes on in the background: the
                lock is held until the last write has ended, so that it can never reach a log that somebody else has opened.
            DurabilityLost: a write failed, Relaxed records were lost, and nobody had been told yet.
        """
        await self.ending.close(timeout)

    # ---- looking

    @property
    def next_lsn(self) -> int:
        """The LSN that the next accepted record gets."""
        return self.core.next_lsn

    @property
    def durable_lsn(self) -> int:
        """Every record up to this LSN is on stable storage; 0 or the LSN before the first when there is none."""
        return self.core.catalog.durable_lsn

    @property
    def view(self) -> View:
        """Segments and durable end, as they are at this moment."""
        return self.core.catalog.view

    def stats(self) -> Stats:
        """A frozen picture of the writer's state and counters."""
        return stats_of(self.core)


INTAKES: weakref.WeakSet[Intake] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    """A forked child shares the file descriptors but not the loop: shut the fast path, so that every call raises."""
    for intake in INTAKES:
        intake.shut()


os.register_at_fork(after_in_child=_after_fork_in_child)
