"""The commands that list the pending entries of a group, and take them over."""

from __future__ import annotations

import time
from typing import Any

from walsvc.service.fronts.redis import options
from walsvc.service.fronts.redis.client import Client
from walsvc.service.fronts.redis.entries import id_of
from walsvc.service.fronts.redis.groups import entries_of, idle_ms, member, text
from walsvc.service.fronts.redis.options import Claiming
from walsvc.service.fronts.redis.replies import NULL_ARRAY
from walsvc.service.fronts.redis.requests import Command
from walsvc.topics.shared import LocalConsumer

LOOKED_AT = 10  # entries for each that XAUTOCLAIM may claim; Redis's own number


async def xpending(client: Client, command: Command) -> Any:
    """XPENDING key group [[IDLE ms] start end count [consumer]]."""
    wanted = options.looking(command)
    pending = (await member(client, command[1], command[2])).pending()
    if wanted.count is None:
        if not pending:
            return [0, None, None, NULL_ARRAY]
        counts: dict[str, int] = {}
        for each in pending:
            counts[each.worker] = counts.get(each.worker, 0) + 1
        ends = [id_of(pending[0].lsn), id_of(pending[-1].lsn)]
        return [len(pending), *ends, [[name, str(count)] for name, count in sorted(counts.items())]]
    worker, now = None if wanted.worker is None else text(wanted.worker), time.time()
    chosen = [
        [id_of(each.lsn), each.worker, idle_ms(each.since, now), each.attempts]
        for each in pending
        if wanted.first <= each.lsn <= wanted.last
        and worker in (None, each.worker)
        and idle_ms(each.since, now) >= wanted.idle_ms
    ]
    return chosen[: wanted.count]


async def xclaim(client: Client, command: Command) -> Any:
    """XCLAIM key group consumer min-idle id ... [IDLE ms | TIME ms] [RETRYCOUNT n] [FORCE] [JUSTID]."""
    group = await member(client, *command[1:4])
    wanted = options.claiming(command, int(time.time() * 1000))
    held = {each.lsn for each in group.pending()}
    wanted.lsns = [lsn for lsn in dict.fromkeys(wanted.lsns) if wanted.force or lsn in held]
    there, gone = await looked_up(client, command[1], wanted.lsns)
    await group.settle([lsn for lsn in gone if lsn in held])
    return await claimed(client, command, group, wanted, there)


async def xautoclaim(client: Client, command: Command) -> Any:
    """XAUTOCLAIM key group consumer min-idle start [COUNT n] [JUSTID]."""
    wanted = options.auto_claiming(command)
    group = await member(client, *command[1:4])
    pending, now = [each for each in group.pending() if each.lsn >= wanted.start], time.time()
    there, gone, following = dict[int, Any](), list[int](), 0
    for place, each in enumerate(pending):
        if len(there) + len(gone) == wanted.count or place == wanted.count * LOOKED_AT:
            following = each.lsn
            break
        found, missing = await looked_up(client, command[1], [each.lsn])
        gone += missing
        if idle_ms(each.since, now) >= wanted.idle_ms:
            there |= found
    await group.settle(gone)
    return [id_of(following), await claimed(client, command, group, wanted, there), [id_of(lsn) for lsn in gone]]


async def looked_up(client: Client, key: bytes, lsns: list[int]) -> tuple[dict[int, Any], list[int]]:
    """Look up entries: those that are there by LSN, and the LSNs of the others."""
    entries = dict(zip(lsns, await entries_of(client, key, lsns), strict=True))
    there = {lsn: entry for lsn, entry in entries.items() if entry[1] is not None}
    return there, [lsn for lsn in lsns if lsn not in there]


async def claimed(
    client: Client, command: Command, group: LocalConsumer, wanted: Claiming, there: dict[int, Any]
) -> list[Any]:
    """Take over entries that are there; the answer has those that were, or only their ids."""
    lsns = await group.claim(list(there), wanted.idle_ms / 1000, wanted.terms)
    if lsns:
        client.members.name(client.topic(command[1]), text(command[2]), text(command[3]))
    return [id_of(lsn) if wanted.just_ids else there[lsn] for lsn in lsns]
