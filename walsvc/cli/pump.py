"""Moves lines into a log with a bounded number under way, and prints each LSN when its acknowledgement arrives."""

from __future__ import annotations

import asyncio
import functools
import signal
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from walsvc.cli import exits, output
from walsvc.visible import counted

if TYPE_CHECKING:
    from rich.progress import Progress

    from walsvc.interface import Log, Topic
    from walsvc.model import Mode

# What may be under way at once. Enough to fill several groups while one is being synced; little beside the log's own cap.
WINDOW_RECORDS = 8192
WINDOW_BYTES = 16 << 20
PROGRESS_SECONDS = 0.2


class Pump:
    """One `walsvc append`. Everything runs on the loop's thread.

    Invariants: a printed LSN was acknowledged; LSNs are printed in order; after `run` every acknowledged LSN was printed,
    unless standard output is gone.
    """

    def __init__(
        self,
        log: Log | Topic,
        *,
        mode: Mode,
        batch: int,
        quiet: bool,
        type: int = 0,
        attributes: dict[str, Any] | None = None,
        expected: int | None = None,
        dedupe: str | None = None,
    ) -> None:
        self._log = log
        self._append = functools.partial(
            log.append, mode=mode, type=type, attributes=attributes, expected=expected, dedupe=dedupe
        )
        self._mode = mode
        self._batch = batch
        self._lines = None if quiet else output.Lines()
        self._records = 0  # under way
        self._bytes = 0
        self._room: asyncio.Future[None] | None = None
        self._error: BaseException | None = None
        self._code = exits.OK
        self._impatient = False
        self._feeding: asyncio.Task[None] | None = None
        self._flush_due = False
        self.acknowledged: int = 0
        self.acknowledged_bytes: int = 0

    async def run(self, source: AsyncIterator[list[bytes]]) -> int:
        """Append everything that `source` yields; returns the exit code.

        On Ctrl-C or SIGTERM: stops reading, waits for what is under way, prints it. A second Ctrl-C waits no longer. An
        error of the source or of an append is raised after the same.
        """
        loop = asyncio.get_running_loop()
        self._feeding = loop.create_task(self._feed(source))
        for number, code in ((signal.SIGINT, exits.INTERRUPTED), (signal.SIGTERM, exits.TERMINATED)):
            loop.add_signal_handler(number, self._stop, code)
        reporting = self._report()
        try:
            try:
                await self._feeding
            except asyncio.CancelledError:
                if self._code == exits.OK and self._error is None:
                    raise  # not by us
            finally:
                await self._drain()
            if self._error is not None:
                raise self._error
            if self._lines is not None:
                self._lines.flush()
        finally:
            if reporting is not None:
                reporting.stop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
        return self._code

    async def _feed(self, source: AsyncIterator[list[bytes]]) -> None:
        kept: list[bytes] = []
        async for lines in source:
            if self._batch == 1:
                for line in lines:
                    await self._put([line])
                continue
            kept += lines
            whole = len(kept) - len(kept) % self._batch
            for begin in range(0, whole, self._batch):
                await self._put(kept[begin : begin + self._batch])
            del kept[:whole]
        if kept:
            await self._put(kept)

    async def _put(self, lines: list[bytes]) -> None:
        """Start appending `lines`, once the window has room (an empty window takes any size)."""
        while self._records and (self._records >= WINDOW_RECORDS or self._bytes >= WINDOW_BYTES):
            self._room = asyncio.get_running_loop().create_future()
            await self._room
        size = sum(map(len, lines))
        future: Any
        future = self._append(lines[0]) if self._batch == 1 else self._log.append_batch(lines, mode=self._mode)
        self._records += len(lines)
        self._bytes += size
        future.add_done_callback(functools.partial(self._done, len(lines), size))

    def _done(self, records: int, size: int, future: asyncio.Future[Any]) -> None:
        self._records -= records
        self._bytes -= size
        error = None if future.cancelled() else future.exception()
        if error is not None:
            self._fail(error)
        elif not future.cancelled():
            self.acknowledged += records
            self.acknowledged_bytes += size
            self._print(future.result())
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def _print(self, result: Any) -> None:
        if self._lines is None:
            return
        try:
            for each in (result,) if self._batch == 1 else result:
                self._lines.write(b"%d" % each.lsn)
        except OSError as error:
            self._stdout_lost(error)
        if not self._flush_due:
            # One flush for all the acknowledgements that this turn of the loop brings.
            self._flush_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        if self._lines is None:
            return
        try:
            self._lines.flush()
        except OSError as error:
            self._stdout_lost(error)

    def _stdout_lost(self, error: OSError) -> None:
        self._lines = None
        self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """Keep the first error, and read no further."""
        if self._error is None:
            self._error = error
        if self._feeding is not None:
            self._feeding.cancel()

    def _stop(self, code: int) -> None:
        if self._code != exits.OK:  # asked twice: the person does not want to wait
            self._impatient = True
            if self._room is not None and not self._room.done():
                self._room.set_result(None)
            return
        self._code = code
        if self._feeding is not None:
            self._feeding.cancel()

    async def _drain(self) -> None:
        """Wait until nothing is under way, or somebody lost patience."""
        while self._records and not self._impatient:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    def _report(self) -> Progress | None:
        """A progress line on standard error, unless the LSNs go to the same terminal."""
        import sys

        if sys.stdin.isatty() or (self._lines is not None and sys.stdout.isatty()):
            return None
        from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

        display = output.progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        if display is None:
            return None
        task = display.add_task("reading")
        began = time.monotonic()
        loop = asyncio.get_running_loop()

        def show() -> None:
            rate = self.acknowledged / max(time.monotonic() - began, 1e-9)
            text = (
                f"{counted(self.acknowledged, 'record')}, {output.size(self.acknowledged_bytes)}, {rate:.0f} records/s"
            )
            display.update(task, description=text)
            if display.live.is_started:
                loop.call_later(PROGRESS_SECONDS, show)

        display.start()
        show()
        return display
