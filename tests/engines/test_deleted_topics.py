"""Topics that are deleted, in copies of the log: a replica, an archive, a backup, and the log itself in JetStream."""

from __future__ import annotations

from typing import Any

import pytest

import walsvc
from tests.engines.replicas import held, opening, records, records_in, replica_url, replicated
from walsvc.disk.sim import SimDevice, SimDisk
from walsvc.engines.archive import Archive
from walsvc.engines.archive.restore import restore
from walsvc.engines.replication.restore import restore_replica
from walsvc.log.offline.backup import copy_log
from walsvc.log.offline.verify import verify
from walsvc.opening import open_on


@pytest.fixture
def url(cluster, stream):
    return replica_url(cluster, stream)


async def fill(log: Any, segments: int = 1) -> None:
    """Records of topics a and b and of none, until so many segments more have begun."""
    for _ in range(segments):
        before = log.stats().segment_id
        while log.stats().segment_id == before:
            await log.topic("a").append(b"a" * 3000)
            await log.topic("b").append(b"b" * 500)
            await log.append(b"n" * 100)


async def tell(log: Any) -> dict[str, Any]:
    """What a log says of its topics."""
    return {name: (await log.topic(name).count(), await log.topic(name).last_lsn()) for name in log.topics()}


async def told_in(path: Any) -> dict[str, Any]:
    async with walsvc.open(path, read_only=True) as log:
        return await tell(log)


async def test_replica_hides_them_whatever_was_compacted_where(tmp_path, url):
    async with opening(tmp_path / "log", url) as log:
        await fill(log, 2)
        await held(log)
        await log.delete_topic("a")
        await log.topic("a").append(b"new")
        await replicated(log)
        await restore_replica(url, str(tmp_path / "first"))
        expected, topics = await records(log), await tell(log)
        assert topics.keys() == {"a", "b"}
        assert topics["a"][0] == 1
        await held(log)
        assert await log.compact() > 0
        await fill(log)
        await replicated(log)
        await restore_replica(url, str(tmp_path / "second"))
        assert await records_in(tmp_path / "second") == await records(log)
        assert await told_in(tmp_path / "second") == await tell(log)
    assert await records_in(tmp_path / "first") == expected
    assert await told_in(tmp_path / "first") == topics
    async with opening(tmp_path / "first", None) as back:
        await back.delete_topic("a")
        assert (await back.topic("a").append(b"again", expected=0)).lsn == back.next_lsn - 1
        assert {record.topic for record in await records(back)} == {"a", "b", None}


async def test_archive_restored_to_before_and_behind_the_deletion(tmp_path):
    pytest.importorskip("obstore", reason="the archive needs obstore (walsvc[archive])")
    archive = Archive.at(f"file://{tmp_path / 'archive'}")
    async with opening(tmp_path / "log", None) as log:
        await fill(log, 2)
        whole, before = await records(log), log.writer.segments.ids()[-1]
        topics = await tell(log)
        await fill(log)
        await log.delete_topic("a")
        await fill(log, 2)
        await archive.push(log)
        expected = await records(log, None, log.writer.segments.ids()[-1])
    await restore(archive, str(tmp_path / "behind"))
    assert await records_in(tmp_path / "behind") == expected
    await restore(archive, str(tmp_path / "before"), lsn=before - 1)
    found = await records_in(tmp_path / "before")
    assert found == whole[: len(found)]
    assert found[-1].lsn == before - 1
    assert (await told_in(tmp_path / "before")).keys() == topics.keys(), "it was there at that time"


async def test_backup_of_a_log_that_is_written_has_what_is_hidden_hidden(tmp_path):
    async with opening(tmp_path / "log", None) as log:
        await fill(log, 2)
        await log.delete_topic("a")
        await log.topic("c").append(b"c")
        await copy_log(tmp_path / "log", str(tmp_path / "copy"), sparse=True)
        expected, topics = await records(log), await tell(log)
        assert topics.keys() == {"b", "c"}
    for path in (tmp_path / "log", tmp_path / "copy"):
        assert await records_in(path) == expected
        assert await told_in(path) == topics
        assert not [each for each in (await verify(path)).findings if each.fatal]
    async with walsvc.open(tmp_path / "copy") as copy:
        assert (await copy.topic("a").append(b"x", expected=0)).durable


async def test_reader_in_another_process_sees_it_with_its_next_look():
    device = SimDevice(5)
    log = await open_on(SimDisk(device), walsvc.WalConfig(segment_bytes=65536))
    beside = await open_on(SimDisk(device, lock=False), walsvc.WalConfig(read_only=True))
    await fill(log)
    await beside.refresh()
    reading, following = beside.read(), beside.topic("a").follow()
    first = [await anext(reading), await anext(following)]
    assert [record.lsn for record in first] == [1, 1]
    await log.delete_topic("a")
    await beside.refresh()
    assert {record.topic async for record in reading} == {"b", None}
    assert beside.topics() == ["b"]
    assert (await beside.get(1), await beside.topic("a").count()) == (None, 0)
    made = await log.topic("a").append(b"new")
    assert (await anext(following)).lsn == made.lsn
    await fill(log, 2)  # another segment, whose beginning names what lives
    await log.delete_topic("b")
    await beside.refresh()
    assert beside.topics() == ["a"]
    assert await records(beside) == await records(log)
    await following.aclose()
    await beside.close()
    await log.close()
