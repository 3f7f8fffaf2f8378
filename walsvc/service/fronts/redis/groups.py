"""The commands about groups. A group is a shared consumer without a lease, and a consumer of the group is a worker of it.

Who has an entry stands in the log, so the list of pending entries is there after a restart. Of consumers that have nothing pending
only those are known that have asked since the log was opened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from walsvc.errors import BadOption, InUse, WalError
from walsvc.service.fronts.redis import options
from walsvc.service.fronts.redis.client import Client
from walsvc.service.fronts.redis.entries import after, entry_of, id_of, parse_id
from walsvc.service.fronts.redis.members import SETTING_UP
from walsvc.service.fronts.redis.replies import OK, Failure
from walsvc.service.fronts.redis.requests import Command
from walsvc.service.fronts.redis.streams import Answer, found_in
from walsvc.service.fronts.redis.waiting import one_of
from walsvc.topics.pending import Pending
from walsvc.topics.shared import LocalConsumer, LocalDelivery

NEEDS_KEY = (
    "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM option to "
    "create an empty stream automatically."
)


NO_GROUP_FOR_KEY = "NOGROUP No such consumer group '{group}' for key name '{key}'"
NO_KEY_OR_GROUP = "NOGROUP No such key '{key}' or consumer group '{group}'"


async def find(client: Client, key: bytes, group: bytes, worker: bytes | None = None) -> LocalConsumer | None:
    """A worker's place in a group, without one any place; None where there is no such stream or group."""
    if not await client.has(key):
        return None
    return await client.members.find(client.topic(key), text(group), None if worker is None else text(worker))


async def member(
    client: Client, key: bytes, group: bytes, worker: bytes | None = None, *, words: str = NO_KEY_OR_GROUP
) -> LocalConsumer:
    """The same. Failure in these words where there is none."""
    found = await find(client, key, group, worker)
    if found is None:
        shown = [each.decode("utf-8", "replace") for each in (key, group)]
        raise Failure(words.format(key=shown[0], group=shown[1]))
    return found


