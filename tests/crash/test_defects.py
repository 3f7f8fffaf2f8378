"""One test, by name, for each defect that was found in other write-ahead logs for asyncio: it must not be here.

The names are those of the list in which the defects were recorded, so that each can be found.
"""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import hashlib
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import walsvc
from tests.disks import REAL_DISKS
from walsvc.disk.base import Write
from walsvc.disk.sim import SimDevice, SimDisk
from walsvc.errors import Corruption, DurabilityLost, NoSpace, UnsupportedFormat
from walsvc.format.segment import decode_segment_header, encode_segment_header
from walsvc.keyring import KeyRing
from walsvc.model import Relaxed

from .damage import content, groups, overwrite
from .plan import SEGMENT_BYTES
from .scenes import CONFIG, ONE_EACH, Film, fill_segment, opened, payloads, run, segments

SMALL_GROUPS = dataclasses.replace(CONFIG, max_group_bytes=4096)


def test_kernel_atomicity_of_io_uring_batches_taken_for_granted() -> None:
    """A batch of many groups over several segments, cut at every operation and torn in any way: all of it or nothing."""

    async def scenario(seed: int) -> None:
        device = SimDevice(seed, garbage=True)
        log = await opened(device, SMALL_GROUPS)
        await log.append(b"before")
        batch = [b"%d" % (number % 10) * 3500 for number in range(40)]
        with Film(device, log) as film:
            await log.append_batch(batch)
            film.take()
        await log.close()
        whole = 0
        for moment, image in film.crashes(4):
            again = await opened(image)
            held = await payloads(again)
            assert held in ([b"before"], [b"before", *batch]), "a part of a batch"
            assert len(held) > 1 or moment.durable_lsn == 1, "an answered batch is gone"
            whole += len(held) > 1
            await again.close()
        assert whole > 0

    run(scenario)


def test_batch_visible_before_written() -> None:
    """Neither a reader nor a follower nor durable_lsn shows a batch before the last of its groups is durable."""

    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device, SMALL_GROUPS)
        await log.append(b"before")
        seen: list[int] = []

        async def watch() -> None:
            async for record in log.follow():
                seen.append(record.lsn)

        watching = asyncio.ensure_future(watch())

        async def source() -> AsyncIterator[bytes]:
            for number in range(12):
                yield b"%d" % number * 1500
                await asyncio.sleep(0.01)  # what was given so far has been written meanwhile
                assert log.durable_lsn == 1
                assert [record.lsn async for record in log.read()] == [1]
                assert seen == [1]

        await log.append_batch(source())
        await asyncio.sleep(0.01)
        assert seen == list(range(1, 14))
        await log.close()
        await watching

    run(scenario)


def test_rollback_that_leaves_a_hole() -> None:
    """A batch is given up after many of its groups were written: what follows stands where it began, in LSN and on disk."""

    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device, SMALL_GROUPS)
        first = await log.append(b"before")

        async def source() -> AsyncIterator[bytes]:
            for _ in range(40):
                yield bytes(3500)
            raise RuntimeError("the source failed")

        with pytest.raises(RuntimeError, match="source"):
            await log.append_batch(source())
        after = await log.append(b"after")
        assert (first.lsn, after.lsn) == (1, 2)
        assert after.segment_id == first.segment_id
        await log.append(bytes(30_000))
        await log.append(bytes(30_000))
        image = device.fork().crash()
        await log.close()
        for name in segments(image):
            found = groups(image, name)
            assert all(each.offset == before.end for before, each in itertools.pairwise(found))
        again = await opened(image)
        assert await payloads(again) == [b"before", b"after", bytes(30_000), bytes(30_000)]
        await again.close()

    run(scenario, 3)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS])
@pytest.mark.parametrize("short", [None, 0, 512, 4096])
def test_write_errors_and_short_writes_ignored(number: int, short: int | None) -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device)
        await log.append(b"safe")
        device.fail("submit.write", errno=number, short=short)
        with pytest.raises(DurabilityLost) as caught:
            await log.append(bytes(9000))
        assert caught.value.errno == (number if short is None else errno.EIO)
        assert log.durable_lsn == 1
        with pytest.raises(DurabilityLost):
            await log.append(b"later")
        await log.close()

    run(scenario)


