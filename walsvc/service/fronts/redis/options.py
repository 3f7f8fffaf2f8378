"""The arguments of commands: options in any order, numbers, keys and ids. The words of errors are Redis's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from walsvc.service.fronts.redis.entries import entry_named, first_of, is_id, last_of, parse_id
from walsvc.service.fronts.redis.replies import Failure, Status
from walsvc.service.fronts.redis.requests import Command
from walsvc.topics.acking import Terms

SYNTAX = "ERR syntax error"
NOT_AN_INTEGER = "ERR value is not an integer or out of range"
COUNT_BAD = "ERR COUNT must be > 0"
INTEGER_MAX = (1 << 63) - 1
T = TypeVar("T")


def integer(text: bytes, error: str = NOT_AN_INTEGER) -> int:
    """Parse a number as Redis does: 64 bits with a sign, without anything around it."""
    digits = text.removeprefix(b"-")
    plain = digits.isdigit() and (digits == b"0" or not digits.startswith(b"0")) and text != b"-0"
    if not plain or len(digits) > 19 or not -INTEGER_MAX - 1 <= int(text) <= INTEGER_MAX:
        raise Failure(error)
    return int(text)


def wrong_number(name: str) -> Failure:
    """The error for too many words, or too few."""
    return Failure(f"ERR wrong number of arguments for '{name}' command")


def milliseconds(text: bytes) -> int:
    """Parse a time to wait, in milliseconds; 0: for ever."""
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


def wrong_subcommand(command: Command) -> Failure:
    """The error for a subcommand's words that it does not know."""
    name, word = command[0].decode("latin-1"), command[1].decode("latin-1")
    return Failure(f"ERR unknown subcommand or wrong number of arguments for '{word[:128]}'. Try {name.upper()} HELP.")


def usage(name: str, lines: Iterable[str]) -> list[Status]:
    """The answer of a command's HELP."""
    return [Status(each) for each in (f"{name} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:", *lines)]


@dataclass(slots=True)
class Reading:
    """[GROUP group consumer] [COUNT n] [BLOCK ms] [NOACK] STREAMS key ... id ...

    Attributes:
        count: entries of each stream, at most; 0: any number.
        block: milliseconds to wait, 0: for ever; None: not at all.
        group, worker: None for XREAD.
        noack: entries are done when they are given.
        keys, ids: of the streams.
    """

    count: int = 0
    block: int | None = None
    group: bytes | None = None
    worker: bytes | None = None
    noack: bool = False
    keys: list[bytes] = field(default_factory=list)
    ids: list[bytes] = field(default_factory=list)


def reading(command: Command, *, of_group: bool) -> Reading:
    """Parse the arguments of XREAD, or those of XREADGROUP."""
    wanted, place = Reading(), 1
    while place < len(command):
        word, more = command[place].upper(), len(command) - place - 1
        if word in (b"GROUP", b"NOACK") and not of_group and (more >= 2 or word == b"NOACK"):
            raise Failure(f"ERR The {word.decode()} option is only supported by XREADGROUP. You called XREAD instead.")
        if word == b"COUNT" and more:
            wanted.count = max(integer(command[place + 1]), 0)
        elif word == b"BLOCK" and more:
            wanted.block = milliseconds(command[place + 1])
        elif word == b"GROUP" and more >= 2:
            wanted.group, wanted.worker = command[place + 1 : place + 3]
            place += 1
        elif word == b"NOACK":
            wanted.noack = True
            place -= 1
        elif word == b"STREAMS" and more:
            wanted.keys, wanted.ids = halves(command[place + 1 :])
            break
        else:
            raise Failure(SYNTAX)
        place += 2
    if not wanted.keys:
        raise Failure(SYNTAX)
    if of_group and wanted.group is None:
        raise Failure("ERR Missing GROUP option for XREADGROUP")
    return wanted


