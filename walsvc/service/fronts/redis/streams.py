"""The commands about streams, each of them calls of walsvc.Topic."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Any, NamedTuple

from walsvc.errors import Truncated
from walsvc.interface import Topic
from walsvc.model import Record
from walsvc.service.fronts.redis import options
from walsvc.service.fronts.redis.client import Client
from walsvc.service.fronts.redis.entries import after, entry_of, first_of, id_of, last_of, packed
from walsvc.service.fronts.redis.globs import glob
from walsvc.service.fronts.redis.replies import NULL_ARRAY, Failure, Status
from walsvc.service.fronts.redis.requests import Command
from walsvc.service.fronts.redis.trimming import Trimming, adding, check_right
from walsvc.service.fronts.redis.waiting import at_most, one_of

ANSWER_BYTES_MAX = 64 << 20
ENTRY_COST = 256  # bytes that an entry takes beyond its payload, at least
STREAM = Status("stream")
Start = tuple[bytes, int]  # a stream's key, and the LSN from which on it is read


class Added(NamedTuple):
    """An entry to be appended."""

    topic: Topic
    payload: bytes
    type: int
    trimming: Trimming | None = None


def xadd(client: Client, command: Command) -> Any:
    """XADD key * field value ...: the answer is the append's, which comes when the entry is on stable storage."""
    if not len(command) % 2:
        raise options.wrong_number("xadd")
    payload, type = packed(command[3:])
    return client.topic(command[1]).append(payload, type=type)


async def xadd_with_options(client: Client, command: Command) -> bytes | None:
    """XADD key [NOMKSTREAM] [MAXLEN | MINID ...] * field value ...: the id of the entry, which is on stable storage, as what it has
    trimmed is."""
    entry = await added(client, command)
    if entry is None:
        return None
    client.written = (await entry.topic.append(entry.payload, type=entry.type)).lsn
    if entry.trimming is not None:
        await entry.trimming.of(entry.topic)
    return id_of(client.written)


async def added(client: Client, command: Command) -> Added | None:
    """The entry of an XADD; None where its stream is not to be made."""
    wanted = adding(command)
    if wanted.trimming is not None:
        check_right(client, "trim")
    if not wanted.make and not await client.has(command[1]):
        return None
    return Added(client.topic(command[1]), *packed(wanted.fields), wanted.trimming)


async def xlen(client: Client, command: Command) -> int:
    """XLEN."""
    return await client.topic(command[1]).count() if await client.has(command[1]) else 0


async def xrange(client: Client, command: Command) -> Any:
    """XRANGE key start end [COUNT n]."""
    return await in_range(client, command, first_of(command[2]), last_of(command[3]), reverse=False)


async def xrevrange(client: Client, command: Command) -> Any:
    """XREVRANGE key end start [COUNT n]."""
    last = last_of(command[2])
    return await in_range(client, command, first_of(command[3]), last, reverse=True)


async def in_range(client: Client, command: Command, first: int, last: int, *, reverse: bool) -> Any:
    """The entries from LSN `first` to `last`, in either order."""
    count = options.ranged(command)
    if not await client.has(command[1]):
        return []
    if count == 0:
        return NULL_ARRAY
    return await Answer().of(client, client.topic(command[1]), first, last, count, reverse=reverse)


async def xread(client: Client, command: Command) -> Any:
    """XREAD [COUNT n] [BLOCK ms] STREAMS key ... id ..."""
    wanted = options.reading(command, of_group=False)
    starts: list[Start] = []
    for key, text in zip(wanted.keys, wanted.ids, strict=True):
        if text == b">":
            raise Failure(
                "ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> <consumer> option."
            )
        starts.append((key, client.log.next_lsn if text == b"$" else after(text)))
    found = await read_each(client, starts, wanted.count)
    if not found and wanted.block is not None:
        with client.members.blocked():
            async with at_most(wanted.block):
                while not found:
                    await first_come(client, starts)
                    found = await read_each(client, starts, wanted.count)
    return found_in(client, found)


