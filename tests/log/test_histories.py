"""A segment of another history of the log: from a backup of it, or from another copy of it that went on by itself."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import walsvc
from walsvc.disk.choose import open_disk
from walsvc.errors import Corruption
from walsvc.format.chain import Chain
from walsvc.format.group import BadGroup, GroupHeader, crc32c
from walsvc.format.segment import SEGMENT_HEADER_BYTES, decode_segment_header, encode_segment_header, segment_name
from walsvc.log.offline.backup import copy_log
from walsvc.log.offline.repair import apply_repair, plan_repair
from walsvc.log.offline.verify import verify

OPTIONS = {"segment_bytes": 64 * 1024, "disk": "threads", "block_bytes": 512}
KEYS = walsvc.KeyRing(current=("k1", bytes(range(32))))


def files(path: Path) -> list[Path]:
    """The segments, oldest first."""
    return sorted(path.glob("*.wal"))


async def fill(log: walsvc.Log, count: int, mark: str) -> None:
    """Append records of half a KiB, 125 or so to a segment."""
    for first in range(0, count, 25):
        await log.append_batch([f"{mark} {first + at}".encode().ljust(480, b".") for at in range(25)])


async def read_all(path: Path, **options: object) -> list[bytes]:
    async with walsvc.open(path, read_only=True, **OPTIONS, **options) as log:
        return [record.payload async for record in log.read()]


async def refused(path: Path, swapped: str, **options: object) -> None:
    """The log is refused by `verify` and by whoever reads across the boundary, and at opening where it is the newest one."""
    verdict = await verify(path, **options)
    assert verdict.errors, f"{swapped}: verify finds nothing"
    assert all(isinstance(each, Corruption) for each in verdict.errors)
    names = [each.name for each in files(path)]
    told = next(each for each in verdict.errors if "histor" in each.message or "older" in each.message)
    assert told.lsn
    assert told.segment
    place = names.index(segment_name(told.segment))
    assert names[place] in told.message
    assert names[place - 1] in told.message
    assert told.hint
    assert "walsvc repair" in told.hint
    with pytest.raises(Corruption):
        await read_all(path, **options)
    if swapped in names[-2:]:
        before = {each.name: each.read_bytes() for each in files(path)}
        for read_only in (True, False):
            with pytest.raises(Corruption):
                await walsvc.open(path, read_only=read_only, **OPTIONS, **options)
        assert before == {each.name: each.read_bytes() for each in files(path)}


async def cut_and_went_on(tmp_path: Path, **options: object) -> tuple[Path, Path]:
    """A log that was cut and went on, and a backup from before. Both have segments of the same names."""
    path, backup = tmp_path / "log", tmp_path / "backup"
    async with walsvc.open(path, **OPTIONS, **options) as log:
        await fill(log, 1000, "old")
    await copy_log(path, str(backup), sparse=True)
    cut = int(files(path)[2].stem, 16) - 1  # where a segment ends, so that what follows is cut into segments as before
    async with walsvc.open(path, **OPTIONS, **options) as log:
        await log.truncate_after(cut)
        await fill(log, 1200 - cut, "new")
    return path, backup


@pytest.mark.parametrize("keys", [None, KEYS], ids=["plain", "encrypted"])
async def test_a_segment_of_a_backup_from_before_a_cut_is_refused(tmp_path: Path, keys: walsvc.KeyRing | None) -> None:
    options = {} if keys is None else {"keys": keys}
    path, backup = await cut_and_went_on(tmp_path, **options)
    assert (await verify(path, **options)).unbound == 0
    right = await read_all(path, **options)
    assert len(right) == 1200
    same = put_back = 0
    for old in files(backup):
        here = path / old.name
        kept = here.read_bytes() if here.exists() else None
        if kept is not None and kept[: 40 * 1024] == old.read_bytes()[: 40 * 1024]:
            same += 1  # from before the cut: it is the same segment
            continue
        shutil.copy(old, here)
        await refused(path, old.name, **options)
        put_back += 1
        here.unlink()
        if kept is not None:
            here.write_bytes(kept)
    assert put_back >= 5
    assert same >= 1
    assert await read_all(path, **options) == right


async def two_copies(tmp_path: Path) -> tuple[Path, Path]:
    """Two copies of one log that both went on, with records of the same lengths: their segments have the same names."""
    one, other = tmp_path / "log", tmp_path / "other"
    async with walsvc.open(one, **OPTIONS) as log:
        await fill(log, 300, "both")
    shutil.copytree(one, other)
    for path, mark in ((one, "one"), (other, "two")):
        async with walsvc.open(path, **OPTIONS) as log:
            await fill(log, 700, mark)
    assert [each.name for each in files(one)] == [each.name for each in files(other)]
    return one, other


async def test_a_segment_of_another_copy_of_the_log_is_refused(tmp_path: Path) -> None:
    one, other = await two_copies(tmp_path)
    right, swapped = await read_all(one), 0
    for theirs in files(other):
        ours = one / theirs.name
        kept = ours.read_bytes()
        if b"two " not in theirs.read_bytes():
            continue  # it has the same records
        shutil.copy(theirs, ours)
        await refused(one, theirs.name)
        with pytest.raises(Corruption):
            await copy_log(one, str(tmp_path / "copy"), sparse=True)
        assert not (tmp_path / "copy").exists()
        ours.write_bytes(kept)
        swapped += 1
    assert swapped >= 4
    assert await read_all(one) == right


def header_of(path: Path) -> walsvc.format.segment.SegmentHeader:
    return decode_segment_header(path.read_bytes()[:SEGMENT_HEADER_BYTES])


async def test_repair_keeps_the_history_before_the_segment_that_does_not_belong_there(tmp_path: Path) -> None:
    one, other = await two_copies(tmp_path)
    place = 4
    shutil.copy(files(other)[place], files(one)[place])
    config = walsvc.WalConfig(disk="threads", direct=False)
    disk = await open_disk(one, config=config, loop=asyncio.get_running_loop(), exclusive=True)
    plan = await plan_repair(disk)
    assert plan.reasons
    assert plan.keep_to == header_of(files(one)[place]).first_lsn - 1
    await apply_repair(disk, plan, 64 * 1024)
    await disk.close()
    verdict = await verify(one)
    assert not verdict.errors
    assert verdict.unbound == 0
    async with walsvc.open(one, **OPTIONS) as log:
        assert log.next_lsn == plan.keep_to + 1
        await fill(log, 300, "on")
    assert not (await verify(one)).errors
    shutil.copy(files(other)[place], files(one)[place])
    await refused(one, files(one)[place].name)


async def compacted(path: Path) -> None:
    """A log whose sealed segments were all rewritten, some of them twice."""
    async with walsvc.open(path, **OPTIONS) as log:
        for number in range(600):
            key = f"user-{number % 7}"
            await log.append_batch(
                [b"%d" % number + bytes(400)], attributes={"key": key}
            ) if False else await log.append(b"%d" % number + bytes(400), attributes={"key": key})
        await log.purge("user-3")
        await log.compact()
        await log.purge("user-5", before=300)
        await log.compact()


async def test_compacted_segments_keep_what_their_successors_name(tmp_path: Path) -> None:
    path = tmp_path / "log"
    await compacted(path)
    assert header_of(files(path)[1]).seal_at
    verdict = await verify(path)
    assert not verdict.errors
    assert verdict.unbound == 0
    backup = tmp_path / "backup"
    await copy_log(path, str(backup), sparse=True)
    async with walsvc.open(path, **OPTIONS) as log:
        await log.truncate_after(180)  # inside a segment that was compacted
        await fill(log, 400, "new")
        await log.purge("user-1")
        await log.compact()  # also the one that holds the cut, once more
    verdict = await verify(path)
    assert not verdict.errors
    assert verdict.unbound == 0
    assert await read_all(path)
    swapped = 0
    for old in files(backup):
        if header_of(old).first_lsn <= 180:
            continue
        swapped += 1
        here = path / old.name
        kept = here.read_bytes() if here.exists() else None
        shutil.copy(old, here)
        assert (await verify(path)).errors, old.name
        here.unlink()
        if kept is not None:
            here.write_bytes(kept)
    assert swapped >= 2


async def test_a_new_key_and_a_closed_log_are_bound_to_what_was_before(tmp_path: Path) -> None:
    path, older = tmp_path / "log", walsvc.KeyRing(current=("k0", bytes(32)))
    async with walsvc.open(path, keys=older, **OPTIONS) as log:
        await fill(log, 50, "k0")
        await log.hold("a", 7)  # metadata behind the last record of the segment
        await log.use_keys(walsvc.KeyRing(current=("k1", bytes(range(32))), older=[("k0", bytes(32))]))
        await log.hold("b", 8)
        await fill(log, 50, "k1")
    assert len(files(path)) == 2
    verdict = await verify(path)
    assert not verdict.errors
    assert verdict.unbound == 0
    shutil.copytree(path, tmp_path / "other")
    ring = walsvc.KeyRing(current=("k1", bytes(range(32))), older=[("k0", bytes(32))])
    async with walsvc.open(tmp_path / "other", keys=ring, **OPTIONS) as log:
        assert log.holds() == {"a": 7, "b": 8}


async def test_the_log_of_an_older_walsvc_is_readable_and_verify_says_what_it_does_not_know(tmp_path: Path) -> None:
    golden = Path(__file__).parents[1] / "golden" / "v1"
    shutil.copytree(golden, tmp_path / "log")
    verdict = await verify(tmp_path / "log")
    assert not verdict.errors
    assert verdict.unbound == verdict.segments - 1 > 0


def as_older(data: bytes) -> bytes:
    """A segment's file as walsvc 0.1.0 would have written it: it names nothing, and its chain of CRCs is right."""
    header = decode_segment_header(data[:SEGMENT_HEADER_BYTES])
    out = bytearray(data)
    chain = Chain.begin(header, data[:SEGMENT_HEADER_BYTES], len(data))
    out[:SEGMENT_HEADER_BYTES] = encode_segment_header(header._replace(before=0, before_at=0))
    crc = int.from_bytes(out[SEGMENT_HEADER_BYTES - 4 : SEGMENT_HEADER_BYTES], "little")
    while True:
        try:
            group = chain.take(data, 0)
        except BadGroup:
            return bytes(out)
        assert isinstance(group, GroupHeader)
        fields = bytearray(data[group.offset : group.offset + 124])
        fields[92:96], fields[116:124] = crc.to_bytes(4, "little"), bytes(8)
        crc = crc32c(bytes(fields))
        out[group.offset : group.offset + 128] = bytes(fields) + crc.to_bytes(4, "little")


