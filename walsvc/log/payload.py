"""What callers hand over, as bytes of our own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgpack

from walsvc.config import ATTRIBUTES_BYTES_MAX
from walsvc.errors import (
    BadOption,
    BadPayload,
    RecordTooLarge,
)


def to_bytes(payload: object) -> bytes:
    """The payload as bytes of our own."""
    if type(payload) is bytes:
        return payload
    try:
        return bytes(memoryview(payload))  # type: ignore[arg-type]
    except TypeError:
        hint = "encode it, for example text.encode()" if isinstance(payload, str) else "pass bytes"
        raise BadPayload(f"a payload must be bytes-like, not {type(payload).__name__}", hint=hint) from None


def pack_attributes(attributes: Mapping[str, Any]) -> bytes:
    """Attributes as msgpack; BadOption if they are no map with string keys or too large."""
    if not isinstance(attributes, Mapping) or not all(isinstance(key, str) for key in attributes):
        raise BadOption("attributes must be a map with string keys")
    try:
        packed: bytes = msgpack.packb(dict(attributes), use_bin_type=True)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadOption(
            f"attributes cannot be encoded: {error}", hint="use numbers, text, bytes, lists, maps"
        ) from None
    if len(packed) > ATTRIBUTES_BYTES_MAX:
        raise RecordTooLarge(f"the attributes have {len(packed)} bytes encoded, the limit is {ATTRIBUTES_BYTES_MAX}")
    return packed