def test_background_fsync_errors_only_printed(capfd: pytest.CaptureFixture[str]) -> None:
    """A Relaxed record's sync fails while nobody waits: the next caller is told, and so is close."""

    async def scenario(seed: int) -> None:
        for next_call in ("append", "flush", "close"):
            device = SimDevice(seed)
            log = await opened(device, dataclasses.replace(CONFIG, relaxed_interval=0.01))
            device.fail("submit.sync", errno=errno.ENODEV)
            assert not (await log.append(b"promised", mode=Relaxed)).durable
            await asyncio.sleep(1)
            with pytest.raises(DurabilityLost) as caught:
                await (log.append(b"x") if next_call == "append" else getattr(log, next_call)())
            assert caught.value.errno == errno.ENODEV
            await log.close()

    run(scenario)
    assert capfd.readouterr().out == ""


async def test_recovered_files_never_reclaimed(tmp_path: Path) -> None:
    """Segments of earlier runs are removed or recycled by truncation like those of this one."""
    for life in range(6):
        async with walsvc.open(tmp_path / "log", segment_bytes=SEGMENT_BYTES) as log:
            for _ in range(20):
                await log.append(bytes(12_000))
            if life < 2:
                assert log.stats().segments > 3
                continue
            await log.truncate_before(log.next_lsn)
            files = [file.stat().st_size for file in (tmp_path / "log").iterdir() if file.name != "LOCK"]
            assert sum(files) <= 4 * SEGMENT_BYTES
            assert log.stats().segments == 1


def test_corruption_answered_as_no_more_data() -> None:
    """Each group of a closed log in turn loses one bit: reading raises, and never just ends."""

    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device, ONE_EACH)
        for number in range(12):
            await log.append(b"%d" % number * 9000)
        await log.close()
        damaged = 0
        for name in segments(device):
            for group in groups(device, name):
                if not group.records:
                    continue
                image = device.fork()
                image.flip(name, group.offset + 200, 3)
                damaged += 1
                with pytest.raises(Corruption) as caught:
                    again = await opened(image)
                    try:
                        await payloads(again)
                    finally:
                        await again.close()
                assert (caught.value.segment, caught.value.offset) == (group.segment, group.offset)
        assert damaged == 12

    run(scenario)


@pytest.mark.parametrize("disk", REAL_DISKS)
async def test_unframed_o_direct_padding(tmp_path: Path, disk: str) -> None:
    """Every group ends in padding up to the next block; replay goes on behind it, also when groups are tiny."""
    wanted = [b"%d:" % number + hashlib.sha256(b"%d" % number).digest() for number in range(200)]
    async with walsvc.open(tmp_path / "log", disk=disk, max_group_records=1, segment_bytes=1 << 20) as log:
        await asyncio.gather(*map(log.append, wanted))
        assert log.stats().groups >= 200
    async with walsvc.open(tmp_path / "log", disk=disk) as log:
        assert [record.payload async for record in log.read()] == wanted


def test_padding_that_leaks_old_bytes() -> None:
    """A buffer that held a secret is used again for a small group, in a file that was recycled."""

    async def scenario(seed: int) -> None:
        device, secret = SimDevice(seed), b"SECRET42"
        log = await opened(device)
        for _ in range(6):
            await log.append(secret * 1500)
        await log.truncate_before(log.next_lsn)
        for _ in range(30):
            await log.append(b"small")
        await log.close()
        small = 0
        for name in segments(device):
            data = content(device, name)
            for group in groups(device, name):
                small += group.records == 1 and group.payload_bytes == 5
                if group.first_lsn > 6:
                    assert secret not in data[group.offset : group.end]
                    used = 128 + group.payload_bytes + group.index_bytes + group.meta_bytes
                    assert not data[group.offset + used : group.end].strip(b"\0")
        assert small == 30

    run(scenario)


