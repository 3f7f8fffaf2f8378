"""Encrypted logs as a program and a person with a shell meet them, on real disks and on the simulated one."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

import walsvc
from tests.disks import REAL_DISKS
from tests.forked import run_walsvc
from walsvc import BadOption, Corruption, KeyRing, MissingKey, NoSpace, Relaxed, WalConfig, WrongKey
from walsvc.disk.sim import SimDevice, SimDisk, run_sim
from walsvc.format.chain import Chain
from walsvc.format.cipher import begin_cipher
from walsvc.format.group import Flag, GroupHeader
from walsvc.format.segment import SegmentHeader, decode_segment_header
from walsvc.log.commit.group import Group
from walsvc.log.commit.segment import Segment
from walsvc.log.offline.backup import copy_log
from walsvc.log.offline.verify import verify
from walsvc.opening import open_on

ONE, TWO = ("one", bytes(range(32))), ("two", bytes(range(50, 82)))
FIRST, BOTH = KeyRing(ONE), KeyRing(TWO, [ONE])
SECRET_TEXT = b"nobody may read this"
FIRST_VISIBLE = 20
FORGED_FROM = 22


def tree(path: Path) -> dict[str, tuple[bytes, int]]:
    """Every file's content and time of change, LOCK included."""
    return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in path.iterdir()}


def files_with(path: Path, text: bytes) -> list[str]:
    """Names of the files that hold a text."""
    return sorted(file.name for file in path.iterdir() if text in file.read_bytes())


def key_ids(path: Path) -> list[str]:
    """The key of each segment, oldest first; "" is plain."""
    return [decode_segment_header(file.read_bytes()).key_id.decode() for file in sorted(path.glob("*.wal"))]


async def payloads(log: Any, *args: Any) -> list[bytes]:
    return [record.payload async for record in log.read(*args)]


def key_file(directory: Path, *keys: tuple[str, bytes]) -> Path:
    file = directory / "keys"
    file.write_text("".join(f"{name} {base64.b64encode(key).decode()}\n" for name, key in keys))
    file.chmod(0o600)
    return file


@pytest.mark.parametrize("disk", REAL_DISKS)
async def test_nothing_that_was_appended_stands_readable_in_any_file(tmp_path, disk):
    path = tmp_path / "log"
    async with walsvc.open(path, disk=disk, keys=FIRST, segment_bytes=65536) as log:
        await asyncio.gather(*(log.append(SECRET_TEXT * 40, attributes={"tenant": "secret label"}) for _ in range(300)))
        await log.append_batch([SECRET_TEXT * 100] * 1000)
        await log.topic("secret topic").append(SECRET_TEXT)  # a topic of which nothing is left would go
        await log.truncate_before(log.next_lsn - 10)
        await log.topic("secret topic").append(SECRET_TEXT * 100)
        assert log.stats().rotations > 3
    for text in (SECRET_TEXT, b"secret label", b"secret topic", *(key for _, key in (ONE, TWO))):
        assert files_with(path, text) == []
    async with walsvc.open(path, disk=disk, keys=FIRST, read_only=True) as log:
        assert set(await payloads(log)) == {SECRET_TEXT * 100, SECRET_TEXT}
        assert log.topics() == ["secret topic"]


@pytest.mark.parametrize("disk", REAL_DISKS)
@pytest.mark.parametrize("keys", [None, KeyRing(TWO), KeyRing((ONE[0], TWO[1]))])
async def test_missing_or_wrong_key_leaves_the_directory_byte_for_byte(tmp_path, disk, keys):
    path = tmp_path / "log"
    async with walsvc.open(path, disk=disk, keys=FIRST, segment_bytes=65536) as log:
        await asyncio.gather(*(log.append(bytes(1000)) for _ in range(200)))
    (path / "LOCK").write_text("somebody\n")
    newest = max(path.glob("*.wal"))
    with newest.open("r+b") as file:  # a torn tail: recovery would have something to cut
        file.seek(40_000)
        file.write(b"torn")
    before = tree(path)
    expected = WrongKey if keys is not None and keys.current_id == "one" else MissingKey
    for options in ({}, {"read_only": True}):
        with pytest.raises(expected, match="'one'") as caught:
            await walsvc.open(path, disk=disk, keys=keys, **options)
        assert not isinstance(caught.value, Corruption)
        assert caught.value.hint
        assert tree(path) == before
    with pytest.raises(expected):
        await walsvc.WalWriter.open(path, disk=disk, keys=keys)
    assert tree(path) == before


