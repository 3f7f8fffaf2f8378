"""The position of a consumer, as a change of metadata.

A consumer that has done records above its position has a window (walsvc.format.queues). While it has one, whatever moves the
consumer is a row of the window: in one group rows keep their order, which entries of `positions` and rows do not.
"""

from __future__ import annotations

from typing import Any

from walsvc.format.meta import Metadata
from walsvc.format.queues import KEY, done_row, moved_row


def moved(metadata: Metadata, key: str, lsn: int) -> dict[str, Any]:
    """The consumer goes on at `lsn`, whatever it has done."""
    if key not in metadata.queues:
        return {"positions": {key: lsn}}
    return {KEY: {key: {"rows": moved_row(lsn)}}}


def advanced(metadata: Metadata, key: str, lsn: int) -> dict[str, Any]:
    """The change that says: everything below `lsn` is done, and whatever was done before."""
    if key not in metadata.queues:
        return {"positions": {key: max(lsn, metadata.positions.get(key, 0))}}
    return {KEY: {key: {"rows": done_row(1, lsn - 1, 0)}}}


def deleted(metadata: Metadata, key: str) -> dict[str, Any]:
    """The consumer is gone."""
    change: dict[str, Any] = {"positions": {key: None}}
    if key in metadata.queues:
        change[KEY] = {key: None}
    return change
