"""Scenarios of docs/RELIABILITY.md's table that have no room elsewhere, each at every moment that it could go wrong."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from tests.disks import REAL_DISKS
from walsvc.config import WalConfig
from walsvc.disk.sim import SimDevice, SimDisk
from walsvc.errors import BadOption, Corruption, DurabilityLost, NoSpace, PathError, WalError
from walsvc.format.chain import Chain
from walsvc.format.group import (
    GROUP_HEADER_BYTES,
    GROUP_MAGIC,
    HEADER_CRC,
    HEADER_CRC_OFFSET,
    BadGroup,
    crc32c,
    decode_group_header,
)
from walsvc.format.segment import decode_segment_header, encode_segment_header, segment_name
from walsvc.log import opening
from walsvc.log.commit.ack import all_done
from walsvc.model import Relaxed
from walsvc.opening import open_on

from .damage import content, groups, overwrite, rename
from .plan import SEGMENT_BYTES
from .scenes import CONFIG, ONE_EACH, Film, WatchedDisk, fill_segment, opened, payloads, run, segments
from .sigkill import campaign

# ---- order of durability


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
        for moment, answered in moments:
            for image in moment.crash_states(3):
                again = await opened(image)
                assert again.next_lsn > max(answered, default=0), "an answered record is gone"
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


@pytest.mark.parametrize("loose", [False, True])
@pytest.mark.parametrize("recycled", [False, True])
def test_new_segment_survives_with_its_name_from_its_first_answer_on(recycled: bool, loose: bool) -> None:
    """Every operation of a rotation cut, into a fresh file or into a recycled one."""

    async def scenario(seed: int) -> None:
        device = SimDevice(seed, loose=loose)
        log = await opened(device)
        if recycled:
            for _ in range(4):
                await log.append(bytes(25_000))
            await log.truncate_before(log.next_lsn)
            assert any(name.startswith("8") for name in device.directory.names), "nothing was recycled"
        with Film(device, log) as film:
            rotations = log.stats().rotations
            while log.stats().rotations < rotations + 2:
                await log.append(bytes(14_000))
            await asyncio.sleep(1)
        await log.close()
        for moment, image in film.crashes(6):
            again = await opened(image)
            assert again.durable_lsn >= moment.durable_lsn
            assert len(await payloads(again)) == again.next_lsn - again.first_lsn
            await again.close()

    run(scenario)


@pytest.mark.parametrize("loose", [False, True])
def test_file_goes_only_after_the_checkpoint_that_allows_it_is_durable(loose: bool) -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed, loose=loose)
        log = await opened(device)
        for lsn in range(1, 12):
            await log.append(b"%02d" % lsn * 6000)
        await asyncio.sleep(1)
        assert len(log.segment_ids()) >= 3
        with Film(device, log) as film:
            await log.truncate_before(10)
        await log.close()
        for _, image in film.crashes(6):
            again = await opened(image)
            assert (again.first_lsn, again.next_lsn) in {(1, 12), (10, 12)}
            assert await payloads(again) == [b"%02d" % lsn * 6000 for lsn in range(again.first_lsn, 12)]
            await again.close()

    run(scenario, 2)


def test_truncate_after_cut_at_any_operation_is_done_or_not_begun() -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device)
        for lsn in range(1, 16):
            await log.append(b"%02d" % lsn * 6000)
        await asyncio.sleep(1)
        assert len(log.segment_ids()) >= 4
        with Film(device, log) as film:
            await log.truncate_after(2)
            film.take()
        await log.close()
        for moment, image in film.crashes(4):
            again = await opened(image)
            assert again.next_lsn == 3 if moment.operation == "end" else again.next_lsn in {3, 16}
            assert await payloads(again) == [b"%02d" % lsn * 6000 for lsn in range(1, again.next_lsn)]
            await again.close()

    run(scenario)


def test_metadata_has_one_valid_copy_at_any_moment() -> None:
    """The truncation point moves on while segments come and go: the old one or the new one, never none."""

    async def scenario(seed: int) -> None:
        device = SimDevice(seed, garbage=True)
        log = await opened(device)
        moves: list[tuple[Film, set[int]]] = []
        for number in range(8):
            await log.append(bytes(13_000))
            before, after = log.first_lsn, max(log.first_lsn, log.next_lsn - 2)
            with Film(device, log) as moving:
                await log.truncate_before(after)
            with Film(device, log) as moved:
                await log.append(bytes(30_000 if number % 3 == 0 else 10))
            moves += [(moving, {before, after}), (moved, {after})]
        await log.close()
        for film, possible in moves:
            for _, image in film.crashes(2):
                again = await opened(image)
                assert again.first_lsn in possible
                await again.close()

    run(scenario)


def test_append_after_a_torn_tail_cut_again_keeps_every_answer() -> None:
    """Three lives, each cut in the middle of its appends, each beginning where the one before was torn."""

    async def scenario(seed: int) -> None:
        device = SimDevice(seed, garbage=True)
        kept: list[bytes] = []
        for life in range(3):
            log = await opened(device, ONE_EACH)
            held = await payloads(log)
            assert held[: len(kept)] == kept
            new = [b"%d %d" % (life, number) * 700 for number in range(8)]
            futures = [log.append(payload) for payload in new]
            await all_done(futures[: 2 + seed % 4])
            kept = (held + new)[: log.durable_lsn]
            image = device.fork().crash()
            await log.close()
            device = image
        log = await opened(device)
        assert (await payloads(log))[: len(kept)] == kept
        await log.close()

    run(scenario, 25)


def test_groups_of_an_earlier_opening_never_come_back_behind_the_same_record() -> None:
    """The clock stands still, and the program appends the same bytes in each life: only the generation differs."""

    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        config = dataclasses.replace(ONE_EACH, max_pending_bytes=1 << 20)

        async def life(device: SimDevice) -> Any:
            log = await open_on(SimDisk(device), config)
            log.writer.core.tail.clock = lambda: 1_700_000_000_000_000_000
            return log

        log = await life(device)
        await log.append(b"first")
        await log.close()
        log = await life(device)
        both = [log.append(b"x" * 900), log.append(b"y" * 900)]
        with Film(device, log) as film:
            await asyncio.gather(*both)
        await log.close()
        for _, image in film.crashes(8):
            again = await life(image)
            count = again.next_lsn
            await again.append(b"x" * 900)
            later = image.fork().crash()
            await again.close()
            last = await opened(later)
            assert last.next_lsn == count + 1, "a record that was never appended in this life"
            await last.close()

    run(scenario, 3)


def test_successor_dropped_after_a_power_cut_never_comes_back() -> None:
    """A segment was begun, and named, while the last group of the one before was still on its way and got lost."""

    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device, ONE_EACH)
        await fill_segment(log, 4096)
        with Film(device, log) as film:
            await asyncio.gather(log.append(bytes(3000)), log.append(bytes(15_000)))
        await log.close()
        dropped = 0
        for _, image in film.crashes(6):
            again = await opened(image)
            dropped += any(finding.kind == "successor_dropped" for finding in again.report.findings)
            held = await payloads(again)
            more = [b"%d" % number * 9000 for number in range(6)]
            for payload in more:
                await again.append(payload)
            later = image.fork().crash()
            await again.close()
            last = await opened(later)
            assert await payloads(last) == held + more
            await last.close()
        drops.append(dropped)

    drops: list[int] = []
    run(scenario, 4)
    assert sum(drops) > 0, "the scenario was not met"


def test_file_prepared_by_a_killed_process_is_synced_before_its_first_answer() -> None:
    """SIGKILL when the zeros of the next segment are written but not synced; then a rotation into it, and a power cut."""

    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device)
        killed: list[SimDevice] = []
        device.on_operation = lambda _, name: killed.append(device.fork()) if name == "allocate.sync" else None
        await log.append(bytes(12_000))
        await log.append(bytes(12_000))
        await asyncio.sleep(1)
        device.on_operation = None
        assert len(log.segment_ids()) == len(killed) == 1
        await log.close()
        (process,) = killed
        process.kill()
        log = await opened(process)
        held = await payloads(log)
        await fill_segment(log, 4096)
        with Film(process, log) as film:
            await log.append(bytes(9000))
            film.take()
        assert len(log.segment_ids()) == 2
        held = await payloads(log)
        await log.close()
        for moment, image in film.crashes(8):
            again = await opened(image)
            assert again.durable_lsn >= moment.durable_lsn
            assert await payloads(again) == held[: again.durable_lsn]
            assert all(image.file(name).visible_size >= SEGMENT_BYTES for name in segments(image))
            await again.close()

    run(scenario, 2)


# ---- never written twice (double write, nonces)


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


def test_layout_that_would_need_a_double_write_is_refused() -> None:
    with pytest.raises(BadOption, match="layout"):
        WalConfig(layout="pack")


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


# ---- damage

LENGTHS = {"records": 72, "payload_bytes": 76, "index_bytes": 80, "meta_bytes": 84, "group_bytes": 88}


def closed_log(sizes: list[int]) -> SimDevice:
    """A device with a log that was closed in order."""
    device = SimDevice(1)

    async def fill(_: int) -> None:
        log = await opened(device)
        for number, size in enumerate(sizes):
            await log.append(b"%d" % (number % 10) * size)
        await log.close()

    run(fill)
    return device


@pytest.mark.parametrize("value", [0, 0x7FFFFFFF, 0xFFFFFFFF, SEGMENT_BYTES + 4096])
@pytest.mark.parametrize("field", ["records", "payload_bytes", "index_bytes", "meta_bytes", "group_bytes"])
def test_length_of_nothing_of_everything_or_beyond_the_end_is_a_typed_error_in_bounded_memory(
    field: str, value: int
) -> None:
    """Even under a right CRC, as a faulty writer would leave it: nothing longer than the file is ever asked for."""
    device = closed_log([100, 5000, 5000, 100, 100])
    name = segments(device)[0]
    group = groups(device, name)[2]
    if getattr(group, field) == value:
        value = 0xFFFF  # no metadata is what it has; let it claim more than there is
    data = bytearray(content(device, name)[group.offset :][:GROUP_HEADER_BYTES])
    at = LENGTHS[field]
    data[at : at + 4] = value.to_bytes(4, "little")
    data[HEADER_CRC_OFFSET:] = HEADER_CRC.pack(crc32c(bytes(data[:HEADER_CRC_OFFSET])))
    overwrite(device, name, group.offset, bytes(data))
    asked: list[int] = []

    class Counting(SimDisk):
        async def read(self, name: str, offset: int, length: int) -> bytes:
            found = await super().read(name, offset, length)
            asked.append(len(found))
            return found

    async def scenario(_: int) -> None:
        with pytest.raises(Corruption) as caught:
            await open_on(Counting(device), CONFIG)
        assert (caught.value.segment, caught.value.offset) == (1, group.offset)

    run(scenario)
    assert max(asked) <= SEGMENT_BYTES


def test_header_crc_is_checked_before_any_length_is_believed() -> None:
    """A damaged length is a bad group at once; it is never asked for more bytes first."""
    device = closed_log([100])
    name = segments(device)[0]
    data = content(device, name)
    group = groups(device, name)[1]
    for field in LENGTHS.values():
        for value in (b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x01"):
            damaged = bytearray(data[group.offset :][: GROUP_HEADER_BYTES + 500])
            damaged[field : field + 4] = value
            chain = Chain.begin(decode_segment_header(data), data[:4096], 1 << 40)
            chain.offset = group.offset
            with pytest.raises(BadGroup, match="CRC"):
                chain.take(bytes(damaged), group.offset)


@pytest.mark.parametrize("change", [-1, 1])
def test_lsn_gap_or_repeat_across_segments_is_corruption(change: int) -> None:
    """The second segment's header and name, both with right CRCs, say one LSN less or more."""
    device = closed_log([14_000] * 12)
    _, second, *_ = segments(device)
    header = decode_segment_header(content(device, second))
    wrong = header.first_lsn + change
    overwrite(device, second, 0, encode_segment_header(header._replace(first_lsn=wrong)))
    rename(device, {second: None, segment_name(wrong): second})

    async def scenario(_: int) -> None:
        before = device.fingerprint()
        with pytest.raises(Corruption):
            log = await open_on(SimDisk(device.fork(), lock=False), dataclasses.replace(CONFIG, read_only=True))
            try:
                await payloads(log)
            finally:
                await log.close()
        assert device.fingerprint() == before

    run(scenario)


