"""Log: what `walsvc.open` gives. Appending is the writer's, reading the cursor's; here they meet."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any

from walsvc.config import WalConfig
from walsvc.disk.base import Disk
from walsvc.disk.choose import open_disk
from walsvc.errors import BadOption, Closed, DurabilityLost
from walsvc.log.opening import open_writer, releasing
from walsvc.log.reader import Cursor
from walsvc.log.readonly import ReadOnlyLog, open_read_only
from walsvc.log.retention import truncate_after, truncate_before
from walsvc.log.writer import WalWriter
from walsvc.model import Record, RecoveryReport, Stats


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

    def segment_ids(self) -> list[int]:
        """First LSNs of the segments, ascending."""
        return self.writer._segment_ids

    def segment_file(self, first_lsn: int) -> tuple[str, int]:
        """File name and length of a segment."""
        return f"{first_lsn:016x}.wal", self.writer._segment_bytes[first_lsn]

    # ---- reading

    async def read(self, start: int | None = None, stop: int | None = None) -> AsyncIterator[Record]:
        """Iterate over records in LSN order.

        Everything accepted before the call is made durable first, so a reader sees its own appends and never a record
        that a crash could take back.

        Args:
            start: first LSN; None: first_lsn.
            stop: LSN to stop before; None: next_lsn as it is now.

        Raises:
            Truncated: `start` was dropped. Corruption: acknowledged data is damaged. BadOption: `start` below 1.
        """
        async for records in self.read_batches(start, stop):
            for record in records:
                yield record

    async def read_batches(self, start: int | None = None, stop: int | None = None) -> AsyncIterator[list[Record]]:
        """Like read, but yields lists, a group at a time: several times faster for small records."""
        self.writer._check_open()
        first = check_start(start, self.first_lsn)
        limit = self.next_lsn if stop is None else min(stop, self.next_lsn)
        if first < limit:
            await self.writer._durable(limit - 1)
        cursor = Cursor(self._disk, self, first)
        while records := await cursor.take(limit):
            yield records

    async def follow(self, start: int | None = None) -> AsyncIterator[Record]:
        """Iterate from `start` (None: first_lsn) over durable records, then wait for new ones, without polling.

        Ends when the log is closed; raises DurabilityLost when it fails, and what `read` raises.
        """
        self.writer._check_open()
        cursor = Cursor(self._disk, self, check_start(start, self.first_lsn))
        while True:
            for record in await cursor.take(self.durable_lsn + 1):
                yield record
            if cursor.next_lsn > self.durable_lsn:
                try:
                    await self.writer._durable_above(self.durable_lsn)
                except Closed:
                    return

    # ---- extent and end

    async def truncate_before(self, lsn: int) -> None:
        """Drop all records below `lsn`; whole segments go, the rest is hidden. Durable when it returns.

        Raises:
            BadOption: `lsn` is not in first_lsn to next_lsn (below first_lsn there is nothing to do).
        """
        await truncate_before(self.writer, lsn)

    async def truncate_after(self, lsn: int) -> None:
        """Drop all records above `lsn`; the next append gets lsn + 1. Durable when it returns.

        Appends that arrive meanwhile wait. Raises BadOption where `lsn` is not in first_lsn - 1 to next_lsn - 1.
        """
        await truncate_after(self.writer, lsn)

    async def seal(self) -> None:
        """Make everything durable and take no more appends, ever; reading goes on."""
        await self.writer.seal()

    async def close(self, timeout: float | None = None) -> None:
        """Make everything durable, mark a clean close, release the log; see WalWriter.close."""
        await self.writer.close(timeout)

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


class Opening:
    """What `walsvc.open` returns: `async with` it, or await it. Nothing happens before that."""

    def __init__(self, target: str | os.PathLike[str], config: WalConfig) -> None:
        self._target = target
        self._config = config
        self._log: Log | ReadOnlyLog | None = None

    def __await__(self) -> Any:
        return open_log(self._target, self._config).__await__()

    async def __aenter__(self) -> Any:
        self._log = await open_log(self._target, self._config)
        return self._log

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._log is not None, "__aexit__ without __aenter__"
        await self._log.__aexit__(kind, error, trace)


def open(target: str | os.PathLike[str], *, config: WalConfig | None = None, **overrides: Any) -> Opening:
    """Open the log in directory `target`, creating it if there is none.

    Args:
        target: the directory.
        config: options; None: the defaults.
        **overrides: single options, see WalConfig.

    Returns:
        An object for `async with walsvc.open(...) as log` or `log = await walsvc.open(...)`.

    Raises:
        BadOption at once; when entered or awaited: Locked, PathError, Corruption, UnsupportedFormat, NoSpace.
    """
    if not isinstance(target, (str, os.PathLike)):
        raise BadOption(f"the log's path must be text or a path, not {type(target).__name__}")
    return Opening(target, WalConfig.of(config, overrides))


async def open_log(target: str | os.PathLike[str], config: WalConfig) -> Any:
    """Choose a disk, recover, and give a Log (or a ReadOnlyLog)."""
    disk = await open_disk(
        os.fspath(target), config=config, loop=asyncio.get_running_loop(), exclusive=not config.read_only
    )
    return await open_on(disk, config)


async def open_on(disk: Disk, config: WalConfig) -> Any:
    """Open the log on a given disk; tests pass a simulated one. The disk is closed on any error."""
    async with releasing(disk):
        if config.read_only:
            return await open_read_only(disk, config)
        writer, report = await open_writer(disk, config)
    return Log(disk, config, writer, report)
