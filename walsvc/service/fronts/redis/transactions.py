"""MULTI, EXEC, DISCARD and WATCH: XADD and XACK of one client in one atomic group, if the watched streams end as they did."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from walsvc.errors import Conflict, RecordTooLarge
from walsvc.service.fronts.redis.entries import id_of
from walsvc.service.fronts.redis.groups import acknowledged, xack
from walsvc.service.fronts.redis.replies import NULL_ARRAY, OK, Failure, Status, failure_of
from walsvc.service.fronts.redis.requests import COMMAND_COST
from walsvc.service.fronts.redis.streams import added, xadd, xadd_with_options

if TYPE_CHECKING:
    from walsvc.service.fronts.redis.client import Client
    from walsvc.service.fronts.redis.requests import Command

QUEUED = Status("QUEUED")


@dataclass(slots=True)
class Collected:
    """The commands of a client since MULTI.

    Attributes:
        commands: to be done together.
        bytes: that they take.
        broken: one of them was refused, so that EXEC does nothing.
    """

    commands: list[Command] = field(default_factory=list)
    bytes: int = 0
    broken: bool = False


def collect(client: Client, call: Any, command: Command) -> Status:
    """Keep a command until EXEC. Failure for one that cannot be part of a group."""
    assert client.collected is not None, "asked between MULTI and EXEC"
    if call not in (xadd, xadd_with_options, xack):
        name = command[0].decode("latin-1").upper()
        raise Failure(f"ERR walsvc's MULTI takes XADD and XACK, which become durable together, and not {name}")
    size = client.collected.bytes + sum(map(len, command)) + COMMAND_COST
    if size > client.shared.limits.pending_bytes:
        raise Failure(f"ERR a transaction takes {client.shared.limits.pending_bytes} bytes at most (pending_bytes)")
    client.collected.commands.append(command)
    client.collected.bytes = size
    return QUEUED


def multi(client: Client, command: Command) -> Status:
    """MULTI."""
    if client.collected is not None:
        raise Failure("ERR MULTI calls can not be nested")
    client.collected = Collected()
    return OK


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
    transaction = client.log.transaction()
    for topic, lsn in watched.items():
        transaction.expect(lsn, topic=topic)
    answers: list[Any] = []
    places: list[int] = []  # of the appends
    taken: set[int] = set()  # leases that are acknowledged already
    for each in collected.commands:
        try:
            if each[0].upper() == b"XACK":
                deliveries = [one for one in await acknowledged(client, each) if id(one.lease) not in taken]
                taken |= {id(one.lease) for one in deliveries}
                for one in deliveries:
                    transaction.ack(one)
                answers.append(len(deliveries))
                continue
            if (entry := await added(client, each)) is not None:
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
        return NULL_ARRAY
    for place, result in zip(places, results, strict=True):
        answers[place] = id_of(result.lsn)
        client.written = result.lsn
    return answers
