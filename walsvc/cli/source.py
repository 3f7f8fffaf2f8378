"""Lines from standard input or a file, read through aiofiles in pieces of bounded size, cancellable at any moment."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
from collections.abc import AsyncIterator
from typing import NoReturn

import aiofiles

from walsvc.errors import BadPayload, RecordTooLarge

PIECE_BYTES = 256 * 1024
SPLIT_HINT = "split the input, or raise --max-record-bytes"


async def lines(path: str | None, bytes_max: int, *, must_be_json: bool = False) -> AsyncIterator[list[bytes]]:
    """Yield the lines of `path` (None: standard input), without their newlines, as many at a time as one read gave.

    An empty line is an empty record; a last line without newline counts. With `must_be_json` blank lines are skipped.

    Memory is bounded by one line and PIECE_BYTES: an endless line raises without being read on. A line over `bytes_max`
    raises RecordTooLarge, one that is not JSON BadPayload, both with its number, after the lines before it were yielded.
    """
    number = 0
    async for batch in _split(path, bytes_max):
        good: list[bytes] = []
        problem: Exception | None = None
        for line in batch:
            number += 1
            problem = _problem(line, number, bytes_max, must_be_json=must_be_json)
            if problem is not None:
                break
            if not must_be_json or line.strip():
                good.append(line)
        if good:
            yield good
        if problem is not None:
            raise problem


async def whole(path: str | None, bytes_max: int) -> AsyncIterator[list[bytes]]:
    """Yield everything in `path` (None: standard input) as one record; RecordTooLarge when it is over `bytes_max`."""
    data = bytearray()
    async for piece in pieces(path):
        data += piece
        if len(data) > bytes_max:
            raise RecordTooLarge(
                "the input is too large for one record", expected=f"at most {bytes_max} bytes", hint=SPLIT_HINT
            )
    yield [bytes(data)]


def _problem(line: bytes, number: int, bytes_max: int, *, must_be_json: bool) -> Exception | None:
    if len(line) > bytes_max:
        return RecordTooLarge(
            f"line {number} of the input is too long",
            expected=f"at most {bytes_max} bytes",
            actual=f"{len(line)} or more",
            hint=SPLIT_HINT,
        )
    if must_be_json and line.strip():
        try:
            json.loads(line.decode(), parse_constant=_refuse, parse_int=str)  # an integer may be of any length
        except (ValueError, RecursionError) as error:
            return BadPayload(
                f"line {number} of the input is not JSON: {error}",
                hint="the lines before it were appended; without --json any line is taken",
            )
    return None


def _refuse(constant: str) -> NoReturn:
    """NaN, Infinity and -Infinity, which Python takes for JSON."""
    raise ValueError(f"{constant} is no JSON value")


async def _split(path: str | None, bytes_max: int) -> AsyncIterator[list[bytes]]:
    """Yield lists of lines; an unfinished line is yielded as it is once it has outgrown `bytes_max`."""
    rest = bytearray()
    async for piece in pieces(path):
        rest += piece
        cut = rest.rfind(b"\n", len(rest) - len(piece))
        if cut >= 0:
            yield bytes(rest[:cut]).split(b"\n")
            del rest[: cut + 1]
        if len(rest) > bytes_max:
            break
    if rest:
        yield [bytes(rest)]


async def pieces(path: str | None) -> AsyncIterator[bytes]:
    """Yield what each read(2) gives, so that a slow pipe is passed on as it comes.

    A pipe or terminal is read only when the loop says that something is there: the reading thread then never sits in a
    read that nobody can cancel, which would hold up Ctrl-C until the next key.
    """
    source: str | int = sys.stdin.fileno() if path is None else path
    async with aiofiles.open(source, "rb", buffering=0, closefd=path is not None) as file:
        waits = not stat.S_ISREG(os.fstat(file.fileno()).st_mode)
        while True:
            if waits:
                waits = await _readable(file.fileno())
            piece = await file.read(PIECE_BYTES)
            if not piece:
                return
            yield piece


async def _readable(fd: int) -> bool:
    """Wait until `fd` has bytes or its end; False when its kind of file (/dev/null, say) cannot be waited for."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def arrived() -> None:
        if not ready.done():
            ready.set_result(None)

    try:
        loop.add_reader(fd, arrived)
    except OSError:
        return False
    try:
        await ready
    finally:
        loop.remove_reader(fd)
    return True
