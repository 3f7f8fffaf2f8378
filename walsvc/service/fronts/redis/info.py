"""XINFO: figures of a stream, its groups and their consumers."""

from __future__ import annotations

import time
from typing import Any

from walsvc.interface import Topic
from walsvc.service.fronts.redis import options
from walsvc.service.fronts.redis.client import Client
from walsvc.service.fronts.redis.entries import id_of
from walsvc.service.fronts.redis.groups import idle_ms, text, workers_of
from walsvc.service.fronts.redis.replies import Failure, Status
from walsvc.service.fronts.redis.requests import Command
from walsvc.service.fronts.redis.streams import Answer
from walsvc.service.fronts.redis.trimming import NODE_ENTRIES
from walsvc.topics.names import ConsumerStatus
from walsvc.topics.shared import LocalConsumer

HELP = (
    *("CONSUMERS <key> <groupname>", "    The consumers of a group."),
    *("GROUPS <key>", "    The groups of a stream."),
    *("STREAM <key> [FULL [COUNT <count>]]", "    The stream; FULL: with its entries, groups and consumers."),
)


async def xinfo(client: Client, command: Command) -> Any:
    """XINFO STREAM, GROUPS, CONSUMERS."""
    call = options.subcommand(command, SUBCOMMANDS)
    if call is not help_of and not await client.has(command[2]):
        raise Failure("ERR no such key")
    return await call(client, command)


async def help_of(client: Client, command: Command) -> list[Status]:
    """XINFO HELP."""
    return options.usage("XINFO", HELP)


async def stream(client: Client, command: Command) -> Any:
    """XINFO STREAM key [FULL [COUNT n]]."""
    count = options.telling(command)
    topic, log = client.topic(command[2]), client.log
    last = await topic.last_lsn()
    entries = await Answer().of(client, topic, 1, None, 1 if count is None else count or None)
    length = await topic.count()
    nodes = -(-length // NODE_ENTRIES)
    told = {
        "length": length,
        "radix-tree-keys": nodes,
        "radix-tree-nodes": nodes + 1,
        "last-generated-id": id_of(last or 0),
        "max-deleted-entry-id": id_of(log.first_lsn - 1),
        "entries-added": await added(client, topic.name),
        "recorded-first-entry-id": entries[0][0] if entries else id_of(0),
    }
    if count is not None:
        return {
            **told,
            "entries": entries,
            "groups": [await whole(client, command[2], each, count) for each in await groups_of(client, command[2])],
        }
    newest = await Answer().of(client, topic, 1, None, 1, reverse=True)
    return {
        **told,
        "groups": sum(is_group(client, topic, each) for each in await topic.consumers()),
        "first-entry": next(iter(entries), None),
        "last-entry": next(iter(newest), None),
    }


async def added(client: Client, name: str) -> int:
    """How many entries a stream ever had."""
    segments = client.opened.writer.segments
    number = segments.topic_number(name)
    ever: int = 0 if number is None else (await segments.topic_sums(number))[0]
    return ever


async def groups_of(client: Client, key: bytes) -> list[LocalConsumer]:
    """The groups of a stream; its other consumers are none."""
    topic = client.topic(key)
    names = [each.name for each in await topic.consumers() if is_group(client, topic, each)]
    found = [await client.members.find(topic, name, None) for name in names]
    return [group for group in found if group is not None]


def is_group(client: Client, topic: Topic, status: ConsumerStatus) -> bool:
    """True if a consumer of a stream is a group for Redis."""
    return status.shared and not client.members.leased(topic, status.name)


async def standing(client: Client, key: bytes, group: LocalConsumer) -> dict[str, Any]:
    """The id up to which a group has come, and its lag."""
    status, topic = await group.status(), client.topic(key)
    delivered = min(group.delivered_lsn(), await topic.last_lsn() or 0)
    lag = None if status.lag is None else max(status.lag - status.outstanding, 0)
    read = None if lag is None else max(await topic.count() - lag, 0)
    return {"last-delivered-id": id_of(delivered), "entries-read": read, "lag": lag}


async def groups(client: Client, command: Command) -> list[Any]:
    """XINFO GROUPS key."""
    found = []
    for group in await groups_of(client, command[2]):
        workers = await workers_of(client, command[2], group.name.encode())
        numbers = {"consumers": len(workers), "pending": len(group.pending())}
        found.append({"name": group.name, **numbers, **await standing(client, command[2], group)})
    return found


async def consumers(client: Client, command: Command) -> list[Any]:
    """XINFO CONSUMERS key group."""
    workers = await workers_of(client, command[2], command[3])
    topic, group, now = client.topic(command[2]), text(command[3]), time.time()
    return [
        {
            "name": name,
            "pending": len(mine),
            "idle": idle_ms(client.members.seen(topic, group, name, mine), now),
        }
        for name, mine in sorted(workers.items())
    ]


async def whole(client: Client, key: bytes, group: LocalConsumer, count: int) -> dict[str, Any]:
    """Describe a group as XINFO STREAM FULL does, with `count` of its pending entries, 0: all."""
    topic, pending = client.topic(key), group.pending()
    workers = await workers_of(client, key, group.name.encode())
    most = count or len(pending)
    return {
        "name": group.name,
        **await standing(client, key, group),
        "pel-count": len(pending),
        "pending": [[id_of(each.lsn), each.worker, ms(each.since), each.attempts] for each in pending[:most]],
        "consumers": [
            {
                "name": name,
                "seen-time": ms(client.members.seen(topic, group.name, name, mine)),
                "pel-count": len(mine),
                "pending": [[id_of(each.lsn), ms(each.since), each.attempts] for each in mine[:most]],
            }
            for name, mine in sorted(workers.items())
        ],
    }


def ms(seconds: float) -> int:
    """Unix time in milliseconds."""
    return round(seconds * 1000)


MANY = 1 << 20
SUBCOMMANDS: dict[bytes, tuple[int, int, Any]] = {
    b"STREAM": (3, MANY, stream),
    b"GROUPS": (3, 3, groups),
    b"CONSUMERS": (4, 4, consumers),
    b"HELP": (2, 2, help_of),
}
