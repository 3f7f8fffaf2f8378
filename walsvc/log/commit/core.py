"""Core: the parts of one writer, put together. Composition only: each part owns its state, and nobody else assigns it.

    Intake -> Placement -> Pipeline -> Writing -> disk      the way of a record
                 |            |
               Tail        Rotation                         segments
    Queue, Changes, Batches                                 what waits for its turn, before the way begins
    Accepting, Conditions, RelaxedTimer                     what comes into a group, and whether
    Catalog, Waits, Health, Counters, Background, Extent    what everybody may ask

Truncation, retention, rekeying and compaction (walsvc.log.extent) get the core and call its parts' methods.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from walsvc.config import WalConfig
from walsvc.disk.base import Disk
from walsvc.errors import BadOption, WalError, closed_log
from walsvc.format.meta import Metadata
from walsvc.log.commit.accepting import Accepting
from walsvc.log.commit.ack import Waker
from walsvc.log.commit.background import Background
from walsvc.log.commit.batch_source import Batches
from walsvc.log.commit.catalog import Catalog
from walsvc.log.commit.changes import Changes
from walsvc.log.commit.conditions import Conditions
from walsvc.log.commit.counters import Counters
from walsvc.log.commit.double_write import DoubleWrite
from walsvc.log.commit.extent import Extent
from walsvc.log.commit.group import Group
from walsvc.log.commit.health import Health, Place
from walsvc.log.commit.intake import Intake
from walsvc.log.commit.lane import Slow
from walsvc.log.commit.pipeline import Pipeline
from walsvc.log.commit.placement import Placement
from walsvc.log.commit.queue import Queue
from walsvc.log.commit.relaxed import RelaxedTimer
from walsvc.log.commit.reserve import Reserve
from walsvc.log.commit.rotation import Rotation
from walsvc.log.commit.segment import Segment
from walsvc.log.commit.spares import SparePipeline
from walsvc.log.commit.tail import Tail
from walsvc.log.commit.waits import Waits
from walsvc.log.commit.writing import Writing

if TYPE_CHECKING:
    from walsvc.log.commit.replicated import Replicated

REPLICATE = 'open the log with replicate="nats://host,host,host/stream", or append with mode=Strict'


@dataclass(slots=True, eq=False, repr=False)
class StartingPoint:
    """The state of the log from which a writer goes on.

    Attributes:
        segment: the active one.
        next_lsn, generation, metadata: of the log.
        sizes: of all segments' files, by first LSN.
        double_write: where there is one.
    """

    segment: Segment
    next_lsn: int
    generation: int
    metadata: Metadata
    sizes: Mapping[int, int]
    double_write: DoubleWrite | None = None


@dataclass(slots=True, eq=False, repr=False)
class Core:
    """The parts of one writer, and what it was opened with."""

    disk: Disk
    config: WalConfig
    metadata: Metadata
    health: Health
    waits: Waits
    background: Background
    extent: Extent
    counters: Counters
    catalog: Catalog
    tail: Tail
    placement: Placement
    pipeline: Pipeline
    queue: Queue
    changes: Changes
    batches: Batches

    @property
    def next_lsn(self) -> int:
        """The LSN that the next accepted record gets."""
        return self.placement.next_lsn

    @property
    def replicated(self) -> Replicated | None:
        """The replica that Quorum waits for, if there is one."""
        return self.waits.replicated

    def replica(self) -> Replicated:
        """The replica that Quorum waits for. Raises BadOption where the log has none, ReplicaLost where it is lost."""
        if self.replicated is None:
            raise BadOption("the log is not replicated", path=self.disk.path, hint=REPLICATE)
        self.health.check_loop()
        self.replicated.check()
        return self.replicated

    def attach(self, replicated: Replicated) -> None:
        """Let Quorum wait for this replica from now on."""
        self.waits.replicated = replicated

    def durable_above(self, lsn: int) -> asyncio.Future[int]:
        """A future for when durable_lsn is above `lsn`; whoever waits for it may end it. Closed once no more can come."""
        if self.health.released:
            raise closed_log(self.disk.path)
        return self.waits.durable(lsn + 1)

    def topic_record(self, name: str, lsn: int) -> asyncio.Future[Any]:
        """A future for when there may be a durable record of a topic at or behind `lsn`, which is not durable yet. Whoever
        waits for it may end it.

        Raises Closed once no more can come, and DurabilityLost.
        """
        number = self.metadata.topics.get(name)
        if number is not None and self.metadata.topics.last_of(number) >= lsn:
            return self.waits.durable(lsn)
        if (ended := self.health.ended()) is not None:
            raise ended
        return self.waits.topic(name)

    def topic_sums(self, number: int) -> tuple[int, int]:
        """Records of a topic ever, and the LSN of its last one, without a batch that is not complete."""
        return self.tail.sums(number, self.placement.batch_lsn)

    def durable(self, lsn: int) -> asyncio.Future[int]:
        """A future for when record `lsn` is durable; starts its commit if nobody did. Where the log's end was cut below it since, it
        is waited for no more than by those that had begun to."""
        lsn, group = min(lsn, self.next_lsn - 1), self.placement.group
        if lsn >= group.first_lsn and not group.empty:
            self.placement.intake.want()
        return self.waits.durable(lsn)

    def refuse(self, error: WalError) -> None:
        """Give `error` to the callers that wait for room or for a turn. Later ones wait."""
        self.extent.refuse(error)
        self.queue.refuse(error)


def put_together(disk: Disk, config: WalConfig, start: StartingPoint, slow: Slow) -> Core:
    """Make the parts of a writer. Those that call upwards get a function that finds the part when it is called.

    Args:
        disk, config: of the log.
        start: where it begins.
        slow: takes what the intake does not.

    The order of the listeners of Health matters: the way in is shut first, then groups and waits are told, and the queue comes
    last, which lets those hear of it that wait for room.
    """
    start.metadata.keys.limit(config.dedupe_records, config.dedupe_seconds, config.dedupe_bytes)
    loop, segment = asyncio.get_running_loop(), start.segment
    waker = Waker(loop)

    def end() -> Place:
        group = intake.group
        return tail.segment.id, group.offset, group.first_lsn

    # the calls upwards: each finds its part when it is made
    def wake() -> None:
        pipeline.wake()

    def arm() -> None:
        relaxed.arm()

    def begun(group: Group) -> None:
        pipeline.begun(group)

    def fail() -> None:
        pipeline.fail()

    def freed() -> None:
        queue.look_again()

    def refuse(error: WalError) -> None:
        core.refuse(error)

    def spare_ready() -> None:
        queue.spare_ready()

    def reserve_bytes() -> int:
        return tail.reserve_bytes()

    def first() -> None:
        changes.serve()

    health = Health(disk.path, loop, end)
    catalog = Catalog(
        start.sizes,
        durable_lsn=start.next_lsn - 1,
        place=(segment.id, segment.end),
        generation=start.generation,
    )
    counters = Counters(start.next_lsn, start.double_write)
    background = Background(loop, health.broken)
    spares = SparePipeline(disk, config.segment_bytes, Reserve(disk, reserve_bytes), spare_ready, background)
    tail = Tail(disk, config, segment, spares, metadata=start.metadata, catalog=catalog, counters=counters)
    intake = Intake(
        config,
        Group(segment, segment.end, start.next_lsn),
        new_ack=waker.ack,
        accepted=waker.accepted,
        check=health.check_loop,
        wake=wake,
        arm=arm,
        slow=slow,
    )
    health.listen(intake.shut)
    health.listen(fail)
    waits = Waits(health, catalog)
    health.listen(freed)
    rotation = Rotation(
        disk=disk,
        tail=tail,
        catalog=catalog,
        health=health,
        background=background,
        double_write=start.double_write,
        complete=begun,
        freed=freed,
        refuse=refuse,
    )
    placement = Placement(config, intake, tail=tail, rotation=rotation, health=health, waits=waits, counters=counters)
    writing = Writing(
        disk,
        start.double_write,
        tail=tail,
        catalog=catalog,
        counters=counters,
        slow_sync_seconds=config.slow_sync_seconds,
    )
    pipeline = Pipeline(
        config,
        placement,
        writing,
        rotation,
        catalog=catalog,
        waits=waits,
        health=health,
        counters=counters,
        waker=waker,
        freed=freed,
    )
    relaxed = RelaxedTimer(config, placement, health)
    conditions = Conditions(start.metadata, placement, tail, waits, disk.path, steady=loop.time)
    accepting = Accepting(
        config,
        placement,
        pipeline,
        metadata=start.metadata,
        tail=tail,
        conditions=conditions,
        relaxed=relaxed,
    )
    queue = Queue(
        config,
        placement,
        accepting,
        path=disk.path,
        conditions=conditions,
        relaxed=relaxed,
        tail=tail,
        waits=waits,
        health=health,
        first=first,
        new_ack=waker.ack,
    )
    changes = Changes(start.metadata, placement, pipeline, queue, health)
    placement.set_room()
    core = Core(
        disk=disk,
        config=config,
        metadata=start.metadata,
        health=health,
        waits=waits,
        background=background,
        extent=Extent(disk, health),
        counters=counters,
        catalog=catalog,
        tail=tail,
        placement=placement,
        pipeline=pipeline,
        queue=queue,
        changes=changes,
        batches=Batches(health.drawing),
    )
    return core
