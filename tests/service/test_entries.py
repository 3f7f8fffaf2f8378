"""Records of a batch with types and labels of their own over the service: what older peers see, and what no good client sends."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

import walsvc
from tests.service.raw import Raw
from tests.service.simulated import serving
from tests.service.test_reconnect import QUICK, placed, until
from tests.service.wire import SMALL
from walsvc import Entry, UnsupportedFormat
from walsvc.config import KIB
from walsvc.log.commit.payload import pack_attributes
from walsvc.service.server.limits import Limits
from walsvc.service.wire.frames import FROM_CLIENT, Ack, Batch, Error, Goodbye
from walsvc.service.wire.protocol import LENGTH, decode, encode

PLAIN = Batch(1, 0, 0, 0, 0, None, 0, True, [b"a", b"b"])
LABEL = pack_attributes({"a": 1})


async def ways(given):
    for each in given:
        yield each


async def rows(log: Any) -> list[tuple[bytes, int, dict[str, Any]]]:
    return [(record.payload, record.type, dict(record.attributes)) async for record in log.read()]


def test_frames_without_labels_are_as_they_were() -> None:
    body = encode(PLAIN)[LENGTH.size :]
    assert body[0] == 0x9A
    assert decode(body, FROM_CLIENT) == PLAIN
    labelled = PLAIN._replace(types=7, attributes=[b"", LABEL])
    assert decode(encode(labelled)[LENGTH.size :], FROM_CLIENT) == labelled


async def test_older_server_gets_no_labels_and_nothing_of_the_batch(tmp_path) -> None:
    async with serving(tmp_path) as server, walsvc.open(server.addresses[0]) as log:
        log._session.info["features"] = ["expected"]
        many = [*[b"plain"] * 2000, Entry(b"x", 7)]
        for given in ([b"plain", Entry(b"x", 7)], many):
            for form in (list, iter, ways):
                with pytest.raises(UnsupportedFormat, match="labels of their own"):
                    await log.append_batch(form(given))
        assert (await log.append_batch([Entry(b"an ordinary record"), b"x"]))[1].lsn == 2
        assert await log.topic("t").count() == 0


async def test_labels_may_be_one_value_or_a_column(tmp_path) -> None:
    async with serving(tmp_path) as server, await Raw.welcomed(server) as raw:
        raw.send(PLAIN._replace(types=7), PLAIN._replace(id=2, types=[0, 9], attributes=LABEL))
        raw.send(PLAIN._replace(id=3, attributes=[b"", LABEL]), PLAIN._replace(id=4, types=0, attributes=b""))
        for id in (1, 2, 3, 4):
            await raw.expect(Ack, id)
        async with walsvc.open(server.addresses[0]) as log:
            assert await rows(log) == [
                *((b"a", 7, {}), (b"b", 7, {})),
                *((b"a", 0, {"a": 1}), (b"b", 9, {"a": 1})),
                *((b"a", 0, {}), (b"b", 0, {"a": 1})),
                *((b"a", 0, {}), (b"b", 0, {})),
            ]


@pytest.mark.parametrize("parts", [1, 2, 40], ids=["one part", "two parts", "streamed"])
@pytest.mark.parametrize(("fields", "text"), [
    ({"types": [0, 70_000]}, "out of bounds"),
    ({"attributes": [b"", b"\xc1"]}, "not msgpack"),
    ({"attributes": [b"", b"\x01"]}, "a map with string keys"),
    ({"attributes": [b"", pack_attributes({"a": "b" * 65_000}) + bytes(600)]}, "attributes"),
], ids=["type", "no msgpack", "no map", "too long"])  # fmt: skip
async def test_bad_labels_end_the_batch_and_nothing_of_it_is_written(tmp_path, fields, text, parts) -> None:
    async with serving(tmp_path) as server, await Raw.welcomed(server) as raw:
        good = PLAIN._replace(payloads=[bytes(30_000)] * 2, last=False)
        raw.send(*(good._replace(part=part) for part in range(parts - 1)))
        raw.send(PLAIN._replace(part=parts - 1, **fields))
        answer = await raw.expect(Error, 1)
        assert (answer.code in ("BadOption", "RecordTooLarge"), text in answer.message) == (True, True), answer
        raw.append(2, b"after it")
        assert (await raw.expect(Ack, 2)).parts[0][0] == 1


async def test_columns_that_do_not_fit_or_would_swell_end_the_connection(tmp_path) -> None:
    async with serving(tmp_path, limits=Limits(frame_bytes=256 * KIB)) as server:
        swelling = PLAIN._replace(payloads=[b""] * 8000, attributes=pack_attributes({"a": "b" * 60_000}))
        for frame, text in (
            (PLAIN._replace(types=[1]), "different lengths"),
            (PLAIN._replace(attributes=[b""] * 3), "different lengths"),
            (swelling, "bytes"),
        ):
            async with await Raw.welcomed(server) as raw:
                raw.send(frame)
                goodbye = await raw.expect(Goodbye)
                assert (goodbye.code, text in goodbye.message) == ("ProtocolError", True)
        assert server.budget.bytes == 0


@pytest.mark.parametrize("size", [3, 40, 2000], ids=["one frame", "several groups", "several parts"])
async def test_labels_come_again_with_a_batch_that_is_sent_again(size: int) -> None:
    given = [Entry(b"%d" % number + bytes(3000), number % 3, {"n": number}) for number in range(size)]
    async with placed() as place, walsvc.open(place.wire.url, **QUICK) as log:
        place.wire.deaf = size < 1000  # the parts of a larger one need credit
        batch = log.append_batch(given)
        if size < 1000:
            await until(lambda: place.log.durable_lsn == size)
        else:
            await until(lambda: place.log.stats().written_bytes > 1 << 20)
        place.wire.deaf = False
        place.wire.cut()
        assert [result.lsn for result in await batch] == list(range(1, size + 1))
        assert await rows(log) == [(each.payload, each.type, each.attributes) for each in given]


async def test_a_record_as_large_as_may_be_comes_again_with_its_labels() -> None:
    async with placed(replace(SMALL, max_record_bytes=20_000)) as place, walsvc.open(place.wire.url, **QUICK) as log:
        largest = Entry(bytes(20_000), 1, {"a": "b" * 1000})
        place.wire.cut()
        assert (await log.append_batch([largest]))[0].lsn == 1
        place.wire.cut()
        assert (await log.append_batch([b"x", largest]))[1].lsn == 3


@pytest.mark.parametrize("form", [list, iter, ways], ids=["list", "iterator", "async"])
async def test_a_record_larger_than_all_credit_comes_behind_a_small_one(tmp_path, form) -> None:
    """The server waits for a group of the batch, and the client for credit: a part of nothing says so."""
    limits = Limits(pending_bytes=64 * KIB)
    async with serving(tmp_path, limits=limits) as server, walsvc.open(server.addresses[0]) as log:
        given = [b"x", bytes(300_000), b"y", bytes(400_000), Entry(bytes(300_000), 7)]
        async with asyncio.timeout(60):
            results, other = await asyncio.gather(log.append_batch(form(given)), log.append(b"other"))
        assert [each.lsn for each in results] == [1, 2, 3, 4, 5]
        assert other.lsn == 6
        assert [len(record.payload) async for record in log.read()] == [1, 300_000, 1, 400_000, 300_000, 5]
