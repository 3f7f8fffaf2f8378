"""Format versions: refusing, migrating, and being killed in the middle of it. Version 0 exists in these tests only."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from crc32c import crc32c

import walsvc
from tests.crash.sampling import sampled
from tests.topics.conftest import lsns
from walsvc import Corruption, PathError, UnsupportedFormat, WalConfig
from walsvc.disk.sim import SimDevice, SimDisk, SimLoop
from walsvc.format import versions
from walsvc.format.chain import Chain
from walsvc.format.content import Content, content_of, encoded_bytes, encoded_index
from walsvc.format.group import encode_group
from walsvc.format.meta import decode_map, encode_map
from walsvc.format.segment import (
    CRC_FIELD,
    CRC_OFFSET,
    SEGMENT_HEADER_BYTES,
    SegmentHeader,
    decode_segment_header,
    encode_segment_header,
)
from walsvc.format.versions import Format, format_of, present_header
from walsvc.log.offline.migration import migrate_on
from walsvc.log.offline.verify import verify
from walsvc.opening import open_on

CONFIG = WalConfig(segment_bytes=65536)
VERSION_0 = struct.pack("<HH", 0, 0xFFFF)
VERSION_1 = struct.pack("<HH", 1, 0xFFFE)


def fast(device: SimDevice, **options: Any) -> SimDisk:
    """A disk that answers at once."""
    return SimDisk(device, latency=0.0, **options)


# ---- version 0: it called "truncated" otherwise, kept times in microseconds, and had another magic in its header


def renamed(content: Content, before: str, after: str) -> Content:
    change = decode_map(content.meta)
    if before not in change:
        return content
    return content._replace(meta=encode_map({after if key == before else key: value for key, value in change.items()}))


def to_version_1(content: Content) -> Content:
    header = content.header._replace(timestamp_ns=content.header.timestamp_ns * 1000)
    return renamed(content._replace(header=header), "first", "truncated")


def to_version_0(content: Content) -> Content:
    header = content.header._replace(timestamp_ns=content.header.timestamp_ns // 1000)
    return renamed(content._replace(header=header), "truncated", "first")


def decode_header_0(data: bytes) -> SegmentHeader:
    return decode_segment_header(stamped(bytes(data), VERSION_1))


def stamped(head: bytes, version: bytes) -> bytes:
    """A segment header with another version."""
    body = head[:8] + version + head[12:CRC_OFFSET]
    return body + CRC_FIELD.pack(crc32c(body))


def begin_0(header: SegmentHeader, data: bytes, file_bytes: int) -> Chain:
    return Chain.begin(header, data, file_bytes)


def as_version_0(data: bytes) -> bytes:
    """A segment file of version 1 as version 0 would have written it; its groups take more room."""
    header = decode_segment_header(data[:SEGMENT_HEADER_BYTES])
    chain = Chain.begin(header, data, len(data))
    head = stamped(encode_segment_header(header), VERSION_0)
    out = bytearray(head.ljust(header.data_start, b"\0"))
    previous_crc = CRC_FIELD.unpack_from(head, CRC_OFFSET)[0]
    while chain.offset < len(data):
        try:
            found = chain.take(data, 0)
        except ValueError:
            break
        content = to_version_0(content_of(found, data, found.offset))
        rest = encoded_index(content.columns) + content.meta
        group = bytearray(encoded_bytes(content, header.align, 0))
        fields = content.header._replace(
            offset=len(out), meta_bytes=len(content.meta), group_bytes=len(group), previous_crc=previous_crc
        )
        previous_crc = encode_group(memoryview(group), fields, content.records, rest)
        out += group
    assert len(out) <= len(data)
    return bytes(out.ljust(len(data), b"\0"))


@pytest.fixture
def version_0(monkeypatch):
    """Version 0 is known, and how to make version 1 of it."""
    form = Format(0, decode_header=decode_header_0, begin=begin_0, upgrade=to_version_1)
    monkeypatch.setitem(versions.FORMATS, 0, form)


async def old_log(device: SimDevice, *, count: int = 80) -> list[object]:
    """A log of some segments on the device, made one of version 0; returns what can be read in it."""
    log = await open_on(fast(device), CONFIG)
    for number in range(count):
        await log.topic("ab"[number % 2]).append(b"%d" % number * 500, type=3, attributes={"key": number})
    await log.truncate_before(7)
    await log.hold("h", 20)
    await log.purge(30)
    seen = await content(log)
    await log.close()
    await to_old(device)
    return seen


async def to_old(device: SimDevice) -> None:
    disk = fast(device)
    for name, length in (await disk.list()).items():
        if name.endswith(".wal"):
            await disk.write(name, 0, as_version_0(await disk.read(name, 0, length)))
    await disk.close()


async def content(log) -> list[object]:
    records = [record._replace(timestamp_ns=record.timestamp_ns // 1000) async for record in log.read()]
    return [
        records,
        log.first_lsn,
        log.next_lsn,
        log.holds(),
        await log.topic("a").count(),
        await log.topic("b").count(),
    ]


async def opened(device: SimDevice) -> list[object]:
    log = await open_on(fast(device), CONFIG)
    seen = await content(log)
    await log.close()
    return seen


async def test_older_version_is_refused_with_a_hint_and_nothing_is_changed(version_0):
    device = SimDevice(1)
    await old_log(device)
    before = device.fingerprint()
    for read_only in (False, True):
        with pytest.raises(UnsupportedFormat, match="older") as caught:
            await open_on(fast(device, lock=not read_only), WalConfig(read_only=read_only))
        assert "walsvc migrate" in str(caught.value.hint)
    assert device.fingerprint() == before


async def test_migrated_log_holds_what_the_old_one_held_and_goes_on(version_0):
    device = SimDevice(2)
    seen = await old_log(device)
    disk = fast(device)
    told: list[str] = []
    done = await migrate_on(disk, None, on_segment=told.append)
    assert done.applied
    assert done.segments == tuple(told) == tuple(sorted(name for name in await disk.list() if name.endswith(".wal")))
    assert set(done.versions) == {0}
    again = await migrate_on(disk, None)
    assert again.segments == ()
    assert again.present == len(told)
    await disk.close()
    assert await opened(device) == seen
    log = await open_on(fast(device), CONFIG)
    assert log.report.clean
    for _ in range(40):
        await log.append(bytes(3000))
    assert len(await lsns(log.read())) == len(seen[0]) + 40
    assert [record.lsn async for record in log.topic("b").read()] == [r.lsn for r in seen[0] if r.topic == "b"]
    await log.close()


async def test_dry_run_says_what_it_would_do_and_changes_nothing(version_0):
    device = SimDevice(3)
    await old_log(device)
    before = device.fingerprint()
    disk = fast(device)
    done = await migrate_on(disk, None, dry_run=True)
    await disk.close()
    assert not done.applied
    assert len(done.segments) == len([name for name in device.directory.names if name.endswith(".wal")])
    assert device.fingerprint() == before


async def test_log_that_was_not_closed_in_order_is_left_to_its_own_version(version_0):
    device = SimDevice(4)
    log = await open_on(fast(device), CONFIG)
    await log.append(b"x")
    await log.flush()
    device.kill()
    await to_old(device)
    before = device.fingerprint()
    disk = fast(device)
    with pytest.raises(UnsupportedFormat, match="not closed in order"):
        await migrate_on(disk, None)
    await disk.close()
    assert device.fingerprint() == before


async def test_damage_in_an_old_segment_stops_the_migration_there(version_0):
    device = SimDevice(5)
    await old_log(device)
    names = sorted(name for name in device.directory.names if name.endswith(".wal"))
    device.flip(names[1], 20_000, 1)
    disk = fast(device)
    with pytest.raises(Corruption) as caught:
        await migrate_on(disk, None)
    assert f"{caught.value.segment:016x}.wal" == names[1]
    assert not [name for name in device.directory.names if name.endswith(".rewrite")]
    device.flip(names[1], 20_000, 1)
    assert (await migrate_on(disk, None)).present == 1, "the first one was done"
    await disk.close()
    assert (await opened(device))[2] == 81


async def test_missing_segment_is_found_before_anything_is_changed(version_0):
    device = SimDevice(6)
    await old_log(device)
    disk = fast(device)
    await disk.remove(sorted(name for name in device.directory.names if name.endswith(".wal"))[2])
    before = device.fingerprint()
    with pytest.raises(Corruption, match="belongs there"):
        await migrate_on(disk, None)
    assert device.fingerprint() == before
    await disk.close()


def test_killed_or_cut_at_every_step_a_migration_goes_on_where_it_was(version_0):
    """At every operation, in some images of what a power cut leaves: migrate again, and all is there."""
    loop, device, points = SimLoop(), SimDevice(7, loose=True), list[tuple[str, SimDevice]]()
    seen = loop.run_until_complete(old_log(device, count=40))
    device.on_operation = lambda number, what: points.append((f"{number} ({what})", device.fork()))

    async def migrated(on: SimDevice) -> int:
        disk = fast(on)
        done = await migrate_on(disk, None)
        await disk.close()
        return done.present

    assert loop.run_until_complete(migrated(device)) == 0
    device.on_operation = None
    begun: set[int] = set()
    for where, fork in sampled(points, 2):
        killed = fork.fork()
        killed.kill()
        for image in [*fork.crash_states(3), killed]:
            try:
                begun.add(loop.run_until_complete(migrated(image)))
                assert loop.run_until_complete(opened(image)) == seen
            except Exception as error:
                error.add_note(f"operation {where}")
                raise
    assert len(begun) > 3, "directories that are old in part were among them"
    loop.close()


async def test_real_directory_is_migrated_by_its_path_and_by_the_command(version_0, tmp_path):
    async with walsvc.open(tmp_path, config=CONFIG) as log:
        for number in range(60):
            await log.append(b"%d" % number * 500)
        records = [record._replace(timestamp_ns=0) async for record in log.read()]
    for path in tmp_path.glob("*.wal"):
        path.write_bytes(as_version_0(path.read_bytes()))
    with pytest.raises(UnsupportedFormat):
        await walsvc.open(tmp_path)
    assert len((await walsvc.migrate(tmp_path, dry_run=True)).segments) == len(list(tmp_path.glob("*.wal")))
    await walsvc.migrate(tmp_path)
    verdict = await verify(tmp_path)
    assert verdict.clean, verdict.findings
    async with walsvc.open(tmp_path, config=CONFIG) as log:
        assert [record._replace(timestamp_ns=0) async for record in log.read()] == records
    with pytest.raises(PathError):
        await walsvc.migrate(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(PathError):
        await walsvc.migrate(tmp_path / "empty")


@pytest.mark.parametrize(("version", "newer"), [(0, False), (2, True), (900, True)])
def test_unknown_versions_are_told_apart(version, newer):
    head = stamped(
        encode_segment_header(SegmentHeader(4096, 65536, 1, 1, 1, 1, 0, 0, 4096)),
        struct.pack("<HH", version, version ^ 0xFFFF),
    )
    for decode in (decode_segment_header, format_of):
        with pytest.raises(ValueError, match=f"version {version}") as caught:
            decode(head)
        assert (caught.value.newer, caught.value.older) == (newer, not newer)


def test_present_version_needs_no_step():
    head = encode_segment_header(SegmentHeader(4096, 65536, 1, 1, 1, 1, 0, 0, 4096))
    assert present_header(format_of(head), head) == decode_segment_header(head)
