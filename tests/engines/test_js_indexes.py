"""Where the bytes of segments stand is remembered for some of them only."""

from __future__ import annotations

import asyncio

import pytest

from walsvc.engines.jetstream import stream_files
from walsvc.format.segment import segment_name


@pytest.fixture
def forgetful(monkeypatch):
    """No index stays that may go."""
    monkeypatch.setattr(stream_files, "INDEX_PIECES", 0)
    monkeypatch.setattr(stream_files, "INDEXES_MIN", 1)


def indexed(log):
    """How many segments have an index."""
    return sum(each.index is not None for each in log.writer.segments.disk._files.directory.files.values())


async def payloads(log, *args):
    return [record.payload async for record in log.read(*args)]


@pytest.mark.usefixtures("forgetful")
async def test_indexes_of_segments_that_nobody_reads_are_dropped_and_come_back(open_stream):
    wanted = [b"%d" % number * 4000 for number in range(100)]
    async with open_stream() as log:
        for payload in wanted:
            await log.append(payload)
        assert len(log.writer.segments.ids()) > 5
        assert indexed(log) <= 3
        assert await payloads(log) == wanted
        assert indexed(log) <= 3
        async with open_stream(read_only=True) as reader:
            assert await payloads(reader) == wanted


async def test_indexes_stay_while_they_take_little(open_stream):
    async with open_stream() as log:
        for number in range(60):
            await log.append(b"%d" % number * 4000)
        assert indexed(log) == len(log.writer.segments.ids()) > 5


@pytest.mark.usefixtures("forgetful")
async def test_reading_everywhere_while_indexes_go_finds_no_damage(open_stream):
    async with open_stream() as log:
        for number in range(60):
            await log.append(b"%d" % number * 4000)

        async def read_all():
            for _ in range(3):
                found = await payloads(log)
                assert found == [b"%d" % number * 4000 for number in range(len(found))]

        readers = [asyncio.ensure_future(read_all()) for _ in range(4)]
        for number in range(60, 120):
            await log.append(b"%d" % number * 4000)
        await asyncio.gather(*readers)


@pytest.mark.usefixtures("forgetful")
async def test_segment_that_is_written_on_again_gets_its_index_back(open_stream):
    async def failing():
        for _ in range(100):
            yield bytes(range(1, 251)) * 40
        raise ValueError("the source fails")

    async with open_stream() as log:
        await log.append(b"before")
        with pytest.raises(ValueError, match="the source fails"):
            await log.append_batch(failing())
        assert log.writer.segments.disk._files.directory.files[log.writer.segments.ids()[-1]].index is not None
        await log.append(b"after")
        assert await payloads(log) == [b"before", b"after"]
    async with open_stream() as log:
        assert await payloads(log) == [b"before", b"after"]


@pytest.mark.usefixtures("forgetful")
async def test_segment_that_may_be_written_to_keeps_its_index(open_stream):
    async with open_stream() as log:
        for number in range(60):
            await log.append(b"%d" % number * 4000)
        disk, first = log.writer.segments.disk, log.writer.segments.ids()[0]
        file = disk._files.directory.files[first]
        assert file.index is None
        handle = await disk.open_file(segment_name(first))
        disk._files.release()
        assert file.index is not None
        stored, file.last_sequence = file.last_sequence, disk._publisher.next_sequence  # as if one were on its way
        await disk.close_file(handle)
        assert file.index is not None
        file.last_sequence = stored
        disk._files.release()
        assert file.index is None
        assert disk._files.directory.files[log.writer.segments.ids()[-1]].index is not None
