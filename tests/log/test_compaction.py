"""Compaction: what goes, what stays, and who reads meanwhile."""

from __future__ import annotations

import asyncio
import os
import shutil
from typing import Any

import pytest

import walsvc
from tests.topics.conftest import lsns, opener_on
from walsvc import Corruption, KeyRing, NoSpace, WalConfig
from walsvc.disk.choose import open_disk
from walsvc.disk.sim import SimDevice, SimDisk
from walsvc.format.group import Flag
from walsvc.log.offline import backup
from walsvc.log.offline.backup import copy_log
from walsvc.log.offline.inspect import survey
from walsvc.log.offline.repair import apply_repair, plan_repair
from walsvc.log.offline.verify import verify
from walsvc.model import ReadStats
from walsvc.opening import open_on

CONFIG = WalConfig(segment_bytes=65536)


@pytest.fixture(params=["sim", "threads"])
def open_log(request, tmp_path):
    return opener_on(request.param, tmp_path)


def fast(device: SimDevice, **options: Any) -> SimDisk:
    """A disk that answers at once: these tests have thousands of operations and look at none of their times."""
    return SimDisk(device, latency=0.0, **options)


async def write(log, count: int, *, size: int = 3000, keys: int = 3, group: int = 1) -> None:
    """`count` records of two topics and of none, with keys k0, k1, ... in turn, `group` of them at once."""
    places = [log, log.topic("a"), log.topic("b")]
    for start in range(0, count, group):
        await asyncio.gather(
            *(
                places[n % 3].append(
                    b"%d " % n * (size // 3), type=n % 5, attributes={"key": f"k{n // 3 % keys}", "n": n}
                )
                for n in range(start, min(start + group, count))
            )
        )


async def everything(log) -> list[object]:
    """All that a reader can see."""
    records = [record async for record in log.read()]
    topics = {name: [record async for record in log.topic(name).read()] for name in log.topics()}
    counts = {name: await log.topic(name).count() for name in log.topics()}
    lasts = {name: await log.topic(name).last_lsn() for name in log.topics()}
    return [records, topics, counts, lasts, log.first_lsn, log.next_lsn]


def file_bytes(log) -> int:
    """Bytes of all segments, by the names on the disk."""
    if isinstance(log.writer.segments.disk, SimDisk):
        device = log.writer.segments.disk.device
        return sum(device.file(name).visible_size for name in device.directory.names if name.endswith(".wal"))
    return sum(os.stat(os.path.join(log.path, name)).st_size for name in os.listdir(log.path) if name.endswith(".wal"))


@pytest.mark.parametrize("group", [1, 7])
async def test_compaction_frees_what_was_purged_and_changes_nothing_visible(open_log, group):
    async with open_log() as log:
        await write(log, 150, group=group)
        await log.purge("k1")
        await log.topic("a").purge("k2", before=100)
        before, size = await everything(log), file_bytes(log)
        seen: list[tuple[int, int, int]] = []
        freed = await log.compact(lambda *progress: seen.append(progress))
        assert freed == size - file_bytes(log) == seen[-1][2]
        assert freed > 150 * 3000 // 3, "what a third of the records held"
        assert [done for done, _, _ in seen] == list(range(1, len(log.writer.segments.ids())))
        assert log.retention().bytes == file_bytes(log)
        assert await everything(log) == before
        assert await log.compact() == 0
    async with open_log() as log:
        assert log.report.clean
        assert await everything(log) == before
        await write(log, 30)
        assert len(await lsns(log.read())) == len(before[0]) + 30
    async with open_log(read_only=True) as log:
        assert len(await lsns(log.read())) == len(before[0]) + 30


async def test_compacting_again_drops_more(open_log):
    async with open_log() as log:
        await write(log, 150, group=5)
        sizes = []
        for key in ("k0", "k1", "k2"):
            await log.purge(key)
            before = await everything(log)
            await log.compact()
            sizes.append(file_bytes(log))
            assert await everything(log) == before
        assert sizes[0] > sizes[1] > sizes[2]
        assert before[0] == []
        assert log.next_lsn == 151
    async with open_log() as log:
        assert await everything(log) == before
        assert (await log.append(b"more")).lsn == 151


async def test_marks_go_when_nothing_is_left_that_they_could_hide(open_log):
    async with open_log() as log:
        await write(log, 60, group=5)
        await log.purge("k0", before=20)
        await log.purge("k1")
        await log.compact()
        assert list(log.writer.core.metadata.purges.values()) == [61], "the active segment still holds some of k1"
        before = await everything(log)
        await write(log, 60, group=5)
        await log.compact()
        assert log.writer.core.metadata.purges == {}
        assert (await everything(log))[0][: len(before[0])] == before[0]
    async with open_log() as log:
        assert log.writer.core.metadata.purges == {}
        assert (await everything(log))[0][: len(before[0])] == before[0]


async def test_verify_inspect_backup_and_restore_know_compacted_segments(tmp_path):
    async with walsvc.open(tmp_path / "log", config=CONFIG) as log:
        await write(log, 100, group=3)
        await log.purge("k1")
        await log.compact()
        before = await everything(log)
    verdict = await verify(tmp_path / "log")
    assert verdict.clean, verdict.findings
    assert verdict.records == 100
    flags: list[int] = []
    walks = (await survey(tmp_path / "log", lambda header: flags.append(header.flags))).segments
    assert all(each.sealed and each.error is None for each in walks[:-1])
    assert any(each & Flag.DROPPED for each in flags)
    await copy_log(tmp_path / "log", tmp_path / "copy", sparse=True)
    for name in ("log", "copy"):
        async with walsvc.open(tmp_path / name, config=CONFIG) as log:
            assert await everything(log) == before


async def test_backup_beside_the_compaction_of_what_was_the_last_segment_begins_again(tmp_path, monkeypatch):
    copy_segments, calls = backup.copy_segments, []
    async with walsvc.open(tmp_path / "log", config=CONFIG) as log:
        await write(log, 60, group=3)

        async def copy_later(*arguments, **options):
            if not calls:
                await write(log, 60, group=3)
                await log.purge("k1")
                assert await log.compact() > 0
            calls.append(arguments[1].names)
            return await copy_segments(*arguments, **options)

        monkeypatch.setattr(backup, "copy_segments", copy_later)
        await copy_log(tmp_path / "log", tmp_path / "copy", sparse=True)
        before = await everything(log)
    assert len(calls) == 2
    async with walsvc.open(tmp_path / "copy", config=CONFIG) as log:
        assert await everything(log) == before


async def test_summaries_are_found_in_compacted_segments():
    device = SimDevice(1)
    log = await open_on(fast(device), CONFIG)
    await write(log, 100)
    await log.purge("k1")
    await log.topic("rare").append(b"needle")
    await log.compact()
    await log.close()
    log = await open_on(fast(device), CONFIG)
    cost = ReadStats()
    assert [record.payload async for record in log.read(topic="rare", stats=cost)] == [b"needle"]
    assert cost.segments_passed >= len(log.writer.segments.ids()) - 2
    assert cost.groups_read == 1
    await log.close()


async def test_readers_beside_a_compaction_see_all_and_no_damage():
    """Cursors of the writer's process and of another one stand in the middle of segments when their files are replaced."""
    device = SimDevice(2)
    log = await open_on(fast(device), WalConfig(segment_bytes=1 << 20))  # larger than what is read ahead
    await write(log, 160, size=24_000, group=4)
    other = await open_on(fast(device, lock=False), WalConfig(read_only=True))
    wanted = [record async for record in log.read() if record.attributes["key"] != "k1"]
    readers = [log.read(), other.read(), log.topic("a").read(), other.follow()]
    got = [[await anext(reader) for _ in range(5 * number)] for number, reader in enumerate(readers, 1)]
    await log.purge("k1")
    await log.compact()
    for reader, seen in zip(readers[:3], got[:3], strict=True):
        seen += [record async for record in reader]
    while got[3][-1].lsn < wanted[-1].lsn:
        got[3].append(await anext(readers[3]))
    await readers[3].aclose()
    for seen, topic in zip(got, (None, None, "a", None), strict=True):
        expected = [record for record in wanted if topic is None or record.topic == topic]
        assert [record for record in seen if record.attributes["key"] != "k1"] == expected
    await other.close()
    await log.close()


async def test_reading_all_the_time_while_segments_are_replaced(tmp_path):
    """Real files, real threads: nobody ever meets damage, in this process or beside it."""
    async with walsvc.open(tmp_path / "log", config=CONFIG) as log, asyncio.timeout(60):
        await write(log, 160, size=2000, keys=5, group=2)
        ended = asyncio.Event()

        async def read_on(reader) -> int:
            rounds = 0
            while not ended.is_set() or rounds == 0:
                seen = [record async for record in reader.read()]
                assert {record.attributes["key"] for record in seen} <= {f"k{n}" for n in range(5)}
                assert [record.lsn for record in seen if record.attributes["key"] == "k4"] == last
                rounds += 1
            return rounds

        last = [record.lsn async for record in log.read() if record.attributes["key"] == "k4"]
        async with walsvc.open(tmp_path / "log", read_only=True) as other:
            reading = [asyncio.ensure_future(read_on(reader)) for reader in (log, other, log)]
            for number in range(4):
                await log.purge(f"k{number}")
                await log.compact()
            ended.set()
            assert all(await asyncio.gather(*reading))
            await other.refresh()
            assert await lsns(other.read()) == last == await lsns(log.read())


async def test_reader_of_another_process_whose_last_segment_was_compacted_goes_on():
    device = SimDevice(3)
    log = await open_on(fast(device), CONFIG)
    await write(log, 10, group=5)
    other = await open_on(fast(device, lock=False), WalConfig(read_only=True))
    await write(log, 100, group=5)
    await log.purge("k0")
    await log.compact()
    assert await lsns(other.read()) == await lsns(log.read())
    assert other.next_lsn == log.next_lsn
    await other.close()
    await log.close()


async def test_damaged_segment_is_told_and_left_alone():
    device = SimDevice(4)
    log = await open_on(fast(device), CONFIG)
    await write(log, 100)
    await log.purge("k1")
    name = log.writer.segments.file(log.writer.segments.ids()[2])[0]
    device.flip(name, 20_000, 3)
    before = {name: device.file(name).read(0, 1 << 20, lambda: True) for name in device.directory.names}
    with pytest.raises(Corruption) as caught:
        await log.compact()
    assert caught.value.segment == log.writer.segments.ids()[2]
    assert device.file(name).read(0, 1 << 20, lambda: True) == before[name]
    assert not [name for name in device.directory.names if name.endswith(".rewrite")]
    assert (await log.append(b"going on")).lsn == 101
    await log.close()


async def test_repair_behind_a_compacted_segment_leaves_a_log_that_opens(tmp_path):
    async with walsvc.open(tmp_path, config=CONFIG) as log:
        await write(log, 100)
        await log.purge("k1")
        await log.compact()
        before, ids = [record async for record in log.read()], list(log.writer.segments.ids())
    path = tmp_path / f"{ids[-1]:016x}.wal"
    data = bytearray(path.read_bytes())
    data[4096 + 200] ^= 1
    path.write_bytes(data)
    disk = await open_disk(tmp_path, config=WalConfig(), loop=asyncio.get_running_loop(), exclusive=True)
    plan = await plan_repair(disk)
    assert plan.keep_to == ids[-1] - 1
    await apply_repair(disk, plan, 65536)
    await disk.close()
    async with walsvc.open(tmp_path, config=CONFIG) as log:
        assert [record async for record in log.read()] == [record for record in before if record.lsn < ids[-1]]
        assert (await log.append(b"more", attributes={"key": "k1"})).lsn == ids[-1]
        assert [record.lsn async for record in log.read(start=ids[-1])] == [ids[-1]], "the mark was lowered"


async def test_full_device_is_told_and_the_log_goes_on():
    device = SimDevice(5)
    log = await open_on(fast(device), CONFIG)
    await write(log, 60)
    await log.purge("k1")
    before = await everything(log)
    device.capacity = sum(device.file(name).visible_size for name in device.directory.names) + 4096
    with pytest.raises(NoSpace, match="rewrite"):
        await log.compact()
    assert await everything(log) == before
    device.capacity = None
    assert await log.compact() > 0
    assert await everything(log) == before
    await log.close()


@pytest.mark.parametrize("operation", ["allocate", "allocate.write", "write.sync", "read", "list"])
async def test_failing_device_costs_the_new_file_only(operation):
    device = SimDevice(6)
    log = await open_on(fast(device), CONFIG)
    await write(log, 60)
    await log.purge("k1")
    before = await everything(log)
    await log.flush()
    device.fail(operation)
    with pytest.raises(walsvc.PathError) as caught:
        await log.compact()
    assert caught.value.errno == 5
    assert await everything(log) == before
    assert await log.compact() > 0
    assert await everything(log) == before
    await log.close()


async def test_what_an_interrupted_compaction_left_is_removed_by_the_next_opening():
    device = SimDevice(7)
    log = await open_on(fast(device), CONFIG)
    await write(log, 30)
    await log.close()
    disk = fast(device)
    await disk.allocate("0000000000000001.rewrite", 4096)
    await disk.close()
    other = await open_on(fast(device, lock=False), WalConfig(read_only=True))
    assert len(await lsns(other.read())) == 30
    await other.close()
    assert "0000000000000001.rewrite" in device.directory.names
    log = await open_on(fast(device), CONFIG)
    assert "0000000000000001.rewrite" not in device.directory.names
    await log.close()


@pytest.mark.parametrize("where", ["before", "after"])
async def test_both_truncations_work_on_compacted_segments(open_log, where):
    async with open_log() as log:
        await write(log, 100, group=3)
        await log.purge("k1")
        await log.compact()
        before = [record.lsn async for record in log.read()]
        if where == "before":
            await log.truncate_before(50)
            assert await lsns(log.read()) == [lsn for lsn in before if lsn >= 50]
        else:
            await log.truncate_after(50)
            assert await lsns(log.read()) == [lsn for lsn in before if lsn <= 50]
            assert (await log.append(b"new", attributes={"key": "k1"})).lsn == 51
        expected = await everything(log)
        await log.compact()
        assert await everything(log) == expected
    async with open_log() as log:
        assert await everything(log) == expected


async def test_batches_over_several_groups_stay_whole():
    config = WalConfig(segment_bytes=65536, max_group_bytes=8192)
    device = SimDevice(8)
    log = await open_on(fast(device), config)
    await write(log, 20)
    await log.append_batch([b"%d" % number * 2000 for number in range(60)])
    await write(log, 40)
    await log.purge("k1")
    before = await everything(log)
    await log.compact()
    assert await everything(log) == before
    await log.close()
    log = await open_on(fast(device), config)
    assert await everything(log) == before
    await log.close()


async def test_cancelled_compaction_leaves_whole_segments_and_a_log_that_works(open_log):
    async with open_log() as log:
        await write(log, 150)
        await log.purge("k1")
        before = await everything(log)
        begun = asyncio.Event()
        task = asyncio.ensure_future(log.compact(lambda *_: begun.set()))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await everything(log) == before
        await log.append(b"x")
        await log.compact()
        assert (await everything(log))[0][:-1] == before[0]


async def test_closing_waits_for_the_segment_at_hand(open_log):
    async with open_log() as log:
        await write(log, 150)
        await log.purge("k1")
        before = await everything(log)
        begun = asyncio.Event()
        task = asyncio.ensure_future(log.compact(lambda *_: begun.set()))
        await begun.wait()
        await log.close()
        with pytest.raises(walsvc.Closed):
            await task
    async with open_log() as log:
        assert log.report.clean
        assert await everything(log) == before


async def test_encrypted_segments_are_rewritten_under_the_current_key():
    old, new = ("k1", bytes(range(32))), ("k2", bytes(range(1, 33)))
    device = SimDevice(9)
    log = await open_on(fast(device), WalConfig(segment_bytes=65536, keys=KeyRing(old)))
    await write(log, 60)
    await log.close()
    both = WalConfig(segment_bytes=65536, keys=KeyRing(new, [old]))
    log = await open_on(fast(device), both)
    await write(log, 60)
    await log.purge("k0")
    await log.purge("k1")
    await log.purge("k2")
    before = await everything(log)
    assert await log.compact() > 0
    assert await everything(log) == before
    await log.close()
    # every segment held some of them, so every one but the active is under the new key now
    log = await open_on(fast(device), WalConfig(segment_bytes=65536, keys=KeyRing(new)))
    assert await everything(log) == before
    await log.close()


async def test_payloads_are_really_gone(tmp_path):
    async with walsvc.open(tmp_path / "log", config=CONFIG) as log:
        for number in range(60):
            secret = b"SECRET" if number % 2 else b"public"
            await log.append(
                secret * 300, attributes={"key": "s" if number % 2 else "p", "who": f"person-{number % 2}"}
            )
        await write(log, 30)
        await log.purge("s")
        await log.compact()
        await write(log, 40)
        await log.compact()
        names = sorted(path for path in (tmp_path / "log").iterdir() if path.suffix == ".wal")
        assert not [path for path in names if b"SECRET" in path.read_bytes()]
        assert not [path for path in names if b"person-1" in path.read_bytes()]
        assert [path for path in names if b"person-0" in path.read_bytes()]
    shutil.rmtree(tmp_path / "log")
