"""Dead letters: a record that was delivered as often as may be goes to another topic, and is done, in one group.

The dead letter has the payload, the type and the labels of the record, and four labels more: which topic's it was, its LSN, how
often it was delivered, and by which consumer.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgpack

from walsvc.errors import NoSpace, PathError, WalError
from walsvc.format.queues import KEY, done_row
from walsvc.log.commit.group import Labels
from walsvc.log.commit.payload import pack_attributes
from walsvc.log.commit.queued import Joining, QueuedAppend
from walsvc.model import Record, Strict
from walsvc.topics.leases import Job, State

if TYPE_CHECKING:
    from walsvc.topics.feed import Out
    from walsvc.topics.hub import Hub

TOPIC, LSN, ATTEMPTS, CONSUMER = "dead.topic", "dead.lsn", "dead.attempts", "dead.consumer"
REDRIVE = "redrive"  # consumer of a dead-letter topic: what it has done was sent back
REDRIVE_LEASE = 600.0  # seconds; nobody else opens it
TOGETHER_MAX = 256  # dead letters that are sent back at a time
RETRY_SECONDS = 1.0  # where the device is full, or the log takes nothing for another reason that may pass


class NotDue(WalError):
    """The record was acknowledged, or has vanished, before it went to the dead-letter topic."""


class Burying:
    """The acknowledgement that goes with a dead letter."""

    def __init__(self, hub: Hub, job: Job) -> None:
        self._hub = hub
        self._job = job

    def change(self) -> dict[str, Any]:
        """The record is done. Raises NotDue."""
        if self._hub.leases.jobs.get(self._job.lsn) is not self._job or self._job.state is not State.DYING:
            raise NotDue(f"LSN {self._job.lsn} needs no dead letter", lsn=self._job.lsn)
        return {KEY: {self._hub.key: {"rows": done_row(self._job.first, self._job.lsn, 1)}}}

    def accepted(self) -> None:
        """It is in a group, with its dead letter."""
        self._hub.dead += 1
        self._hub.feed.finished(self._job)
        self._hub.changed()


async def bury(hub: Hub, job: Job) -> None:
    """Send a record to the dead-letter topic, as soon as there is room. Once nobody has the consumer open, its end waits for no room:
    the record goes out once more then."""
    core = hub.writer.core
    while True:
        try:
            record = await hub.feed.ahead.load(job.lsn)
            if record is None:
                if hub.leases.jobs.get(job.lsn) is job:
                    hub.feed.forget(job)
                return
            packed = packed_labels(hub, job, record)
            await send(hub, record, packed, hub.sharing.dead_letter, Burying(hub, job))
        except NotDue:
            return
        except (NoSpace, PathError):
            if not hub.holders:
                return
            await asyncio.sleep(RETRY_SECONDS)
        else:
            core.changes.passed(hub.feed.position)
            return


def packed_labels(hub: Hub, job: Job, record: Record) -> bytes:
    """The labels of a dead letter, encoded. They may have some bytes more than a caller's, since no record may fail to go."""
    labels = {**record.attributes, TOPIC: hub.topic, LSN: record.lsn, ATTEMPTS: job.attempts, CONSUMER: hub.name}
    packed: bytes = msgpack.packb(labels, use_bin_type=True)
    return packed


def send(hub: Hub, record: Record, packed: bytes, topic: str | None, joining: Joining) -> Any:
    """Append a record with encoded labels to a topic, and something else in its group."""
    core = hub.writer.core
    core.health.check_call()
    labels = Labels(record.type, 0, len(packed))
    ack = core.queue.new_ack()
    pieces = [packed + record.payload]
    return core.queue.enter(QueuedAppend(pieces, Strict, labels, batch=False, future=ack, topic=topic, joining=joining))


async def send_back(hub: Hub, face: object, origin: tuple[str, str], limit: int) -> int:
    """Send the dead letters of one consumer back to its topic, each as it was, and acknowledge it in the same group.

    Args:
        hub: the consumer REDRIVE of the dead-letter topic, which only `face` has open.
        face: who has it open.
        origin: topic and name of the consumer whose dead letters they are; others' stay.
        limit: LSN from which on they stay.

    Returns:
        How many.
    """
    others: list[Out] = []
    sent, more = 0, True
    while more:
        acks: list[Any] = []
        while len(acks) < TOGETHER_MAX and (more := (out := await hub.there(face)) is not None):
            assert out is not None
            labels = dict(out.record.attributes)
            if out.record.lsn >= limit or (labels.pop(TOPIC, None), labels.pop(CONSUMER, None)) != origin:
                others.append(out)
                continue
            labels.pop(LSN, None)
            labels.pop(ATTEMPTS, None)
            acks.append(send(hub, out.record, pack_attributes(labels), origin[0], hub.acking([out.lease])))
        for ack in acks:
            await ack
        sent += len(acks)
    for out in others:
        hub.unseen(out.lease)
    return sent