async def test_segments_of_an_older_walsvc_whose_generation_falls_are_refused(tmp_path: Path) -> None:
    path, backup = await cut_and_went_on(tmp_path)
    for each in (*files(path), *files(backup)):
        each.write_bytes(as_older(each.read_bytes()))
    verdict = await verify(path)
    assert not verdict.errors
    assert verdict.unbound == verdict.segments - 1
    right = await read_all(path)
    place = 4
    kept = files(path)[place].read_bytes()
    assert files(path)[place].name == files(backup)[place].name
    shutil.copy(files(backup)[place], files(path)[place])
    await refused(path, files(path)[place].name)
    files(path)[place].write_bytes(kept)
    assert await read_all(path) == right
    last = min(len(files(path)), len(files(backup))) - 1
    for each in files(path)[last + 1 :]:
        each.unlink()
    shutil.copy(files(backup)[last], files(path)[last])
    await refused(path, files(path)[last].name)


def names_what_is_before(data: bytes) -> int:
    """Check that each group of a segment names the last one with records before it; returns how many there are."""
    chain, groups = Chain.begin(decode_segment_header(data[:SEGMENT_HEADER_BYTES]), data[:4096], len(data)), 0
    while True:
        last_crc = chain.last_crc
        try:
            group = chain.take(data, 0)
        except BadGroup:
            return groups
        assert isinstance(group, GroupHeader)
        assert group.last_crc == last_crc, f"group {groups}"
        groups += 1


async def test_a_batch_that_is_given_up_is_not_what_the_next_segment_follows(tmp_path: Path) -> None:
    path = tmp_path / "log"

    def endless() -> Iterator[bytes]:
        for _ in range(400):
            yield bytes(500)
        raise EOFError

    async with walsvc.open(path, max_group_bytes=4096, **OPTIONS) as log:
        await fill(log, 25, "a")
        with pytest.raises(EOFError):
            await log.append_batch(endless())  # over some segments, which go again
        assert len(files(path)) == 1
        await log.use_keys(KEYS)  # a new segment right behind it
        await fill(log, 25, "b")
    assert len(files(path)) == 2
    verdict = await verify(path, keys=KEYS)
    assert not verdict.errors
    assert verdict.unbound == 0
    for each in files(path):
        assert names_what_is_before(each.read_bytes()) > 3
