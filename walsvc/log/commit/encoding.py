"""Encoding: the two loops over a group's payloads, from _encode.c where it was built, and else in Python; equal by test."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from walsvc.format import group as specification
from walsvc.log.commit.ack import extension


def python_measure(payloads: list[bytes]) -> tuple[array[int], int, int]:
    """The lengths of payloads, their sum, and the greatest. TypeError for anything but bytes."""
    if set(map(type, payloads)) - {bytes}:
        raise TypeError("payloads are bytes")
    lengths = array("I", map(len, payloads))
    return lengths, sum(lengths), max(lengths, default=0)


if TYPE_CHECKING:
    encode_group = specification.encode_group
    measure = python_measure
else:
    compiled = extension("_encode")
    encode_group = specification.encode_group if compiled is None else compiled.encode_group
    measure = python_measure if compiled is None else compiled.measure
