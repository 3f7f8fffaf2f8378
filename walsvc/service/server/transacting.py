"""Transactions of clients: one CALL has all of it, and the log decides as for its own (walsvc.topics.transaction)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from walsvc.api import Log
from walsvc.errors import BadOption
from walsvc.log.commit.payload import check_packed
from walsvc.log.commit.results import BatchResult
from walsvc.model import Mode, Quorum, Relaxed, Strict
from walsvc.service.server.consuming import ConsumerStream, SharedStream
from walsvc.service.wire.frames import QUORUM, RELAXED, STRICT
from walsvc.topics.transaction import LocalTransaction

Held = Callable[[int, Any], Awaitable[Any]]
MODES: dict[int, Mode] = {STRICT: Strict, RELAXED: Relaxed, QUORUM: Quorum}
TOPIC = (str, type(None))
APPEND, CONDITION, DELIVERY, POSITION = (TOPIC, int, bytes, bytes), (TOPIC, int), (int, int, int, str), (int, int)


async def transact(log: Log, held: Held, args: dict[str, Any]) -> dict[str, Any]:
    """Answer transact: see docs/PROTOCOL.md. `held` finds a consumer that is open on the connection."""
    mode = MODES.get(args["mode"])
    if mode is None:
        raise BadOption(f"there is no mode {args['mode']}")
    transaction = LocalTransaction(log.writer, mode)
    for topic, type_, attributes, payload in rows(args, "appends", APPEND):
        if attributes:
            check_packed(attributes)
        transaction.append_packed(payload, type_, attributes, topic)
    for topic, lsn in rows(args, "conditions", CONDITION):
        transaction.expect(lsn, topic=topic)
    deliveries: dict[SharedStream, list[Any]] = {}
    for stream, *delivery in rows(args, "deliveries", DELIVERY):
        deliveries.setdefault(await held(stream, SharedStream), []).append(delivery)
    for worker, found in deliveries.items():
        leases = await worker.leases(found)
        transaction.acknowledge(worker.consumer.open_hub(), leases)
    for stream, lsn in rows(args, "positions", POSITION):
        transaction.ack((await held(stream, ConsumerStream)).consumer, lsn)
    results = await transaction.commit()
    if not isinstance(results, BatchResult):
        return {"places": [], "durable": True, "sync_us": 0}
    return {"places": [list(each) for each in results.places], "durable": results.durable, "sync_us": results.sync_us}


def rows(args: dict[str, Any], name: str, kinds: tuple[Any, ...]) -> list[list[Any]]:
    """The rows of an argument, each with fields of these types. BadOption."""
    found: list[list[Any]] = args[name]
    for row in found:
        if type(row) is not list or len(row) != len(kinds):
            raise BadOption(f"a row of {name} in transact has {len(kinds)} fields")
        for value, kind in zip(row, kinds, strict=True):
            if type(value) not in (kind if isinstance(kind, tuple) else (kind,)):
                raise BadOption(f"a row of {name} in transact has a field of the wrong type")
    return found
