"""Waiting for durability, metadata of its own groups, and the end: flush, seal, close."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

from walsvc.config import WalConfig
from walsvc.disk.base import Disk
from walsvc.errors import (
    BadOption,
    DurabilityLost,
    NoSpace,
    WalError,
    WalTimeout,
    closed_log,
)
from walsvc.format.group import Flag
from walsvc.format.meta import Metadata
from walsvc.log.accept import Turn
from walsvc.log.commit.ack import all_done
from walsvc.log.double_write import DoubleWrite
from walsvc.log.joining import Joiner
from walsvc.log.segments import Segment
from walsvc.model import is_lsn

FOLLOWER_SECONDS = 0.5  # that closing leaves to followers which have not yet read the log's end


class Ending(Joiner):
    """What callers wait for, and how a writer ends."""

    def __init__(
        self,
        disk: Disk,
        config: WalConfig,
        segment: Segment,
        *,
        next_lsn: int,
        generation: int,
        metadata: Metadata,
        sizes: Mapping[int, int],
        double_write: DoubleWrite | None = None,
    ) -> None:
        self._closing: asyncio.Task[None] | None = None
        self._sealing: asyncio.Task[None] | None = None
        self._batches: set[asyncio.Task[Any]] = set()  # streamed batches that are not durable yet
        self._drawing: set[asyncio.Task[Any]] = set()  # streamed batches whose asynchronous source has not ended
        super().__init__(
            disk,
            config,
            segment,
            next_lsn=next_lsn,
            generation=generation,
            metadata=metadata,
            sizes=sizes,
            double_write=double_write,
        )

    # ---- waiting

    async def flush(self) -> int:
        """Wait until everything appended so far is durable: appends that wait for room, and batches whose source has not ended,
        are waited for, too. Also on a sealed log.

        Sees that the log's directory, LOCK and newest segment are still the files that were opened, as closing, truncating and
        each change of segments do: DurabilityLost otherwise. An append between two of these may be answered although somebody
        has removed or replaced the file that it went to.

        Returns:
            durable_lsn, in bytes-on-disk terms the last LSN that a crash cannot take back.
        """
        self.health.check_running()
        appended: list[asyncio.Future[Any]] = [entry.future for entry in self._waiting]
        appended += self._batches - {asyncio.current_task()}  # whose source may call this
        await all_done(appended)
        durable = await self._durable(self.next_lsn - 1)
        try:
            await self.check_place()
        except DurabilityLost:
            self.health.told += 1
            raise
        return durable

    async def wait_durable(self, lsn: int) -> int:
        """Wait until record `lsn` is durable, starting its commit if nobody did; returns durable_lsn. Also on a sealed log.

        Raises:
            BadOption: `lsn` was not given out yet.
        """
        self.health.check_running()
        if not is_lsn(lsn) or not 0 <= lsn < self.next_lsn:
            raise BadOption(
                f"LSN {lsn!r} was not given out yet", path=self._disk.path, hint=f"next_lsn is {self.next_lsn}"
            )
        return await self._durable(lsn)

    def _durable(self, lsn: int) -> asyncio.Future[int]:
        if lsn >= self._filling.first_lsn and not self._filling.empty:
            self._want_commit()
        return self.waits.durable(lsn)

    def _durable_above(self, lsn: int) -> asyncio.Future[int]:
        """A future for when durable_lsn is above `lsn`; whoever waits for it may end it. Closed once no more can come."""
        if self.health.released:
            raise closed_log(self._disk.path)
        return self.waits.durable(lsn + 1)

    async def _write_meta(self, change: dict[str, Any], flags: int = 0) -> int:
        """Append a metadata group and wait until it is durable; returns its offset in its segment."""
        self.health.raise_failure()  # a group that is cut now would never be submitted
        while (future := self._cut_meta(change, flags)) is None:
            await self._room_change(metadata=True)
        return await future

    async def _write_mark(self, flag: int) -> bool:
        """Append an empty group, and wait until it is durable. False: it is left out, since what room there is on the device
        is kept for what makes more."""
        self.health.raise_failure()
        try:
            while (future := self._cut_meta({}, flag, mark=True)) is None:
                await self._room_change()
        except NoSpace:
            return False
        await future
        return True

    async def _quiet(self) -> None:
        """Wait until every group that was cut is durable, or the log has failed, and no segment is being begun."""
        while (self._in_flight or self._ready) and self.health.failure is None:
            await self.waits.room()
        await self._rotation_ended()

    # ---- ending

    async def seal(self) -> None:
        """Make everything durable and take no more appends, in this opening or any later one; reading goes on. Idempotent.

        Appends called meanwhile wait, and get Closed when it is done.
        """
        self.health.check_running()
        if self._sealing is None and not self._metadata.sealed:
            self.health.check_call()
            self._sealing = self.background.start("seal", self._seal_behind(self._take_turn()), foreseen=(WalError,))
        if self._sealing is not None:
            await asyncio.shield(self._sealing)

    async def _seal_behind(self, turn: Turn) -> None:
        try:
            await turn.granted
            async with self.extent:  # a truncation under way ends first
                await self.check_place()
                await self._write_meta({"sealed": True})
            self.health.seal()
        except WalError:
            self._sealing = None  # it may be tried again where there was no room
            raise
        finally:
            turn.end()

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
        self.health.check_loop()
        if self._closing is None:
            self._begin_draining()
            self.health.closing = True
            self._closing = self.background.start("close", self._close(), foreseen=(WalError, OSError))
        elif self._closing.done():
            return
        done, _ = await asyncio.wait([self._closing], timeout=timeout)
        if not done:
            self._end_draining()
            raise WalTimeout(
                f"closing took longer than {timeout} s",
                path=self._disk.path,
                expected="all groups durable",
                actual=f"{self._pending_bytes + self._filled_bytes} bytes pending",
                hint="the device is stalled; records that were not acknowledged may still become durable",
            )
        self._closing.result()

    async def _close(self) -> None:
        told_by_waiting, unforeseen = 0, None
        try:
            await self._end_in_order()
        except DurabilityLost:
            told_by_waiting = 1  # this very wait
        except (Exception, asyncio.CancelledError, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001  # raised below
            unforeseen = error
        self.health.released = True
        if self._relaxed_timer is not None:
            self._relaxed_timer.cancel()
        try:
            await self._disk.close()  # first, since it also stops a preparation under way
        finally:
            self.waits.release(closed_log(self._disk.path))
        await self._spares.settle()
        if unforeseen is not None:
            raise unforeseen
        if self.health.failure is not None and self.health.told <= told_by_waiting:
            raise self.health.again()

    async def _end_in_order(self) -> None:
        """Make everything durable and say so in the log."""
        await self._drain()
        self._end_draining()
        async with self.extent:  # a truncation under way ends first
            if self.health.failure is None:
                await self._durable(self.next_lsn - 1)
                if not self._filling.empty:
                    self._cut_off()
                await self._quiet()  # metadata too: the mark shows that what stands before it had been durable
                await self.check_place()
                await self._write_mark(Flag.CLOSE)
                await self._rotation_ended()
                await self._followers_at_end()

    async def _followers_at_end(self) -> None:
        """Let followers that are reading come to the log's end; who is far behind is not waited for."""
        until = self._loop.time() + FOLLOWER_SECONDS
        while self._follower_reads and self._loop.time() < until:  # noqa: ASYNC110  # half a second at most
            await asyncio.sleep(FOLLOWER_SECONDS / 500)

    # ---- draining

    async def _drain(self) -> None:
        """Refuse every call from now on that appends, and make durable what was called before. Idempotent."""
        self._begin_draining()
        await asyncio.sleep(0)  # batches called in this turn begin: only a task that runs can say why it ends
        for batch in list(self._drawing):
            batch.cancel()
        while self.health.draining and (self._waiting or self._joins or self._holds):
            with contextlib.suppress(NoSpace, DurabilityLost):  # whoever waits is told of it
                await self._room_change()
        if self.health.failure is None:
            try:
                await self._durable(self.next_lsn - 1)
            except DurabilityLost:
                self.health.told -= 1  # this very wait has told nobody

    def _begin_draining(self) -> None:
        if self.health.drain():
            self._set_room()

    def _end_draining(self) -> None:
        """Nobody gets his turn any more; whoever still waits is told."""
        self.health.end_draining()
        self._room_freed()

    async def _rotation_ended(self) -> None:
        while self._rotation is not None:
            await asyncio.wait([self._rotation])
