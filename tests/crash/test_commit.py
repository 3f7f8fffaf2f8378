"""Group commit: what is written and synced before which answer, and what a failure tells whom."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import hashlib
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import walsvc
from tests.disks import REAL_DISKS
from walsvc.config import WalConfig
from walsvc.disk.base import Write
from walsvc.disk.sim import SimDevice, SimDisk
from walsvc.errors import DurabilityLost, NoSpace, WalError
from walsvc.format.group import (
    GROUP_MAGIC,
    decode_group_header,
)
from walsvc.log.commit.ack import all_done
from walsvc.model import Relaxed
from walsvc.opening import open_on

from .damage import content, groups
from .plan import SEGMENT_BYTES
from .scenes import CONFIG, ONE_EACH, Film, WatchedDisk, new_images, opened, payloads, run, segments

SMALL_GROUPS = dataclasses.replace(CONFIG, max_group_bytes=4096)


def test_failed_write_fails_appends_that_wait_for_room() -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device, WalConfig(segment_bytes=SEGMENT_BYTES, max_pending_bytes=8192))
        device.fail("submit.write", errno=errno.EIO)
        first = [log.append(bytes(4000)) for _ in range(2)]
        waiting = [log.append(bytes(4000)) for _ in range(10)]
        assert log.stats().waiting == len(waiting)
        truncating = asyncio.ensure_future(log.truncate_before(1))
        await asyncio.wait_for(all_done([*first, *waiting]), 60)
        for future in [*first, *waiting]:
            error = future.exception()
            assert isinstance(error, DurabilityLost)
            assert error.errno == errno.EIO
        await asyncio.wait([truncating])
        await log.close()

    run(scenario, 5)


def test_cancelled_head_of_the_queue_does_not_leave_the_next_append_waiting() -> None:
    """The head needs a new segment; what follows it fits the old one, and must be committed."""

    async def scenario(seed: int) -> None:
        log = await opened(SimDevice(seed), WalConfig(segment_bytes=SEGMENT_BYTES, relaxed_interval=None))
        await log.append(bytes(10_000))
        await asyncio.sleep(1)
        large = log.append(bytes(2 * SEGMENT_BYTES))
        small = log.append(b"small")
        await asyncio.sleep(seed * 20e-6)
        large.cancel()
        result = await asyncio.wait_for(small, 10)
        assert result.lsn in {2, 3}
        await log.close()

    run(scenario, 20)


@pytest.mark.parametrize("sync_method", ["dsync", "fdatasync"])
def test_strict_answer_comes_only_after_its_sync_and_the_sync_after_its_write(sync_method: str) -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device, ONE_EACH, sync_method=sync_method)
        futures: list[asyncio.Future[Any]] = []
        moments: list[tuple[SimDevice, list[int]]] = []

        def look(*_: object) -> None:
            answered = [lsn for lsn, future in enumerate(futures, start=1) if future.done()]
            moments.append((device.fork(), answered))

        device.on_operation = look
        futures += [log.append(b"%d" % lsn * 3000) for lsn in range(1, 7)]
        await asyncio.gather(*futures)
        look()
        device.on_operation = None
        await log.close()
        assert moments[-1][1] == [1, 2, 3, 4, 5, 6]
        looked: set[tuple[object, ...]] = set()
        for moment, answered in moments:
            for image in new_images(moment, 3, looked, *answered):
                again = await opened(image)
                assert again.next_lsn > max(answered, default=0), "an answered record is gone"
                await again.close()

    run(scenario, 2)


def test_new_log_without_room_for_its_reserve_has_a_durable_name_before_the_first_answer() -> None:
    """The reserve's files sync the directory as well, and there is not always room for them."""

    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        device.fail("allocate", nth=2, errno=errno.ENOSPC, times=100)
        log = await opened(device)
        await log.append(b"answered")
        for image in device.fork().crash_states(20):
            again = await opened(image)
            assert await payloads(again) == [b"answered"]
            await again.close()

    run(scenario, 2)


def test_completions_out_of_order_are_answered_in_order() -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device, ONE_EACH)
        order: list[int] = []
        futures = [log.append(b"%d" % lsn * 900) for lsn in range(1, 13)]
        for lsn, future in enumerate(futures, start=1):
            future.add_done_callback(lambda _, lsn=lsn: order.append(lsn))
        with Film(device, log) as film:
            await asyncio.gather(*futures)
        assert order == list(range(1, 13))
        for moment, image in film.crashes(3):
            again = await opened(image)
            assert again.durable_lsn >= moment.durable_lsn
            await again.close()
        await log.close()

    run(scenario, 3)