# ---- errors of the system


@pytest.mark.parametrize("number", [errno.EROFS, errno.EMFILE])
def test_read_only_device_or_no_descriptors_at_open_is_typed_and_changes_nothing(number: int) -> None:
    """Every operation of opening an existing log fails once; the next opening finds everything."""
    pristine = closed_log([100, 20_000, 20_000, 20_000, 100])
    names: list[str] = []
    told: list[int | None] = []

    async def scenario(_: int) -> None:
        counting = pristine.fork()
        counting.on_operation = lambda _, name: names.append(name)
        log = await opened(counting)
        counting.on_operation = None
        held = await payloads(log)
        await log.close()
        for position, name in enumerate(names):
            device = pristine.fork()
            device.fail(name, nth=names[: position + 1].count(name), errno=number)
            try:
                log = await opened(device)
            except (PathError, DurabilityLost) as error:
                told.append(error.errno)
                log = await opened(device)
            assert await payloads(log) == held
            await log.close()

    run(scenario)
    assert len(names) > 8
    assert told == [number] * len(told)
    assert len(told) > len(names) // 2


def test_read_error_in_recovery_is_an_error_and_never_the_end_of_the_log() -> None:
    pristine = closed_log([100, 20_000, 20_000, 20_000, 100])

    async def scenario(_: int) -> None:
        reads: list[str] = []
        counting = pristine.fork()
        counting.on_operation = lambda _, name: reads.append(name) if name == "read" else None
        await (await opened(counting)).close()
        assert len(reads) >= 3
        for nth in range(1, len(reads) + 1):
            device = pristine.fork()
            device.fail("read", nth=nth, errno=errno.EIO)
            before = device.fingerprint()
            with pytest.raises(PathError) as caught:
                await opened(device)
            assert caught.value.errno == errno.EIO
            assert device.fingerprint() == before
            log = await opened(device)
            assert log.next_lsn == 6
            await log.close()

    run(scenario)


