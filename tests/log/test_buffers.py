"""Buffers of groups: each belongs to one group, and is used again."""

from __future__ import annotations

import itertools

import pytest

from walsvc.config import KIB, MIB
from walsvc.disk.memory import address, aligned_buffer
from walsvc.log.commit.buffer import KEEP_BYTES, SLAB_BYTES, SLICED_FROM, SMALLEST, BufferPool


def spans(buffers: list[memoryview]) -> list[tuple[int, int]]:
    return sorted((address(each), address(each) + len(each)) for each in buffers)


@pytest.mark.parametrize("length", [1, 4096, SLICED_FROM // 2, SLICED_FROM, 700 * KIB, MIB, SLAB_BYTES, 3 * MIB])
def test_buffers_in_use_share_no_byte_and_begin_where_the_device_wants_it(length: int) -> None:
    pool = BufferPool(aligned_buffer)
    taken = [pool.take(length) for _ in range(9)]
    for buffer in taken:
        assert len(buffer) >= length
        assert address(buffer) % 4096 == 0
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(spans(taken)))
    for buffer in taken[:4]:
        pool.give_back(buffer)
    again = [pool.take(length) for _ in range(4)]
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(spans([*again, *taken[4:]])))


def test_large_buffers_are_slices_of_a_slab_and_no_more_is_asked_of_the_disk_than_that() -> None:
    asked: list[int] = []

    def allocate(length: int) -> memoryview:
        asked.append(length)
        return memoryview(bytearray(length))

    pool = BufferPool(allocate)
    for length in (SMALLEST, SLICED_FROM, SLICED_FROM, MIB, MIB, SLAB_BYTES):
        pool.take(length)
    assert asked == [SMALLEST, SLAB_BYTES, SLAB_BYTES, SLAB_BYTES]


def test_what_is_kept_is_bounded() -> None:
    made = 0

    def allocate(length: int) -> memoryview:
        nonlocal made
        made += 1
        return memoryview(bytearray(length))

    pool = BufferPool(allocate)
    taken = [pool.take(4 * MIB) for _ in range(10)]
    for buffer in taken:
        pool.give_back(buffer)
    for _ in taken:
        pool.take(4 * MIB)
    assert made == 10 + 10 - KEEP_BYTES // (4 * MIB)
