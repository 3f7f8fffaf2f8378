"""The sums of topics, in columns by their numbers: how many records each has, and its last one."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Mapping
from typing import Any, NamedTuple

from walsvc.format.columns import decode_column
from walsvc.format.group import BadGroup
from walsvc.format.summary import Tally


class Sums(NamedTuple):
    """The records of the topics at one moment; see Topics.mark."""

    numbers: array[int]
    counts: array[int]
    lasts: array[int]
    tally: dict[int, Tally]


def row_of(numbers: array[int], number: int) -> int | None:
    """The row of a topic's number in an ascending column; None: it has none."""
    row = number - 1  # as long as no topic has gone
    if not 0 <= row < len(numbers) or numbers[row] != number:
        row = bisect_left(numbers, number)
        if row == len(numbers) or numbers[row] != number:
            return None
    return row


def column_of(state: Mapping[str, Any], key: str, code: str = "Q") -> array[int]:
    """The column of numbers under a key of a group's metadata; empty where it is not there. Raises BadGroup if it is cut."""
    try:
        return decode_column(state.get(key, b""), code)
    except ValueError as error:
        raise BadGroup(f"the column {key!r} of the metadata is cut") from error