def test_read_error_while_reading_is_an_error_and_never_the_end_of_the_log() -> None:
    device = closed_log([14_000] * 12)

    async def scenario(_: int) -> None:
        log = await opened(device)
        device.fail("read", nth=2, errno=errno.EIO)
        with pytest.raises(PathError) as caught:
            await payloads(log)
        assert caught.value.errno == errno.EIO
        assert len(await payloads(log)) == 12
        await log.close()

    run(scenario)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("operation", ["allocate", "allocate.write", "allocate.sync"])
def test_no_space_or_quota_while_creating_leaves_nothing_and_can_be_tried_again(operation: str, number: int) -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        device.fail(operation, errno=number)
        with pytest.raises(NoSpace) as caught:
            await opened(device)
        assert caught.value.errno == number
        assert device.directory.names == {}
        log = await opened(device)
        assert (await log.append(b"x")).lsn == 1
        await log.close()

    run(scenario)


# ---- process and asyncio


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
            "buffer": "walsvc.log.buffer.BufferPool.take",
            "encode": "walsvc.log.group.encode_group",
            "close": "walsvc.log.group.Group.close",
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


@pytest.mark.parametrize("jump_s", [-365 * 86_400, 365 * 86_400])
def test_wall_clock_moved_by_a_year_between_openings_changes_nothing(jump_s: int) -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        now = 1_700_000_000_000_000_000
        held: list[bytes] = []
        for life in range(4):
            clock = SimpleNamespace(time_ns=lambda life=life: now + life % 2 * jump_s * 10**9)
            with mock.patch.object(opening, "time", clock):
                log = await opened(device)
            log.writer.core.tail.clock = clock.time_ns
            assert await payloads(log) == held
            held += [b"%d" % life * 9000] * 4
            await asyncio.gather(*(log.append(payload) for payload in held[-4:]))
            image = device.fork().crash()
            await log.close()
            device = image if life % 2 else device
        log = await opened(device)
        assert await payloads(log) == held
        assert (log.first_lsn, log.next_lsn) == (1, 17)
        await log.close()

    run(scenario)


