"""Logs that earlier versions wrote must decode for ever, record for record."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

import walsvc
import walsvc.format.meta
from tests.golden.make import payload_of, topic_of
from walsvc import UnsupportedFormat
from walsvc.format.hidden import FLOORS
from walsvc.format.hidden import KEY as HIDDEN
from walsvc.format.limits import KEY as LIMITS
from walsvc.format.queues import KEY as QUEUES
from walsvc.format.segment import REWRITTEN, decode_segment_header
from walsvc.format.topics import GONE, SPARSE
from walsvc.log.offline.verify import verify

GOLDEN = Path(__file__).parents[1] / "golden"
VERSIONS = sorted(path.name for path in GOLDEN.glob("v*") if path.is_dir())


def check(records, expected):
    assert [record.lsn for record in records] == list(range(expected["first_lsn"], expected["next_lsn"]))
    for record in records:
        kind, attributes = expected["labelled"].get(str(record.lsn), [0, {}])
        assert record.payload == payload_of(record.lsn)
        assert (record.type, dict(record.attributes)) == (kind, attributes)
        assert record.topic == expected.get("topics", {}).get(str(record.lsn))


@pytest.mark.parametrize("version", VERSIONS)
async def test_golden_log_decodes_and_goes_on(version, tmp_path):
    log_path = tmp_path / "log"
    shutil.copytree(GOLDEN / version, log_path)
    expected = json.loads((log_path / "expected.json").read_text())
    before = digests(log_path)
    async with walsvc.open(log_path, read_only=True) as log:
        check([record async for record in log.read()], expected)
        assert log.report.clean
        assert [[each.name, each.topic, each.position] for each in await log.consumers()] == expected.get(
            "consumers", []
        )
        assert log.holds() == expected.get("holds", {})
        for name in log.topics():
            assert await log.topic(name).count() == list(expected["topics"].values()).count(name)
    assert digests(log_path) == before, "reading changed a file"
    async with walsvc.open(log_path, segment_bytes=65536) as log:
        check([record async for record in log.read()], expected)
        result = await log.append(b"and on")
        assert result.lsn == expected["next_lsn"]
    async with walsvc.open(log_path, read_only=True) as log:
        assert log.next_lsn == expected["next_lsn"] + 1


def digests(path: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in path.glob("*.wal")}


def test_there_is_a_golden_log_of_every_version():
    assert VERSIONS == ["v1", "v1-topics"]


async def test_golden_log_whose_segments_are_bound_decodes_and_goes_on(tmp_path):
    path = tmp_path / "log"
    shutil.copytree(GOLDEN / "bound-v1", path)
    expected = json.loads((path / "expected.json").read_text())
    headers = [decode_segment_header((path / name).read_bytes()[:4096]) for name in expected["files"]]
    assert [header.before != 0 for header in headers] == [False] + [True] * (len(headers) - 1)
    assert {header.optional & REWRITTEN for header in headers} == {0, REWRITTEN}
    verdict = await verify(path)
    assert verdict.clean
    assert verdict.unbound == 0
    async with walsvc.open(path, read_only=True) as log:
        records = [record async for record in log.read()]
        gone = {lsn for lsn in range(1, 121) if lsn % 5 == 3}
        assert [record.lsn for record in records] == [lsn for lsn in range(1, 311) if lsn not in gone]
        assert all(record.payload == payload_of(record.lsn) for record in records)
        assert log.holds() == {"archive": 7}
    async with walsvc.open(path, segment_bytes=65536) as log:
        assert (await log.append(b"and on")).lsn == expected["next_lsn"]
    assert (await verify(path)).unbound == 0


async def test_golden_log_with_callers_keys_remembers_them(tmp_path):
    path = tmp_path / "log"
    shutil.copytree(GOLDEN / "keys-v1", path)
    expected = json.loads((path / "expected.json").read_text())
    async with walsvc.open(path, segment_bytes=65536, dedupe_seconds=1e9) as log:
        assert (log.first_lsn, log.next_lsn) == (expected["first_lsn"], expected["next_lsn"])
        for lsn in range(1, 191):
            where = log.topic(name) if (name := topic_of(lsn)) else log
            again = await where.append(b"again", dedupe=f"key {lsn}")
            assert (again.lsn, again.encoded_len, again.duplicate) == (lsn, len(payload_of(lsn)), True)
        assert (await log.topic("orders").append(b"again", dedupe="key 195")).lsn == 191
        assert (await log.topic("orders").append(b"again", dedupe="key 192")).lsn == 192


async def test_golden_log_in_which_topics_have_gone_shows_what_lives(tmp_path):
    """The topics went at LSNs 122 (orders), 242 (rare, and the log was cut after 230 then) and 301."""
    path = tmp_path / "log"
    shutil.copytree(GOLDEN / "gone-v1", path)
    expected = json.loads((path / "expected.json").read_text())
    visible = {
        lsn: topic_of(lsn)
        for lsn in range(11, 301)
        if (topic_of(lsn) in {None} | ({"orders"} if lsn > 121 else set()) | ({"rare"} if lsn > 230 else set()))
    }
    for options in ({"read_only": True}, {"segment_bytes": 65536}):
        async with walsvc.open(path, **options) as log:
            assert (log.first_lsn, log.next_lsn) == (expected["first_lsn"], expected["next_lsn"])
            records = [record async for record in log.read()]
            assert {record.lsn: record.topic for record in records} == visible
            assert all(record.payload == payload_of(record.lsn) for record in records)
            assert log.topics() == ["orders", "rare"]
            for name in log.topics():
                assert await log.topic(name).count() == list(visible.values()).count(name)
            assert [(each.name, each.topic, each.position) for each in await log.consumers()] == [
                ("billing", "orders", 301)
            ]
        assert (await verify(path)).clean
    async with walsvc.open(path, segment_bytes=65536) as log:
        assert not (await log.topic("orders").append(b"and on", dedupe="key")).duplicate
        assert (await log.topic("注文").append(b"and on", expected=0)).lsn == 302


async def test_reader_that_takes_numbers_as_dense_refuses_a_log_in_which_a_topic_has_gone(monkeypatch, tmp_path):
    for name in ("gone-v1", "v1-topics"):
        shutil.copytree(GOLDEN / name, tmp_path / name)
    before = digests(tmp_path / "gone-v1")
    monkeypatch.setattr(walsvc.format.meta, "KNOWN", walsvc.format.meta.KNOWN - {SPARSE, GONE})
    for read_only in (True, False):
        with pytest.raises(UnsupportedFormat, match="!"):
            async with walsvc.open(tmp_path / "gone-v1", read_only=read_only) as log:
                log.topics()
        async with walsvc.open(tmp_path / "v1-topics", read_only=read_only) as log:
            assert len(log.topics()) == 4
    assert digests(tmp_path / "gone-v1") == before, "what is not understood was changed"


async def test_golden_log_with_shared_consumers_knows_what_they_have_done(tmp_path):
    path = tmp_path / "log"
    shutil.copytree(GOLDEN / "queues-v1", path)
    expected = json.loads((path / "expected.json").read_text())
    before = digests(path)
    async with walsvc.open(path, read_only=True) as log:
        assert log.next_lsn == expected["next_lsn"]
        seen = [(each.name, each.position, each.lag, each.outstanding) for each in await log.consumers()]
        assert seen == [("moved", 150, 152, 0), ("hands", 1, 64, 3), ("workers", 10, 59, 0)]
    assert digests(path) == before, "reading changed a file"
    async with walsvc.open(path, segment_bytes=65536) as log:
        orders = log.topic("orders")
        dead = [record async for record in log.topic("dead").read()]
        assert [(each.payload, each.attributes["dead.lsn"]) for each in dead] == [(payload_of(9), 9)]
        workers = await orders.consumer("workers", shared=True)
        out = [await workers.next() for _ in range(6)]
        assert [(each.record.lsn, each.attempt) for each in out] == [
            (12, 1),
            (21, 2),
            (24, 1),
            (30, 1),
            (33, 1),
            (36, 1),
        ]
        hands = await orders.consumer("hands", shared=True, worker="left")
        assert [(each.record.lsn, each.attempt) for each in [await hands.next() for _ in range(4)]] == [
            (3, 2),
            (9, 2),
            (12, 2),
            (15, 1),
        ]
        assert (await (await log.consumer("moved", shared=True)).next()).record.lsn == 150


async def test_golden_log_with_hidden_ranges_shows_what_is_left_and_goes_on(tmp_path):
    path = tmp_path / "log"
    shutil.copytree(GOLDEN / "hidden-v1", path)
    expected = json.loads((path / "expected.json").read_text())
    names = {lsn: topic_of(lsn) if lsn <= 190 else "orders" for lsn in range(10, 211)}
    gone = {61, 62, 100, 150, 192, 195} | {lsn for lsn, name in names.items() if name == "orders" and lsn < 60}
    gone |= {lsn for lsn, name in names.items() if name == "注文" and lsn < 139}
    left = {lsn: name for lsn, name in names.items() if lsn not in gone}
    before = digests(path)
    for read_only in (True, False):
        async with walsvc.open(path, read_only=read_only) as log:
            assert (log.first_lsn, log.next_lsn) == (expected["first_lsn"], expected["next_lsn"])
            records = [record async for record in log.read()]
            assert {record.lsn: record.topic for record in records} == left
            assert all(record.payload == payload_of(record.lsn) for record in records)
            for name in log.topics():
                assert await log.topic(name).count() == list(left.values()).count(name)
            assert [(each.name, each.position, each.lag) for each in await log.consumers()] == [("behind", 1, None)]
        assert not read_only or digests(path) == before, "reading changed a file"
    async with walsvc.open(path, segment_bytes=65536) as log:
        assert (await log.topic("orders").append(b"and on", expected=210)).lsn == 211


async def test_golden_log_with_limits_of_topics_applies_them(tmp_path):
    path = tmp_path / "log"
    shutil.copytree(GOLDEN / "limits-v1", path)
    before = digests(path)
    async with walsvc.open(path, read_only=True) as log:
        limits = {name: tuple(await log.topic(name).limits()) for name in log.topics()}
        assert limits == {"orders": (70, None, None), "rare": (None, 1 << 40, 1e12), "lifted": (None, None, None)}
        count = await log.topic("orders").count()
        records = [record async for record in log.topic("orders").read()]
        assert [record.payload for record in records] == [payload_of(lsn) for lsn in range(151 - count, 151)]
    assert digests(path) == before, "reading changed a file"
    async with walsvc.open(path, segment_bytes=65536) as log:
        await log.topic("orders").retain(records=5)
        assert [record.lsn async for record in log.topic("orders").read()] == list(range(146, 151))


@pytest.mark.parametrize(
    ("golden", "key"), [("queues-v1", QUEUES), ("hidden-v1", HIDDEN), ("hidden-v1", FLOORS), ("limits-v1", LIMITS)]
)
async def test_reader_that_does_not_know_required_metadata_refuses_that_log_and_reads_others(
    monkeypatch, tmp_path, golden, key
):
    for name in (golden, "v1-topics"):
        shutil.copytree(GOLDEN / name, tmp_path / name)
    before = digests(tmp_path / golden)
    monkeypatch.setattr(walsvc.format.meta, "KNOWN", walsvc.format.meta.KNOWN - {key})
    for read_only in (True, False):
        with pytest.raises(UnsupportedFormat, match=key):
            async with walsvc.open(tmp_path / golden, read_only=read_only) as log:
                await log.consumers()
        async with walsvc.open(tmp_path / "v1-topics", read_only=read_only) as log:
            assert len(await log.consumers()) == 2
    assert digests(tmp_path / golden) == before, "what is not understood was changed"
