"""Records as lines on standard output, for cat and tail."""

from __future__ import annotations

import asyncio
import stat
import sys
from collections.abc import AsyncIterator, Callable
from os import fstat

from walsvc.cli import output
from walsvc.cli.options import PrintFormat
from walsvc.errors import WalError
from walsvc.model import Record
from walsvc.plain import record_row


def encoder(form: PrintFormat) -> Callable[[Record], bytes]:
    """The function that turns a record into its line, without the newline."""
    return {PrintFormat.RAW: _raw, PrintFormat.HEX: _hex, PrintFormat.JSON: _json}[form]


def _raw(record: Record) -> bytes:
    return record.payload


def _hex(record: Record) -> bytes:
    return record.payload.hex().encode("ascii")


def _json(record: Record) -> bytes:
    return output.json_line(record_row(record))


async def print_records(records: AsyncIterator[Record], form: PrintFormat) -> None:
    """Print every record; when an error ends the reading, what came before it is out first."""
    encode = encoder(form)
    lines = output.Lines()
    try:
        async for record in records:
            lines.write(encode(record))
    except WalError:
        lines.flush()
        raise
    lines.flush()


async def print_as_they_come(records: AsyncIterator[Record], form: PrintFormat) -> None:
    """Like print_records, for records that may be waited for: whatever is together goes out before each wait.

    Ends with BrokenPipeError as soon as the reader of a pipe goes away, also when no record ever follows.
    """
    encode = encoder(form)
    lines = output.Lines()
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()  # holds what ends the printing
    due = False

    def flush() -> None:
        nonlocal due
        due = False
        try:
            lines.flush()
        except OSError as error:
            if not ended.done():
                ended.set_exception(error)

    async def printing() -> None:
        nonlocal due
        async for record in records:
            lines.write(encode(record))
            if not due:  # runs when the iteration next waits, so a burst of records shares its writes
                due = True
                loop.call_soon(flush)

    watched = _watch_reader(ended)
    task = loop.create_task(printing())
    try:
        await asyncio.wait({task, ended}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        if watched is not None:
            loop.remove_reader(watched)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    if ended.done():
        ended.result()
    ended.cancel()
    if not task.cancelled():
        task.result()
    lines.flush()


def _watch_reader(ended: asyncio.Future[None]) -> int | None:
    """Give `ended` a BrokenPipeError when nobody reads our standard output any more; the watched descriptor, if any.

    The writing end of a pipe never becomes readable, except that the kernel reports the error state when the last
    reader closes: GNU tail watches for the same.
    """

    def gone() -> None:
        if not ended.done():
            ended.set_exception(BrokenPipeError())

    try:
        fd = sys.stdout.fileno()
        if not stat.S_ISFIFO(fstat(fd).st_mode):
            return None
        asyncio.get_running_loop().add_reader(fd, gone)
    except (OSError, ValueError):
        return None
    return fd
