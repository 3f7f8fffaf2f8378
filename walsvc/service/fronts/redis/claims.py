"""The commands that look at what consumers of a group have, and take it over."""

from __future__ import annotations

import time
from typing import Any

from walsvc.service.fronts.redis import options
from walsvc.service.fronts.redis.client import Client
from walsvc.service.fronts.redis.entries import first_of, id_of, last_of
from walsvc.service.fronts.redis.groups import entries_of, member, text, workers_of
from walsvc.service.fronts.redis.options import Claiming, integer
from walsvc.service.fronts.redis.replies import NULL_ARRAY, Failure
from walsvc.service.fronts.redis.requests import Command
from walsvc.topics.pending import Pending


async def xpending(client: Client, command: Command) -> Any:
    """XPENDING key group [[IDLE ms] start end count [consumer]]."""
    rest, idle = command[3:], 0
    if rest and rest[0].upper() == b"IDLE" and len(rest) > 1:
        idle, rest = integer(rest[1]), rest[2:]
    if (rest and not 3 <= len(rest) <= 4) or (not rest and len(command) > 3):
        raise Failure(options.SYNTAX)
    first, last, most, worker = 0, 0, 0, None
    if rest:
        first, last, most = first_of(rest[0]), last_of(rest[1]), max(integer(rest[2]), 0)
        worker = text(rest[3]) if len(rest) == 4 else None
    pending = (await member(client, command[1], command[2])).pending()
    if not rest:
        if not pending:
            return [0, None, None, NULL_ARRAY]
        counts: dict[str, int] = {}
        for each in pending:
            counts[each.worker] = counts.get(each.worker, 0) + 1
        ends = [id_of(pending[0].lsn), id_of(pending[-1].lsn)]
        return [len(pending), *ends, [[name, str(count)] for name, count in sorted(counts.items())]]
    chosen = [
        each
        for each in pending
        if first <= each.lsn <= last and worker in (None, each.worker) and idle_ms(each) >= idle
    ]
    return [[id_of(each.lsn), each.worker, idle_ms(each), each.attempts] for each in chosen[:most]]


def idle_ms(each: Pending) -> int:
    """Milliseconds since a delivery."""
    return max(int((time.time() - each.since) * 1000), 0)


async def xclaim(client: Client, command: Command) -> Any:
    """XCLAIM key group consumer min-idle id ... [JUSTID]."""
    group = await member(client, *command[1:4])
    wanted = options.claiming(command)
    lsns = await group.claim(wanted.lsns, wanted.idle_ms / 1000, count=not wanted.just_ids)
    return await claimed(client, command, lsns, wanted)


async def xautoclaim(client: Client, command: Command) -> Any:
    """XAUTOCLAIM key group consumer min-idle start [COUNT n] [JUSTID]."""
    wanted = options.auto_claiming(command)
    start = first_of(wanted.start)
    group = await member(client, *command[1:4])
    pending = [each.lsn for each in group.pending() if each.lsn >= start]
    looked, rest = pending[: wanted.count * 10], pending[wanted.count * 10 :]
    lsns: list[int] = []
    for place, lsn in enumerate(looked):
        if len(lsns) == wanted.count:
            rest = pending[place:]
            break
        lsns += await group.claim([lsn], wanted.idle_ms / 1000, count=not wanted.just_ids)
    answer = await claimed(client, command, lsns, wanted)
    return [id_of(rest[0]) if rest else b"0-0", answer, []]


async def claimed(client: Client, command: Command, lsns: list[int], wanted: Claiming) -> list[Any]:
    """The answer of a claim: entries, or only their ids."""
    if lsns:
        client.members.name(client.topic(command[1]), text(command[2]), text(command[3]))
    if wanted.just_ids:
        return [id_of(lsn) for lsn in lsns]
    return [entry for entry in await entries_of(client, command[1], lsns) if entry[1] is not None]


async def info_groups(client: Client, command: Command) -> list[Any]:
    """XINFO GROUPS key."""
    found = []
    for status in await client.topic(command[2]).consumers():
        group = await client.members.find(client.topic(command[2]), status.name, None)
        if group is None:
            continue
        pending = group.pending()
        workers = await workers_of(client, command[2], status.name.encode())
        found.append(
            {
                "name": status.name,
                "consumers": len(workers),
                "pending": len(pending),
                "last-delivered-id": id_of(max([status.position - 1, *(each.lsn for each in pending)])),
                "lag": max((status.lag or 0) - len(pending), 0),
            }
        )
    return found


async def info_consumers(client: Client, command: Command) -> list[Any]:
    """XINFO CONSUMERS key group."""
    workers = await workers_of(client, command[2], command[3])
    return [
        {"name": name, "pending": len(mine), "idle": min(map(idle_ms, mine), default=0)}
        for name, mine in sorted(workers.items())
    ]