def test_buffer_cleared_before_the_fsync() -> None:
    """What was appended stays in memory until its sync has answered; if that fails, every waiter hears of it."""

    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device, ONE_EACH)  # the simulated disk asserts that memory in flight does not change
        device.stall_sync(5)
        stalled = [log.append(b"%d" % number * 1000) for number in range(6)]
        await asyncio.sleep(4)
        assert log.stats().pending_bytes >= 6000
        assert not any(future.done() for future in stalled)
        await asyncio.gather(*stalled)
        device.fail("submit.sync", errno=errno.EIO)
        lost = [log.append(b"lost %d" % number) for number in range(6)]
        for future in lost:
            with pytest.raises(DurabilityLost):
                await future
        with pytest.raises(DurabilityLost):
            await log.flush()
        assert log.durable_lsn == 6
        await log.close()
        again = await opened(device)
        assert (await payloads(again))[:6] == [b"%d" % number * 1000 for number in range(6)]
        await again.close()

    run(scenario)


def test_lsn_burnt_by_a_failed_append() -> None:
    """No room, too large, wrong type, cancelled in the queue: the next record gets the LSN that they would have had."""

    async def scenario(seed: int) -> None:
        device = SimDevice(seed, capacity=2 * SEGMENT_BYTES)
        log = await opened(device, dataclasses.replace(CONFIG, max_record_bytes=20_000))
        with pytest.raises(walsvc.RecordTooLarge):
            log.append(bytes(20_001))
        with pytest.raises(walsvc.BadPayload):
            log.append("text")  # type: ignore[arg-type]
        while True:
            try:
                await log.append(bytes(15_000))
            except NoSpace:
                break
        following = log.next_lsn
        for _ in range(3):
            with pytest.raises(NoSpace):
                await log.append(bytes(15_000))
        assert log.next_lsn == following
        device.capacity = None
        cancelled = log.append(bytes(15_000))
        cancelled.cancel()
        results = [await log.append(bytes(15_000)) for _ in range(4)]
        assert [result.lsn for result in results] == list(range(following, following + 4))
        await log.close()
        again = await opened(device)
        assert again.next_lsn == following + 4
        await again.close()

    run(scenario)


def test_encrypted_log_that_cannot_resume() -> None:
    """nodedb-wal refuses to reopen an encrypted log. Here each opening resumes in the middle of a segment, under the same
    key; and a log with a feature that this version does not have is refused whole, not cut to its known part."""
    config = dataclasses.replace(CONFIG, keys=KeyRing(("key", bytes(range(32)))))

    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        for life in range(5):
            log = await opened(device, config)
            await log.append(b"%d" % life)
            image = device.fork().crash()
            await log.close()
            device = image
        log = await opened(device, config)
        assert await payloads(log) == [b"%d" % life for life in range(5)]
        await log.close()
        (name,) = segments(device)
        assert len({group.generation for group in groups(device, name) if group.records}) == 5
        header = decode_segment_header(content(device, name))
        foreign = header._replace(required=header.required | 1 << 31)
        overwrite(device, name, 0, encode_segment_header(foreign))
        before = device.fingerprint()
        with pytest.raises(UnsupportedFormat):
            await opened(device, config)
        assert device.fingerprint() == before

    run(scenario)


def test_one_failure_flag_for_all_groups() -> None:
    """Of two groups in flight one fails: each waiter gets the outcome of its own group, and no success hides the failure."""

    async def scenario(seed: int) -> None:
        for nth in range(1, 7):
            device = SimDevice(seed)
            log = await opened(device, ONE_EACH)
            device.fail("submit.sync", nth=nth, errno=errno.EIO)
            futures = [log.append(b"%d" % number * 900) for number in range(8)]
            outcomes = await asyncio.gather(*futures, return_exceptions=True)
            failed = [isinstance(outcome, DurabilityLost) for outcome in outcomes]
            good = failed.index(True)
            assert failed == [False] * good + [True] * (8 - good), "a record after a failed one was answered"
            assert good == log.durable_lsn
            assert len({id(outcome) for outcome in outcomes[good:]}) == 8 - good
            await asyncio.sleep(0.01)  # the other one in flight is answered, too: well
            for _ in range(2):
                with pytest.raises(DurabilityLost):
                    await log.append(b"later")
            image = device.fork().crash()
            await log.close()
            again = await opened(image)
            assert (await payloads(again))[:good] == [b"%d" % number * 900 for number in range(good)]
            await again.close()

    run(scenario, 4)


