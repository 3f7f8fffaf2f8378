"""The archive of a log whose history changes: restored and gone on, cut, compacted, sealed for good, before and during a push."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import walsvc
from tests.engines.test_archive import SEGMENT, names_in, opening, records, restored, rotate
from tests.waiting import until
from walsvc import Corruption, Log
from walsvc.engines.archive import Archive, Archiver, sealed
from walsvc.engines.archive.manifest import ManifestEntry, encode_entry
from walsvc.engines.archive.restore import restore, verify
from walsvc.log.offline.verify import verify as verify_log
from walsvc.log.read.pins import ARCHIVE_HOLD

pytest.importorskip("obstore", reason="the archive needs obstore (walsvc[archive])")


@pytest.fixture
def place(tmp_path: Path) -> str:
    return f"file://{tmp_path / 'archive'}"


def going_on(path: Path) -> Any:
    return walsvc.open(path, segment_bytes=SEGMENT, disk="threads")


async def fill(log: Log, word: bytes, count: int = 60) -> None:
    """Records in groups of their own, over some segments."""
    for number in range(count):
        await log.append(word + b"%d" % number + bytes(500), attributes={"key": number % 3})


async def archived(log: Log, archive: Archive) -> list[walsvc.Record]:
    """What the archive must hold of the log."""
    return await records(log, stop=archive.archived_lsn)


def without_end_crc(place: str) -> None:
    """Make all entries what version 1 has written."""
    previous = ""
    for path in names_in(place, "*/manifest/*"):
        fields = json.loads(path.read_bytes()) | {"end_crc": None, "since_ns": 0, "previous": previous}
        del fields["version"]
        entry, data = encode_entry(ManifestEntry(**fields))
        previous = entry.check
        plain = json.loads(data) | {"version": 1}
        path.write_text(json.dumps({key: plain[key] for key in plain if key not in {"end_crc", "since_ns"}}))


class During(Archive):
    """Something happens to the log once the first segment was entered."""

    what: Any = None

    async def _enter(self, segment: Any, parts: Any) -> ManifestEntry:
        entry = await super()._enter(segment, parts)
        what, self.what = self.what, None
        if what is not None:
            await what()
        return entry


# ---- a log that was restored as it was earlier


@pytest.mark.parametrize("version", [1, 2])
async def test_log_restored_to_a_moment_is_archived_anew_from_where_it_differs(tmp_path, place, version):
    async with opening(tmp_path) as log:
        await fill(log, b"old")
        old = await Archive.at(place).push(log)
        before = await records(log, stop=old[-1].next_lsn)
    if version == 1:
        without_end_crc(place)
        assert (await Archive.at(place).entries())[0].end_crc is None
    inside = old[1].first_lsn + 2  # the first segment stays as it is
    await restore(Archive.at(place), str(tmp_path / "fork"), lsn=inside)
    between = datetime.now(UTC)
    async with going_on(tmp_path / "fork") as log:
        await fill(log, b"new")
        archive = Archive.at(place)
        added = await archive.push(log)
        assert added[0].first_lsn == old[1].first_lsn
        assert added[0].generation == old[1].generation
        expected = await archived(log, archive)
        assert log.holds() == {ARCHIVE_HOLD: added[-1].next_lsn}
        assert await archive.push(log) == []
        assert await Archive.at(place).push(log) == []
    assert await restored(Archive.at(place), tmp_path / "now") == expected
    assert await restored(Archive.at(place), tmp_path / "then", until=between) == before
    assert await verify(Archive.at(place)) == []


async def test_contents_are_told_apart_where_all_times_are_the_same(tmp_path, place):
    async def push(path: Path) -> list[ManifestEntry]:
        async with going_on(path) as log:
            log.writer.core.tail.clock = lambda: 10**18
            await log.append(b"%a" % path.name)
            await asyncio.gather(*(log.append(bytes(1000)) for _ in range(200)))
            return await Archive.at(place).push(log)

    async with opening(tmp_path) as log:
        await log.append(b"one")
    shutil.copytree(tmp_path / "log", tmp_path / "gol")
    one = await push(tmp_path / "log")
    two = await push(tmp_path / "gol")
    assert [(each.first_lsn, each.generation, each.bytes) for each in one] == [
        (each.first_lsn, each.generation, each.bytes) for each in two
    ]
    assert one[0].end_crc != two[0].end_crc


async def test_what_was_judged_is_not_read_again(tmp_path, place, monkeypatch):
    async with opening(tmp_path) as log:
        await fill(log, b"old")
        archive = Archive.at(place)
        while await archive.push(log):  # moving the hold may begin a segment
            pass
        read: list[str] = []

        async def load_header(disk: Any, name: str, first: int | None) -> Any:
            read.append(name)
            return await original(disk, name, first)

        original = sealed.load_header
        monkeypatch.setattr(sealed, "load_header", load_header)
        assert await archive.push(log) == []
        assert len(read) == 1  # it tells the log's id


async def test_compacted_or_cut_segment_that_was_archived_before_is_not_entered_anew(tmp_path, place):
    async with opening(tmp_path) as log:
        await fill(log, b"old")
        ids = log.writer.segments.ids()
        stored = await Archive.at(place).push(log)
        await log.purge(1)
        await rotate(log)
        assert await log.compact() > 0
        added = await Archive.at(place).push(log)
        assert added[0].first_lsn == stored[-1].next_lsn
        await log.truncate_after(ids[2] + 3)
        assert await Archive.at(place).push(log) == []
        await rotate(log)
        (cut, *_) = await Archive.at(place).push(log)
        assert cut.first_lsn == ids[2] + 4


# ---- a log that changes during a push


@pytest.mark.parametrize("change", ["compacted", "cut", "cut and as long again"])
async def test_segment_exchanged_during_a_push_is_read_again(tmp_path, place, change):
    async with opening(tmp_path) as log:
        await fill(log, b"old")
        ids = log.writer.segments.ids()

        async def happen() -> None:
            if change == "compacted":
                await log.purge(1)
                await rotate(log)
                assert await log.compact() > 0
                return
            await log.truncate_after(ids[2] - 1 if change == "cut" else ids[1] + 1)
            await fill(log, b"new", 5 if change == "cut" else 60)
            await rotate(log)

        archive = During.at(place)
        archive.what = happen
        await archive.push(log)
        assert archive.what is None
        assert archive.archived_lsn == log.writer.segments.ids()[-1] == log.holds()[ARCHIVE_HOLD]
        expected = [(each.lsn, each.payload) for each in await archived(log, archive)]
    async with walsvc.open(tmp_path / "log", read_only=True) as marked:
        assert [(each.lsn, each.payload) for each in await records(marked, stop=archive.archived_lsn)] == expected
    back = {each.lsn: each.payload for each in await restored(Archive.at(place), tmp_path / "back")}
    assert {lsn: back[lsn] for lsn, _ in expected} == dict(expected)
    assert len(back) == archive.archived_lsn - 1 or change == "compacted"


async def test_file_that_goes_during_a_push_is_not_missed(tmp_path, place, monkeypatch):
    async with opening(tmp_path) as log:
        await fill(log, b"old")
        ids, original, done = log.writer.segments.ids(), sealed.load_header, []

        async def load_header(disk: Any, name: str, first: int | None) -> Any:
            found = await original(disk, name, first)
            if not done:
                done.append(await log.truncate_after(ids[2]))
            return found

        monkeypatch.setattr(sealed, "load_header", load_header)
        async with Archiver(log, Archive.at(place), interval=0.005) as archiver:
            while archiver.archived_lsn < ids[2]:
                assert archiver.state == "running"
                await asyncio.sleep(0.001)
            assert (archiver.state, archiver.error) == ("running", None)


@pytest.mark.parametrize("reader", ["writer", "read-only"])
@pytest.mark.parametrize("change", ["compacted", "cut", "cut and as long again"])
async def test_segment_exchanged_while_it_is_read_is_no_damage(tmp_path, place, monkeypatch, change, reader):
    async with opening(tmp_path) as log, walsvc.open(tmp_path / "log", read_only=True) as beside:
        await fill(log, b"old")
        await log.purge(1)
        await rotate(log)
        await beside.refresh()
        ids, original, done = log.writer.segments.ids(), sealed.load_header, []

        async def load_header(disk: Any, name: str, first: int | None) -> Any:
            found = await original(disk, name, first)
            if first == ids[2] and not done:
                done.append(True)
                if change == "compacted":
                    assert await log.compact() > 0
                else:
                    await log.truncate_after(ids[1] + 2)
                    await fill(log, b"new", 2 if change == "cut" else 60)
                    await rotate(log)
            return found

        monkeypatch.setattr(sealed, "load_header", load_header)
        archive = Archive.at(place)
        await archive.push(log if reader == "writer" else beside)
        assert done
        await archive.push(log)
        expected = await archived(log, archive)
        monkeypatch.undo()
    back = {each.lsn: each for each in await restored(Archive.at(place), tmp_path / "back")}
    assert [back[each.lsn] for each in expected] == expected
    assert max(back) == archive.archived_lsn - 1


async def test_damage_that_stays_is_raised(tmp_path, place):
    async with opening(tmp_path) as log:
        await fill(log, b"old")
        victim = tmp_path / "log" / log.writer.segments.file(log.writer.segments.ids()[1])[0]
        data = bytearray(victim.read_bytes())
        data[9000] ^= 1
        victim.write_bytes(data)
        with pytest.raises(Corruption, match="CRC"):
            await Archive.at(place).push(log)
        assert log.holds() == {ARCHIVE_HOLD: log.writer.segments.ids()[1]}
        victim.unlink()
        with pytest.raises(walsvc.PathError, match="reading the log failed"):
            await Archive.at(place).push(log)


async def test_error_that_nobody_expects_is_told_and_lets_the_log_be_closed(tmp_path, place, caplog):
    class Broken(Archive):
        async def push(self, *_: Any) -> Any:
            raise KeyError(31)

    async with opening(tmp_path) as log, Archiver(log, Broken.at(place), interval=0.005) as archiver:
        with caplog.at_level(logging.CRITICAL):
            await until(lambda: archiver.state == "stopped")
        assert archiver.error is not None
        assert "KeyError(31)" in archiver.error.message


# ---- a cut inside a group


async def cut_inside_a_group(log: Log) -> None:
    await asyncio.gather(*(log.append(b"old%d" % number) for number in range(20)))  # 1, and 2 to 20, or so
    await log.truncate_after(4)
    assert len(log.writer.segments.ids()) == 2


async def test_group_that_was_cut_does_not_come_back(tmp_path, place):
    async with opening(tmp_path) as log:
        await cut_inside_a_group(log)
        archive = Archive.at(place)
        assert await archive.push(log) == []
        assert log.holds() == {ARCHIVE_HOLD: 1}
        assert archive.archived_lsn == 1
        await rotate(log)
        added = await archive.push(log)
        assert [each.first_lsn for each in added] == [1, 5]
        expected = await archived(log, archive)
        assert log.holds() == {ARCHIVE_HOLD: archive.archived_lsn}
        assert await Archive.at(place).push(log) == []
    assert await restored(Archive.at(place), tmp_path / "back") == expected
    assert len(expected) == archive.archived_lsn - 1


async def test_group_that_was_cut_is_left_out_where_what_follows_is_not_archived(tmp_path, place):
    async with opening(tmp_path) as log:
        await cut_inside_a_group(log)
        archive = Archive.at(place)
        await archive.push(log)
        (segment,) = await sealed.sealed_segments(log)
        await archive._enter(segment, await archive._store_parts(segment))  # as an older walsvc did
    assert [each.lsn for each in await restored(Archive.at(place), tmp_path / "back")] == [1]
    assert len(await restored(Archive.at(place), tmp_path / "at", lsn=4)) == 20  # the group is the unit


# ---- a log that was sealed for good, and a young one


@pytest.mark.parametrize("reopened", [False, True])
async def test_log_that_was_sealed_for_good_is_archived_whole(tmp_path, place, reopened):
    async with opening(tmp_path) as log:
        await fill(log, b"old")
        expected = await records(log)
        await log.seal()
        if not reopened:
            await Archive.at(place).push(log)
    async with opening(tmp_path) as log:
        added = await Archive.at(place).push(log)
        assert bool(added) == reopened
    async with walsvc.open(tmp_path / "log", read_only=True) as log:
        assert await Archive.at(place).push(log) == []
    assert await restored(Archive.at(place), tmp_path / "back") == expected
    async with going_on(tmp_path / "back") as back:
        with pytest.raises(walsvc.Closed, match="sealed"):
            await back.append(b"on")
        assert await Archive.at(place).push(back) == []


async def test_archiver_of_a_log_that_is_sealed_stores_its_end(tmp_path, place):
    async with opening(tmp_path) as log:
        async with Archiver(log, Archive.at(place), interval=0.005) as archiver:
            await log.append(b"one")
            await log.seal()
            async with asyncio.timeout(60):
                await until(lambda: archiver.archived_lsn >= log.next_lsn)
            assert archiver.state == "running"
        async with Archiver(log, Archive.at(place), interval=0.005) as again:
            await until(lambda: again.archived_lsn >= log.next_lsn)
            assert again.error is None
    assert len(await restored(Archive.at(place), tmp_path / "back")) == 1


async def test_log_of_one_segment_is_held_from_the_first_push_on(tmp_path, place):
    async with opening(tmp_path) as log:
        await log.append(b"one")
        assert await Archive.at(place).push(log) == []
        assert log.holds() == {ARCHIVE_HOLD: 1}


async def test_a_cut_inside_a_compacted_segment_fits_the_archive_that_has_it_whole(tmp_path: Path, place: str) -> None:
    path, archive = tmp_path / "log", Archive.at(place)
    async with going_on(path) as log:
        await fill(log, b"old", 400)
        await archive.push(log)
        await log.purge({"key": 1})
        await log.compact()
        cut = log.writer.segments.ids()[2] - 10
        await log.truncate_after(cut)
        await fill(log, b"new", 300)
        await archive.push(log)
        expected = await archived(log, archive)
    back = await restored(archive, tmp_path / "back")
    assert [each for each in back if each.lsn > cut] == [each for each in expected if each.lsn > cut]
    verdict = await verify_log(tmp_path / "back")
    assert not verdict.errors
    assert verdict.unbound == 0


async def test_a_segment_of_another_history_is_not_archived(tmp_path: Path, place: str) -> None:
    path, other = tmp_path / "log", tmp_path / "other"
    async with going_on(path) as log:
        await fill(log, b"both", 100)
    shutil.copytree(path, other)
    for each, word in ((path, b"one"), (other, b"two")):
        async with going_on(each) as log:
            await fill(log, word, 300)
    names = sorted(each.name for each in path.glob("*.wal"))
    assert names == sorted(each.name for each in other.glob("*.wal"))
    archive = Archive.at(place)
    shutil.copy(other / names[-3], path / names[-3])
    async with walsvc.open(path, read_only=True) as log:
        with pytest.raises(Corruption, match="histories"):
            await archive.push(log)
    assert not names_in(place, "*/manifest/*")
