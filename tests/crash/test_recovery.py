"""Opening: what is kept, dropped or refused, and that it may be cut and repeated."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from walsvc.config import WalConfig
from walsvc.disk.sim import SimDevice, SimDisk
from walsvc.errors import BadOption, Corruption, DurabilityLost, NoSpace, PathError, UnsupportedFormat
from walsvc.format.chain import Chain
from walsvc.format.group import (
    GROUP_HEADER_BYTES,
    HEADER_CRC,
    HEADER_CRC_OFFSET,
    BadGroup,
    crc32c,
)
from walsvc.format.segment import decode_segment_header, encode_segment_header, segment_name
from walsvc.keyring import KeyRing
from walsvc.log import opening
from walsvc.log.commit.ack import all_done
from walsvc.opening import open_on

from .damage import content, groups, overwrite, rename
from .plan import SEGMENT_BYTES
from .scenes import CONFIG, ONE_EACH, USUAL, Film, closed_log, fill_segment, new_images, opened, payloads, run, segments

LENGTHS = {"records": 72, "payload_bytes": 76, "index_bytes": 80, "meta_bytes": 84, "group_bytes": 88}


def test_opening_and_closing_many_times_without_appends_keeps_the_log_openable() -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        written = 0
        for round_ in range(40):
            log = await opened(device, USUAL)
            assert log.report.clean
            if round_ in (0, 9, 30):
                await log.append(bytes(24_000))
                written += 1
            assert len(await payloads(log)) == written
            await log.close()

    run(scenario)


def test_metadata_group_lost_before_a_durable_successor_still_opens() -> None:
    """truncate_before's mark, the last group of a segment, was in flight together with the next segment's first group."""

    async def scenario(seed: int) -> None:
        device = SimDevice(seed, sector=4096)
        log = await opened(device, USUAL)
        for _ in range(2):
            await log.append(bytes(15_000))
        await asyncio.sleep(1)  # a spare is prepared
        states: list[tuple[SimDevice, int]] = []
        device.on_operation = lambda *_: states.append((device.fork(), log.durable_lsn))
        truncating = asyncio.ensure_future(log.truncate_before(2))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.gather(truncating, log.append(bytes(40_000)))
        device.on_operation = None
        await log.close()
        assert len(log.writer.segments.ids()) == 2
        looked: set[tuple[object, ...]] = set()
        for state, durable in states:
            for image in new_images(state, 12, looked, durable):
                again = await opened(image, USUAL)
                assert again.durable_lsn >= durable
                assert again.next_lsn in {3, 4}
                await again.close()

    run(scenario, 6)


def test_leftovers_behind_a_clean_close_are_no_torn_tail() -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed, garbage=True)
        log = await opened(device, USUAL)
        await log.append(b"acked")
        for _ in range(4):
            log.append(bytes(20_000))
        await asyncio.sleep(60e-6)
        images = list(device.crash_states(10))
        await log.close()
        for image in images:
            log = await opened(image, USUAL)
            await log.close()
            log = await opened(image, USUAL)
            assert log.report.clean
            assert not log.report.findings
            await log.close()

    run(scenario, 5)


def test_kill_between_write_and_sync_then_restart_then_power_cut_keeps_what_the_restart_showed() -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device, USUAL)
        killed: list[SimDevice] = []
        device.on_operation = lambda *_: killed.append(device.fork())
        for size in (10, 6000, 30_000, 30_000, 10):
            await log.append(bytes(size))
        device.on_operation = None
        await log.close()
        for process in killed:
            process.kill()
            log = await opened(process, USUAL)
            shown = await payloads(log)
            image = process.fork().crash()
            await log.close()
            log = await opened(image, USUAL)
            assert await payloads(log) == shown
            await log.close()

    run(scenario, 4)


def test_first_creation_cut_at_any_operation_opens_or_creates() -> None:
    async def scenario(seed: int) -> None:
        for loose in (False, True):
            device = SimDevice(seed, loose=loose, garbage=True)
            states: list[SimDevice] = []
            device.on_operation = lambda *_, states=states, device=device: states.append(device.fork())
            log = await opened(device, USUAL)
            device.on_operation = None
            await log.close()
            looked: set[tuple[object, ...]] = set()
            for state in states:
                for image in new_images(state, 10, looked):
                    again = await opened(image, USUAL)
                    assert again.next_lsn == 1
                    assert (await again.append(b"first")).lsn == 1
                    await again.close()

    run(scenario, 5)


def test_recovering_twice_gives_the_same() -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed, garbage=True)
        log = await opened(device, USUAL)
        for size in (100, 9000, 40_000, 100):
            await log.append(bytes(size))
        log.append(bytes(12_000))
        await asyncio.sleep(80e-6)
        image = device.fork().crash()
        await log.close()
        seen = []
        for _ in range(3):
            log = await opened(image, USUAL)
            seen.append((log.first_lsn, log.next_lsn, await payloads(log)))
            image = image.fork().crash()
            await log.close()
        assert seen[0] == seen[1] == seen[2]

    run(scenario, 10)


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


def test_layout_that_would_need_a_double_write_is_refused() -> None:
    with pytest.raises(BadOption, match="layout"):
        WalConfig(layout="pack")


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
