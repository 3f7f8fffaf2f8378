"""Metadata: what the log must remember besides records, kept in the log itself as msgpack maps inside groups.

A group flagged SNAPSHOT carries the whole state; every segment begins with one. Any other group may carry changes, which
apply before the group's own records. Keys are short strings. A reader ignores a key it does not know, except when the
key begins with "!": then the log needs a newer walsvc.

    truncated   int         first LSN that is still visible: everything below was dropped by truncate_before
    cut         int         truncate_after in progress: everything above this LSN is to go (never in a snapshot)
    successor   int         in a SEAL group: first LSN of the next segment
    sealed      bool        the log takes no more appends, ever
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgpack

from walsvc.format.group import BadGroup

KNOWN = frozenset({"truncated", "cut", "successor", "sealed"})


@dataclass(slots=True)
class Metadata:
    """The state after applying a snapshot and the changes since."""

    truncated: int = 1
    cut: int | None = None
    successor: int | None = None
    sealed: bool = False

    def apply(self, change: dict[str, Any], *, snapshot: bool = False) -> None:
        """Apply one group's map. Raises BadGroup (newer) for an unknown key that must not be ignored."""
        for key in change:
            if key not in KNOWN and key.startswith("!"):
                raise BadGroup(f"metadata key {key!r} is unknown", newer=True)
        if snapshot:
            self.truncated, self.cut, self.successor, self.sealed = 1, None, None, False
        self.truncated = change.get("truncated", self.truncated)
        self.cut = change.get("cut", self.cut)
        self.successor = change.get("successor", self.successor)
        self.sealed = change.get("sealed", self.sealed)

    def snapshot(self) -> bytes:
        """The whole state as a snapshot group's metadata."""
        return encode_map({"truncated": self.truncated, "sealed": self.sealed})


def encode_map(change: dict[str, Any]) -> bytes:
    """msgpack bytes of a map."""
    packed: bytes = msgpack.packb(change, use_bin_type=True)
    return packed


def decode_map(data: bytes) -> dict[str, Any]:
    """The map in `data`; empty bytes are an empty map. Raises BadGroup if it is not a map with string keys."""
    if not data:
        return {}
    try:
        value = msgpack.unpackb(data, raw=False, strict_map_key=False)
    except (ValueError, msgpack.UnpackException) as error:
        raise BadGroup(f"the metadata is not msgpack: {error}") from error
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise BadGroup("the metadata is not a map with string keys")
    return value