PENDING = """
import asyncio, gc, sys
import walsvc
waiters = []
async def main(path, disk):
    log = await walsvc.open(path, disk=disk, segment_bytes=65536, max_pending_bytes=65536)
    await log.append(b"answered")
    waiters.extend(log.append(bytes(6000)) for _ in range(50))
    waiters.append(asyncio.create_task(wait(waiters[-1])))
    await asyncio.sleep(0)
async def wait(future):
    await future
def end(loop, ending):
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        if ending == "cancelled":
            task.cancel()
        else:
            task._log_destroy_pending = False
    if ending == "cancelled":
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        assert waiters[-1].done()
    loop.close()
loop = asyncio.new_event_loop()
loop.run_until_complete(main(sys.argv[1], sys.argv[2]))
end(loop, sys.argv[3])
waiters.clear()
del loop
async def again(path, disk):
    for _ in range(500):  # the lock goes with the last call of the old log that is still in a thread
        gc.collect()
        try:
            log = await walsvc.open(path, disk=disk, segment_bytes=65536)
            break
        except walsvc.Locked:
            await asyncio.sleep(0.01)
    async with log:
        records = [record.payload async for record in log.read()]
        assert records[0] == b"answered"
        assert set(records[1:]) <= {bytes(6000)}
        print(len(records))
asyncio.run(again(sys.argv[1], sys.argv[2]))
"""


