"""Batches whose records have types and labels of their own, on every log: walsvc.Entry beside plain payloads."""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import Any

import pytest

from walsvc import BadOption, BadPayload, Conflict, Entry, RecordTooLarge, Relaxed, Strict

GIVEN = [
    b"plain",
    Entry(b"typed", type=7),
    Entry(bytearray(b"labelled"), attributes={"key": "k1", "n": 1}),
    memoryview(b"a view"),
    Entry(b"", 65535, {"key": "k2"}),
    Entry(b"an entry without labels"),
]
ROWS = [
    (b"plain", 0, {}),
    (b"typed", 7, {}),
    (b"labelled", 0, {"key": "k1", "n": 1}),
    (b"a view", 0, {}),
    (b"", 65535, {"key": "k2"}),
    (b"an entry without labels", 0, {}),
]


async def ways(given):
    for each in given:
        yield each


async def rows_of(of: Any, **wanted: Any) -> list[tuple[bytes, int, dict[str, Any]]]:
    return [(record.payload, record.type, dict(record.attributes)) async for record in of.read(**wanted)]


@pytest.mark.parametrize("form", [list, tuple, iter, ways], ids=["list", "tuple", "iterator", "async"])
async def test_each_record_of_a_batch_has_its_own_type_and_labels(open_log, form):
    async with open_log() as log:
        for where in (log, log.topic("t")):
            for mode in (Strict, Relaxed):
                results = await where.append_batch(form(GIVEN), mode)
                assert [each.lsn for each in results] == list(range(results[0].lsn, results[0].lsn + len(GIVEN)))
                assert results[0].encoded_len == 5
                assert results[2].encoded_len > len(b"labelled")  # its labels are in it
        assert await rows_of(log.topic("t")) == ROWS * 2
    async with open_log() as log:
        assert await rows_of(log) == ROWS * 4
        assert await rows_of(log.topic("t"), where={"key": ["k1", "k2"]}, types={0, 65535}) == [ROWS[2], ROWS[4]] * 2
        assert await rows_of(log, types={7, 0, 65535}, where={"n": 1}) == [ROWS[2]] * 4


@pytest.mark.parametrize("form", [list, iter, ways], ids=["list", "iterator", "async"])
async def test_a_batch_over_many_groups_keeps_them_too(open_log, form):
    rng = random.Random(18)
    given, rows = [], []
    for number in range(400):
        payload, kind, labels = (
            rng.randbytes(rng.randrange(300)),
            rng.randrange(3),
            {"n": number} if rng.random() < 0.5 else {},
        )
        given.append(Entry(payload, kind, labels) if kind or labels else payload)
        rows.append((payload, kind, labels))
    async with open_log(max_group_bytes=4096, max_group_records=64) as log:
        await log.append_batch(form(given))
        await log.topic("t").append_batch(form(given))
        await log.append(b"after it")
    async with open_log(max_group_bytes=4096, max_group_records=64) as log:
        assert await rows_of(log) == [*rows, *rows, (b"after it", 0, {})]
        assert await rows_of(log.topic("t"), where={"n": [3, 30, 300]}) == [
            each for each in rows if each[2].get("n") in (3, 30, 300)
        ]


BAD = [
    (5, BadPayload, "must be bytes-like, not int"),
    (Entry("text"), BadPayload, "must be bytes-like, not str"),  # type: ignore[arg-type]
    (Entry(b"x", type=65536), BadOption, "type=65536 is out of bounds"),
    (Entry(b"x", type="7"), BadOption, "type"),  # type: ignore[arg-type]
    (Entry(b"x", attributes={1: 2}), BadOption, "string keys"),  # type: ignore[dict-item]
    (Entry(b"x", attributes={"a": object()}), BadOption, "cannot be encoded"),
    (Entry(b"x", attributes={"a": "b" * 70_000}), RecordTooLarge, "attributes"),
    (Entry(bytes(20_001), 1), RecordTooLarge, "20001 bytes"),
    (bytes(20_001), RecordTooLarge, "20001 bytes"),
]


async def test_a_bad_record_is_named_by_its_index_and_nothing_is_written(open_log):
    async with open_log(max_record_bytes=20_000, max_group_bytes=4096) as log:
        for (bad, error, text), form, before in itertools.product(BAD, (list, iter, ways), (2, 40)):
            given = [*[Entry(bytes(500), 1)] * before, bad, b"behind it"]
            for where in (log, log.topic("t")):
                with pytest.raises(error, match=rf"payloads\[{before}\]: .*{text}"):
                    await where.append_batch(form(given))
        assert (await log.append(b"x")).lsn == 1
        assert await rows_of(log) == [(b"x", 0, {})]


async def test_one_payload_is_no_batch(open_log):
    async with open_log() as log:
        for wrong in (b"bytes", bytearray(2), memoryview(b"x"), "text", Entry(b"x"), 5, None):
            with pytest.raises(BadPayload, match="a batch is an iterable of payloads"):
                await log.append_batch(wrong)
        with pytest.raises(BadPayload, match="not Entry") as caught:
            await log.append(Entry(b"x", 7))
        assert "append_batch" in str(caught.value.hint)
        assert (await log.append(b"x")).lsn == 1


async def test_changing_what_was_given_has_no_effect(open_log):
    async with open_log(max_group_bytes=4096) as log:
        for count in (2, 100):
            payloads = [bytearray(b"%100d" % number) for number in range(count)]
            labels = {"n": 1}
            answer = log.append_batch([Entry(each, 1, labels) for each in payloads])
            labels["n"] = 2
            for each in payloads:
                each[:] = bytes(100)
            await answer
            rows = [(b"%100d" % number, 1, {"n": 1}) for number in range(count)]
            assert (await rows_of(log))[-count:] == rows


async def test_entries_with_an_expectation_are_accepted_whole_or_not_at_all(open_log):
    async with open_log(max_group_bytes=4096) as log:
        topic = log.topic("t")
        for given in ([Entry(b"x", 1)] * 3, [Entry(bytes(3000), 1)] * 3):
            last = await topic.last_lsn() or 0
            with pytest.raises(Conflict) as refused:
                await topic.append_batch(given, expected=last + 7)
            assert (refused.value.expected, refused.value.actual) == (last + 7, last)
            assert (await topic.append_batch(given, expected=last))[0].lsn == last + 1
        await log.append_batch(ways([Entry(b"y", 2)]), expected=6)
        with pytest.raises(Conflict):
            await log.append_batch([Entry(b"y", 2)], expected=6)
        assert await topic.count() == 6


async def test_many_appends_at_once_with_the_same_long_labels_are_all_accepted(open_log):
    labels = {"note": "x" * 20_000}
    async with open_log(max_group_bytes=1 << 18) as log:
        answers = await asyncio.gather(*(log.append(b"%d" % number, attributes=labels) for number in range(40)))
        assert [each.lsn for each in answers] == list(range(1, 41))
        assert [record.payload async for record in log.read(where=labels)] == [b"%d" % number for number in range(40)]
