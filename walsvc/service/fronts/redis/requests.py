"""Bytes of a client to its commands: RESP arrays of bulk strings, or a line of words.

hiredis parses what has arrived whole. It makes a list as long as a header says before the elements are there, so 12 bytes could
have it take gigabytes; whatever may hold such a header, and a command that arrives in pieces, is parsed here, in Python.
The protocol: https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

import re
from typing import Any

from walsvc.extras import installed

ARGUMENTS_MAX = 1 << 20  # Redis's own limit
LINE_BYTES_MAX = 1 << 16  # of a header, or of a command without one; Redis's own limit
COMMAND_COST = 512  # bytes that a command takes beyond its own, at least
ARGUMENT_COST = 64  # bytes that an argument takes beyond its own, at least
LONG = re.compile(rb"\*\d{4}")  # may be a header that hiredis must not see
MARK = b"+\r\n"
WORD = re.compile(  # on a line: bare, quoted, or first the one and then the other
    rb"""([^\s"']*)(?:"((?:\\.|[^"\\])*)"|'((?:\\'|[^'\\]|\\(?!'))*)')?(?:\s+|$)""", re.DOTALL
)
ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|(.))", re.DOTALL)  # between double quotes
LETTERS = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}
HTTP = re.compile(rb"(?i:post|host:)(\s|$)|.*\sHTTP/\d(\.\d)?\s*$")  # how its requests and their headers begin
Command = list[bytes]


class Malformed(Exception):
    """The bytes are no command, so the next one cannot be found either."""

    def __init__(self, what: str) -> None:
        super().__init__(f"ERR Protocol error: {what}")


class Requests:
    """The commands of one client.

    Attributes:
        incomplete_bytes: what a command takes that has not come to its end, and
        expected_bytes: what it takes with the argument that is coming.
    """

    def __init__(self) -> None:
        self.incomplete_bytes: int = 0
        self.expected_bytes: int = 0
        self._bytes_max = 0
        self._reader: Any = new_reader()
        self._buffer = bytearray()
        self._arguments: Command = []  # of a command that is not complete
        self._missing = 0  # arguments of that command
        self._taken = 0  # bytes that they cost

    def feed(self, data: bytes, bytes_max: int) -> list[Command]:
        """Take in bytes; returns the commands that are complete. Raises Malformed, behind which nothing can be parsed: one that is not a command, or
        takes more than `bytes_max`."""
        self._bytes_max = bytes_max
        commands: list[Command] = []
        whole = self._reader is not None and not self.incomplete_bytes
        if whole and data[:1] == b"*" and LONG.search(data) is None:
            data = self._fast(data, commands)
            if not data:
                return commands
        self._buffer += data
        while (command := self._next()) is not None:
            if command:
                commands.append(command)
        self.incomplete_bytes = len(self._buffer) + self._taken
        self.expected_bytes = max(self.expected_bytes, self.incomplete_bytes) if self.incomplete_bytes else 0
        if self.incomplete_bytes > self._bytes_max:
            raise Malformed(f"a command takes more than {self._bytes_max} bytes")
        return commands

    def _fast(self, data: bytes, commands: list[Command]) -> bytes:
        """Take commands from the front of `data`; returns what is left. hiredis does not tell how far it has come."""
        reader, start = self._reader, len(commands)
        reader.feed(data + MARK)  # the mark comes out if nothing before it is incomplete
        try:
            while type(command := reader.gets()) is list and command:
                b"".join(command)  # TypeError: one of its words is none
                commands.append(command)
            if command == b"" and not reader.has_data():
                return b""
        except Exception:  # noqa: BLE001, S110  its own, or of making a value: a set of lists, say
            pass  # what is left goes through the other parser, which says what is wrong
        self._reader = new_reader()
        end = 0
        for place, command in enumerate(commands[start:], start):
            if end + wire_bytes(command) > len(data):  # the mark has completed it
                del commands[place:]
                break
            end += wire_bytes(command)
        return data[end:]

    def _next(self) -> Command | None:
        """Take the next command; None while it is not complete, an empty one for an empty line."""
        if not self._missing:
            line = self._line()
            if line is None:
                return None
            if not line.startswith(b"*"):
                return words(line)
            self._missing = max(number(line, "invalid multibulk length", ARGUMENTS_MAX), 0)
            self._taken = ARGUMENT_COST
        while self._missing:
            if not self._argument():
                return None
        command, self._arguments, self._taken = self._arguments, [], 0
        return command

    def _argument(self) -> bool:
        """Take the next argument; False while it is not complete."""
        buffer = self._buffer
        line = self._line(take=False)
        if line is None:
            return False
        if not line.startswith(b"$"):
            raise Malformed(f"expected '$', got {chr(line[0]) if line else ' '!r}")
        length = number(line, "invalid bulk length", self._bytes_max)
        if length < 0:
            raise Malformed("invalid bulk length")
        start = buffer.index(b"\n") + 1
        self.expected_bytes = self._taken + start + length + 2
        if len(buffer) < start + length + 2:
            return False
        self._arguments.append(bytes(memoryview(buffer)[start : start + length]))
        self._taken += length + ARGUMENT_COST
        self._missing -= 1
        del buffer[: start + length + 2]
        return True

    def _line(self, *, take: bool = True) -> bytes | None:
        """Take the line at the front, without its end; None while it is not complete."""
        end = self._buffer.find(b"\n", 0, LINE_BYTES_MAX)
        if end < 0:
            if len(self._buffer) >= LINE_BYTES_MAX:
                raise Malformed("too big inline request")
            return None
        line = bytes(memoryview(self._buffer)[:end]).removesuffix(b"\r")
        if take:
            del self._buffer[: end + 1]
        return line


def new_reader() -> Any:
    """Make a parser of hiredis; None where it is not installed."""
    if not installed("hiredis"):
        return None
    import hiredis

    return hiredis.Reader()


def wire_bytes(command: Command) -> int:
    """Length in bytes of a command that hiredis has parsed, which takes numbers in their shortest form only."""
    return len(b"*%d\r\n" % len(command)) + sum(len(b"$%d\r\n\r\n" % len(each)) + len(each) for each in command)


def number(line: bytes, what: str, most: int) -> int:
    """Parse the number in a header."""
    digits = line[1:]
    if not digits.removeprefix(b"-").isdigit() or len(digits) > 20 or int(digits) > most:
        raise Malformed(what)
    return int(digits)


def words(line: bytes) -> Command:
    """Split a command without a header, as people type it, into words, as Redis does.

    A web page can make a browser send lines to any port, as the body of a request. So what looks like HTTP ends the connection, before its body is
    a command.
    """
    if HTTP.match(line):
        raise Malformed("this is HTTP, and here Redis clients are answered; curl goes to the address of --http")
    line, found, place = line.partition(b"\0")[0].strip(), [], 0
    while place < len(line):
        word = WORD.match(line, place)
        if word is None or word.end() == place:
            raise Malformed("unbalanced quotes in request")
        bare, double, single = word.groups(b"")
        found.append(bare + ESCAPE.sub(unescaped, double) + single.replace(b"\\'", b"'"))
        place = word.end()
    return found


def unescaped(escape: re.Match[bytes]) -> bytes:
    """The byte that an escape between double quotes stands for."""
    digits, letter = escape.groups()
    return bytes.fromhex(digits.decode()) if digits else LETTERS.get(letter, letter)
