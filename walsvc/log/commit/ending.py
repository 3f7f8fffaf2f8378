"""Ending: how a writer is sealed, drained and closed, and what flush waits for.

Owns the tasks that seal and close, which go on when their callers are cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from walsvc.config import check_timeout
from walsvc.errors import DurabilityLost, NoSpace, WalError, WalTimeout, closed_log
from walsvc.log.commit.ack import all_done
from walsvc.log.commit.background import under_way
from walsvc.log.commit.core import Core
from walsvc.log.commit.queue import Turn
from walsvc.tasks import until_ended

ANSWERS = (WalError, OSError)  # of closing
FOLLOWER_SECONDS = 0.5  # that closing leaves to followers which have not yet read the log's end


class Ending:
    """The end of one writer. Loop thread only.

    Attributes:
        alone: the writer is the program's, and not a log's: dropped without an end, it says so itself.
    """

    def __init__(self, core: Core) -> None:
        self.alone: bool = False
        self._core = core
        self._follower_reads = 0  # under way: closing lets them come to the log's end
        self._sealing: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None

    async def flush(self) -> int:
        """See WalWriter.flush."""
        core = self._core
        core.health.check_running()
        accepted: list[asyncio.Future[Any]] = [*core.queue.waiting, *core.batches.of_others(), *core.changes.waiting]
        await all_done(accepted)
        durable = await core.durable(core.next_lsn - 1)
        settled: asyncio.Future[None] = core.health.loop.create_future()
        core.pipeline.settle(settled)
        await settled
        try:
            await core.extent.check()
        except DurabilityLost:
            core.health.note_told(1)
            raise
        return durable

    # ---- sealing

    async def seal(self) -> None:
        """See WalWriter.seal."""
        core = self._core
        core.health.check_running()
        if self._sealing is None and not core.metadata.sealed:
            core.health.check_call()
            with core.health.whole("sealing"):
                work = self._seal_behind(core.queue.take_turn())
                self._sealing = core.background.start("seal", work, foreseen=(WalError,))
        if self._sealing is not None:
            await asyncio.shield(self._sealing)

    async def _seal_behind(self, turn: Turn) -> None:
        core = self._core
        try:
            await turn.granted
            async with core.extent:  # a truncation under way ends first
                await core.extent.check()
                await core.changes.write({"sealed": True})
            core.health.seal()
        except WalError:
            self._sealing = None  # it may be tried again where there was no room
            raise
        finally:
            turn.end()

    # ---- closing

    async def close(self, timeout: float | None = None) -> None:
        """See WalWriter.close."""
        core = self._core
        core.health.check_loop()
        check_timeout(timeout)
        if answered(self._closing):
            return
        if not under_way(self._closing):
            with core.health.whole("closing"):
                self._begin_draining()
                core.health.begin_closing()
                self._closing = core.background.start("close", self._close(), foreseen=ANSWERS)
        assert self._closing is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await until_ended(self._closing, core.background.look)
        if not self._closing.done():
            self._end_draining()
            raise WalTimeout(
                f"closing took longer than {timeout} s",
                path=core.disk.path,
                expected="all groups durable",
                actual=f"{core.placement.unwritten_bytes} bytes pending",
                hint="the device is stalled; records that were not acknowledged may still become durable",
            )
        self._closing.result()

    async def _close(self) -> None:
        core, told_by_waiting, unforeseen = self._core, 0, None
        try:
            await self._end_in_order()
        except DurabilityLost:
            told_by_waiting = 1  # this very wait
        except (Exception, asyncio.CancelledError, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001  # raised below
            unforeseen = error
        try:
            await self._release()
        except BaseException:
            # where the exception of a signal handler cut it short, the lock must be let go all the same
            await self._release()
            raise
        if unforeseen is not None:
            raise unforeseen
        if core.health.failure is not None and core.health.told <= told_by_waiting:
            raise core.health.failure_told()

    async def _release(self) -> None:
        core = self._core
        core.health.release()
        core.queue.relaxed.stop()
        try:
            await core.disk.close()  # first, since it also stops a preparation under way
        finally:
            core.waits.release(closed_log(core.disk.path))
        await core.tail.spares.settle()

    async def _end_in_order(self) -> None:
        """Make everything durable and say so in the log."""
        core = self._core
        await self.drain()
        self._end_draining()
        async with core.extent:  # a truncation under way ends first
            if core.health.failure is None:
                await core.durable(core.next_lsn - 1)
                core.pipeline.cut_off()
                await core.pipeline.quiet()  # metadata too: the mark shows that what stands before it had been durable
                await core.extent.check()
                await core.changes.close()
                await core.pipeline.rotation.ended()
                await self._followers_at_end()

    def follower_reads(self, change: int) -> None:
        """Note that a follower begins to read (1), or has read (-1)."""
        self._follower_reads += change

    async def _followers_at_end(self) -> None:
        """Let followers that are reading come to the log's end; who is far behind is not waited for."""
        loop = self._core.health.loop
        until = loop.time() + FOLLOWER_SECONDS
        while self._follower_reads and loop.time() < until:  # noqa: ASYNC110  # half a second at most
            await asyncio.sleep(FOLLOWER_SECONDS / 500)

    # ---- draining

    async def drain(self) -> None:
        """Refuse every call from now on that appends, and make durable what was called before. Idempotent."""
        core, queue = self._core, self._core.queue
        self._begin_draining()
        await asyncio.sleep(0)  # batches called in this turn begin: only a task that runs can say why it ends
        core.batches.give_up_drawing()
        while not core.health.over and (queue.length or core.changes.length or queue.held):
            with contextlib.suppress(NoSpace, DurabilityLost):  # whoever waits is told of it
                await queue.room_change()
        if core.health.failure is None:
            try:
                await core.durable(core.next_lsn - 1)
            except DurabilityLost:
                core.health.note_told(-1)  # this very wait has told nobody

    def _begin_draining(self) -> None:
        if self._core.health.drain():
            self._core.placement.set_room()

    def _end_draining(self) -> None:
        """No queued call gets its turn any more; those that still wait are told."""
        self._core.health.end_draining()
        self._core.queue.move_up()


def answered(closing: asyncio.Task[None] | None) -> bool:
    """True if closing has ended, well or not, and was not cut short."""
    if closing is None or not closing.done() or closing.cancelled():
        return False
    error = closing.exception()
    return error is None or isinstance(error, ANSWERS)
