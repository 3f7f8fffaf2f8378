"""Logs that earlier versions wrote must decode for ever, record for record."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

import walsvc
from tests.golden.make import payload_of, topic_of
from walsvc.format.segment import REWRITTEN, decode_segment_header
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
