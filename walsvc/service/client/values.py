"""Values of the log's interface from the maps by which a server sends them. What a newer server adds is left out."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from walsvc.model import Finding, LimitedTopic, Pin, RecoveryReport, Retention, Stats

# What a client shows whose token has no right to look.
NOTHING_KEPT = Retention(first_lsn=1, next_lsn=1, segments=0, bytes=0, pins=())
NOTHING_KNOWN = Stats(
    disk="served",
    disk_reason="the token has no right to look",
    direct=False,
    block_bytes=0,
    sync_method="",
    first_lsn=1,
    next_lsn=1,
    durable_lsn=0,
)


def report_of(row: dict[str, Any]) -> RecoveryReport:
    """A RecoveryReport from the map that stands for it."""
    known = {field.name for field in fields(RecoveryReport)}
    plain = {name: value for name, value in row.items() if name in known}
    return RecoveryReport(**{**plain, "findings": tuple(Finding(**each) for each in row.get("findings", ()))})


def stats_of(row: dict[str, Any]) -> Stats:
    """Stats from the map that stands for them."""
    known = {field.name for field in fields(Stats)}
    plain: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in row.items() if name in known
    }
    limited = tuple(LimitedTopic(**each) for each in row.get("limited_topics", ()))
    return Stats(**{**plain, "pins": tuple(Pin(**each) for each in row["pins"]), "limited_topics": limited})


def retention_of(row: dict[str, Any]) -> Retention:
    """Retention from the map that stands for it."""
    known = {field.name for field in fields(Retention)}
    plain = {name: value for name, value in row.items() if name in known}
    return Retention(**{**plain, "pins": tuple(Pin(**each) for each in row["pins"])})
