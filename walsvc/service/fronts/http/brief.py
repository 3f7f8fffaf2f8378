"""Brief: an answer of a few bytes on a connection that goes on, written in one piece.

web.Response makes a dictionary of headers, completes it and encodes it: a sixth of the CPU that a POST takes. Here the lines are text.
"""

from __future__ import annotations

import email.utils
import time
from functools import lru_cache
from typing import Literal

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import SERVER_SOFTWARE


def is_plain(request: web.BaseRequest) -> bool:
    """True if the answer to a request may be Brief: it is one of HTTP/1.1 whose connection goes on, so no header tells of that."""
    return request.version == HttpVersion11 and request.keep_alive


class Brief(web.StreamResponse):
    """An answer with a body, for a request that `is_plain`.

    Args:
        status: of the answer.
        headers: lines, each with its end; those of every answer are added.
        body: of the answer.
    """

    def __init__(self, status: int, headers: str, body: bytes) -> None:
        super().__init__(status=status)
        lines = f"HTTP/1.1 {status} {self.reason}\r\n{headers}Content-Length: {len(body)}\r\n{of_every_answer(int(time.time()))}\r\n"
        self._bytes = lines.encode() + body

    @property
    def keep_alive(self) -> Literal[True]:
        """See is_plain."""
        return True

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        """Write the answer, and wait while the client does not take what it was sent before."""
        writer = request.writer
        await writer.write(self._bytes)
        await writer.drain()
        return writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Do nothing: the answer is written whole."""


@lru_cache(1)
def of_every_answer(now: int) -> str:
    """The headers that aiohttp gives every answer, at a second of Unix time."""
    return f"Date: {email.utils.formatdate(now, usegmt=True)}\r\nServer: {SERVER_SOFTWARE}\r\n"
