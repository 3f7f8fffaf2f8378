"""The commands about groups. A group is a shared consumer without a lease, and a consumer of the group is a worker of it.

Who has an entry stands in the log, so the list of pending entries is there after a restart. Of consumers that have nothing pending
only those are known that have asked since the log was opened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from walsvc.errors import BadOption, Closed, InUse, WalError
from walsvc.service.fronts.redis import options
from walsvc.service.fronts.redis.client import Client
from walsvc.service.fronts.redis.entries import PART_MAX, after, entry_named, entry_of, id_of
from walsvc.service.fronts.redis.members import SETTING_UP
from walsvc.service.fronts.redis.replies import OK, Failure
from walsvc.service.fronts.redis.requests import Command
from walsvc.service.fronts.redis.streams import Answer, found_in
from walsvc.service.fronts.redis.trimming import check_right
from walsvc.service.fronts.redis.waiting import one_of
from walsvc.topics.pending import Pending
from walsvc.topics.shared import LocalConsumer, LocalDelivery
from walsvc.topics.transaction import LocalTransaction

NEEDS_KEY = (
    "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM option to "
    "create an empty stream automatically."
)


NO_GROUP_FOR_KEY = "NOGROUP No such consumer group '{group}' for key name '{key}'"
NO_KEY_OR_GROUP = "NOGROUP No such key '{key}' or consumer group '{group}'"
IN_READING = " in XREADGROUP with GROUP option"
GROUP_IS_GONE = "NOGROUP the consumer group this client was blocked on no longer exists"
HELP = (
    *("CREATE <key> <groupname> <id|$> [MKSTREAM]", "    Make a group that begins behind an id."),
    *("SETID <key> <groupname> <id|$>", "    Move a group."),
    *("DESTROY <key> <groupname>", "    Forget a group."),
    *("CREATECONSUMER <key> <groupname> <consumer>", "    Make a consumer of a group."),
    *("DELCONSUMER <key> <groupname> <consumer>", "    Forget a consumer of a group; what it had is done."),
)


async def find(client: Client, key: bytes, group: bytes, worker: bytes | None = None) -> LocalConsumer | None:
    """The open place of a worker in a group, of any worker where none is named; None where there is no such stream or group."""
    if not await client.has(key):
        return None
    return await client.members.find(client.topic(key), text(group), None if worker is None else text(worker))


async def member(
    client: Client, key: bytes, group: bytes, worker: bytes | None = None, *, words: str = NO_KEY_OR_GROUP
) -> LocalConsumer:
    """The same. Raises Failure with these words where there is no such stream or group."""
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
    if call is help_of:
        return options.usage("XGROUP", HELP)
    if call is destroy:
        check_right(client, "forget a group")
    makes = call in (create, set_id) and options.making_group(command)
    if not makes:
        if not await client.has(command[2]):
            raise Failure(NEEDS_KEY)
        if call not in (create, destroy):
            await member(client, command[2], command[3], words=NO_GROUP_FOR_KEY)
    return await call(client, command)


async def help_of(client: Client, command: Command) -> None:
    """XGROUP HELP."""


async def create(client: Client, command: Command) -> Any:
    """XGROUP CREATE key group id [MKSTREAM] [ENTRIESREAD n]."""
    topic, name = client.topic(command[2]), text(command[3])
    start = start_of(client, command[4])
    async with client.members.making(topic, name):
        if client.members.exists(topic, name):
            raise Failure("BUSYGROUP Consumer Group name already exists")
        with client.shared.consumers.taking(client.opened, topic.name, name):
            consumer = await topic.consumer(name, start=start, shared=True, lease=None, worker=SETTING_UP)
        await consumer.close()
    return OK


async def set_id(client: Client, command: Command) -> Any:
    """XGROUP SETID key group id [ENTRIESREAD n]."""
    group = await member(client, command[2], command[3], words=NO_GROUP_FOR_KEY)
    ends = {b"-": b"0", b"+": b"%d" % PART_MAX}
    await group.seek(start_of(client, ends.get(command[4], command[4])))
    return OK


def start_of(client: Client, id: bytes) -> int:
    """The LSN behind an id, from the log's first LSN to its next one."""
    log = client.log
    return log.next_lsn if id == b"$" else min(max(after(id), log.first_lsn), log.next_lsn)


async def destroy(client: Client, command: Command) -> int:
    """XGROUP DESTROY key group."""
    topic, name = client.topic(command[2]), text(command[3])
    async with client.members.going(topic, name):
        if not client.members.exists(topic, name):
            return 0
        client.members.refuse_leased(topic, name)
        try:
            await topic.delete_consumer(name)
        except (BadOption, InUse) as error:
            raise Failure(f"ERR {error}") from None
    return 1


