"""Encoding: the loops over a group's payloads, from _encode.c where it was built, and else in Python; equal by test."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from itertools import repeat
from typing import TYPE_CHECKING, Union

from walsvc.format import group as specification
from walsvc.log.commit.ack import extension

LabelRow = tuple[int, int, int]  # type, topic, length of the attributes
Column = Union["array[int]", None]  # array takes no brackets before CPython 3.12


def python_measure(payloads: list[bytes]) -> tuple[array[int], int, int]:
    """The lengths of payloads, their sum, and the greatest. TypeError for anything but bytes."""
    if set(map(type, payloads)) - {bytes}:
        raise TypeError("payloads are bytes")
    lengths = array("I", map(len, payloads))
    return lengths, sum(lengths), max(lengths, default=0)


def python_columns(labels: Mapping[int, LabelRow], count: int) -> tuple[Column, Column, Column]:
    """Types, topics and lengths of attributes of `count` records; None where all are 0. `labels` is sparse, by index."""
    if labels and not 0 <= min(labels) <= max(labels) < count:
        raise ValueError("labels of no record")
    rows: Iterable[LabelRow] = map(labels.get, range(count), repeat((0, 0, 0)))
    types, topics, attributes = zip(*rows, strict=True)
    return (
        array("H", types) if any(types) else None,
        array("I", topics) if any(topics) else None,
        array("I", attributes) if any(attributes) else None,
    )


if TYPE_CHECKING:
    encode_group = specification.encode_group
    measure = python_measure
    columns = python_columns
else:
    compiled = extension("_encode")
    encode_group = specification.encode_group if compiled is None else compiled.encode_group
    measure = python_measure if compiled is None else compiled.measure
    columns = python_columns if compiled is None else compiled.columns
