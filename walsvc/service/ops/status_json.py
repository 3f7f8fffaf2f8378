"""A snapshot as JSON: what /status answers, and all that the status page knows. docs/SERVICE.md describes it."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from walsvc import __version__
from walsvc.metrics.looking import LogStatus, PinNeed
from walsvc.model import GROUP_RECORDS_BOUNDS, SYNC_US_BOUNDS
from walsvc.service.ops.status import Snapshot


def encode_status(snapshot: Snapshot) -> bytes:
    """The snapshot as a JSON document in ASCII."""
    server = snapshot.server._asdict()
    del server["copies"]  # they stand with their logs
    server["troubles"] = [
        {"part": each.part, "namespace": each.namespace, "text": each.text} for each in snapshot.server.troubles
    ]
    document = {
        "version": __version__,
        "at_ns": snapshot.at_ns,
        "ready": not snapshot.reasons,
        "reasons": snapshot.reasons,
        "warnings": snapshot.warnings,
        "server": {name: dict(value) if hasattr(value, "items") else value for name, value in server.items()},
        "bounds": {"sync_us": SYNC_US_BOUNDS, "group_records": GROUP_RECORDS_BOUNDS},
        "logs": [log_as_dict(log) for log in snapshot.logs],
    }
    return json.dumps(document).encode("ascii")


def log_as_dict(log: LogStatus) -> dict[str, Any]:
    """One log; its pins appear as needs only."""
    return {
        "namespace": log.namespace,
        "path": log.path,
        "stats": {**without_pins(log.stats), "limited_topics": list(map(dataclasses.asdict, log.stats.limited_topics))},
        "retention": without_pins(log.retention),
        "needs": [need_as_dict(need) for need in log.needs],
        "copies": {
            kind: {"lsn": copy.lsn, "records": copy.records, "bytes": copy.bytes, "state": copy.state}
            for kind, copy in log.copies.items()
        },
        "free_bytes": log.free_bytes,
    }


def without_pins(value: Any) -> dict[str, Any]:
    """The fields of a dataclass without `pins`."""
    fields = (field.name for field in dataclasses.fields(value))
    return {name: getattr(value, name) for name in fields if name != "pins"}


OF_A_CONSUMER = [
    "position",
    "lag",
    "in_use",
    "shared",
    "outstanding",
    "waiting",
    "redeliveries",
    "dead_letters",
    "oldest_seconds",
]


def need_as_dict(need: PinNeed) -> dict[str, Any]:
    """The pins of a log, how far behind each is, and the deliveries of a shared consumer."""
    pin = need.pin
    return {
        "kind": pin.kind,
        "name": pin.name,
        "topic": pin.topic,
        "lsn": pin.lsn,
        "bytes": pin.bytes,
        "segment": need.segment,
        **{name: None if need.status is None else getattr(need.status, name) for name in OF_A_CONSUMER},
    }