def halves(streams: Command) -> tuple[list[bytes], list[bytes]]:
    """Split the words into keys and ids, one for each."""
    if len(streams) % 2:
        raise Failure("ERR Unbalanced XREAD list of streams: for each stream key an ID or '$' must be specified.")
    return streams[: len(streams) // 2], streams[len(streams) // 2 :]


@dataclass(slots=True)
class Claiming:
    """XCLAIM key group consumer min-idle id ... [IDLE ms | TIME ms] [RETRYCOUNT n] [FORCE] [JUSTID] [LASTID id], or XAUTOCLAIM key group
    consumer min-idle start [COUNT n] [JUSTID].

    Attributes:
        idle_ms: milliseconds since the last delivery, at least.
        lsns: of the entries that are named.
        start: from which LSN on, where none are.
        count: entries, at most.
        just_ids: answer ids alone, and count no delivery.
        since_ms, attempts, force: see walsvc.topics.acking.Terms.
    """

    idle_ms: int
    lsns: list[int] = field(default_factory=list)
    start: int = 1
    count: int = 100
    just_ids: bool = False
    since_ms: int | None = None
    attempts: int | None = None
    force: bool = False

    @property
    def terms(self) -> Terms:
        """The terms on which entries are taken over."""
        return Terms(not self.just_ids, self.attempts, self.since_ms, self.force)


def claiming(command: Command, now_ms: int) -> Claiming:
    """Parse the arguments of XCLAIM."""
    wanted = Claiming(max(integer(command[4], "ERR Invalid min-idle-time argument for XCLAIM"), 0))
    place = 5
    while place < len(command) and is_id(command[place]):
        wanted.lsns.append(entry_named(command[place]))
        place += 1
    while place < len(command):
        word, more = command[place].upper(), place + 1 < len(command)
        if word == b"JUSTID":
            wanted.just_ids = True
        elif word == b"FORCE":
            wanted.force = True
        elif word in (b"IDLE", b"TIME", b"RETRYCOUNT") and more:
            number = integer(command[place + 1], f"ERR Invalid {word.decode()} option argument for XCLAIM")
            if word == b"RETRYCOUNT":
                wanted.attempts = number if number >= 0 else None
            else:
                wanted.since_ms = now_ms - number if word == b"IDLE" else number
            place += 1
        elif word == b"LASTID" and more:
            parse_id(command[place + 1])
            raise Failure("ERR walsvc's XCLAIM has no LASTID: XGROUP SETID moves a group")
        else:
            raise Failure(f"ERR Unrecognized XCLAIM option '{command[place].decode('latin-1')}'")
        place += 1
    if wanted.since_ms is not None and not 0 <= wanted.since_ms <= now_ms:
        wanted.since_ms = None
    return wanted


def auto_claiming(command: Command) -> Claiming:
    """Parse the arguments of XAUTOCLAIM."""
    wanted = Claiming(max(integer(command[4], "ERR Invalid min-idle-time argument for XAUTOCLAIM"), 0))
    wanted.start = first_of(command[5])
    place = 6
    while place < len(command):
        word = command[place].upper()
        if word == b"COUNT" and place + 1 < len(command):
            wanted.count = integer(command[place + 1], COUNT_BAD)
            if not 1 <= wanted.count <= INTEGER_MAX // 16:
                raise Failure(COUNT_BAD)
            place += 1
        elif word == b"JUSTID":
            wanted.just_ids = True
        else:
            raise Failure(SYNTAX)
        place += 1
    return wanted


@dataclass(slots=True)
class Looking:
    """XPENDING key group [[IDLE ms] start end count [consumer]]

    Attributes:
        idle_ms: milliseconds since the last delivery, at least.
        first, last: LSNs, both included.
        count: entries, at most; None: the whole group in short.
        worker: who has them; None: anybody.
    """

    idle_ms: int = 0
    first: int = 0
    last: int = 0
    count: int | None = None
    worker: bytes | None = None


def looking(command: Command) -> Looking:
    """Parse the arguments of XPENDING."""
    wanted, place = Looking(), 3
    if len(command) == 3:
        return wanted
    if not 6 <= len(command) <= 9:
        raise Failure(SYNTAX)
    if command[3].upper() == b"IDLE":
        wanted.idle_ms, place = integer(command[4]), 5
        if len(command) < 8:
            raise Failure(SYNTAX)
    wanted.count = max(integer(command[place + 2]), 0)
    wanted.first, wanted.last = first_of(command[place]), last_of(command[place + 1])
    wanted.worker = command[place + 3] if place + 3 < len(command) else None
    return wanted


def making_group(command: Command) -> bool:
    """Check the options of XGROUP CREATE and SETID behind the id; True if MKSTREAM is one of them."""
    creates, makes, place = command[1].upper() == b"CREATE", False, 5
    while place < len(command):
        word = command[place].upper()
        if creates and word == b"MKSTREAM":
            makes = True
            place += 1
        elif word == b"ENTRIESREAD" and place + 1 < len(command):
            if integer(command[place + 1]) < -1:
                raise Failure("ERR value for ENTRIESREAD must be positive or -1")
            place += 2
        else:
            raise wrong_subcommand(command)
    if len(command) > 8:
        raise wrong_subcommand(command)
    return makes


def telling(command: Command) -> int | None:
    """Parse the options of XINFO STREAM key [FULL [COUNT n]]: how many entries, 0: all; None: in short."""
    if len(command) == 3:
        return None
    if len(command) not in (4, 6) or command[3].upper() != b"FULL":
        raise wrong_subcommand(command)
    if len(command) == 4:
        return 10
    if command[4].upper() != b"COUNT":
        raise wrong_subcommand(command)
    count = integer(command[5])
    return count if count >= 0 else 10


def ranged(command: Command) -> int | None:
    """Parse the COUNT of XRANGE key start end [COUNT n]; None: there is none."""
    count = None
    place = 4
    while place < len(command):
        if command[place].upper() != b"COUNT" or place + 1 == len(command):
            raise Failure(SYNTAX)
        count = max(integer(command[place + 1]), 0)
        place += 2
    return count
