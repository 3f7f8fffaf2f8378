"""Answers as bytes, in RESP2 and RESP3.

Python's values stand for Redis's: bytes and text for bulk strings, int, None for null, list for an array, dict for a map (in RESP2
an array of keys and values in turn), Status for a simple string, Verbatim for text that people read, Failure for an error.
"""

from __future__ import annotations

from typing import Any

from walsvc.errors import Truncated, WalError
from walsvc.visible import visible


class Status(str):
    """A simple string, such as OK."""

    __slots__ = ()


class Verbatim(str):
    """Text for people, which RESP3 says that it is."""

    __slots__ = ()


class Failure(Exception):
    """An error as a client gets it.

    Attributes:
        text: begins with its code, as NOGROUP or ERR.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


OVERTAKEN = "XGROUP SETID key group 0 goes on with what is there"
OK = Status("OK")
NULL_ARRAY = object()
"""Null where an array was asked for: RESP2 has a null of its own for it."""


def encode(value: Any, resp: int) -> bytes:
    """Encode a value; `resp` is 2 or 3."""
    pieces: list[bytes] = []
    put(pieces, value, resp)
    return b"".join(pieces)


def put(pieces: list[bytes], value: Any, resp: int) -> None:
    """Append the bytes of a value."""
    if isinstance(value, bytes):
        pieces += (b"$%d\r\n" % len(value), value, b"\r\n")
    elif isinstance(value, Status):
        pieces.append(b"+%s\r\n" % value.encode())
    elif isinstance(value, Verbatim) and resp == 3:
        text = value.encode()
        pieces.append(b"=%d\r\ntxt:%s\r\n" % (len(text) + 4, text))
    elif isinstance(value, str):
        put(pieces, value.encode(), resp)
    elif isinstance(value, int):
        pieces.append(b":%d\r\n" % value)
    elif value is None or value is NULL_ARRAY:
        pieces.append(b"_\r\n" if resp == 3 else b"$-1\r\n" if value is None else b"*-1\r\n")
    elif isinstance(value, Failure):
        pieces.append(b"-%s\r\n" % visible(value.text).encode())
    elif isinstance(value, dict):
        pieces.append(b"%%%d\r\n" % len(value) if resp == 3 else b"*%d\r\n" % (2 * len(value)))
        for key, each in value.items():
            put(pieces, key, resp)
            put(pieces, each, resp)
    else:
        pieces.append(b"*%d\r\n" % len(value))
        for each in value:
            put(pieces, each, resp)


def failure_of(error: WalError) -> Failure:
    """Turn an error of the log into one of Redis: the name of its class is the code, and what to do next is a command."""
    text = f"{type(error).__name__.upper()} {error}"
    return Failure(text.replace(error.hint, OVERTAKEN) if isinstance(error, Truncated) and error.hint else text)
