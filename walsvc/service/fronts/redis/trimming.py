"""The commands by which entries go: XDEL, XTRIM, what XADD trims, DEL and UNLINK. They need the right `admin`, as purging does.

An entry that goes is hidden from all readers in the same group commit as other changes. Groups are not told: they go on behind it.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from walsvc.errors import InUse
from walsvc.service.fronts.redis.entries import LSN_MAX, parse_id
from walsvc.service.fronts.redis.options import SYNTAX, integer, wrong_number
from walsvc.service.fronts.redis.replies import Failure
from walsvc.service.wire.methods import ADMIN

if TYPE_CHECKING:
    from walsvc.interface import Topic
    from walsvc.service.fronts.redis.client import Client
    from walsvc.service.fronts.redis.requests import Command

NODE_ENTRIES = 100  # that Redis drops together where it trims about (~): a node of its radix tree
ABOUT_MOST = 100 * NODE_ENTRIES  # entries that such a trim drops at most, unless LIMIT says otherwise


@dataclass(slots=True)
class Trimming:
    """MAXLEN | MINID [= | ~] threshold [LIMIT count].

    Attributes:
        by_length: MAXLEN; else MINID.
        threshold: entries that stay, or the first LSN that stays.
        about: `~`: hundreds of entries go, or all, or none.
        limit: how many go at most; 0: any number.
    """

    by_length: bool
    threshold: int
    about: bool = False
    limit: int = 0

    async def of(self, topic: Topic) -> int:
        """Trim a stream; returns how many entries went. Durable on return."""
        if not self.about:
            if self.by_length:
                return await topic.purge(keep=self.threshold) or 0
            return await topic.purge(before=min(self.threshold, await behind(topic))) or 0
        count = await topic.count()
        going = count - self.threshold if self.by_length else await count_below(topic, self.threshold)
        if self.limit:
            going = min(going, self.limit)
        if going < count:
            going -= going % NODE_ENTRIES
        return await topic.purge(keep=count - going) or 0 if going > 0 else 0


async def behind(topic: Topic) -> int:
    """The LSN behind a stream's last entry."""
    return (await topic.last_lsn() or 0) + 1


async def count_below(topic: Topic, lsn: int) -> int:
    """How many entries a stream has below an LSN."""
    count = 0
    async for records in topic.read_batches(stop=min(lsn, await behind(topic))):
        count += len(records)
    return count


class Words:
    """Reads the trimming of XADD and XTRIM, word by word. The words of errors are Redis's."""

    def __init__(self) -> None:
        self._found: Trimming | None = None
        self._limit: int | None = None

    def take(self, command: Command, place: int) -> int:
        """Read the option at `place`; returns the place behind it, `place` itself where there is none."""
        word, more = command[place].upper(), len(command) - place - 1
        if word in (b"MAXLEN", b"MINID") and more:
            return self._strategy(command, place, by_length=word == b"MAXLEN")
        if word == b"LIMIT" and more:
            self._limit = integer(command[place + 1])
            if self._limit < 0:
                raise Failure("ERR The LIMIT argument must be >= 0.")
            return place + 2
        return place

    def _strategy(self, command: Command, place: int, *, by_length: bool) -> int:
        if self._found is not None:
            raise Failure("ERR syntax error, MAXLEN and MINID options at the same time are not compatible")
        place += 1
        about = command[place] == b"~" and place + 1 < len(command)
        if about or (command[place] == b"=" and place + 1 < len(command)):
            place += 1
        if by_length:
            threshold = integer(command[place])
            if threshold < 0:
                raise Failure("ERR The MAXLEN argument must be >= 0.")
        else:
            lsn, sequence = parse_id(command[place])
            threshold = min(lsn, LSN_MAX) + bool(sequence)
        self._found = Trimming(by_length, max(threshold, 0 if by_length else 1), about)
        return place + 1

    def found(self) -> Trimming | None:
        """The trimming that the words ask for. Raises Failure for options that do not go together."""
        trimming, limit = self._found, self._limit
        if trimming is None:
            if limit is not None:
                raise Failure("ERR syntax error, LIMIT cannot be used without specifying a trimming strategy")
            return None
        if limit is not None and not trimming.about:
            raise Failure("ERR syntax error, LIMIT cannot be used without the special ~ option")
        trimming.limit = ABOUT_MOST if limit is None else limit
        return trimming


@dataclass(slots=True)
class Adding:
    """XADD key [NOMKSTREAM] [MAXLEN | MINID ...] id field value ..."""

    make: bool
    trimming: Trimming | None
    fields: Command


def adding(command: Command) -> Adding:
    """Parse the arguments of XADD."""
    place, make, wanted = 2, True, Words()
    while place < len(command):
        if command[place].upper() == b"NOMKSTREAM":
            make, place = False, place + 1
            continue
        following = wanted.take(command, place)
        if following == place:
            break
        place = following
    trimming = wanted.found()
    id = command[place] if place < len(command) else b"*"
    named = None if id == b"*" else parse_id(id.removesuffix(b"-*"))
    fields = command[place + 1 :]
    if not fields or len(fields) % 2:
        raise wrong_number("xadd")
    if named is not None:
        if named == (0, 0):
            raise Failure("ERR The ID specified in XADD must be greater than 0-0")
        raise Failure("ERR The ID specified in XADD must be *: walsvc gives it, as the entry's LSN")
    return Adding(make, trimming, fields)


def check_right(client: Client, name: str) -> None:
    """Raise Failure unless the client has the right to drop entries."""
    if ADMIN not in client.granted().rights:
        raise Failure(f"NOPERM this token has no right to {name}: it takes 'admin'")


async def xtrim(client: Client, command: Command) -> int:
    """XTRIM key MAXLEN | MINID [= | ~] threshold [LIMIT count]."""
    wanted, place = Words(), 2
    while place < len(command):
        following = wanted.take(command, place)
        if following == place:
            raise Failure(SYNTAX)
        place = following
    trimming = wanted.found()
    if trimming is None:
        raise Failure("ERR syntax error, XTRIM must be called with a trimming strategy")
    return await trimming.of(client.topic(command[1])) if await client.has(command[1]) else 0


async def xdel(client: Client, command: Command) -> int:
    """XDEL key id ...: how many of the entries were there."""
    if not await client.has(command[1]):
        return 0
    topic, named = client.topic(command[1]), [parse_id(text) for text in command[2:]]
    end = await behind(topic)
    lsns = {lsn for lsn, sequence in named if not sequence and 1 <= lsn < end}
    return await topic.purge(lsns=lsns) or 0


async def delete(client: Client, command: Command) -> int:
    """DEL, UNLINK key ...: how many streams there were."""
    count = 0
    for key in dict.fromkeys(command[1:]):
        if not await client.has(key):
            continue
        topic = client.topic(key)
        async with AsyncExitStack() as groups:
            for name in sorted(status.name for status in await topic.consumers()):
                await groups.enter_async_context(client.members.going(topic, name))
            try:
                await client.log.delete_topic(topic.name)
            except InUse as error:
                raise Failure(f"ERR {error}") from None
        count += 1
    return count
