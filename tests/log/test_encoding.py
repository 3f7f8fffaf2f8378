"""The bytes of a group: both twins write the same, and refuse the same."""

from __future__ import annotations

import random
from array import array
from typing import Any

import pytest

from walsvc.format import group as specification
from walsvc.format.columns import encode_column
from walsvc.format.group import GROUP_HEADER_BYTES, GroupHeader, align_up
from walsvc.log.commit import ack, encoding
from walsvc.log.commit.group import Labels

compiled = ack.extension("_encode")
needs_compiled = pytest.mark.skipif(compiled is None, reason="the extension _encode was not built")
PIECE = 16 << 10  # bytes that the C twin copies before it takes their CRC


def header_of(payloads: list[bytes], rest: bytes, **fields: Any) -> GroupHeader:
    length = sum(map(len, payloads))
    total = align_up(GROUP_HEADER_BYTES + length + len(rest), 512)
    return GroupHeader(
        *(7, 1 << 63, 3, 4, 5, 6, 2**64 - 1, 0, 9), len(payloads), length, len(rest), 0, total, 2**32 - 1
    )._replace(**fields)


def written(encode: Any, header: GroupHeader, payloads: Any, rest: bytes, length: int) -> tuple[int, bytes]:
    data = bytearray(b"\xee" * length)
    return encode(memoryview(data), header, payloads, rest), bytes(data)


@needs_compiled
@pytest.mark.parametrize("seed", range(30))
def test_groups_of_any_sizes_have_the_same_bytes(seed):
    chance = random.Random(seed)
    sizes = [0, 1, 7, 128, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 5, chance.randrange(2000)]
    payloads = [chance.randbytes(chance.choice(sizes)) for _ in range(chance.randrange(40))]
    rest = encode_column(array("I", map(len, payloads))) + chance.randbytes(chance.choice((0, 3, 5000)))
    header = header_of(
        payloads,
        rest,
        nonce=chance.randbytes(12),
        durable_units=chance.getrandbits(32),
        last_crc=chance.getrandbits(32),
    )
    expected = written(specification.encode_group, header, payloads, rest, header.group_bytes)
    assert written(compiled.encode_group, header, payloads, rest, header.group_bytes) == expected
    views = [memoryview(each) for each in payloads]
    assert written(compiled.encode_group, header, views, rest, header.group_bytes) == expected


@needs_compiled
@pytest.mark.parametrize(
    "wrong",
    [
        {"payload_bytes": 9}, {"payload_bytes": 11}, {"payload_bytes": 2**32 - 1}, {"group_bytes": 1024}, {"flags": 2**32},
        {"first_lsn": -1}, {"nonce": b"short"}, {"nonce": None}, {"last_crc": 1.5},
    ],
)  # fmt: skip
def test_header_that_does_not_fit_is_refused_and_nothing_is_written_behind_the_view(wrong):
    payloads, rest = [b"0123456789"], b"rest"
    header = header_of(payloads, rest)._replace(**wrong)
    data = bytearray(b"\xee" * 1024)
    with pytest.raises((ValueError, OverflowError, TypeError)):
        compiled.encode_group(memoryview(data)[:512], header, payloads, rest)
    assert data[512:] == b"\xee" * 512


@needs_compiled
def test_rest_that_is_longer_than_the_group_is_refused():
    data = bytearray(b"\xee" * 1024)
    header = header_of([b"x"], b"")
    with pytest.raises(ValueError, match="longer than the group"):
        compiled.encode_group(memoryview(data)[:512], header, [b"x"], bytes(512))
    assert data[512:] == b"\xee" * 512


@needs_compiled
@pytest.mark.parametrize("payloads", [[], [b""], [b"a", b"bc", b""], [bytes(70_000)] * 3])
def test_lengths_are_measured_alike(payloads):
    measured = compiled.measure(payloads)
    assert measured == encoding.python_measure(payloads)
    assert measured[0].typecode == "I"


@needs_compiled
@pytest.mark.parametrize("wrong", [["a"], [None], [bytearray(1)], [b"a", type("Bytes", (bytes,), {})()]])
def test_only_bytes_are_measured(wrong):
    for measure in (compiled.measure, encoding.python_measure):
        with pytest.raises(TypeError):
            measure(wrong)


LABELS = [(0, 1, 0), (0, 2, 0), (7, 0, 0), (2**16 - 1, 2**32 - 1, 2**32 - 1), (0, 0, 5), (0, 0, 0)]


@needs_compiled
@pytest.mark.parametrize("seed", range(20))
def test_columns_of_labels_are_alike(seed):
    chance = random.Random(seed)
    count = chance.randrange(1, 40)
    labels = {
        at: Labels(*chance.choice(LABELS)) for at in range(count) if chance.random() < chance.choice((0.1, 0.5, 1))
    }
    found = compiled.columns(labels, count)
    assert found == encoding.python_columns(labels, count)
    assert [each and each.typecode for each in found] == [
        each and each.typecode for each in encoding.python_columns(labels, count)
    ]


@needs_compiled
@pytest.mark.parametrize(
    "labels", [{1: (0, 1, 0)}, {-1: (0, 1, 0)}, {0: (2**16, 0, 0)}, {0: (0, 2**32, 0)}, {0: (-1, 0, 0)}, {0: (1,)}, {"a": (0, 1, 0)}]
)  # fmt: skip
def test_labels_that_no_column_can_hold_are_refused(labels):
    for columns in (compiled.columns, encoding.python_columns):
        with pytest.raises((ValueError, OverflowError, TypeError)):
            columns(labels, 1)


@needs_compiled
def test_no_memory_at_any_allocation_is_an_error_and_no_group():
    test_api = pytest.importorskip("_testcapi")
    payloads, rest = [b"x" * 100, bytes(PIECE)], b"rest"
    header = header_of(payloads, rest)
    data = bytearray(header.group_bytes)
    view = memoryview(data)
    expected = specification.encode_group(view, header, payloads, rest), bytes(data)

    def tried(nth: int) -> bool:
        """Whether the nth allocation from here on was one of theirs."""
        crc = lengths = found = None
        test_api.set_nomemory(nth, nth + 1)
        try:
            lengths = compiled.measure(payloads)
            found = compiled.columns({1: (3, 4, 5)}, 2)
            crc = compiled.encode_group(view, header, payloads, rest)
        except MemoryError:
            return True
        finally:
            test_api.remove_mem_hooks()
        assert (crc, bytes(data)) == expected
        assert lengths == encoding.python_measure(payloads)
        assert found == encoding.python_columns({1: (3, 4, 5)}, 2)
        return False

    failed = [tried(nth) for nth in range(1, 60)]
    assert any(failed)
    assert not failed[-1]
