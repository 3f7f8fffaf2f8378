"""The arguments of commands: options in any order, numbers, keys and ids. The words of errors are Redis's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from walsvc.service.fronts.redis.entries import parse_id
from walsvc.service.fronts.redis.replies import Failure
from walsvc.service.fronts.redis.requests import Command

SYNTAX = "ERR syntax error"
NOT_AN_INTEGER = "ERR value is not an integer or out of range"
INTEGER_MAX = (1 << 63) - 1
T = TypeVar("T")


def integer(text: bytes, error: str = NOT_AN_INTEGER) -> int:
    """A number as Redis takes it: 64 bits with a sign, without anything around it."""
    digits = text.removeprefix(b"-")
    plain = digits.isdigit() and (digits == b"0" or not digits.startswith(b"0")) and text != b"-0"
    if not plain or len(digits) > 19 or not -INTEGER_MAX - 1 <= int(text) <= INTEGER_MAX:
        raise Failure(error)
    return int(text)


def wrong_number(name: str) -> Failure:
    """The error for too many words, or too few."""
    return Failure(f"ERR wrong number of arguments for '{name}' command")


def milliseconds(text: bytes) -> int:
    """How long to wait; 0: for ever."""
    wait = integer(text, "ERR timeout is not an integer or out of range")
    if wait < 0:
        raise Failure("ERR timeout is negative")
    return wait


def subcommand(command: Command, known: Mapping[bytes, tuple[int, int, T]]) -> T:
    """Look up a command's second word in `known`, which has the least and the most words and what is returned. Failure for another word or
    number."""
    word = command[1].upper()
    if word not in known:
        raise unknown_subcommand(command)
    least, most, found = known[word]
    if not least <= len(command) <= most:
        raise wrong_number(f"{command[0].decode().lower()}|{word.decode().lower()}")
    return found


def unknown_subcommand(command: Command) -> Failure:
    """The error for a word that a command does not know."""
    name, word = command[0].decode("latin-1"), command[1].decode("latin-1")
    return Failure(f"ERR unknown subcommand '{word[:128]}'. Try {name.upper()} HELP.")


@dataclass(slots=True)
class Adding:
    """XADD key [NOMKSTREAM] id field value ..."""

    make: bool
    id: bytes
    fields: Command


def adding(command: Command) -> Adding:
    """The arguments of XADD."""
    place, make = 2, True
    while place < len(command):
        word = command[place].upper()
        if word == b"NOMKSTREAM":
            make = False
        elif word in (b"MAXLEN", b"MINID", b"LIMIT"):
            raise Failure(f"ERR XADD takes no {word.decode()}: `walsvc truncate` drops records of the whole log")
        else:
            break
        place += 1
    fields = command[place + 1 :]
    if not fields or len(fields) % 2:
        raise wrong_number("xadd")
    return Adding(make, command[place], fields)


@dataclass(slots=True)
class Reading:
    """[COUNT n] [BLOCK ms] STREAMS key ... id ...

    Attributes:
        count: entries of each stream, at most; 0: any number.
        block: milliseconds to wait, 0: for ever; None: not at all.
        keys, ids: of the streams.
    """

    count: int
    block: int | None
    keys: list[bytes]
    ids: list[bytes]


def reading(command: Command, place: int = 1) -> Reading:
    """The arguments of XREAD, or those of XREADGROUP behind the group."""
    count, block = 0, None
    while place < len(command):
        word, more = command[place].upper(), len(command) - place - 1
        if word == b"COUNT" and more:
            count = max(integer(command[place + 1]), 0)
        elif word == b"BLOCK" and more:
            block = milliseconds(command[place + 1])
        elif word == b"STREAMS" and more:
            streams = command[place + 1 :]
            if len(streams) % 2:
                raise Failure(
                    "ERR Unbalanced XREAD list of streams: for each stream key an ID or '$' must be specified."
                )
            half = len(streams) // 2
            return Reading(count, block, streams[:half], streams[half:])
        else:
            break
        place += 2
    raise Failure(SYNTAX)


@dataclass(slots=True)
class Claiming:
    """XCLAIM key group consumer min-idle id ... [JUSTID], or XAUTOCLAIM key group consumer min-idle start [COUNT n] [JUSTID].

    Attributes:
        idle_ms: milliseconds since the last delivery, at least.
        lsns: of the entries that are named.
        start: from which id on, where none are.
        count: entries, at most.
        just_ids: answer ids alone, and count no delivery.
    """

    idle_ms: int
    lsns: list[int]
    start: bytes = b"-"
    count: int = 100
    just_ids: bool = False


def claiming(command: Command) -> Claiming:
    """The arguments of XCLAIM."""
    wanted = Claiming(max(integer(command[4], "ERR Invalid min-idle-time argument for XCLAIM"), 0), [])
    place = 5
    while place < len(command) and command[place][:1].isdigit():
        wanted.lsns.append(parse_id(command[place])[0])
        place += 1
    for word in command[place:]:
        if word.upper() != b"JUSTID":
            shown = word.decode("latin-1")
            if word.upper() in (b"IDLE", b"TIME", b"RETRYCOUNT", b"FORCE", b"LASTID"):
                raise Failure(f"ERR walsvc's XCLAIM has no {shown}")
            raise Failure(f"ERR Unrecognized XCLAIM option '{shown}'")
        wanted.just_ids = True
    return wanted


def auto_claiming(command: Command) -> Claiming:
    """The arguments of XAUTOCLAIM."""
    wanted = Claiming(max(integer(command[4], "ERR Invalid min-idle-time argument for XAUTOCLAIM"), 0), [], command[5])
    place = 6
    while place < len(command):
        word = command[place].upper()
        if word == b"COUNT" and place + 1 < len(command):
            wanted.count = integer(command[place + 1])
            if wanted.count < 1:
                raise Failure("ERR COUNT must be > 0")
            place += 1
        elif word == b"JUSTID":
            wanted.just_ids = True
        else:
            raise Failure(SYNTAX)
        place += 1
    return wanted


def ranged(command: Command) -> int | None:
    """The COUNT of XRANGE key start end [COUNT n]; None: there is none."""
    count = None
    place = 4
    while place < len(command):
        if command[place].upper() != b"COUNT" or place + 1 == len(command):
            raise Failure(SYNTAX)
        count = max(integer(command[place + 1]), 0)
        place += 2
    return count