def test_directory_fsync_result_dropped() -> None:
    """Each directory sync of a life fails in turn, and every time somebody is told."""

    async def life(device: SimDevice) -> None:
        log = await opened(device)
        try:
            for _ in range(8):
                await log.append(bytes(15_000))
            await asyncio.sleep(1)
            await log.truncate_before(5)
            await log.truncate_after(6)
        except DurabilityLost:
            await log.close()
            raise
        await log.close()

    async def scenario(seed: int) -> None:
        syncs: list[str] = []
        counting = SimDevice(seed)
        counting.on_operation = lambda _, name: syncs.append(name) if name.endswith("sync_directory") else None
        await life(counting)
        assert len(syncs) >= 5
        for nth in range(1, len(syncs) + 1):
            device = SimDevice(seed)
            device.fail("sync_directory", nth=nth, errno=errno.EIO)
            with pytest.raises((DurabilityLost, walsvc.PathError)) as caught:
                await life(device)
            assert caught.value.errno == errno.EIO

    run(scenario)


def test_timer_that_only_fires_on_the_next_append() -> None:
    """A lone Relaxed record becomes durable within its interval although nothing else is ever called."""

    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device, dataclasses.replace(CONFIG, relaxed_interval=0.5))
        for lsn in range(1, 4):
            await log.append(b"alone", mode=Relaxed)
            assert log.durable_lsn == lsn - 1
            await asyncio.sleep(0.5)
            assert log.durable_lsn == lsn
        await log.close()

    run(scenario)


def test_fsync_failure_that_reuses_an_lsn() -> None:
    """The failed record may have reached the disk: its LSN is not given to another one that is then answered as durable."""

    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device)
        await log.append(b"safe")
        device.fail("submit.complete", errno=errno.EIO)  # written and synced, but reported as failed
        with pytest.raises(DurabilityLost):
            await log.append(b"failed")
        for _ in range(3):
            with pytest.raises(DurabilityLost):
                await log.append(b"another")
        await log.close()
        again = await opened(device)
        assert await payloads(again) == [b"safe", b"failed"]
        assert (await again.append(b"another")).lsn == 3
        await again.close()

    run(scenario, 3)


def test_appending_into_a_segment_that_recovery_ignored() -> None:
    """After a torn tail, and after a successor that recovery dropped, what is appended next is found by the next opening."""

    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device, ONE_EACH)
        await fill_segment(log, 4096)
        with Film(device, log) as film:
            await asyncio.gather(log.append(bytes(3000)), log.append(bytes(15_000)), log.append(b"x"))
        await log.close()
        for _, image in film.crashes(5):
            again = await opened(image)
            held = await payloads(again)
            result = await again.append(b"appended after recovery")
            assert result.lsn == len(held) + 1
            later = image.fork().crash()
            await again.close()
            last = await opened(later)
            assert await payloads(last) == [*held, b"appended after recovery"]
            await last.close()

    run(scenario, 2)


def test_memory_in_flight_is_watched_by_the_simulated_disk() -> None:
    """The assertion that several tests above rely on."""

    async def scenario(seed: int) -> None:
        disk = SimDisk(SimDevice(seed))
        await disk.allocate("f", 4096)
        view, answers = disk.buffer(4096), []
        disk.submit(Write(await disk.open_file("f"), 0, view, lambda _, error: answers.append(error)))
        view[:1] = b"x"
        await asyncio.sleep(1)

    def strays(_: int) -> Any:
        return scenario(1)

    with pytest.raises(AssertionError, match="memory of a write changed"):
        run(strays)
