"""Adding a group to the log's state: its changes of metadata, and its records by topic."""

from __future__ import annotations

from walsvc.format.group import Flag, decode_columns, decode_meta
from walsvc.format.meta import Metadata, decode_map
from walsvc.log.read.stream import RawGroup


def absorb(metadata: Metadata, raw: RawGroup, limit: int | None = None) -> None:
    """Apply a checked group to the state before it; of its records only those below LSN `limit`.

    Raises BadGroup as Metadata.apply does.
    """
    header, data, at = raw
    if header.meta_bytes:
        metadata.apply(decode_map(decode_meta(header, data, at)), snapshot=bool(header.flags & Flag.SNAPSHOT))
    if header.flags & Flag.TOPICS:
        topics = decode_columns(header, data, at).topics
        if topics and limit is not None:
            topics = topics[: max(limit - header.first_lsn, 0)]
        if topics:
            metadata.topics.count(header.first_lsn, topics)
