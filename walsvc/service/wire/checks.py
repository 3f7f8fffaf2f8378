"""Checks that each field of a frame is of its type. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from walsvc.log.commit.encoding import measure

Check = Callable[[Any], bool]
NUMBERS = {int}


def is_int(value: Any) -> bool:
    """An integer from 0 on; msgpack ends them at 2^64 - 1."""
    return type(value) is int and value >= 0


def is_number(value: Any) -> bool:
    """Such an integer, or nil."""
    return value is None or is_int(value)


def is_text(value: Any) -> bool:
    return type(value) is str


def is_name(value: Any) -> bool:
    """Text or nil."""
    return value is None or type(value) is str


def is_bytes(value: Any) -> bool:
    return type(value) is bytes


def is_map(value: Any) -> bool:
    return type(value) is dict


def is_bool(value: Any) -> bool:
    return type(value) is bool


def is_any(_: Any) -> bool:
    return True


def is_payloads(value: Any) -> bool:
    if type(value) is not list:
        return False
    try:
        measure(value)  # in C, where it was built: a tenth of the time of looking at each type
    except (TypeError, OverflowError):
        return False
    return True


def is_state(value: Any) -> bool:
    return type(value) is list and len(value) >= 3 and set(map(type, value)) == NUMBERS and min(value) >= 0


def is_parts(value: Any) -> bool:
    if type(value) is not list:
        return False
    for row in value:
        if type(row) is not list or len(row) != 4 or set(map(type, row)) != NUMBERS or min(row) < 0:
            return False
    return True


def or_none(check: Check) -> Check:
    """Nil is right, too."""
    return lambda value: value is None or check(value)


def or_column(check: Check) -> Check:
    """One value, or a list of them."""
    return lambda value: all(map(check, value)) if type(value) is list else check(value)


def is_lsns(value: Any) -> bool:
    """Nil, or a list of integers."""
    return value is None or (type(value) is list and all(map(is_int, value)))
