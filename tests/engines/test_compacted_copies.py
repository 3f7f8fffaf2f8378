"""Compaction of a log that has copies elsewhere: nothing that was purged comes back with them, and the replica goes on."""

from __future__ import annotations

import asyncio

import pytest

import walsvc
from tests.engines.replicas import held, opening, records, records_in, replica_url, replicated
from walsvc import Quorum
from walsvc.engines.archive import Archive
from walsvc.engines.archive.restore import restore
from walsvc.engines.replication.restore import restore_replica
from walsvc.engines.replication.session import ShippingSession
from walsvc.log.read.pins import ARCHIVE_HOLD


@pytest.fixture
def url(cluster, stream):
    return replica_url(cluster, stream)


async def rotate(log):
    """Begin a new segment, so that all that was there is in sealed ones."""
    before = log.stats().segment_id
    while log.stats().segment_id == before:
        await log.append(bytes(4000))


async def fill(log, segments=1):
    """Records with key 0 and with key 1 in each of so many segments, and a new segment behind them."""
    for _ in range(segments):
        for number in range(6):
            await log.append(b"%d" % number, attributes={"key": number % 2})
        await rotate(log)


def keys(found):
    return {record.attributes["key"] for record in found if record.attributes}


async def test_marks_stay_as_long_as_the_replica_has_what_they_hide(tmp_path, url):
    async with opening(tmp_path / "log", url) as log:
        await fill(log)
        await held(log)
        await log.purge(1)
        await rotate(log)
        assert await log.compact() == 0, "the replica may end with the last group of the segment before its hold"
        await rotate(log)
        await held(log)
        assert await log.compact() > 0
        assert await log.compact() == 0
        assert log.writer.core.metadata.purges
        await rotate(log)
        await replicated(log)
        expected = await records(log)
        await restore_replica(url, str(tmp_path / "back"))
    assert await records_in(tmp_path / "back") == expected
    assert keys(expected) == {0}


async def test_marks_go_with_what_the_replica_drops(tmp_path, url):
    async with opening(tmp_path / "log", url) as log:
        await fill(log)
        await log.purge(1, before=5)
        await rotate(log)
        await held(log)
        await log.compact()
        assert log.writer.core.metadata.purges
        await log.truncate_before(5)
        await log.compact()
        assert not log.writer.core.metadata.purges
        await replicated(log)
        expected = await records(log)
        await restore_replica(url, str(tmp_path / "back"))
    assert await records_in(tmp_path / "back") == expected
    assert keys(expected) == {0, 1}


async def test_marks_stay_as_long_as_an_archive_holds(tmp_path):
    pytest.importorskip("obstore", reason="the archive needs obstore (walsvc[archive])")
    archive = Archive.at(f"file://{tmp_path / 'archive'}")
    async with opening(tmp_path / "log", None) as log:
        await fill(log)
        await archive.push(log)
        await log.purge(1)
        await rotate(log)
        assert await log.compact() > 0
        await rotate(log)
        await rotate(log)
        await archive.push(log)
        expected = await records(log, None, log.writer.segments.ids()[-1])
        await restore(archive, str(tmp_path / "back"))
        assert await records_in(tmp_path / "back") == expected
        await log.release(ARCHIVE_HOLD)
        await log.compact()
        assert not log.writer.core.metadata.purges, "no copy is known of any more"


async def test_log_compacted_while_it_was_not_replicated_is_replicated_again(tmp_path, url):
    async with opening(tmp_path / "log", url) as log:
        for number in range(6):
            await log.append(b"%d" % number, attributes={"key": number % 2})
        await replicated(log)
    async with opening(tmp_path / "log", None) as log:
        await rotate(log)
        await log.purge(1)
        await rotate(log)
        assert await log.compact() == 0
    async with opening(tmp_path / "log", url) as log, asyncio.timeout(60):
        await log.append(b"on", mode=Quorum)
        await held(log)
        assert await log.compact() > 0, "it was only put off"
        expected = await records(log)
    await restore_replica(url, str(tmp_path / "back"))
    assert await records_in(tmp_path / "back") == expected