def found_in(client: Client, found: list[tuple[bytes, list[Any]]]) -> Any:
    """Entries by key as XREAD answers them."""
    if not found:
        return NULL_ARRAY
    return dict(found) if client.resp == 3 else found


async def read_each(client: Client, starts: list[Start], count: int) -> list[tuple[bytes, list[Any]]]:
    """The entries of each stream; streams with none are left out."""
    answer, found = Answer(), []
    for key, start in starts:
        if await client.has(key) and (
            entries := await answer.of(client, client.topic(key), start, None, count or None)
        ):
            found.append((key, entries))
    return found


async def first_come(client: Client, starts: list[Start]) -> None:
    """Wait until one of the streams has a record at its start or behind it."""
    following = [follow(client, client.topic(key), start) for key, start in starts]
    try:
        await one_of(map(anext, following))
    finally:
        for each in following:
            await each.aclose()


async def follow(client: Client, topic: Topic, start: int) -> AsyncGenerator[Record, None]:
    """Follow a topic: yield its visible records from `start` on, and later ones as they come."""
    while True:
        try:
            async for record in topic.follow(min(max(start, client.log.first_lsn), client.log.next_lsn)):
                if record.lsn >= start:
                    yield record
        except Truncated:
            continue


class Answer:
    """The entries of one answer, whose bytes are bounded."""

    def __init__(self) -> None:
        self._left = ANSWER_BYTES_MAX

    async def of(
        self, client: Client, topic: Topic, first: int, last: int | None, count: int | None, *, reverse: bool = False
    ) -> list[Any]:
        """Collect the visible entries from LSN `first` to `last`, at most `count`; with `reverse` the last one first."""
        while True:
            low, entries, left = max(first, client.log.first_lsn), list[Any](), self._left
            stop = client.log.next_lsn if last is None else min(last + 1, client.log.next_lsn)
            if low >= stop:
                return []
            try:
                async with contextlib.aclosing(topic.read(low, stop, reverse=reverse)) as records:
                    async for record in records:
                        entries.append(entry_of(record))
                        left -= len(record.payload) + ENTRY_COST
                        if left < 0:
                            raise Failure(f"ERR the answer has more than {ANSWER_BYTES_MAX} bytes: use COUNT")
                        if len(entries) == count:
                            break
            except Truncated:
                continue  # meanwhile
            self._left = left
            return entries


# ---- keys


async def exists(client: Client, command: Command) -> int:
    """EXISTS key ...: how many of them there are."""
    return sum([await client.has(key) for key in command[1:]])


async def type_of(client: Client, command: Command) -> Status:
    """TYPE key."""
    return STREAM if await client.has(command[1]) else Status("none")


async def dbsize(client: Client, command: Command) -> int:
    """DBSIZE."""
    return len(client.log.topics())


async def scan(client: Client, command: Command) -> list[Any]:
    """SCAN cursor [MATCH pattern] [COUNT n] [TYPE type]. The cursor is a place in the list of topics, in the order in which they were
    made, so that no topic is left out that is there from the first call to the last."""
    cursor = options.integer(command[1], "ERR invalid cursor")
    if cursor < 0:
        raise Failure("ERR invalid cursor")
    count, match, kind, place = 10, None, b"stream", 2
    while place < len(command):
        word, more = command[place].upper(), place + 1 < len(command)
        if word == b"COUNT" and more:
            count = options.integer(command[place + 1])
            if count < 1:
                raise Failure(options.SYNTAX)
        elif word == b"MATCH" and more:
            match = glob(command[place + 1])
        elif word == b"TYPE" and more:
            kind = command[place + 1].lower()
        else:
            raise Failure(options.SYNTAX)
        place += 2
    names = client.log.topics()
    following = cursor + count if cursor + count < len(names) else 0
    found = [
        name
        for name in map(str.encode, names[cursor : cursor + count])
        if kind == b"stream" and (match is None or match.fullmatch(name))
    ]
    return [str(following), found]


async def keys(client: Client, command: Command) -> list[bytes]:
    """KEYS pattern."""
    match = glob(command[1])
    return [name for name in map(str.encode, client.log.topics()) if match.fullmatch(name)]
