"""Columns of integers, little-endian, as they stand in the index of a group, in summaries and in metadata."""

from __future__ import annotations

import sys
from array import array


def encode_column(cells: array[int]) -> bytes:
    """The cells' bytes."""
    if sys.byteorder == "big":
        cells = cells[:]
        cells.byteswap()
    return cells.tobytes()


def decode_column(data: bytes | memoryview, code: str = "Q") -> array[int]:
    """The cells in `data`; `code` is their array type code. Raises ValueError if the last one is cut."""
    cells = array(code)
    cells.frombytes(data)
    if sys.byteorder == "big":
        cells.byteswap()
    return cells