def text(name: bytes) -> str:
    """The name of a group or of a consumer."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise Failure("ERR names of groups and consumers are UTF-8, up to 255 bytes") from None


# ---- groups


async def xgroup(client: Client, command: Command) -> Any:
    """XGROUP CREATE, SETID, DESTROY, CREATECONSUMER, DELCONSUMER."""
    call = options.subcommand(command, SUBCOMMANDS)
    if call is create and not all(map(is_option, command[5:], command[4:])):
        raise Failure("ERR unknown subcommand or wrong number of arguments for 'CREATE'. Try XGROUP HELP.")
    makes = call is create and b"MKSTREAM" in [each.upper() for each in command[5:]]
    if not makes and not await client.has(command[2]):
        raise Failure(NEEDS_KEY)
    return await call(client, command)


def is_option(word: bytes, before: bytes) -> bool:
    """Whether XGROUP CREATE knows a word behind the id."""
    return word.upper() in (b"MKSTREAM", b"ENTRIESREAD") or before.upper() == b"ENTRIESREAD"


async def create(client: Client, command: Command) -> Any:
    """XGROUP CREATE key group id [MKSTREAM] [ENTRIESREAD n]."""
    topic, name = client.topic(command[2]), text(command[3])
    start = start_of(client, command[4])
    if await client.members.exists(topic, name):
        raise Failure("BUSYGROUP Consumer Group name already exists")
    with client.shared.consumers.taking(client.opened, topic.name, name):
        consumer = await topic.consumer(name, start=start, shared=True, lease=None, worker=SETTING_UP)
    await consumer.close()
    return OK


async def set_id(client: Client, command: Command) -> Any:
    """XGROUP SETID key group id [ENTRIESREAD n]."""
    if len(command) != 5 and (len(command) != 7 or command[5].upper() != b"ENTRIESREAD"):
        raise Failure(options.SYNTAX)
    group = await member(client, command[2], command[3], words=NO_GROUP_FOR_KEY)
    await group.seek(start_of(client, command[4]))
    return OK


def start_of(client: Client, id: bytes) -> int:
    """The LSN behind an id, as far as the log goes."""
    log = client.log
    return log.next_lsn if id == b"$" else min(max(after(id), log.first_lsn), log.next_lsn)


async def destroy(client: Client, command: Command) -> int:
    """XGROUP DESTROY key group."""
    topic, name = client.topic(command[2]), text(command[3])
    if not await client.members.exists(topic, name):
        return 0
    await client.members.forget(topic, name)
    try:
        await topic.delete_consumer(name)
    except (BadOption, InUse) as error:
        raise Failure(f"ERR {error}") from None
    return 1


async def create_consumer(client: Client, command: Command) -> int:
    """XGROUP CREATECONSUMER key group consumer."""
    topic, group, worker = client.topic(command[2]), text(command[3]), text(command[4])
    known = await workers_of(client, command[2], command[3])
    return int(client.members.name(topic, group, worker) and worker not in known)


async def delete_consumer(client: Client, command: Command) -> int:
    """XGROUP DELCONSUMER key group consumer: what it had is done, as in Redis."""
    group = await member(client, command[2], command[3], words=NO_GROUP_FOR_KEY)
    worker = text(command[4])
    count = await group.settle([each.lsn for each in group.pending() if each.worker == worker])
    await client.members.leave(client.topic(command[2]), text(command[3]), worker)
    return count


async def workers_of(client: Client, key: bytes, group: bytes) -> dict[str, list[Pending]]:
    """The consumers of a group that are known, with what they have."""
    any_of_it = await member(client, key, group, words=NO_GROUP_FOR_KEY)
    found: dict[str, list[Pending]] = {name: [] for name in client.members.workers(client.topic(key), text(group))}
    for each in any_of_it.pending():
        found.setdefault(each.worker, []).append(each)
    return found


Call = Callable[[Client, Command], Coroutine[Any, Any, Any]]
SUBCOMMANDS: dict[bytes, tuple[int, int, Call]] = {
    b"CREATE": (5, 8, create),
    b"SETID": (5, 7, set_id),
    b"DESTROY": (4, 4, destroy),
    b"CREATECONSUMER": (5, 5, create_consumer),
    b"DELCONSUMER": (5, 5, delete_consumer),
}


# ---- delivering


async def xreadgroup(client: Client, command: Command) -> Any:
    """XREADGROUP GROUP group consumer [COUNT n] [BLOCK ms] [NOACK] STREAMS key ... id ..."""
    if command[1].upper() != b"GROUP":
        raise Failure(options.SYNTAX)
    noack = [place for place, word in enumerate(command) if 3 < place < 9 and word.upper() == b"NOACK"]
    rest = [word for place, word in enumerate(command) if place not in noack[:1]]
    wanted = options.reading(rest, 4)
    group, worker, count = command[2], command[3], wanted.count or (1 << 16)
    places, new = [], []
    words = NO_KEY_OR_GROUP + " in XREADGROUP with GROUP option"
    for key, id in zip(wanted.keys, wanted.ids, strict=True):
        place = await member(client, key, group, worker, words=words)
        if id == b"$":
            raise Failure(
                "ERR The $ ID is meaningless in the context of XREADGROUP: you want to read the history of this consumer by "
                "specifying a proper ID, or use the > ID to get new messages. The $ ID would just return an empty result set."
            )
        start = None if id == b">" else after(id)
        places.append((key, start, place))
        new += [place] if start is None else []
    found = await take(client, places, count, noack=bool(noack))
    if not found and wanted.block is not None and len(new) == len(places):
        until = asyncio.get_running_loop().time() + wanted.block / 1000 if wanted.block else None
        while not found and await one_of((each.wait_for_new() for each in new), until):
            found = await take(client, places, count, noack=bool(noack))  # to its end: what it takes reaches the client
    return found_in(client, found)


Place = tuple[bytes, int | None, LocalConsumer]


async def take(client: Client, places: list[Place], count: int, *, noack: bool) -> dict[bytes, list[Any]]:
    """New entries of each stream, or those that the consumer has already, from an LSN on."""
    found: dict[bytes, list[Any]] = {}
    for key, start, group in places:
        if start is not None:
            mine = [each.lsn for each in group.pending() if each.worker == group.worker and each.lsn >= start]
            found[key] = await entries_of(client, key, mine[:count])
        elif deliveries := await new_entries(group, count, alone=not found):
            found[key] = [entry_of(each.record) for each in deliveries]
            if noack:
                await group.ack(deliveries)
        if key in found:
            client.members.name(client.topic(key), group.name, str(group.worker))
    return found


async def new_entries(group: LocalConsumer, count: int, *, alone: bool) -> Sequence[LocalDelivery]:
    """New entries of a stream. Raises what taking them raises, unless the answer has entries of other streams, which are the
    consumer's by now: then the next command says it."""
    try:
        return await group.take_new(count)
    except WalError:
        if alone:
            raise
        return ()


async def entries_of(client: Client, key: bytes, lsns: list[int]) -> list[Any]:
    """Entries by their LSNs; one that is not there any more has no fields."""
    topic, answer = client.topic(key), Answer()
    found = [await answer.of(client, topic, lsn, lsn, 1) for lsn in lsns]
    return [entries[0] if entries else [id_of(lsn), None] for lsn, entries in zip(lsns, found, strict=True)]


def acked_lsns(command: Command) -> list[int]:
    """The LSNs that XACK names; an id with another second part than 0 names no entry."""
    return [lsn for lsn, sequence in map(parse_id, command[3:]) if not sequence]


async def acknowledged(client: Client, command: Command) -> Sequence[LocalDelivery]:
    """The deliveries that XACK is about, as far as somebody has them."""
    group = await find(client, command[1], command[2])
    return [] if group is None else await group.held(acked_lsns(command))


async def xack(client: Client, command: Command) -> int:
    """XACK key group id ...: how many were pending; durable when it answers."""
    group = await find(client, command[1], command[2])
    return 0 if group is None else await group.settle(acked_lsns(command))