async def test_plain_log_is_encrypted_from_its_next_segment_on_and_stays_so(tmp_path):
    path = tmp_path / "log"
    async with walsvc.open(path, segment_bytes=65536) as log:
        await log.append(b"plain")
    async with walsvc.open(path, segment_bytes=65536, keys=FIRST) as log:
        await log.append(SECRET_TEXT)
        assert await payloads(log) == [b"plain", SECRET_TEXT]
    assert key_ids(path) == ["", "one"]
    with pytest.raises(MissingKey):
        await walsvc.open(path)
    async with walsvc.open(path, keys=FIRST) as log:
        assert log.report.clean
        assert await payloads(log) == [b"plain", SECRET_TEXT]
    assert key_ids(path) == ["", "one"]


async def test_opening_with_a_new_current_key_goes_on_under_it_and_reads_the_old(tmp_path):
    path = tmp_path / "log"
    for keys in (FIRST, BOTH, BOTH):
        async with walsvc.open(path, segment_bytes=65536, keys=keys) as log:
            await log.append(keys.current_id.encode())
    assert key_ids(path) == ["one", "two"]
    async with walsvc.open(path, keys=KeyRing(TWO), read_only=True) as log:
        assert await payloads(log, 2) == [b"two", b"two"]
        with pytest.raises(MissingKey, match="'one'"):
            await payloads(log, 1)
    async with walsvc.open(path, keys=BOTH, read_only=True) as log:
        assert await payloads(log) == [b"one", b"two", b"two"]


@pytest.mark.parametrize("disk", REAL_DISKS)
async def test_keys_change_while_tasks_append_and_read(tmp_path, disk):
    path = tmp_path / "log"
    keys = [(f"key {number}", bytes([number]) * 32) for number in range(6)]
    seen: list[bytes] = []
    async with walsvc.open(path, disk=disk, segment_bytes=65536, keys=KeyRing(keys[0])) as log:

        async def follow() -> None:
            async for record in log.follow(1):
                seen.append(record.payload)
                if record.payload == b"end":
                    return

        async def append(who: int) -> list[int]:
            return [(await log.append(b"%d %d " % (who, number) * 50)).lsn for number in range(60)]

        following = asyncio.create_task(follow())
        appending = [asyncio.create_task(append(who)) for who in range(8)]
        for number in range(1, 6):
            await log.wait_durable(min(80 * number, log.next_lsn - 1))
            await log.use_keys(KeyRing(keys[number], keys[:number]))
            newest = log.writer.segments.ids()[-1]
            result = await log.append(b"new key")
            assert result.segment_id >= newest
            header = decode_segment_header((path / f"{result.segment_id:016x}.wal").read_bytes())
            assert header.key_id == f"key {number}".encode()
        lsns = [lsn for each in appending for lsn in await each]
        await log.append(b"end")
        await following
        assert len(set(lsns)) == len(lsns) == 480
        assert log.next_lsn - 1 == len(seen) == 486
        assert seen == await payloads(log)
        assert log.stats().failed is None
    assert sorted(set(key_ids(path))) == [f"key {number}" for number in range(6)]
    async with walsvc.open(path, keys=KeyRing(keys[5], keys[:5]), read_only=True) as log:
        assert await payloads(log) == seen


async def test_after_use_keys_the_old_segment_gets_nothing_but_its_seal(tmp_path):
    async with walsvc.open(tmp_path / "log", segment_bytes=65536, keys=FIRST) as log:
        await log.append(b"a", mode=Relaxed)
        before = await log.append(b"b", mode=Relaxed)
        old = log.writer.core.tail.segment
        await log.use_keys(BOTH)
        assert log.durable_lsn == before.lsn
        assert log.writer.core.tail.segment.id == before.lsn + 1
        end = old.end
        after = await log.append(b"c")
        assert (after.segment_id, old.end) == (log.writer.core.tail.segment.id, end)
        await log.use_keys(KeyRing(TWO, [ONE]))
        assert log.writer.segments.ids() == [1, before.lsn + 1], "the same current key begins no segment"
        assert await payloads(log) == [b"a", b"b", b"c"]


