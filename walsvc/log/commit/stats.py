"""The numbers that `stats()` gives of a log that is open for appending: state of the parts, and counters. One formula for each number."""

from __future__ import annotations

from typing import Any

from walsvc.log.commit.ack import CORE, reason
from walsvc.log.commit.core import Core
from walsvc.log.read.pins import PINS_SHOWN, limited_topics, pins_of
from walsvc.model import Stats


def stats_of(core: Core) -> Stats:
    """A frozen picture of a writer's parts and counters."""
    view, counters = core.catalog.view, core.counters
    disk, segment = core.disk, core.tail.segment
    return Stats(
        disk=disk.kind,
        disk_reason=disk.reason,
        core=CORE,
        core_reason=reason,
        direct=disk.direct,
        block_bytes=disk.block_bytes,
        sync_method=disk.sync_method,
        reading=disk.reading,
        first_lsn=core.metadata.truncated,
        next_lsn=core.next_lsn,
        durable_lsn=view.durable_lsn,
        records=core.next_lsn - counters.lsn_at_open,
        payload_bytes=counters.payload_bytes + sum(map(len, core.placement.group.payloads)),
        groups=counters.groups,
        syncs=counters.syncs,
        written_bytes=counters.written_bytes,
        pending_bytes=core.placement.unwritten_bytes,
        waiting=core.queue.length + sum(place.waiting for place in core.changes.places.values()),
        rotations=counters.rotations,
        segments=len(view.ids),
        spares=core.tail.spares.count,
        segment_id=segment.id,
        group_records_max=counters.group_records_max,
        sync_us_last=counters.sync_us_last,
        sync_us_total=counters.sync_us_total,
        failed=None if core.health.failure is None else core.health.failure.message,
        topics=len(core.metadata.topics),
        pins=pins_of(core.metadata, core.next_lsn, view.sizes, PINS_SHOWN),
        limited_topics=limited_topics(core.metadata),
        layout="pack" if segment.packed else "pad",
        double_write=core.config.double_write,
        key_id=None if segment.cipher is None else segment.cipher.key_id,
        double_write_uncovered=counters.uncovered,
        log_bytes=counters.log_bytes,
        sync_us_counts=tuple(counters.sync_us_counts),
        group_records_counts=tuple(counters.group_records_counts),
        group_records_total=counters.group_records_total,
        **replica_stats(core),
    )


def replica_stats(core: Core) -> dict[str, Any]:
    """The progress of the replica, where the log has one."""
    replicated = core.replicated
    if replicated is None:
        return {}
    return {
        "replicated_lsn": replicated.lsn,
        "replica_records": max(core.catalog.durable_lsn - replicated.lsn, 0),
        "replica_bytes": replicated.behind_bytes(),
        "replica_state": replicated.state,
    }
