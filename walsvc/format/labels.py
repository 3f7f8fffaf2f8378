"""Which labels a group's records have: the key `labels` in its metadata, so that a reader can pass over the group. Pure.

A map from label to the list of its distinct values in the group, in no particular order; nil where they are not named,
since they are many, long, or no scalars. A label that is not in the map is in none of the group's records. A group without
the key says nothing. It is a hint beside the records' own attributes, so a writer may leave it out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgpack

LABELS_MAX = 16  # of a group; with more of them none is named
VALUES_MAX = 16  # of a label
VALUE_BYTES_MAX = 64  # of text and bytes

Values = dict[str, list[Any] | None]


def unpack_attributes(packed: bytes | memoryview, **limits: int) -> dict[str, Any]:
    """A record's attributes. The maps inside may have any scalar as key. Raises what msgpack raises, and TypeError."""
    value: dict[str, Any] = msgpack.unpackb(packed, raw=False, strict_map_key=False, **limits)
    return value


def collect(packed: Iterable[bytes]) -> Values | None:
    """The labels of records with these attributes (msgpack maps, as they are stored); None: too many."""
    found: dict[str, dict[Any, None] | None] = {}
    for each in dict.fromkeys(packed):  # most records of a group have the same few labels
        for label, value in unpack_attributes(each).items():
            values = found.setdefault(label, {})
            if values is None:
                continue
            if is_short_scalar(value) and len(values) < VALUES_MAX:
                values[value] = None
            elif not is_short_scalar(value) or value not in values:
                found[label] = None
        if len(found) > LABELS_MAX:
            return None
    return {label: None if values is None else list(values) for label, values in found.items()}


def is_short_scalar(value: object) -> bool:
    """True if a value may be named."""
    if isinstance(value, (str, bytes)):
        return len(value) <= VALUE_BYTES_MAX
    return value is None or isinstance(value, (bool, int, float))


def may_have(values: object, label: str, wanted: Iterable[object]) -> bool:
    """True if a record may have one of the `wanted` values as `label`; `values` is what a group says, None: nothing."""
    if not isinstance(values, dict):
        return True
    named = values.get(label, [])
    return not isinstance(named, list) or any(each in named for each in wanted)