@pytest.mark.parametrize("moved", [False, True], ids=["first stream", "second stream"])
async def test_compaction_while_a_segment_is_being_shipped(tmp_path, cluster, url, monkeypatch, moved):
    """It lands between two pieces of the segment. In a second stream there is nothing yet, whatever the hold says."""
    options = {"config": walsvc.WalConfig(segment_bytes=1 << 20, disk="threads")}
    if moved:
        async with opening(tmp_path / "log", replica_url(cluster, cluster.new_stream())) as log:
            await held(log)
    async with walsvc.open(tmp_path / "log", **options) as log:
        for _ in range(2):
            await asyncio.gather(*(log.append(bytes(4000), attributes={"key": n % 3}) for n in range(700)))
        await log.purge(1)
        if moved:
            await log.hold("replica", log.writer.segments.ids()[-1])
        freed, send = [], ShippingSession._send

        async def compacting(session, piece):
            if not freed and (moved or piece.offset > 300_000):
                freed.append(await log.compact())
            await send(session, piece)

        monkeypatch.setattr(ShippingSession, "_send", compacting)
    async with walsvc.open(tmp_path / "log", replicate=url, **options) as log, asyncio.timeout(60):
        await log.append(b"on", mode=Quorum)
        assert freed == [0]
        expected = await records(log)
    await restore_replica(url, str(tmp_path / "back"))
    assert await records_in(tmp_path / "back") == expected


@pytest.mark.parametrize("online", [False, True])
async def test_truncate_after_into_segments_that_were_replicated_and_compacted(tmp_path, url, online):
    log = await opening(tmp_path / "log", url)
    await fill(log, 4)
    await held(log)
    await log.purge(1)
    assert await log.compact() > 0
    at = log.writer.segments.ids()[2] - 2
    if not online:
        await log.close()
        log = await opening(tmp_path / "log", None)
    await log.truncate_after(at)
    if not online:
        await log.close()
        log = await opening(tmp_path / "log", url)
    async with log, asyncio.timeout(60):
        assert (await log.append(b"on", mode=Quorum)).lsn == at + 1
        expected = await records(log)
    await restore_replica(url, str(tmp_path / "back"))
    assert await records_in(tmp_path / "back") == expected


async def test_other_log_that_was_compacted_after_the_two_parted_is_not_followed(tmp_path, url):
    """The header of their last common segment is the same; what is in it is not."""
    async with opening(tmp_path / "log", url) as log:
        await log.append(b"common", attributes={"key": 0})
        await replicated(log)
    await restore_replica(url, str(tmp_path / "other"))
    async with opening(tmp_path / "log", url) as log:
        await fill(log, 3)
        await replicated(log)
    async with opening(tmp_path / "other", None) as other:
        await fill(other, 3)
        await other.release("replica")
        await other.purge(1)
        await other.compact()
        await other.truncate_after(other.writer.segments.ids()[1] + 1)
    async with opening(tmp_path / "other", url) as other, asyncio.timeout(60):
        with pytest.raises(walsvc.ReplicaLost, match="does not have"):
            await other.append(b"on", mode=Quorum)


@pytest.mark.parametrize("moment", [False, True])
async def test_restored_log_that_ends_in_a_compacted_segment_is_written_on(tmp_path, moment):
    pytest.importorskip("obstore", reason="the archive needs obstore (walsvc[archive])")
    archive = Archive.at(f"file://{tmp_path / 'archive'}")
    async with opening(tmp_path / "log", None) as log:
        await fill(log, 2)
        await log.purge(1)
        assert await log.compact() > 0
        end = log.writer.segments.ids()[1] + 3 if moment else log.writer.segments.ids()[-1]
        await archive.push(log)
        expected = await records(log, None, end)
    await restore(archive, str(tmp_path / "back"), lsn=end - 1 if moment else None)
    assert await records_in(tmp_path / "back") == expected
    async with opening(tmp_path / "back", None) as back:
        assert await records(back) == expected
        assert (await back.append(b"on")).lsn == back.writer.segments.ids()[-1] == end
        await fill(back)
        expected = await records(back)
        last = back.writer.segments.ids()[-1]
        if not moment:
            await archive.push(back)
    assert await records_in(tmp_path / "back") == expected
    if not moment:
        await restore(archive, str(tmp_path / "again"))
        assert await records_in(tmp_path / "again") == [each for each in expected if each.lsn < last]