async def test_use_keys_without_a_key_that_is_needed_changes_nothing(tmp_path):
    async with walsvc.open(tmp_path / "log", segment_bytes=65536, keys=BOTH) as log:
        await log.append(b"a")
        for ring, error in ((FIRST, MissingKey), (KeyRing(ONE, [("two", ONE[1])]), WrongKey)):
            with pytest.raises(error):
                await log.use_keys(ring)
        for nonsense in (None, b"x" * 32):
            with pytest.raises(BadOption, match="KeyRing") as caught:
                await log.use_keys(nonsense)
            assert "xxx" not in str(caught.value)
        assert log.writer.segments.keys is BOTH
        assert log.stats().key_id == "two"
        assert log.writer.segments.ids() == [1]
        await log.append(b"b")
    with pytest.raises(walsvc.Closed):
        await log.use_keys(BOTH)


async def test_plain_log_becomes_encrypted_while_it_runs(tmp_path):
    path = tmp_path / "log"
    async with walsvc.open(path, segment_bytes=65536) as log:
        await asyncio.gather(*(log.append(b"readable" * 100) for _ in range(300)))
        await log.truncate_before(log.next_lsn)
        assert log.stats().spares > 0
        await log.use_keys(FIRST)
        for _ in range(5):
            await asyncio.gather(*(log.append(SECRET_TEXT * 40) for _ in range(100)))
            await log.truncate_before(log.next_lsn - 20)
    for text in (b"readable", SECRET_TEXT):
        assert files_with(path, text) == []


async def test_files_with_old_plain_records_are_not_used_again_after_opening_with_keys(tmp_path):
    path = tmp_path / "log"
    async with walsvc.open(path, segment_bytes=65536) as log:
        for _ in range(3):
            await asyncio.gather(*(log.append(b"readable" * 100) for _ in range(200)))
            await log.truncate_before(log.next_lsn - 20)
    assert any(name.endswith(".spare") for name in files_with(path, b"readable"))
    async with walsvc.open(path, segment_bytes=65536, keys=FIRST) as log:
        await log.truncate_before(log.next_lsn)
        await asyncio.gather(*(log.append(SECRET_TEXT * 40) for _ in range(200)))
    assert files_with(path, b"readable") == []


async def test_dropped_plain_segments_are_removed_and_not_recycled_by_an_encrypted_log(tmp_path):
    path = tmp_path / "log"
    async with walsvc.open(path, segment_bytes=65536) as log:
        await asyncio.gather(*(log.append(b"readable" * 100) for _ in range(400)))
        assert len(log.writer.segments.ids()) >= 5
    async with walsvc.open(path, segment_bytes=65536, keys=FIRST) as log:
        await log.truncate_before(log.next_lsn)
        assert files_with(path, b"readable") == []


@pytest.mark.parametrize("disk", REAL_DISKS)
@pytest.mark.parametrize("layout", ["pad", "pack"])
async def test_double_write_file_forgets_plain_groups_when_the_log_becomes_encrypted(tmp_path, disk, layout):
    path = tmp_path / "log"
    options: dict[str, Any] = {"disk": disk, "layout": layout, "double_write": "buffered", "max_group_bytes": 65536}
    async with walsvc.open(path, segment_bytes=1 << 20, **options) as log:
        await asyncio.gather(*(log.append(b"readable" * 100) for _ in range(300)))
        assert "double-write" in files_with(path, b"readable")
        appending = log.append_batch([SECRET_TEXT * 10] * 200)
        await log.use_keys(FIRST)
        await appending
        assert "double-write" not in files_with(path, b"readable")
        await asyncio.gather(*(log.append(SECRET_TEXT) for _ in range(30)))
        await log.truncate_before(log.next_lsn - 30)
    assert files_with(path, SECRET_TEXT) in ([], ["0" * 15 + "1.wal"])
    async with walsvc.open(path, keys=FIRST, **options) as log:
        assert log.report.clean
        assert await payloads(log) == [SECRET_TEXT] * 30
        await log.append(SECRET_TEXT)
    assert "double-write" not in files_with(path, b"readable")


