"""Payloads and attributes of callers, checked, as bytes of our own, and the bounds of a log for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgpack

from walsvc.config import ATTRIBUTES_BYTES_MAX, WalConfig
from walsvc.errors import (
    BadOption,
    BadPayload,
    RecordTooLarge,
)
from walsvc.format.labels import unpack_attributes
from walsvc.model import Entry

SCALARS = frozenset({str, bytes, int, float, bool, type(None)})
NO_TYPE = 0
"""The type of ordinary records. A caller's type is compared with it by identity: 0.0, False and "" are no types."""
PACKED_ITEMS_MAX = 8192  # msgpack allocates a list before its elements are there, on each of 1,024 levels


def is_type(value: object) -> bool:
    """True if a record can have this type."""
    return type(value) is int and 0 <= value <= 0xFFFF


def to_bytes(payload: object) -> bytes:
    """The payload as bytes of our own."""
    if type(payload) is bytes:
        return payload
    try:
        return bytes(memoryview(payload))  # type: ignore[arg-type]
    except TypeError:
        hint = "encode it, for example text.encode()" if isinstance(payload, str) else "pass bytes"
        if isinstance(payload, Entry):
            hint = "append(entry.payload, type=entry.type, attributes=entry.attributes); append_batch takes entries"
        raise BadPayload(f"a payload must be bytes-like, not {type(payload).__name__}", hint=hint) from None
    except (ValueError, BufferError) as error:
        hint = "append it before it is released or closed"
        raise BadPayload(f"the payload cannot be read: {error}", hint=hint) from None


def iterator_of(payloads: Iterable[Any]) -> Iterator[Any]:
    """An iterator over a batch. BadPayload for what is none: also for a single payload."""
    if not isinstance(payloads, (bytes, bytearray, memoryview, str, Entry)):
        try:
            return iter(payloads)
        except TypeError:
            pass
    raise BadPayload(
        f"a batch is an iterable of payloads, not {type(payloads).__name__}", hint="append_batch([b'one', b'two'])"
    )


def pack_attributes(attributes: Mapping[str, Any] | None) -> bytes:
    """Attributes as msgpack, b"" where there are none; BadOption if they are no map with string keys or too large."""
    if attributes is None:
        return b""
    if not isinstance(attributes, Mapping) or not all(isinstance(key, str) for key in attributes):
        raise BadOption("attributes must be a map with string keys")
    if not attributes:
        return b""
    try:
        packed: bytes = msgpack.packb(dict(attributes), use_bin_type=True)
        if not SCALARS.issuperset(map(type, attributes.values())):
            unpack_attributes(packed)  # a map inside may have a key that is no key when it comes back
    except (TypeError, ValueError, OverflowError, msgpack.UnpackException) as error:
        raise BadOption(
            f"attributes cannot be encoded: {error}", hint="use numbers, text, bytes, lists, maps with scalar keys"
        ) from None
    check_length(packed)
    return packed


def check_length(packed: bytes) -> None:
    """RecordTooLarge where attributes are over the limit."""
    if len(packed) > ATTRIBUTES_BYTES_MAX:
        raise RecordTooLarge(
            f"the attributes have {len(packed)} bytes encoded, the limit is {ATTRIBUTES_BYTES_MAX}",
            expected=f"at most {ATTRIBUTES_BYTES_MAX} bytes",
            actual=len(packed),
            hint="put labels that no reader filters by into the payload",
        )


def check_packed(packed: bytes) -> None:
    """Raise unless these are attributes as pack_attributes gives them: BadOption, RecordTooLarge.

    They come from elsewhere, so what they announce is not believed: a list has PACKED_ITEMS_MAX elements at most.
    """
    check_length(packed)
    try:
        value = unpack_attributes(packed, max_array_len=PACKED_ITEMS_MAX, max_map_len=PACKED_ITEMS_MAX)
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        raise BadOption(f"the attributes are not msgpack: {error}") from None
    if type(value) is not dict or not all(type(key) is str for key in value):
        raise BadOption("attributes must be a map with string keys")


class PayloadBound:
    """How long a payload may be, for a log that is here or behind a server.

    Attributes:
        record_bytes_max: of one payload.
    """

    def __init__(self, record_bytes_max: int, path: str, hint: str) -> None:
        self.record_bytes_max: int = record_bytes_max
        self._path = path
        self._hint = hint

    def checked(self, payload: Any) -> bytes:
        """A payload as bytes of our own. Raises BadPayload, RecordTooLarge."""
        piece = to_bytes(payload)
        self.check_length(len(piece))
        return piece

    def check_length(self, length: int) -> None:
        """RecordTooLarge for a payload that is too long."""
        if length > self.record_bytes_max:
            raise RecordTooLarge(
                f"the payload has {length} bytes, the limit is {self.record_bytes_max}",
                path=self._path,
                hint=self._hint,
            )


class Bounds(PayloadBound):
    """How long the payloads and the batches of one log may be.

    Attributes:
        group_bytes_max, group_records_max: of what fits one group.
    """

    def __init__(self, config: WalConfig, path: str) -> None:
        super().__init__(config.max_record_bytes, path, "split it, or open the log with a larger max_record_bytes")
        self.group_bytes_max: int = config.max_group_bytes
        self.group_records_max: int = config.max_group_records
        self._batch_bytes_max = config.max_batch_bytes

    def check_batch(self, length: int) -> None:
        """RecordTooLarge for a batch whose payloads and attributes are over max_batch_bytes."""
        if length > self._batch_bytes_max:
            raise RecordTooLarge(
                f"the batch has more than {self._batch_bytes_max} bytes",
                path=self._path,
                hint="nothing of it was kept; split it, or open the log with a larger max_batch_bytes",
            )
