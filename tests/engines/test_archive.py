"""The archive: what is pushed comes back, to the group, whatever was cut on the way; what is damaged is found."""

from __future__ import annotations

import asyncio
import base64
import os
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import walsvc
from tests.engines.command import run_archive
from tests.waiting import until
from walsvc import BadOption, Corruption, Log, PathError, Record
from walsvc.engines.archive import Archive, Archiver
from walsvc.engines.archive.manifest import entry_name
from walsvc.engines.archive.restore import restore, verify
from walsvc.log.read.pins import ARCHIVE_HOLD

pytest.importorskip("obstore", reason="the archive needs obstore (walsvc[archive])")

SEGMENT = 65536
KEYS = walsvc.KeyRing(current=("k", b"k" * 32))
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}


@pytest.fixture
def place(tmp_path: Path) -> str:
    return f"file://{tmp_path / 'archive'}"


def opening(tmp_path: Path, **options: Any) -> Any:
    return walsvc.open(tmp_path / "log", segment_bytes=SEGMENT, disk="threads", **options)


async def fill(log: Log, groups: int, rng: random.Random) -> None:
    for _ in range(groups):
        await asyncio.gather(*(log.append(rng.randbytes(rng.randrange(400))) for _ in range(rng.randrange(1, 40))))


async def rotate(log: Log) -> None:
    """Begin a new segment, so that all that was there is in sealed ones."""
    before = log.stats().segment_id
    while log.stats().segment_id == before:
        await log.append(bytes(4000))


async def records(log: Any, start: int | None = None, stop: int | None = None) -> list[Record]:
    return [record async for record in log.read(start, stop)]


async def restored(archive: Archive, target: Path, **upto: Any) -> list[Record]:
    await restore(archive, str(target), **upto)
    async with walsvc.open(target, disk="threads") as log:
        return await records(log)


async def groups_of(log: Log) -> list[list[Record]]:
    """The log's records by group."""
    groups: list[list[Record]] = []
    async for some in log.read_batches():
        groups.append(some)
    return groups


def names_in(place: str, pattern: str) -> list[Path]:
    return sorted(Path(place.removeprefix("file://")).glob(pattern))


async def test_restored_log_is_the_archived_one_and_goes_on(tmp_path, place):
    rng = random.Random(1)
    async with opening(tmp_path) as log:
        await log.append(b"typed", type=7, attributes={"tenant": 3})
        await fill(log, 60, rng)
        await rotate(log)
        archive = Archive.at(place)
        ids = list(log.writer.segments.ids())
        added = await archive.push(log)
        end = ids[-1]
        expected = await records(log, stop=end)
        assert [entry.first_lsn for entry in added] == ids[:-1]
        assert (added[0].first_lsn, added[-1].next_lsn) == (1, end)
    copied = await restore(Archive.at(place), str(tmp_path / "back"))
    assert (copied.first_lsn, copied.next_lsn, copied.segments) == (1, end, len(added))
    async with walsvc.open(tmp_path / "back", disk="threads") as back:
        assert await records(back) == expected
        assert (await back.append(b"on")).lsn == end


async def test_pushing_again_stores_only_what_is_new(tmp_path, place):
    rng = random.Random(2)
    async with opening(tmp_path) as log:
        assert await Archive.at(place).push(log) == []
        await fill(log, 40, rng)
        await rotate(log)
        first = await Archive.at(place).push(log)
        assert first
        assert await Archive.at(place).push(log) == []
        await rotate(log)
        second = await Archive.at(place).push(log)
        assert [entry.sequence for entry in [*first, *second]] == list(range(1, len(first) + len(second) + 1))
        assert second[0].first_lsn == first[-1].next_lsn
        assert await Archive.at(place).entries() == [*first, *second]