async def test_plain_segment_in_the_place_of_an_encrypted_one_is_refused_by_a_ring_that_says_so(tmp_path):
    strict = KeyRing(ONE, plain=False)
    for name, keys in (("log", strict), ("other", None)):
        async with walsvc.open(tmp_path / name, keys=keys, segment_bytes=65536) as log:
            await log.append(name.encode())
    async with walsvc.open(tmp_path / "log", keys=strict) as log:
        assert await payloads(log) == [b"log"]
    plain = min((tmp_path / "other").glob("*.wal"))
    (tmp_path / "log" / plain.name).write_bytes(plain.read_bytes())
    before = tree(tmp_path / "log")
    for read_only in (False, True):
        with pytest.raises(Corruption, match="not encrypted"):
            await walsvc.open(tmp_path / "log", keys=strict, read_only=read_only)
    assert tree(tmp_path / "log") == before
    found = await verify(tmp_path / "log", keys=strict)
    assert [type(error) for error in found.errors] == [Corruption]
    assert "not encrypted" in str(found.errors[0])


async def test_reader_in_another_process_is_told_which_key_it_needs_now(tmp_path):
    async with walsvc.open(tmp_path / "log", keys=FIRST, segment_bytes=65536) as log:
        await log.append(b"a")
        async with (
            walsvc.open(tmp_path / "log", keys=FIRST, read_only=True) as old,
            walsvc.open(tmp_path / "log", keys=BOTH, read_only=True) as new,
        ):
            assert await payloads(old) == await payloads(new) == [b"a"]
            await log.use_keys(BOTH)
            await log.append(b"b")
            with pytest.raises(walsvc.Closed, match="read_only"):
                await new.use_keys(BOTH)
            for _ in range(2):
                with pytest.raises(MissingKey, match="'two'"):
                    await old.refresh()
            assert old.next_lsn == 2
            assert await payloads(new) == [b"a", b"b"]


async def test_encrypted_files_are_recycled_among_each_other(tmp_path):
    path = tmp_path / "log"
    async with walsvc.open(path, segment_bytes=65536, keys=FIRST) as log:
        for _ in range(6):
            await asyncio.gather(*(log.append(SECRET_TEXT * 40) for _ in range(100)))
            await log.truncate_before(log.next_lsn - 20)
        await log.append_batch([b"x" * 700] * 200)
    assert any(decode_segment_header(file.read_bytes()).optional & 1 for file in path.glob("*.wal"))


