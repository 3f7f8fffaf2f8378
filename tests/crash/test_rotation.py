"""New segments: prepared, named, sealed, recycled, and replaced while they are empty."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest

import walsvc
from walsvc.disk.sim import SimDevice
from walsvc.errors import Corruption, DurabilityLost
from walsvc.format.group import Flag
from walsvc.model import Relaxed

from .damage import groups, rename
from .plan import SEGMENT_BYTES
from .scenes import ONE_EACH, USUAL, Film, fill_segment, new_images, opened, payloads, run, segments


def test_record_larger_than_the_empty_first_segment_survives_truncation_and_reopening() -> None:
    """The first segment held no record, so its successor has its LSN and its name."""

    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device, USUAL)
        for payload in (bytes(SEGMENT_BYTES + 5000), b"second", b"third"):
            await log.append(payload)
        assert len(set(log.writer.segments.ids())) == len(log.writer.segments.ids())
        await log.truncate_before(2)
        assert await payloads(log) == [b"second", b"third"]
        await log.close()
        log = await opened(device, USUAL)
        assert await payloads(log) == [b"second", b"third"]
        await log.close()

    run(scenario, 5)


def test_power_cut_while_an_empty_segment_is_replaced_keeps_acked() -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed, loose=True)
        log = await opened(device, USUAL)
        states: list[tuple[SimDevice, int]] = []
        device.on_operation = lambda *_: states.append((device.fork(), log.durable_lsn))
        await log.append(bytes(SEGMENT_BYTES))
        await log.append(b"second")
        device.on_operation = None
        await log.close()
        looked: set[tuple[object, ...]] = set()
        for state, durable in states:
            for image in new_images(state, 10, looked, durable):
                again = await opened(image, USUAL)
                assert again.durable_lsn >= durable
                assert await payloads(again) == [bytes(SEGMENT_BYTES), b"second"][: again.durable_lsn]
                await again.close()

    run(scenario, 3)


def test_torn_tail_after_rotation_keeps_acked() -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device, USUAL)
        acked: list[bytes] = []
        while len(log.writer.segments.ids()) < 3:
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
        log = await opened(image, USUAL)
        assert log.next_lsn > len(acked)
        assert await payloads(log) == (acked + late)[: log.next_lsn - 1]
        await log.close()

    run(scenario, 20)


def test_spare_of_a_killed_process_is_synced_before_it_is_used() -> None:
    """SIGKILL while a segment is prepared, restart, rotation into that file, power cut."""

    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device, USUAL)
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
            log = await opened(process, USUAL)
            held = await payloads(log)
            states: list[tuple[SimDevice, int]] = []
            for payload in (bytes(30_000), bytes(30_000), b"x"):
                held.append(payload)
                await log.append(payload)
                states.append((process.fork(), len(held)))
            for state, count in states:
                for image in state.crash_states(4):
                    assert all(image.file(name).visible_size >= SEGMENT_BYTES for name in segments(image))
                    again = await opened(image, USUAL)
                    assert await payloads(again) == held[:count]
                    await again.close()
            await log.close()

    run(scenario, 3)


def test_loose_directory_loses_a_rename_but_not_the_removal_of_the_segment_before() -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed, loose=True)
        log = await opened(device, USUAL)
        states: list[tuple[SimDevice, int]] = []
        device.on_operation = lambda *_: states.append((device.fork(), log.durable_lsn))
        for _ in range(4):
            await log.append(bytes(25_000))
            await log.truncate_before(log.next_lsn)
        device.on_operation = None
        await log.close()
        looked: set[tuple[object, ...]] = set()
        for state, durable in states:
            for image in new_images(state, 8, looked, durable):
                again = await opened(image, USUAL)
                assert again.durable_lsn >= durable
                await again.close()

    run(scenario, 4)


def test_close_after_a_failed_rotation_ends_with_durability_lost() -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device, USUAL)
        for _ in range(4):
            await log.append(bytes(5000))
        await asyncio.sleep(1)  # a spare is prepared: the next directory sync is the rotation's
        device.fail("sync_directory", errno=errno.EIO)
        with pytest.raises(DurabilityLost) as caught:
            while len(log.writer.segments.ids()) == 1:
                await log.append(bytes(5000))
            await log.close()
        assert caught.value.errno == errno.EIO
        await log.close()
        log = await opened(device, USUAL)
        assert log.next_lsn > 4
        await log.close()

    run(scenario, 5)


def test_sealed_log_without_its_last_segment_is_not_taken_for_complete() -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device, USUAL)
        for _ in range(5):
            await log.append(bytes(20_000))
        await asyncio.sleep(1)  # the seal is written after the answer
        image = device.fork().crash()
        await log.close()
        last = segments(image)[-1]
        assert groups(image, segments(image)[-2])[-1].flags & Flag.SEAL
        rename(image, {last: None})
        with pytest.raises(Corruption, match="missing"):
            await opened(image, USUAL)

    run(scenario)


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
        assert len(log.writer.segments.ids()) == len(killed) == 1
        await log.close()
        (process,) = killed
        process.kill()
        log = await opened(process)
        held = await payloads(log)
        await fill_segment(log, 4096)
        with Film(process, log) as film:
            await log.append(bytes(9000))
            film.take()
        assert len(log.writer.segments.ids()) == 2
        held = await payloads(log)
        await log.close()
        for moment, image in film.crashes(8):
            again = await opened(image)
            assert again.durable_lsn >= moment.durable_lsn
            assert await payloads(again) == held[: again.durable_lsn]
            assert all(image.file(name).visible_size >= SEGMENT_BYTES for name in segments(image))
            await again.close()

    run(scenario, 2)


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
            # one of them was being prepared when the others were freed, or is not there
            assert sum(files) <= 5 * SEGMENT_BYTES
            assert log.stats().segments == 1


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