async def create_consumer(client: Client, command: Command) -> int:
    """XGROUP CREATECONSUMER key group consumer."""
    topic, group, worker = client.topic(command[2]), text(command[3]), text(command[4])
    if worker in await workers_of(client, command[2], command[3]):
        return 0
    client.members.name(topic, group, worker)
    return 1


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
    b"CREATE": (5, 1 << 20, create),
    b"SETID": (5, 1 << 20, set_id),
    b"DESTROY": (4, 4, destroy),
    b"CREATECONSUMER": (5, 5, create_consumer),
    b"DELCONSUMER": (5, 5, delete_consumer),
    b"HELP": (2, 2, help_of),
}


# ---- delivering


async def xreadgroup(client: Client, command: Command) -> Any:
    """XREADGROUP GROUP group consumer [COUNT n] [BLOCK ms] [NOACK] STREAMS key ... id ..."""
    wanted = options.reading(command, of_group=True)
    places = await places_of(client, wanted)
    found = await take(client, places, wanted)
    new = [place for _, start, place in places if start is None]
    if not found and wanted.block is not None and len(new) == len(places):
        until = asyncio.get_running_loop().time() + wanted.block / 1000 if wanted.block else None
        while not found:
            try:
                with client.members.blocked():
                    came = await one_of((each.wait_for_new() for each in new), until)
                if not came:
                    break
                found = await take(client, places, wanted)  # to its end: what it takes reaches the client
            except Closed:  # the group was destroyed, or its consumer deleted: it comes again
                places = await places_of(client, wanted, words=GROUP_IS_GONE)
                new = [place for _, _, place in places]
    return found_in(client, found)


Place = tuple[bytes, int | None, LocalConsumer]


async def places_of(client: Client, wanted: options.Reading, words: str = NO_KEY_OR_GROUP + IN_READING) -> list[Place]:
    """The streams of an XREADGROUP: each with the LSN from which on the consumer wants what it has, None for new entries, and its place in
    the group. Failure in these words where there is no such group."""
    places: list[Place] = []
    for key, id in zip(wanted.keys, wanted.ids, strict=True):
        assert wanted.group is not None, "GROUP is checked"
        place = await member(client, key, wanted.group, wanted.worker, words=words)
        if id == b"$":
            raise Failure(
                "ERR The $ ID is meaningless in the context of XREADGROUP: you want to read the history of this consumer by "
                "specifying a proper ID, or use the > ID to get new messages. The $ ID would just return an empty result set."
            )
        places.append((key, None if id == b">" else after(id), place))
    return places


async def take(client: Client, places: list[Place], wanted: options.Reading) -> list[tuple[bytes, list[Any]]]:
    """Take new entries of each stream, or those that the consumer has already, from an LSN on."""
    found, count = list[tuple[bytes, list[Any]]](), wanted.count or (1 << 16)
    for key, start, group in places:
        if start is not None:
            mine = [each.lsn for each in group.pending() if each.worker == group.worker and each.lsn >= start]
            entries = await entries_of(client, key, mine[:count])
            there = [lsn for lsn, (_, fields) in zip(mine[:count], entries, strict=True) if fields is not None]
            await group.claim(there, 0.0)  # another delivery of each
            found.append((key, entries))
        elif deliveries := await new_entries(group, count, alone=not found):
            found.append((key, [entry_of(each.record) for each in deliveries]))
            if wanted.noack:
                await group.ack(deliveries)
        else:
            continue
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
    """Read entries by their LSNs; an entry that has vanished has no fields."""
    topic, answer = client.topic(key), Answer()
    found = [await answer.of(client, topic, lsn, lsn, 1) for lsn in lsns]
    return [entries[0] if entries else [id_of(lsn), None] for lsn, entries in zip(lsns, found, strict=True)]


def idle_ms(since: float, now: float) -> int:
    """Milliseconds since a time."""
    return max(int((now - since) * 1000), 0)


def acked_lsns(command: Command) -> list[int]:
    """The LSNs that XACK names."""
    return list(map(entry_named, command[3:]))


async def acknowledged(client: Client, command: Command, transaction: LocalTransaction) -> int:
    """XACK as a part of a transaction: how many are pending and not acknowledged by it already."""
    group, lsns = await find(client, command[1], command[2]), acked_lsns(command)
    return 0 if group is None else transaction.acknowledge(group.open_hub(), *await group.out_of(lsns))


async def xack(client: Client, command: Command) -> int:
    """XACK key group id ...: how many were pending; durable when it answers."""
    group = await find(client, command[1], command[2])
    return 0 if group is None else await group.settle(acked_lsns(command))
