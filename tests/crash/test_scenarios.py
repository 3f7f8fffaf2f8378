"""Crashes and orders of events that once lost data, refused to open or hung, each as its smallest scenario."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from walsvc.api import Log
from walsvc.config import WalConfig
from walsvc.disk.sim import SimDevice, SimDisk, run_sim
from walsvc.errors import BadOption, Closed, Corruption, DurabilityLost, NoSpace
from walsvc.format.group import Flag
from walsvc.format.segment import parse_name
from walsvc.log.commit.ack import all_done
from walsvc.model import Relaxed
from walsvc.opening import open_on

from .damage import groups, rename
from .plan import SEGMENT_BYTES
from .workload import observe

CONFIG = WalConfig(segment_bytes=SEGMENT_BYTES)
Scenario = Callable[[int], Awaitable[None]]


def run(scenario: Callable[[int], Any], seeds: int = 1) -> None:
    """Run a scenario on simulated time, with each of some seeds."""
    for seed in range(seeds):
        run_sim(scenario, seed)


async def opened(device: SimDevice, config: WalConfig = CONFIG, **options: Any) -> Log:
    log: Log = await open_on(SimDisk(device, **options), config)
    return log


async def payloads(log: Log) -> list[bytes]:
    return [entry.payload for entry in (await observe(log)).entries]


def segments(device: SimDevice) -> list[str]:
    return [name for name in sorted(device.directory.names) if parse_name(name, ".wal") is not None]


def test_record_larger_than_the_empty_first_segment_survives_truncation_and_reopening() -> None:
    """The first segment held no record, so its successor has its LSN and its name."""

    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device)
        for payload in (bytes(SEGMENT_BYTES + 5000), b"second", b"third"):
            await log.append(payload)
        assert len(set(log.segment_ids())) == len(log.segment_ids())
        await log.truncate_before(2)
        assert await payloads(log) == [b"second", b"third"]
        await log.close()
        log = await opened(device)
        assert await payloads(log) == [b"second", b"third"]
        await log.close()

    run(scenario, 5)


def test_opening_and_closing_many_times_without_appends_keeps_the_log_openable() -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        written = 0
        for round_ in range(40):
            log = await opened(device)
            assert log.report.clean
            if round_ in (0, 9, 30):
                await log.append(bytes(24_000))
                written += 1
            assert len(await payloads(log)) == written
            await log.close()

    run(scenario)


def test_power_cut_while_an_empty_segment_is_replaced_keeps_acked() -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed, loose=True)
        log = await opened(device)
        states: list[tuple[SimDevice, int]] = []
        device.on_operation = lambda *_: states.append((device.fork(), log.durable_lsn))
        await log.append(bytes(SEGMENT_BYTES))
        await log.append(b"second")
        device.on_operation = None
        await log.close()
        for state, durable in states:
            for image in state.crash_states(10):
                again = await opened(image)
                assert again.durable_lsn >= durable
                assert await payloads(again) == [bytes(SEGMENT_BYTES), b"second"][: again.durable_lsn]
                await again.close()

    run(scenario, 3)


def test_torn_tail_after_rotation_keeps_acked() -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device)
        acked: list[bytes] = []
        while len(log.segment_ids()) < 3:
            acked.append(bytes(5000 + len(acked)))
            await log.append(acked[-1])
        late = [bytes(9000 + number) for number in range(6)]
        for payload in late:
            log.append(payload, mode=Relaxed)
        flushing = asyncio.ensure_future(log.flush())
        await asyncio.sleep(seed * 30e-6)
        image = device.fork().crash()
        await flushing
        await log.close()
        log = await opened(image)
        assert log.next_lsn > len(acked)
        assert await payloads(log) == (acked + late)[: log.next_lsn - 1]
        await log.close()

    run(scenario, 20)


def test_spare_of_a_killed_process_is_synced_before_it_is_used() -> None:
    """SIGKILL while a segment is prepared, restart, rotation into that file, power cut."""

    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device)
        killed: list[SimDevice] = []
        device.on_operation = lambda _, name: killed.append(device.fork()) if name.startswith("allocate") else None
        acked = [bytes(20_000)] * 2
        for payload in acked:
            await log.append(payload)
        await asyncio.sleep(1)
        device.on_operation = None
        await log.close()
        assert killed
        for process in killed:
            process.kill()
            log = await opened(process)
            held = await payloads(log)
            states: list[tuple[SimDevice, int]] = []
            for payload in (bytes(30_000), bytes(30_000), b"x"):
                held.append(payload)
                await log.append(payload)
                states.append((process.fork(), len(held)))
            for state, count in states:
                for image in state.crash_states(4):
                    assert all(image.file(name).visible_size >= SEGMENT_BYTES for name in segments(image))
                    again = await opened(image)
                    assert await payloads(again) == held[:count]
                    await again.close()
            await log.close()

    run(scenario, 3)


def test_metadata_group_lost_before_a_durable_successor_still_opens() -> None:
    """truncate_before's mark, the last group of a segment, was in flight together with the next segment's first group."""

    async def scenario(seed: int) -> None:
        device = SimDevice(seed, sector=4096)
        log = await opened(device)
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
        assert len(log.segment_ids()) == 2
        for state, durable in states:
            for image in state.crash_states(12):
                again = await opened(image)
                assert again.durable_lsn >= durable
                assert again.next_lsn in {3, 4}
                await again.close()

    run(scenario, 6)


def test_loose_directory_loses_a_rename_but_not_the_removal_of_the_segment_before() -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed, loose=True)
        log = await opened(device)
        states: list[tuple[SimDevice, int]] = []
        device.on_operation = lambda *_: states.append((device.fork(), log.durable_lsn))
        for _ in range(4):
            await log.append(bytes(25_000))
            await log.truncate_before(log.next_lsn)
        device.on_operation = None
        await log.close()
        for state, durable in states:
            for image in state.crash_states(8):
                again = await opened(image)
                assert again.durable_lsn >= durable
                await again.close()

    run(scenario, 4)


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


def test_close_after_a_failed_rotation_ends_with_durability_lost() -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device)
        for _ in range(4):
            await log.append(bytes(5000))
        await asyncio.sleep(1)  # a spare is prepared: the next directory sync is the rotation's
        device.fail("sync_directory", errno=errno.EIO)
        with pytest.raises(DurabilityLost) as caught:
            while len(log.segment_ids()) == 1:
                await log.append(bytes(5000))
            await log.close()
        assert caught.value.errno == errno.EIO
        await log.close()
        log = await opened(device)
        assert log.next_lsn > 4
        await log.close()

    run(scenario, 5)


@pytest.mark.parametrize("ending", ["close", "seal"])
def test_ending_during_a_truncation_waits_for_it(ending: str) -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device)
        for number in range(12):
            await log.append(b"%d" % number * 6000)
        truncating = asyncio.ensure_future(log.truncate_after(4) if seed % 2 else log.truncate_before(9))
        await asyncio.sleep(seed * 40e-6)
        await getattr(log, ending)()
        outcome = (await asyncio.gather(truncating, return_exceptions=True))[0]
        assert outcome is None or isinstance(outcome, Closed)
        await log.close()
        log = await opened(device)
        assert log.report.clean
        assert (log.first_lsn, log.next_lsn) in {(1, 13), (1, 5), (9, 13)}
        assert [payload[:1] for payload in await payloads(log)] == [
            (b"%d" % (lsn - 1))[:1] for lsn in range(log.first_lsn, log.next_lsn)
        ]
        await log.close()

    run(scenario, 24)


def test_cancelled_truncate_after_never_drops_what_is_acknowledged_later() -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device)
        for number in range(4):
            await log.append(b"%d" % number)
        truncating = asyncio.ensure_future(log.truncate_after(1))
        await asyncio.sleep(seed * 40e-6)
        truncating.cancel()
        await asyncio.wait([truncating])
        result = await log.append(b"acknowledged")
        await log.close()
        log = await opened(device)
        assert (await payloads(log))[-1] == b"acknowledged"
        assert log.next_lsn == result.lsn + 1
        await log.close()

    run(scenario, 40)


def test_truncate_after_without_room_changes_nothing_now_or_later() -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed, capacity=SEGMENT_BYTES + 4096)
        log = await opened(device)
        wanted = [b"0", b"1", b"2", b"3"]
        for payload in wanted:
            await log.append(payload)
        with pytest.raises(NoSpace):
            await log.truncate_after(1)
        wanted.append(b"acknowledged")
        assert (await log.append(wanted[-1])).lsn == 5
        await log.close()
        device.capacity = None
        log = await opened(device)
        assert await payloads(log) == wanted
        await log.close()

    run(scenario)


def test_appends_called_after_truncate_after_are_kept() -> None:
    """It waits its turn behind another truncation; what comes meanwhile stays behind the cut."""

    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device)
        for number in range(12):
            await log.append(b"%d" % number * 6000)
        first = asyncio.ensure_future(log.truncate_before(3))
        second = asyncio.ensure_future(log.truncate_after(8))
        await asyncio.sleep(0)
        result = await log.append(b"later")
        await asyncio.gather(first, second)
        assert result.lsn == 9
        assert (log.first_lsn, log.next_lsn) == (3, 10)
        await log.close()
        log = await opened(device)
        assert (await payloads(log))[-1] == b"later"
        await log.close()

    run(scenario, 5)


def test_range_of_a_truncation_is_checked_when_its_turn_comes() -> None:
    async def scenario(seed: int) -> None:
        log = await opened(SimDevice(seed))
        for _ in range(10):
            await log.append(b"x")
        outcomes = await asyncio.gather(log.truncate_after(4), log.truncate_before(8), return_exceptions=True)
        assert outcomes[0] is None
        assert isinstance(outcomes[1], BadOption)
        outcomes = await asyncio.gather(log.truncate_before(4), log.truncate_after(1), return_exceptions=True)
        assert outcomes[0] is None
        assert isinstance(outcomes[1], BadOption)
        assert (log.first_lsn, log.next_lsn) == (4, 5)
        await log.close()

    run(scenario)


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


def test_leftovers_behind_a_clean_close_are_no_torn_tail() -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed, garbage=True)
        log = await opened(device)
        await log.append(b"acked")
        for _ in range(4):
            log.append(bytes(20_000))
        await asyncio.sleep(60e-6)
        images = list(device.crash_states(10))
        await log.close()
        for image in images:
            log = await opened(image)
            await log.close()
            log = await opened(image)
            assert log.report.clean
            assert not log.report.findings
            await log.close()

    run(scenario, 5)


def test_kill_between_write_and_sync_then_restart_then_power_cut_keeps_what_the_restart_showed() -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device)
        killed: list[SimDevice] = []
        device.on_operation = lambda *_: killed.append(device.fork())
        for size in (10, 6000, 30_000, 30_000, 10):
            await log.append(bytes(size))
        device.on_operation = None
        await log.close()
        for process in killed:
            process.kill()
            log = await opened(process)
            shown = await payloads(log)
            image = process.fork().crash()
            await log.close()
            log = await opened(image)
            assert await payloads(log) == shown
            await log.close()

    run(scenario, 4)


def test_first_creation_cut_at_any_operation_opens_or_creates() -> None:
    async def scenario(seed: int) -> None:
        for loose in (False, True):
            device = SimDevice(seed, loose=loose, garbage=True)
            states: list[SimDevice] = []
            device.on_operation = lambda *_, states=states, device=device: states.append(device.fork())
            log = await opened(device)
            device.on_operation = None
            await log.close()
            for state in states:
                for image in state.crash_states(10):
                    again = await opened(image)
                    assert again.next_lsn == 1
                    assert (await again.append(b"first")).lsn == 1
                    await again.close()

    run(scenario, 5)


def test_recovering_twice_gives_the_same() -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed, garbage=True)
        log = await opened(device)
        for size in (100, 9000, 40_000, 100):
            await log.append(bytes(size))
        log.append(bytes(12_000))
        await asyncio.sleep(80e-6)
        image = device.fork().crash()
        await log.close()
        seen = []
        for _ in range(3):
            log = await opened(image)
            seen.append((log.first_lsn, log.next_lsn, await payloads(log)))
            image = image.fork().crash()
            await log.close()
        assert seen[0] == seen[1] == seen[2]

    run(scenario, 10)


def test_sealed_log_without_its_last_segment_is_not_taken_for_complete() -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device)
        for _ in range(5):
            await log.append(bytes(20_000))
        await asyncio.sleep(1)  # the seal is written after the answer
        image = device.fork().crash()
        await log.close()
        last = segments(image)[-1]
        assert groups(image, segments(image)[-2])[-1].flags & Flag.SEAL
        rename(image, {last: None})
        with pytest.raises(Corruption, match="missing"):
            await opened(image)

    run(scenario)