# ---- sizes


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.one_of(st.integers(0, 40), st.integers(3900, 4200), st.integers(0, 70_000)), min_size=1, max_size=25),
    st.sampled_from([512, 4096]),
    st.sampled_from([1, 65_536]),
)
def test_records_of_every_size_fit_beside_the_tag_and_read_back(sizes, block_bytes, group_records):
    """Just fitting a segment, just not, larger than one, and nothing at all; with topics, whose seals grow."""

    async def scenario(_: int) -> None:
        device = SimDevice(1)
        config = WalConfig(
            segment_bytes=65536,
            block_bytes=block_bytes,
            max_group_records=group_records,
            max_group_bytes=4096,
            keys=FIRST,
        )
        log = await open_on(SimDisk(device, block_bytes=block_bytes), config)
        written = [hashlib.sha256(b"%d" % size).digest() * (size // 32 + 1) for size in sizes]
        written = [each[:size] for each, size in zip(written, sizes, strict=True)]
        await asyncio.gather(*(log.topic(f"t{len(each) % 5}").append(each) for each in written))
        await log.use_keys(BOTH)
        await log.append_batch(written)
        assert await payloads(log) == written * 2
        await log.close()
        log = await open_on(SimDisk(device, block_bytes=block_bytes), dataclasses.replace(config, keys=BOTH))
        assert log.report.clean
        assert await payloads(log) == written * 2
        await log.close()

    run_sim(scenario, 1)


def test_closed_group_and_the_limits_of_a_segment_count_the_tag():
    ring = KeyRing(ONE)
    header, cipher = begin_cipher(ring, SegmentHeader(4096, 65536, 1, 1, 1, 1, 0, 0, 4096))
    plain, encrypted = (Segment(header, 8192, each) for each in (None, cipher))
    for length, expected in ((3948, 4096), (3949, 8192)):  # header 128, index 4, tag 16
        group = Group(encrypted, 8192, 1)
        group.payloads.append(bytes(length))
        group.close()
        assert group.body.group_bytes == expected
    assert plain.limit - encrypted.limit == plain.meta_limit - encrypted.meta_limit == 16


async def test_tag_gets_a_block_of_its_own_where_the_group_would_just_fill_one(tmp_path):
    async with walsvc.open(tmp_path / "log", segment_bytes=65536, keys=FIRST, max_group_records=1) as log:
        written = [bytes([size % 251]) * size for size in range(3930, 3980)]
        await asyncio.gather(*map(log.append, written))
        assert await payloads(log) == written
    assert (await verify(tmp_path / "log", keys=FIRST)).clean


# ---- a full device


def used_bytes(device: SimDevice) -> int:
    """Bytes that the files take together."""
    return sum(device.file(name).visible_size for name in device.directory.names)


def test_log_opens_with_a_new_key_on_a_full_device_and_can_be_truncated() -> None:
    async def scenario(_: int) -> None:
        device = SimDevice(1)
        config = WalConfig(segment_bytes=65536, keys=FIRST)
        log = await open_on(SimDisk(device), config)
        await asyncio.gather(*(log.append(bytes(1000)) for _ in range(150)))
        await log.close()
        for name in [name for name in device.directory.names if name.endswith(".spare")]:
            device.directory.change({name: None})
        device.directory.sync()
        device.capacity = used_bytes(device)
        log = await open_on(SimDisk(device), dataclasses.replace(config, keys=BOTH))
        with pytest.raises(NoSpace):
            await log.append(b"x")
        await log.truncate_before(100)
        assert log.first_lsn == 100
        device.capacity = None
        result = await log.append(b"under the new key")
        assert result.lsn == 151
        assert log.writer.core.tail.segment.cipher.key_id == "two"
        assert len(await payloads(log)) == 52
        await log.close()

    run_sim(scenario, 1)


# ---- looking, copying, repairing


@pytest.fixture(name="closed")
async def fixture_closed(tmp_path) -> Path:
    return await make_closed(tmp_path)


async def make_closed(directory: Path) -> Path:
    """A log of 400 records under two keys, closed in order."""
    path = directory / "log"
    async with walsvc.open(path, segment_bytes=65536, keys=FIRST, max_group_records=5) as log:
        await asyncio.gather(*(log.append(b"%d " % number * 300) for number in range(1, 200)))
        await log.use_keys(BOTH)
        await asyncio.gather(*(log.append(b"%d " % number * 300) for number in range(200, 401)))
        await log.truncate_before(FIRST_VISIBLE)
    return path


async def expected_payloads(path: Path) -> list[bytes]:
    async with walsvc.open(path, keys=BOTH, read_only=True) as log:
        return await payloads(log)


def forge(path: Path) -> tuple[Path, int]:
    """Change ciphertext in the middle of the first segment, and make all CRCs right; returns file and group's LSN."""
    file = min(path.glob("*.wal"))
    data = bytearray(file.read_bytes())
    chain = Chain.begin(decode_segment_header(bytes(data)), bytes(data[:4096]), len(data))
    group: Any = None
    while not isinstance(group, GroupHeader) or not group.records or group.first_lsn < FORGED_FROM:
        group = chain.take(bytes(data), 0)
    data[group.offset + 130] ^= 1
    mend(data, group.offset)
    file.write_bytes(data)
    return file, group.first_lsn


def mend(data: bytearray, offset: int) -> None:
    """CRCs and chain from the group at `offset` on."""
    previous: bytes | None = None
    while data[offset : offset + 4] == b"wGRP":
        middle = offset + 128 + int.from_bytes(data[offset + 76 : offset + 80], "little")
        end = offset + int.from_bytes(data[offset + 88 : offset + 92], "little")
        if previous is not None:
            data[offset + 92 : offset + 96] = previous
        data[offset + 108 : offset + 112] = crc32c(bytes(data[offset + 128 : middle])).to_bytes(4, "little")
        data[offset + 112 : offset + 116] = crc32c(bytes(data[middle:end])).to_bytes(4, "little")
        previous = crc32c(bytes(data[offset : offset + 124])).to_bytes(4, "little")
        data[offset + 124 : offset + 128] = previous
        offset = end


async def test_verify_works_from_outside_and_with_keys_and_only_keys_find_forgery(closed):
    outside, inside = await verify(closed), await verify(closed, keys=BOTH)
    assert outside.clean
    assert inside.clean
    assert (outside.unopened, inside.unopened) == (outside.segments, 0)
    assert (outside.records, outside.groups, outside.next_lsn) == (inside.records, inside.groups, inside.next_lsn)
    assert (outside.first_lsn, inside.first_lsn) == (int(min(closed.glob("*.wal")).stem, 16), FIRST_VISIBLE)
    with pytest.raises(MissingKey):
        await verify(closed, keys=KeyRing(TWO))
    _, lsn = forge(closed)
    assert (await verify(closed)).clean
    found = await verify(closed, keys=BOTH)
    assert not found.clean
    assert any("authentication failed" in str(error) and error.lsn == lsn for error in found.errors)


async def test_damage_is_found_without_keys(closed):
    file = min(closed.glob("*.wal"))
    data = bytearray(file.read_bytes())
    data[9000] ^= 1
    file.write_bytes(data)
    found = await verify(closed)
    assert [type(error) for error in found.errors] == [Corruption]


@pytest.mark.parametrize("keys", [None, BOTH])
async def test_backup_with_and_without_keys_is_the_same_log(closed, tmp_path, keys):
    options = {} if keys is None else {"keys": keys}
    copied = await copy_log(closed, str(tmp_path / "copy"), sparse=True, **options)
    assert copied.next_lsn == 401
    assert await expected_payloads(tmp_path / "copy") == await expected_payloads(closed)
    assert await copy_log(tmp_path / "copy", str(tmp_path / "again"), sparse=False, **options) == copied
    async with walsvc.open(tmp_path / "again", keys=BOTH) as log:
        assert (await log.append(b"goes on")).lsn == 401
    with pytest.raises(MissingKey):
        await walsvc.open(tmp_path / "copy")


async def test_backup_with_keys_refuses_what_was_forged(closed, tmp_path):
    _, lsn = forge(closed)
    with pytest.raises(Corruption, match="authentication failed") as caught:
        await copy_log(closed, str(tmp_path / "copy"), sparse=True, keys=BOTH)
    assert caught.value.lsn == lsn
    assert not (tmp_path / "copy").exists()


def walsvc_command(*arguments: object, keys: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    environment = {} if keys is None else {"WALSVC_KEY_FILE": str(keys)}
    return run_walsvc(*arguments, stdin=b"a line\n", environment=environment)


def test_repair_of_a_forged_log_keeps_what_stands_before(tmp_path):
    closed = asyncio.run(make_closed(tmp_path))
    _, lsn = forge(closed)
    keys = key_file(tmp_path, TWO, ONE)
    done = walsvc_command("repair", closed, "--apply", "--json", "--key-file", keys)
    assert done.returncode == 0, done
    assert json.loads(done.stdout)["keep_to"] == lsn - 1
    kept = [b"%d " % number * 300 for number in range(1, lsn)]  # also what a lost mark had truncated
    assert asyncio.run(expected_payloads(closed)) == kept
    assert key_ids(closed)[-1] == "two"


def test_command_line_takes_keys_from_a_file_or_the_environment(tmp_path):
    path, keys = tmp_path / "log", key_file(tmp_path, ONE)
    assert walsvc_command("append", path, "--key-file", keys).stdout == b"1\n"
    assert walsvc_command("cat", path, keys=keys).stdout == b"a line\n"
    refused = walsvc_command("tail", path)
    assert refused.returncode == 12  # walsvc.cli.exits.KEY
    assert b"'one'" in refused.stderr
    assert b"--key-file" in refused.stderr
    assert b"KeyRing" not in refused.stderr
    outside = walsvc_command("verify", path)
    assert outside.returncode == 0
    assert b"checked from outside" in outside.stdout
    looked = json.loads(walsvc_command("inspect", path, "--json").stdout)
    assert [each["key_id"] for each in looked["segments"]] == ["one"]
    assert (looked["first_lsn"], looked["next_lsn"]) == (1, 2)
    inside = walsvc_command("verify", path, "--key-file", keys)
    assert inside.returncode == 0
    assert b"checked from outside" not in inside.stdout
    keys.chmod(0o644)
    told = walsvc_command("cat", path, "--key-file", keys)
    assert told.returncode == 2
    assert b"0644" in told.stderr
    assert b"chmod 600" in told.stderr


def test_plain_log_does_not_import_the_cryptography():
    program = (
        "import asyncio, sys, tempfile, walsvc\n"
        "async def main():\n"
        "    with tempfile.TemporaryDirectory() as path:\n"
        "        async with walsvc.open(path) as log:\n"
        "            await log.append(b'x')\n"
        "            assert [r.payload async for r in log.read()] == [b'x']\n"
        "asyncio.run(main())\n"
        "assert not [name for name in sys.modules if name.split('.')[0] == 'cryptography'], 'it was imported'\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


async def test_every_way_of_reading_gives_the_same_from_an_encrypted_log(tmp_path):
    """Large groups and many, so that readers step over some, begin in the middle, and seek by the rows in the seal."""
    async with walsvc.open(tmp_path / "log", segment_bytes=4 << 20, keys=FIRST, max_group_bytes=65536) as log:
        topics = [log.topic(name) for name in ("a", "b")]
        for number in range(30):
            small = [topics[each % 2].append(b"%d %d" % (number, each), attributes={"n": number}) for each in range(20)]
            await asyncio.gather(*small, *(log.append(bytes([each]) * 10_000, type=7) for each in range(20)))
        whole = [record async for record in log.read()]
        assert [record async for records in log.read_batches() for record in records] == whole
        for topic in topics:
            expected = [record for record in whole if record.topic == topic.name]
            assert [record async for record in topic.read()] == expected
            assert await topic.count() == len(expected) == 300
        labelled = [record async for record in log.read(where={"n": 17})]
        assert labelled == [record for record in whole if record.attributes.get("n") == 17]
        for start in (1, 400, 1000, 1200):
            assert [record async for record in log.read(start)] == whole[start - 1 :]
        lazy = [(record.lsn, await record.payload()) async for record in log.read_lazy(600, 700)]
        assert lazy == [(record.lsn, record.payload) for record in whole[599:699]]
    async with walsvc.open(tmp_path / "log", keys=FIRST, read_only=True) as log:
        assert [record async for record in log.read(900)] == whole[899:]


async def test_forged_header_does_not_let_a_filtering_reader_step_over_a_group(tmp_path):
    """Without their flag of topics plain groups would be passed over unread; headers of encrypted ones prove nothing. All from
    the second record on are forged, so that no group behind them gives it away."""
    path = tmp_path / "log"
    async with walsvc.open(path, keys=FIRST, max_group_records=1) as log:
        for _ in range(8):
            await log.topic("t").append(os.urandom(300_000))
    file = min(path.glob("*.wal"))
    data = bytearray(file.read_bytes())
    chain = Chain.begin(decode_segment_header(bytes(data)), bytes(data[:4096]), len(data))
    forged = 0
    group: Any
    while (group := chain.take(bytes(data), 0)).records or not forged:
        if group.first_lsn >= 2 and group.records:
            data[group.offset + 4 : group.offset + 8] = (group.flags & ~Flag.TOPICS).to_bytes(4, "little")
            forged = forged or group.offset
    mend(data, forged)
    file.write_bytes(data)
    async with walsvc.open(path, keys=FIRST, read_only=True) as log:
        with pytest.raises(Corruption, match="authentication failed"):
            await payloads(log.topic("t"))


async def test_wrong_option_names_the_kind_and_not_the_value(tmp_path):
    with pytest.raises(BadOption, match="not bytes") as caught:
        walsvc.open(tmp_path / "log", keys=b"k" * 32)
    assert "kkk" not in str(caught.value)
    assert not (tmp_path / "log").exists()
