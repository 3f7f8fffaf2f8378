"""A segment's records by topic: tallied while it is written, and summed up in its seal."""

from __future__ import annotations

from array import array
from typing import NamedTuple

from walsvc.format.columns import decode_column, encode_column
from walsvc.format.group import BadGroup

SUMMARY_ROW_BYTES = 4 + 4 + 8 + 8


class Tally(NamedTuple):
    """A topic's records in one segment."""

    records: int
    first_lsn: int
    last_lsn: int


def encode_summary(tally: dict[int, Tally]) -> bytes:
    """The topics of a segment as columns, in order of topic number: number u32, count u32, first LSN u64, last LSN u64.

    Columns instead of a map of lists: 100,000 topics are then decoded in microseconds and looked up by bisection.
    """
    rows = sorted(tally.items())
    numbers, counts = array("I", [number for number, _ in rows]), array("I", [row.records for _, row in rows])
    firsts, lasts = array("Q", [row.first_lsn for _, row in rows]), array("Q", [row.last_lsn for _, row in rows])
    return b"".join(map(encode_column, (numbers, counts, firsts, lasts)))


class Summary(NamedTuple):
    """The topics that have records in a segment; columns, in order of `numbers`."""

    numbers: array[int]
    records: array[int]
    firsts: array[int]
    lasts: array[int]


def decode_summary(data: bytes) -> Summary:
    """The columns of encode_summary. Raises BadGroup if they are cut."""
    rows, rest = divmod(len(data), SUMMARY_ROW_BYTES)
    if rest:
        raise BadGroup("the segment's summary is cut")
    return Summary(
        decode_column(data[: 4 * rows], "I"),
        decode_column(data[4 * rows : 8 * rows], "I"),
        decode_column(data[8 * rows : 16 * rows]),
        decode_column(data[16 * rows :]),
    )
