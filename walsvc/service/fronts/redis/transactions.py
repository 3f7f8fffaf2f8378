"""MULTI, EXEC, DISCARD and WATCH: XADD and XACK of one client in one atomic group, if the watched streams end as they did.

Commands that only look may stand in front of them, and see the log as it was, or behind them, and see what they did: there is no way to look
at a part of a group.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from walsvc.errors import Conflict, RecordTooLarge, WalError
from walsvc.service.fronts.redis.collected import Collected, Entry, Kept
from walsvc.service.fronts.redis.entries import id_of
from walsvc.service.fronts.redis.groups import acknowledged, xack
from walsvc.service.fronts.redis.replies import NULL_ARRAY, OK, Failure, Status, failure_of
from walsvc.service.fronts.redis.requests import COMMAND_COST
from walsvc.service.fronts.redis.streams import added, xadd_with_options, xread
from walsvc.service.fronts.redis.trimming import adding

if TYPE_CHECKING:
    from walsvc.service.fronts.redis.client import Client
    from walsvc.service.fronts.redis.requests import Command
    from walsvc.topics.transaction import LocalTransaction

QUEUED = Status("QUEUED")


def collect(client: Client, entry: Entry, command: Command) -> Status:
    """Keep a command until EXEC. Failure for one that cannot be part of a group."""
    collected, kept = client.collected, Kept(entry, command)
    assert collected is not None, "asked between MULTI and EXEC"
    name = command[0].decode("latin-1").upper()
    if not entry.joins and not entry.looks:
        raise Failure(f"ERR walsvc's MULTI takes XADD, XACK and commands that only look, and not {name}")
    if trims(kept):
        raise Failure("ERR walsvc's MULTI takes no XADD that trims")
    if entry.joins and collected.looked_behind:
        raise Failure(f"ERR walsvc's MULTI takes no {name} behind a command that looks at what others before it write")
    size = collected.bytes + sum(map(len, command)) + COMMAND_COST
    if size > client.shared.limits.pending_bytes:
        raise Failure(f"ERR a transaction takes {client.shared.limits.pending_bytes} bytes at most (pending_bytes)")
    collected.commands.append(kept)
    collected.bytes = size
    return QUEUED


def trims(kept: Kept) -> bool:
    """True if it is an XADD that drops entries, which is no part of a group. EXEC tells the errors in it."""
    with contextlib.suppress(Failure):
        return kept.entry.call is xadd_with_options and adding(kept.command).trimming is not None
    return False


def multi(client: Client, command: Command) -> Status:
    """MULTI."""
    if client.collected is not None:
        raise Failure("ERR MULTI calls can not be nested")
    client.collected = Collected()
    return OK


def abort(client: Client, failure: Failure) -> Failure:
    """Forget what was said since MULTI, because EXEC is wrong itself; returns what that is answered with."""
    client.collected = None
    client.watched.clear()
    return Failure(f"EXECABORT Transaction discarded because of: {str(failure).removeprefix('ERR ')}")


def discard(client: Client, command: Command) -> Status:
    """DISCARD."""
    if client.collected is None:
        raise Failure("ERR DISCARD without MULTI")
    client.collected = None
    client.watched.clear()
    return OK


async def watch(client: Client, command: Command) -> Status:
    """WATCH key ...: EXEC does nothing if one of these streams ends otherwise by then."""
    if client.collected is not None:
        raise Failure("ERR WATCH inside MULTI is not allowed")
    for key in command[1:]:
        topic = client.topic(key)
        client.watched.setdefault(topic.name, await topic.last_lsn() or 0)
    return OK


def unwatch(client: Client, command: Command) -> Status:
    """UNWATCH."""
    client.watched.clear()
    return OK


async def execute(client: Client, command: Command) -> Any:
    """EXEC: all of it in one group, durable when it is answered. A command that is wrong by itself is left out, as in Redis."""
    collected, client.collected = client.collected, None
    if collected is None:
        raise Failure("ERR EXEC without MULTI")
    watched, client.watched = client.watched, {}
    if collected.broken:
        raise Failure("EXECABORT Transaction discarded because of previous errors.")
    await client.take_log()
    written = [place for place, each in enumerate(collected.commands) if each.entry.joins]
    first, behind = (written[0], written[-1] + 1) if written else (0, 0)
    answers = [await looked(client, each) for each in collected.commands[:first]]
    if written or watched:
        done = await write(client, collected.commands[first:behind], watched)
        if done is None:
            return NULL_ARRAY
        answers += done
    return answers + [await looked(client, each) for each in collected.commands[behind:]]


async def looked(client: Client, kept: Kept) -> Any:
    """The answer of a command that only looks, and never waits for anything to come."""
    command = kept.command
    if kept.entry.call is xread:
        places = [place for place, word in enumerate(command[:5]) if word.upper() == b"BLOCK"]
        command = [word for place, word in enumerate(command) if not places or not 0 <= place - places[0] <= 1]
    try:
        answer = kept.entry.call(client, command)
        return await answer if kept.entry.waits else answer
    except Failure as failure:
        return failure
    except WalError as error:
        return failure_of(error)


async def write(client: Client, commands: list[Kept], watched: dict[str, int]) -> list[Any] | None:
    """The answers of XADD and XACK in one group; None: a watched stream ends otherwise by now, and nothing was done."""
    transaction: LocalTransaction = client.opened.transaction()
    for topic, lsn in watched.items():
        transaction.expect(lsn, topic=topic)
    answers: list[Any] = []
    places: list[int] = []  # of the appends
    for each in commands:
        try:
            if each.entry.call is xack:
                answers.append(await acknowledged(client, each.command, transaction))
                continue
            if (entry := await added(client, each.command)) is not None:
                transaction.append(entry.payload, entry.type, topic=entry.topic.name)
                places.append(len(answers))
            answers.append(None)
        except Failure as failure:
            answers.append(failure)
        except RecordTooLarge as error:
            raise failure_of(error) from None
    try:
        results = await transaction.commit()
    except Conflict:
        return None
    for place, result in zip(places, results, strict=True):
        answers[place] = id_of(result.lsn)
        client.written = result.lsn
    return answers