async def test_restore_to_an_lsn_ends_with_its_group(tmp_path, place):
    rng = random.Random(3)
    async with opening(tmp_path) as log:
        await fill(log, 30, rng)
        await rotate(log)
        added = await Archive.at(place).push(log)
        groups = [group for group in await groups_of(log) if group[-1].lsn < added[-1].next_lsn]
    archive = Archive.at(place)
    for number in {0, 1, len(groups) // 2, *rng.sample(range(len(groups)), 5), len(groups) - 1}:
        lsn = rng.choice(groups[number]).lsn
        back = await restored(archive, tmp_path / f"at-{number}", lsn=lsn)
        assert back == [record for group in groups[: number + 1] for record in group]


async def test_restore_to_a_time_is_exact_to_the_group(tmp_path, place):
    start = datetime(2100, 1, 1, tzinfo=UTC)  # after the log was made, whose first segment has the real time
    async with opening(tmp_path) as log:
        for minute in range(60):
            log.writer.core.tail.clock = lambda minute=minute: (
                int((start + timedelta(minutes=minute)).timestamp()) * 10**9
            )
            await asyncio.gather(*(log.append(bytes(300)) for _ in range(20)))
        await rotate(log)
        end = (await Archive.at(place).push(log))[-1].next_lsn
        expected = await records(log, stop=end)
    archive = Archive.at(place)
    for minute in (0, 1, 29, 58):
        moment = start + timedelta(minutes=minute)
        back = await restored(archive, tmp_path / f"at-{minute}", until=moment)
        assert back == [record for record in expected if record.timestamp_ns <= moment.timestamp() * 1e9]
        assert len(back) == 20 * (minute + 1)
    with pytest.raises(BadOption, match="does not reach back"):
        await restore(archive, str(tmp_path / "before"), until=datetime(2000, 1, 1, tzinfo=UTC))
    with pytest.raises(BadOption, match="no time zone"):
        await restore(archive, str(tmp_path / "naive"), until=datetime(2026, 1, 1))


class Cut(Archive):
    """An archive whose connection is lost after some objects, before or after the last one was stored."""

    left = 0
    stored = False

    async def _create(self, name: str, data: bytes) -> bool:
        self.left -= 1
        if self.left < 0:
            if self.stored:
                await super()._create(name, data)
            raise PathError("the connection is lost", path=name)
        return await super()._create(name, data)


async def test_upload_cut_at_random_points_goes_on_and_the_restored_log_is_equal(tmp_path, place, monkeypatch):
    monkeypatch.setattr("walsvc.engines.archive.push.PART_BYTES", 8192)
    rng = random.Random(4)
    cuts = 0
    async with opening(tmp_path) as log:
        for _ in range(12):
            await fill(log, 12, rng)
            await rotate(log)
            archive = Cut.at(place)
            archive.left, archive.stored = rng.randrange(12), bool(rng.randrange(2))
            try:
                await archive.push(log)
            except PathError:
                cuts += 1
        await Archive.at(place).push(log)
        expected = await records(log, stop=log.holds()[ARCHIVE_HOLD])
    assert cuts >= 5
    assert await restored(Archive.at(place), tmp_path / "back") == expected
    assert await verify(Archive.at(place)) == []


async def test_what_is_not_archived_is_kept_until_it_is(tmp_path, place):
    rng = random.Random(5)
    async with opening(tmp_path) as log:
        await fill(log, 40, rng)
        await rotate(log)
        archive = Archive.at(place)
        held = (await archive.push(log))[-1].next_lsn
        assert log.holds() == {ARCHIVE_HOLD: held}
        await fill(log, 40, rng)
        await rotate(log)
        await log.reclaim()
        assert log.first_lsn == held
        held_then = (await archive.push(log))[-1].next_lsn
        await log.reclaim()
        assert log.first_lsn == held_then > held
    assert (await restored(Archive.at(place), tmp_path / "back", lsn=held + 1))[0].lsn == 1


async def test_truncate_after_leaves_both_histories_in_the_archive(tmp_path, place):
    rng = random.Random(6)
    async with opening(tmp_path) as log:
        await fill(log, 60, rng)
        await rotate(log)
        end = (await Archive.at(place).push(log))[-1].next_lsn
        before = await records(log, stop=end)
        moment = datetime.now(UTC)
        await log.truncate_after(40)
        await fill(log, 60, rng)
        await rotate(log)
        after = await records(log, stop=(await Archive.at(place).push(log))[-1].next_lsn)
    assert before[:40] == after[:40]
    assert before[40:] != after[40 : end - 1]
    assert await restored(Archive.at(place), tmp_path / "now") == after
    assert await restored(Archive.at(place), tmp_path / "then", until=moment) == before


@pytest.mark.parametrize("damage", ["missing", "flipped", "cut"])
async def test_damaged_object_is_found_by_verify_and_refused_by_restore(tmp_path, place, damage):
    async with opening(tmp_path) as log:
        await fill(log, 60, random.Random(7))
        await rotate(log)
        await Archive.at(place).push(log)
    assert await verify(Archive.at(place)) == []
    victim = names_in(place, "*/parts/*")[1]
    data = bytearray(victim.read_bytes())
    if damage == "missing":
        victim.unlink()
    else:
        data[len(data) // 2] ^= 1
        victim.write_bytes(bytes(data[:-1] if damage == "cut" else data))
    (finding,) = await verify(Archive.at(place))
    assert finding.fatal
    assert victim.name in finding.message
    with pytest.raises(Corruption, match="object of the archive"):
        await restore(Archive.at(place), str(tmp_path / "back"))
    assert not (tmp_path / "back").exists()
    assert not list(tmp_path.glob("back.partial*"))


@pytest.mark.parametrize("damage", ["missing", "exchanged", "flipped"])
async def test_damaged_manifest_is_corruption(tmp_path, place, damage):
    async with opening(tmp_path) as log:
        await fill(log, 60, random.Random(8))
        await rotate(log)
        entries = await Archive.at(place).push(log)
    assert len(entries) >= 3
    one, two = names_in(place, "*/manifest/*")[:2]
    if damage == "missing":
        one.unlink()
    elif damage == "exchanged":
        one.write_bytes(two.read_bytes())
    else:
        one.write_bytes(one.read_bytes().replace(b'"generation": 1', b'"generation": 2'))
    with pytest.raises(Corruption) as caught:
        await Archive.at(place).entries()
    assert entry_name(entries[0].log_id, 1) in str(caught.value)


async def test_what_is_restored_has_every_change_of_its_segments(tmp_path, place):
    """Acknowledgements and truncations have no LSN: each counts with the segment in which it was answered."""
    rng, done, first = random.Random(5), {}, {}
    async with opening(tmp_path) as log:
        consumers = [await log.consumer("mailer"), await log.consumer("lazy", walsvc.AtLeastOnce(persist_every=9))]
        workers = await log.topic("jobs").consumer("workers", shared=True)
        while len(log.writer.segments.ids()) < 6:
            await fill(log, 1, rng)
            job = await log.topic("jobs").append(b"job")
            await (await workers.next()).ack()
            for consumer in consumers:
                await consumer.ack((await consumer.next()).lsn)
            await log.truncate_before(min(each.position for each in consumers), force=True)
            await log.flush()
            segment = log.writer.segments.ids()[-1]
            done[segment] = [*(each.position for each in consumers), job.lsn]
            first[segment] = log.first_lsn
        archived = log.writer.segments.ids()[-2]
        await Archive.at(place).push(log)
        await restore(Archive.at(place), str(tmp_path / "back"))
        async with walsvc.open(tmp_path / "back", disk="threads") as back:
            positions = {each.name: each.position for each in await back.consumers()}
            assert done[archived][:2] <= [positions["mailer"], positions["lazy"]] <= done[max(done)][:2]
            assert positions["workers"] > done[archived][2] > 100
            assert back.first_lsn >= first[archived] > 1
        await log.seal()
        await Archive.at(place).push(log)
        await restore(Archive.at(place), str(tmp_path / "whole"))
        async with walsvc.open(tmp_path / "whole", read_only=True) as whole:
            standing = [(each.name, each.position, each.lag) for each in await log.consumers()]
            assert [(each.name, each.position, each.lag) for each in await whole.consumers()] == standing
            assert (whole.first_lsn, whole.next_lsn) == (log.first_lsn, log.next_lsn)


async def test_two_that_archive_the_same_log_overwrite_nothing(tmp_path, place):
    async with opening(tmp_path) as log:
        await rotate(log)
        one, two = Archive.at(place), Archive.at(place)
        await one.push(log)
        await two.push(log)
        await rotate(log)
        two_entries = await two.push(log)
        log.writer.core.tail.clock = lambda: 1  # whatever differs between the two
        await rotate(log)
        stale = await one.push(log)
        assert [entry.sequence for entry in await Archive.at(place).entries()] == [1, 2, 3]
        assert two_entries[0].sequence == 2
        assert [entry.sequence for entry in stale] == [2, 3]  # the same content is the same object


async def test_several_logs_in_one_archive_are_told_apart(tmp_path, place):
    for name in ("a", "b"):
        async with walsvc.open(tmp_path / name, segment_bytes=SEGMENT, disk="threads") as log:
            await rotate(log)
            await Archive.at(place).push(log)
    with pytest.raises(BadOption, match="holds 2 logs") as caught:
        await Archive.at(place).entries()
    for log_id in await Archive.at(place).logs():
        assert log_id in str(caught.value)
        assert len(await Archive.at(place, log_id=log_id).entries()) == 1


async def test_archiver_stores_in_the_background_and_catches_up_after_an_outage(tmp_path, place):
    async with opening(tmp_path) as log:
        archive = Cut.at(place)
        archive.left = 0
        async with Archiver(log, archive, interval=0.005) as archiver:
            await rotate(log)
            await until(lambda: archiver.error is not None)
            assert archiver.state == "retrying"
            assert log.holds() == {ARCHIVE_HOLD: 1}
            archive.left = 1000
            end = log.stats().segment_id
            await until(lambda: archiver.archived_lsn >= end)
            assert archiver.error is None
            assert archiver.behind == log.durable_lsn + 1 - end
        assert archiver.state == "stopped"
    assert len(await restored(Archive.at(place), tmp_path / "back")) == end - 1


@pytest.mark.parametrize(
    ("options", "flags"),
    [({"layout": "pack", "double_write": "buffered"}, []), ({"keys": KEYS}, ["--key-file"])],
    ids=["packed", "encrypted"],
)
async def test_command_line_archives_a_log_as_it_is(tmp_path, place, options, flags):
    async with opening(tmp_path, **options) as log:
        await fill(log, 60, random.Random(9))
        await rotate(log)
        expected = await records(log)
    if flags:
        (tmp_path / "keys").write_text(f"k {base64.b64encode(b'k' * 32).decode()}\n")
        (tmp_path / "keys").chmod(0o600)
        flags = [*flags, str(tmp_path / "keys")]
    pushed = await asyncio.to_thread(run_archive, "push", tmp_path / "log", place, *flags)
    assert pushed.returncode == 0, pushed.stderr
    await restore(Archive.at(place), str(tmp_path / "back"))
    keys = {name: value for name, value in options.items() if name == "keys"}
    async with walsvc.open(tmp_path / "back", read_only=True, **keys) as back:
        restored_records = await records(back)
        assert restored_records == expected[: len(restored_records)]
        assert len(restored_records) > 100


async def test_bad_urls_and_targets_are_refused(tmp_path, place):
    with pytest.raises(BadOption, match="no archive"):
        Archive.at("nothing-of-the-kind://bucket")
    with pytest.raises(BadOption, match="nothing is archived"):
        await restore(Archive.at(place), str(tmp_path / "back"))
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_bytes(b"x")
    with pytest.raises(PathError, match="not an empty directory"):
        await restore(Archive.at(place), str(tmp_path / "taken"))
