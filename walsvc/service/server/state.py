"""The state of a log as every answer of the server carries it: its range, and the counters of walsvc.Stats."""

from __future__ import annotations

from walsvc.api import Log
from walsvc.errors import WalError
from walsvc.service.wire.frames import State, StateFrame
from walsvc.service.wire.protocol import encode


def state_of(log: Log) -> State:
    """The values of STATE_FIELDS now. Called for every answer, so it neither counts nor sorts anything."""
    core = log.writer.core
    counters, metadata, placement, tail = core.counters, core.metadata, core.placement, core.tail
    next_lsn = placement.next_lsn
    return [
        metadata.truncated,
        next_lsn,
        core.catalog.durable_lsn,
        placement.unwritten_bytes,
        core.queue.length,
        next_lsn - counters.lsn_at_open,
        counters.payload_bytes,
        counters.groups,
        counters.syncs,
        counters.written_bytes,
        counters.rotations,
        core.catalog.count,
        tail.spares.count,
        tail.segment.id,
        counters.group_records_max,
        counters.sync_us_last,
        counters.sync_us_total,
        len(metadata.topics),
    ]


class News:
    """The states of logs in one moment, with the frames that tell them: made once, however many clients hear of them."""

    def __init__(self) -> None:
        self._made: dict[Log, tuple[State, bytes]] = {}

    def of(self, log: Log) -> tuple[State, bytes]:
        """The state of a log, and the STATE frame of it. `forget` must be called before anything else runs."""
        made = self._made.get(log)
        if made is None:
            state = state_of(log)
            made = self._made[log] = state, encode(StateFrame(0, state))
        return made

    def forget(self) -> None:
        """The moment is over."""
        self._made.clear()


def failure_of(log: Log) -> WalError | None:
    """Why the log takes and answers nothing any more; None while it works."""
    return log.writer.core.health.failure


def consumer_count(log: Log) -> int:
    """How many consumers the log and its topics have."""
    return len(log.writer.core.metadata.positions)


def has_consumer(log: Log, key: tuple[str | None, str]) -> bool:
    """True if there is a consumer of a topic (None: of the log) with a name."""
    metadata, (topic, name) = log.writer.core.metadata, key
    number = 0 if topic is None else metadata.topics.get(topic)
    return f"{number}/{name}" in metadata.positions
