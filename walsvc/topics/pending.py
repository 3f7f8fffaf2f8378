"""Holders of the records of a shared consumer without a lease, as Redis's groups ask for them: looking, taking over, settling.

The list is the log's own (walsvc.format.queues, HELD rows), so it is there after a restart, whoever has come back by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from walsvc.topics.acking import Claiming, Keeping, Terms
from walsvc.topics.leases import Lease, State

if TYPE_CHECKING:
    from walsvc.topics.feed import Out
    from walsvc.topics.hub import Hub


class Pending(NamedTuple):
    """A record that a worker has and has not acknowledged.

    Attributes:
        lsn: its LSN.
        worker: who has it.
        attempts: deliveries so far, this one included.
        since: Unix time of the last one, in seconds.
    """

    lsn: int
    worker: str
    attempts: int
    since: float


def pending_of(hub: Hub) -> list[Pending]:
    """All of them, by LSN."""
    held = hub.feed.window.held
    return [Pending(lsn, each.worker, each.attempts, each.since_ms / 1000) for lsn, each in sorted(held.items())]


async def lease_of(hub: Hub, lsn: int) -> Lease | None:
    """The delivery by which somebody has a record; None: nobody has it."""
    job = await hub.feed.find(lsn)
    return job.lease if job is not None and job.state is State.OUT else None


async def leases_of(hub: Hub, lsns: Sequence[int]) -> list[Lease]:
    """The deliveries by which somebody has these records; those that nobody has are left out."""
    held = hub.feed.window.held
    found = {lsn: await lease_of(hub, lsn) for lsn in lsns if lsn in held}
    return [lease for lease in found.values() if lease is not None and hub.leases.is_out(lease)]


async def settle(hub: Hub, lsns: Sequence[int]) -> int:
    """Acknowledge records, whoever has them, in one group, also those that are not there any more; returns how many were out. Durable on
    return."""
    leases, vanished = await out_of(hub, lsns)
    if leases or vanished:
        await hub.ack(leases, vanished)
    return len(leases) + len(vanished)


async def out_of(hub: Hub, lsns: Sequence[int]) -> tuple[list[Lease], list[int]]:
    """Which of these records are out: the deliveries, and the LSNs of what is not there any more."""
    leases = await leases_of(hub, lsns)
    return leases, [lsn for lsn in dict.fromkeys(lsns) if lsn in hub.feed.vanished.held]


def delivered_lsn(hub: Hub) -> int:
    """LSN up to which everything was delivered, or is not to be: what workers have, and what is done."""
    window = hub.feed.window
    return max([hub.feed.position - 1, *window.lasts[-1:], *window.held])


async def claim(hub: Hub, worker: str, lsns: Sequence[int], idle: float, terms: Terms) -> list[int]:
    """Give a worker records that others have had for `idle` seconds or longer; durable on return.

    Args:
        hub: of the consumer.
        worker: who gets them.
        lsns: of the records; those that nobody has are left out, unless `terms` force it and they were not delivered yet.
        idle: seconds since the last delivery, at least.
        terms: what the log says of it.

    Returns:
        The LSNs that the worker has now.
    """
    claimed: list[Lease] = []
    picked: list[Lease] = []  # that nobody had
    for lsn in dict.fromkeys(lsns):
        held = hub.feed.window.held.get(lsn)
        lease = await lease_of(hub, lsn) if held is not None or terms.force else None
        if held is not None and hub.feed.now().wall - held.since_ms / 1000 < idle:
            continue
        if held is None and lease is None and terms.force:
            lease = hub.leases.pick(lsn, worker, hub.feed.now())
            picked += [] if lease is None else [lease]
        if lease is not None:
            claimed.append(lease)
    if not claimed:
        return []
    claiming = Claiming(hub, worker, claimed, terms)
    try:
        await hub.keep(claiming)
    except BaseException:
        if not claiming.given:
            untake(hub, picked)
        raise
    return [lease.job.lsn for lease in claiming.given if hub.leases.is_out(lease)]


def untake(hub: Hub, leases: Sequence[Lease]) -> None:
    """Give records back that no worker was given, and of which the log does not say otherwise."""
    for lease in leases:
        if hub.leases.is_out(lease):
            hub.leases.untake(lease, hub.feed.now())
    hub.changed()


async def take_new(hub: Hub, face: object, most: int) -> list[Out]:
    """Records that nobody has had, for one who has the consumer open, as many as are there; durable on return."""
    outs: list[Out] = []
    leases: list[Lease] = []
    keeping = Keeping(hub, leases)
    try:
        while len(outs) < most and (out := await hub.there(face, own=False)) is not None:
            outs.append(out)
            leases.append(out.lease)
        if outs:
            await hub.keep(keeping)
    except BaseException:
        if not keeping.kept:  # else the log says that the worker has them
            untake(hub, leases)
        raise
    return outs