@pytest.mark.parametrize("ending", ["cancelled", "dropped"])
@pytest.mark.parametrize("disk", REAL_DISKS)
def test_loop_closed_with_appends_pending_harms_nobody(tmp_path: Path, disk: str, ending: str) -> None:
    """Writes are in flight and appends wait for room when the loop goes: no crash, no hang, and the log opens again."""
    command = [sys.executable, "-X", "faulthandler", "-c", PENDING, str(tmp_path / "log"), disk, ending]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert 1 <= int(done.stdout) <= 51


@pytest.mark.parametrize("layout", ["pad", "pack-buffered"])
@pytest.mark.parametrize("disk", REAL_DISKS)
def test_sigkill_at_random_loses_nothing_acknowledged(tmp_path: Path, disk: str, layout: str) -> None:
    assert campaign(disk, 6 if layout == "pad" else 3, 1, tmp_path, layout) == 0


# ---- readers


def test_readers_see_durable_records_only() -> None:
    """While the sync stalls, a follower waits, however much was accepted or written."""

    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device)
        await log.append(b"durable")
        seen: list[int] = []

        async def watch() -> None:
            async for record in log.follow():
                assert record.lsn <= log.durable_lsn
                seen.append(record.lsn)

        watching = asyncio.ensure_future(watch())
        await asyncio.sleep(0.01)
        device.stall_sync(10)
        await log.append(b"relaxed", mode=Relaxed)
        strict = log.append(b"strict")
        await asyncio.sleep(5)
        assert seen == [1]
        await strict
        await log.append(b"relaxed again", mode=Relaxed)
        await asyncio.sleep(1)
        assert seen == [1, 2, 3]
        await log.close()
        await watching
        assert seen == [1, 2, 3, 4]

    run(scenario)


def test_reader_that_keeps_up_with_groups_in_flight_sees_each_only_when_it_is_durable() -> None:
    async def scenario(seed: int) -> None:
        log = await opened(SimDevice(seed), ONE_EACH)
        seen: list[int] = []

        async def watch() -> None:
            async for record in log.follow():
                assert record.lsn <= log.durable_lsn, "a crash could take it back"
                seen.append(record.lsn)

        watching = asyncio.ensure_future(watch())
        await asyncio.gather(*(log.append(b"%d" % number * 500) for number in range(20)))
        await log.append(b"relaxed", mode=Relaxed)
        await log.close()
        await watching
        assert seen == list(range(1, 22))

    run(scenario, 3)
