"""Records as JSON has them: `walsvc cat --json`, and the HTTP front, say the same."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from walsvc.model import Record


def record_row(record: Record) -> dict[str, Any]:
    """A record as an object of JSON."""
    return {
        "lsn": record.lsn,
        "timestamp": timestamp(record.timestamp_ns),
        "type": record.type,
        "topic": record.topic,
        "attributes": plain(dict(record.attributes)),
        "payload": text_or_base64(record.payload),
    }


def text_or_base64(data: bytes) -> str | dict[str, str]:
    """`data` as a string when it is UTF-8, else {"base64": ...}: unambiguous, because a string is never an object."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return base64_of(data)


def base64_of(data: bytes) -> dict[str, str]:
    """`data` as {"base64": ...}."""
    import base64

    return {"base64": base64.b64encode(data).decode("ascii")}


def plain(value: object) -> object:
    """`value` with what JSON has: bytes as {"base64": ...}, keys as text, NaN and infinities as text, times as ISO 8601."""
    if isinstance(value, dict):
        names = (key.decode("utf-8", "replace") if isinstance(key, bytes) else key for key in value)
        return {name: plain(each) for name, each in zip(names, value.values(), strict=True)}
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, bytes):
        return base64_of(value)
    return str(value.to_datetime().isoformat() if hasattr(value, "to_datetime") else value)  # msgpack's own types


def timestamp(ns: int) -> str:
    """Unix nanoseconds as RFC 3339 in UTC with nine decimals; the number itself when no calendar date fits it."""
    import time

    seconds, rest = divmod(ns, 1_000_000_000)
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09d}Z"
    except (OverflowError, ValueError, OSError):
        return str(ns)
