"""A stream that others change between a look at it and what follows: purges, writers that go on, openings at once."""

from __future__ import annotations

import asyncio

import pytest

from tests.engines.streams import api, configuration
from tests.waiting import until
from walsvc import Corruption
from walsvc.disk.base import TakenOver
from walsvc.engines.jetstream import takeover
from walsvc.engines.jetstream.connect import connect
from walsvc.engines.jetstream.message import WINDOW, BadMessage
from walsvc.engines.jetstream.options import JetStreamOptions, parse_url
from walsvc.engines.jetstream.segment_table import SegmentTable
from walsvc.engines.jetstream.stream import Stream
from walsvc.engines.jetstream.takeover import announce, claim, look, publisher_behind
from walsvc.format.segment import segment_name


async def filled(log, records):
    for number in range(records):
        await log.append(b"%d" % number * 10_000)


# ---- purging


async def test_nothing_is_purged_before_the_removal_that_allows_it_is_stored(open_stream, monkeypatch):
    async with open_stream() as log:
        await filled(log, 20)
        disk = log.writer.segments.disk
        client, publisher = disk._stream.client, disk._publisher
        publish, lost = client.publish, []

        async def lose(subject, payload, reply="", headers=None):
            if subject == disk._stream.subject:
                lost.append(payload)
            else:
                await publish(subject, payload, reply, headers)

        first, _ = await disk._stream.extent()
        with monkeypatch.context() as patch:
            patch.setattr(client, "publish", lose)
            removing = asyncio.ensure_future(disk.remove(segment_name(log.writer.segments.ids()[0])))
            await asyncio.sleep(0.01)
            assert len(lost) == 1
            syncing = asyncio.ensure_future(disk.sync_directory())
            await asyncio.sleep(0.5)
            assert (await disk._stream.extent())[0] == first
        publisher._trouble = True
        publisher._wake.set()
        await asyncio.wait_for(asyncio.gather(removing, syncing), 60)
        assert (await disk._stream.extent())[0] > first


async def test_nothing_is_purged_when_the_removal_failed(open_stream):
    async with open_stream() as log:
        await filled(log, 20)
        disk = log.writer.segments.disk
        first, _ = await disk._stream.extent()
        del disk._files.directory.files[min(disk._files.directory.files)]
        assert await disk._publisher.flushed()
        disk._publisher._failure = OSError("failed")
        await disk.sync_directory()
        disk._publisher._failure = None
        assert (await disk._stream.extent())[0] == first


# ---- following


async def test_reader_that_is_behind_gets_over_a_purge_while_it_reads(open_stream, monkeypatch):
    async with open_stream() as log:
        await log.append(b"first")
        async with open_stream(read_only=True) as reader:
            await filled(log, 40)
            stream, looked = reader.segments.disk.plain._stream, []
            extent = stream.extent

            async def purged_behind():
                seen = await extent()
                if not looked:
                    looked.append(seen)
                    await log.truncate_before(39)
                return seen

            monkeypatch.setattr(stream, "extent", purged_behind)
            assert await reader.refresh() == log.next_lsn
            assert [record.lsn async for record in reader.read(39)] == [39, 40, 41]


async def test_reader_that_is_behind_is_told_of_what_is_really_missing(cluster, stream, open_stream):
    async with api(cluster) as ask:
        await ask(f"STREAM.CREATE.{stream}", configuration(stream))
        async with open_stream() as log:
            await log.append(b"first")
            async with open_stream(read_only=True) as reader:
                missing = log.writer.segments.disk._publisher.next_sequence + 1
                await filled(log, 4)
                await ask(f"STREAM.MSG.DELETE.{stream}", {"seq": missing})
                with pytest.raises(Corruption, match=f"message {missing} "):
                    await reader.refresh()


async def test_damage_in_what_a_reader_takes_up_is_corruption(open_stream, monkeypatch):
    def damaged(_directory, _message):
        raise BadMessage("the directory is cut")

    async with open_stream() as log:
        await log.append(b"first")
        async with open_stream(read_only=True) as reader:
            await log.append(b"second")
            with monkeypatch.context() as patch:
                patch.setattr(SegmentTable, "apply", damaged)
                with pytest.raises(Corruption, match="the directory is cut"):
                    await reader.refresh()


# ---- opening


class Moving:
    """A stream whose extent is another one each time."""

    timeout = 0.3

    def __init__(self, first_step: int) -> None:
        self._first_step = first_step
        self._looks = 0

    async def extent(self):
        await asyncio.sleep(0.01)
        self._looks += 1
        return 1 + self._looks * self._first_step, 100 + self._looks


@pytest.mark.parametrize("first_step", [0, 1])
async def test_looking_at_a_damaged_stream_ends_though_its_writer_goes_on(monkeypatch, first_step):
    looks = []

    async def damaged(_stream, first, _last):
        looks.append(first)
        raise Corruption("damaged")

    monkeypatch.setattr(takeover, "look_once", damaged)
    with pytest.raises(Corruption, match="damaged"):
        await asyncio.wait_for(look(Moving(first_step)), 60)
    assert (len(looks) > 1) == bool(first_step)


async def test_second_part_of_a_refused_directory_is_not_stored(cluster, stream, open_stream, monkeypatch):
    async with open_stream() as log:
        await filled(log, 60)
    address, options = parse_url(cluster.url(stream)), JetStreamOptions()
    streams = [Stream(await connect(address, options), address, options) for _ in range(2)]
    await look(streams[0])
    await claim(streams[0], WINDOW)
    sights = [await look(each) for each in streams]
    publishers = [publisher_behind(each, sight) for each, sight in zip(streams, sights, strict=True)]
    monkeypatch.setattr(takeover, "ENVELOPE_BYTES", streams[0].client.max_payload - 16)
    for publisher in publishers:
        await publisher.start()
    # the first opening has got no further than its first part
    parts, put = [], publishers[0].put

    def first_part_only(message, done):
        parts.append(message)
        if message.part == 0:
            put(message, done)

    monkeypatch.setattr(publishers[0], "put", first_part_only)
    announcing = asyncio.ensure_future(announce(streams[0], publishers[0], sights[0].directory))

    async def begun() -> bool:
        return (await streams[0].extent())[1] != sights[0].last

    await until(begun, 0.01)
    refused = await announce(streams[1], publishers[1], sights[1].directory)
    last = (await streams[1].extent())[1]
    announcing.cancel()
    for publisher, where in zip(publishers, streams, strict=True):
        await publisher.abort()
        await where.close()
    assert len(parts) > 1
    assert isinstance(refused, TakenOver)
    assert last == sights[0].last + 1
    async with open_stream() as log:
        assert log.next_lsn == 61