def test_blocks_with_acknowledged_records_are_never_written_again() -> None:
    """Why layout pad needs no double-write file: over torn tails, reopening, truncation and recycling, no write touches them."""

    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        written: dict[int, list[tuple[int, int]]] = {}
        killed: list[Any] = []  # kept, since what a dead process held does not complain either

        def before(inode: int, offset: int, data: bytes) -> None:
            names = {name for name, each in device.directory.names.items() if each == inode}
            if offset == 0:
                assert all(name.endswith(".spare") for name in names), "a segment's head was written again"
                written[inode] = []
            for start, end in written.get(inode, []):
                assert offset + len(data) <= start or end <= offset, f"{names}: {offset} was written before"

        def after(inode: int, offset: int, data: bytes) -> None:
            written.setdefault(inode, []).append((offset, offset + len(data)))

        for life in range(5):
            log = await open_on(WatchedDisk(device, before, after), ONE_EACH)
            for number in range(12):
                await asyncio.gather(*(log.append(b"%d" % number * size) for size in (100, 4000, 5000)))
            await log.truncate_before(log.next_lsn - 10)
            await log.truncate_after(log.next_lsn - 3)
            await log.append(b"after the cut")
            if life % 2:
                log.append(bytes(8000))  # one alone: answered by the device is then answered to the caller
                await asyncio.sleep(60e-6)
                device.kill()
                killed.append(log)
                continue
            await log.close()

    run(scenario, 3)


def test_no_two_answered_groups_share_generation_segment_and_offset() -> None:
    """What a nonce would be made of: over restart, truncation and rewriting, and a batch that is tried again."""

    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        seen: dict[tuple[int, int, int], bytes] = {}

        def after(_: int, offset: int, data: bytes) -> None:
            for at in range(0, len(data), 4096):
                if data[at : at + 4] != GROUP_MAGIC:
                    continue
                header = decode_group_header(data, at)
                assert header.offset == offset + at
                group = data[at : at + header.group_bytes]
                place = header.generation, header.segment, header.offset
                assert seen.setdefault(place, group) == group, f"{place} was written twice"

        async def failing() -> Any:
            for _ in range(30):
                yield bytes(4000)
            raise RuntimeError("the source failed")

        config = dataclasses.replace(CONFIG, max_group_bytes=8192)
        for _ in range(4):
            log = await open_on(WatchedDisk(device, lambda *_: None, after), config)
            await asyncio.gather(*(log.append(bytes(7000)) for _ in range(4)))
            await log.truncate_after(log.next_lsn - 3)
            await log.append(b"rewritten")
            with pytest.raises(RuntimeError):
                await log.append_batch(failing())
            await log.append_batch([b"tried again" * 300] * 6)
            image = device.fork().crash()
            await log.close()
            device = image
        assert len(seen) > 30

    run(scenario, 3)


@pytest.mark.parametrize("what", ["buffer", "encode", "close"])
def test_memory_error_during_commit_is_told_and_loses_nothing_answered(what: str) -> None:
    """No memory for a group's buffer, or while it is filled: its waiters hear of it, and nothing is answered behind it."""

    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device, ONE_EACH)
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda *_: None)
        acked = [bytes(10)]
        await log.append(acked[0])
        target = {
            "buffer": "walsvc.log.commit.buffer.BufferPool.take",
            "encode": "walsvc.log.commit.group.encode_group",
            "close": "walsvc.log.commit.group.Group.close",
        }[what]
        with mock.patch(target, side_effect=MemoryError("no memory")):
            first = log.append(b"unlucky")
            await asyncio.wait_for(all_done([first]), 5)
        assert first.done(), "its waiter was never told"
        assert isinstance(first.exception(), WalError), repr(first.exception())
        for number in range(5):
            try:
                payload = b"later %d" % number
                await asyncio.wait_for(log.append(payload), 5)
                acked.append(payload)
            except WalError:
                pass
        image = device.fork().crash()
        try:
            await asyncio.wait_for(log.close(), 5)
        except DurabilityLost:
            pass
        again = await opened(image)
        held = await payloads(again)
        assert [payload for payload in held if payload != b"unlucky"] == acked
        await again.close()
        loop.set_exception_handler(None)

    run(scenario)


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
