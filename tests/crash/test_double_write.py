"""Layout pack and the double-write file: power cuts between, in and after the two writes; slots that are stale or torn."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import logging
import random
from typing import Any

import pytest

from walsvc.config import KIB, WalConfig
from walsvc.disk.base import Write
from walsvc.disk.sim import SimDevice, SimDisk
from walsvc.errors import BadOption, Corruption, DurabilityLost, NoSpace
from walsvc.format.double_write import DOUBLE_WRITE_NAME, SLOT_HEADER_BYTES, SLOTS, decode_slot_header
from walsvc.opening import open_on

from .double_write import explore, losses
from .explorer import Effort
from .plan import SEGMENT_BYTES
from .sampling import WHOLE
from .scenes import Film, opened, payloads, run, segments

WRITTEN_ON = 0.4 if WHOLE else 0.15  # share of the states
SMALL = Effort(
    lives=1, steps=9, states=8, recovery_share=0.001, recovery_states=2, kill_share=0.005, go_on_share=WRITTEN_ON
)
PACK = WalConfig(
    segment_bytes=SEGMENT_BYTES,
    relaxed_interval=None,
    layout="pack",
    double_write="direct",
    max_group_bytes=4 * KIB,
    max_group_records=1,
)
PAD = dataclasses.replace(PACK, layout="pad")
RESTORED = "restored_from_double_write"


def slot(device: SimDevice, number: int) -> tuple[int, bytes]:
    """Where a slot begins, and its bytes."""
    file = device.file(DOUBLE_WRITE_NAME)
    length = file.visible_size // SLOTS
    return number * length, file.read(number * length, length, lambda: True)


def newest_slot(device: SimDevice) -> int:
    """Number of the slot that was written last."""
    headers = [slot(device, number)[1] for number in range(SLOTS)]
    valid = {
        number: decode_slot_header(data, len(data)).sequence
        for number, data in enumerate(headers)
        if any(data[:SLOT_HEADER_BYTES])
    }
    return max(valid, key=lambda number: valid[number])


def with_slots_of(device: SimDevice, other: SimDevice) -> SimDevice:
    """A copy of `device` with the double-write file of `other`."""
    copy, source = device.fork(), other.fork()
    copy.files[copy.inode(DOUBLE_WRITE_NAME)] = source.file(DOUBLE_WRITE_NAME)
    return copy


def damage(device: SimDevice, name: str, offset: int, length: int = 1) -> None:
    """Invert a bit in each of some bytes."""
    for place in range(offset, offset + length):
        device.flip(name, place, 3)


async def look(device: SimDevice, config: WalConfig = PACK) -> tuple[list[bytes], set[str]]:
    """Open a fork of the device; what the log holds, and the kinds of findings."""
    log = await opened(device.fork(), config)
    found = await payloads(log), {finding.kind for finding in log.report.findings}
    await log.close()
    return found


# ---- the exploration


@pytest.mark.timeout(300)
@pytest.mark.parametrize("block", range(2))
def test_noise_in_every_write_of_a_power_cut_takes_no_acknowledged_record(block: int) -> None:
    tally = explore(1 + 1_000 * block, 1_000, SMALL)
    print(tally)
    assert len(tally.states) >= 1_000
    assert tally.findings[RESTORED] > 50


def test_exploration_without_the_slots_finds_losses() -> None:
    found = losses(range(1, 5), SMALL)
    print("\n".join(found))
    assert found


def test_layout_pack_is_refused_without_double_write() -> None:
    with pytest.raises(BadOption, match="needs double_write"):
        WalConfig(layout="pack")
    assert WalConfig(layout="pack", read_only=True).layout == "pack"  # which writes nothing


# ---- FAULTS 28: between the two writes


@pytest.mark.parametrize("sector", [512, 4096])
def test_cut_between_the_two_writes_keeps_what_was_acknowledged_and_restores_the_group(sector: int) -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed, sector=sector, garbage_each=True)
        log = await opened(device, PACK)
        acked = [b"%d" % number * 40 for number in range(20)]
        for payload in acked:
            await log.append(payload)
        with Film(device, log) as film:
            await log.append(b"last" * 30)
        await log.close()
        syncs = [at for at, moment in enumerate(film.moments) if moment.operation == "submit.sync"]
        assert len(syncs) == 2  # of the slot, then of the log
        restored = 0
        for at, moment in enumerate(film.moments):
            for image in moment.device.crash_states(12):
                found, findings = await look(image)
                assert found[:20] == acked
                assert len(found) == 21 or at <= syncs[0]  # from its first sync on, the group is safe
                restored += RESTORED in findings
        assert restored > 5

    run(scenario, 3)


def test_log_is_written_only_after_its_slot_is_durable() -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        order: list[str] = []

        class Watched(SimDisk):
            def submit(self, write: Write) -> None:
                name = self.device.directory.names
                kind = "slot" if self._handles[write.file] == name.get(DOUBLE_WRITE_NAME) else "log"
                order.append(f"{kind} begins")
                done = write.done

                def answered(which: Write, error: OSError | None) -> None:
                    order.append(f"{kind} ends")
                    done(which, error)

                write.done = answered
                super().submit(write)

        log = await open_on(Watched(device), PACK)
        for number in range(10):
            await log.append(bytes(number))
        await log.close()
        assert order == ["slot begins", "slot ends", "log begins", "log ends"] * 11  # the last one closes the log

    run(scenario, 3)


def test_recovery_cut_while_it_restores_restores_again() -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed, garbage_each=True)
        log = await opened(device, PACK)
        acked = [b"%d" % number * 50 for number in range(12)]
        for payload in acked:
            await log.append(payload)
        end = log.writer.core.tail.segment.end
        image = device.fork().crash()
        await log.close()
        damage(image, segments(image)[0], end - end % 4096, end % 4096)
        states: list[SimDevice] = []
        image.on_operation = lambda *_: states.append(image.fork())
        assert (await look(image, PACK))[1] >= {RESTORED}
        log = await opened(image, PACK)
        await log.close()
        assert len(states) > 10
        for state in states:
            for cut in state.crash_states(6):
                assert (await look(cut))[0] == acked

    run(scenario, 2)


# ---- FAULTS 29: stale slots


def test_stale_slots_never_bring_back_or_overwrite_anything() -> None:
    """The slots of every earlier moment in place of the last ones, with the log whole and with its end damaged."""

    async def scenario(seed: int) -> None:
        device, rng = SimDevice(seed), random.Random(seed)
        earlier: list[SimDevice] = []

        async def failing() -> Any:
            for _ in range(6):
                earlier.append(device.fork().crash())
                yield b"given up" * 300
            raise RuntimeError("the source failed")

        expected: list[bytes] = []
        for life in range(3):
            log = await opened(device, PACK)
            for number in range(8):
                expected.append(b"life %d, %d, " % (life, number) * 30)
                await log.append(expected[-1])
                earlier.append(device.fork())
            with pytest.raises(RuntimeError):
                await log.append_batch(failing())
            earlier.append(device.fork())
            await log.truncate_after(log.next_lsn - 3)
            del expected[-2:]
            expected.append(b"behind the cut, %d" % life)
            await log.append(expected[-1])
            end = log.writer.core.tail.segment.end
            await log.close()
        last = device.fork()
        for old in earlier:
            whole = with_slots_of(last, old)
            found, findings = await look(whole)
            assert (found, findings) == (expected, set())
            hurt = with_slots_of(last, old)
            damage(hurt, segments(hurt)[-1], end - rng.randint(1, end % 4096), 1)
            try:
                found, findings = await look(hurt)
            except Corruption:
                continue  # nothing could be restored, and nothing was made up
            assert found == expected
            assert (
                RESTORED in findings or not findings
            )  # the damage was restored, or hit padding of a group that is gone

    run(scenario, 3)


def test_seal_of_a_batch_that_was_given_up_does_not_come_back_over_what_is_in_its_place() -> None:
    """Its image begins with the groups that stood before it in the block, and so brings a chain of its own."""

    async def failing() -> Any:
        for size in (500, 500, 3500, 3500, 3500, 3500):
            yield bytes(size)
        await asyncio.sleep(1)  # the first segment is sealed by then
        raise RuntimeError("the source failed")

    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device, PACK)
        await fill_to_the_last_block(log)
        await log.append(bytes(100 * seed))
        expected = await payloads(log)
        with pytest.raises(RuntimeError):
            await log.append_batch(failing())
        assert len(log.writer.segments.ids()) == 1
        for each in (b"behind it", b"and more"):
            await log.append(each)
            expected.append(each)
            found, _ = await look(device.fork().crash())
            assert found == expected
        await log.close()

    for seed in range(12):
        run(scenario, seed)


def test_batch_that_began_a_packed_segment_is_given_up_to_behind_its_snapshot() -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed, garbage_each=True)
        log = await opened(device, PACK)
        await fill_to_the_last_block(log)
        expected = await payloads(log)

        async def failing() -> Any:
            for _ in range(3):
                yield bytes(3500)
            raise RuntimeError("the source failed")

        with Film(device, log) as film:
            with pytest.raises(RuntimeError):
                await log.append_batch(failing())
            await log.append(b"behind it")
        assert len(log.writer.segments.ids()) == 2
        assert await payloads(log) == [*expected, b"behind it"]
        await log.close()
        for moment, image in film.crashes(4):
            found, _ = await look(image)
            assert found in (expected, [*expected, b"behind it"])
            assert len(found) >= moment.durable_lsn

    run(scenario, 2)


def test_older_slot_restores_its_group_and_leaves_what_stands_behind_it() -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device, PACK)
        acked = [b"one" * 20, b"two" * 20, b"three" * 20]
        places = [await log.append(payload) for payload in acked]
        image = device.fork().crash()
        await log.close()
        start, _ = slot(image, newest_slot(image))
        damage(image, DOUBLE_WRITE_NAME, start, 8)  # the slot of the last group: the one before has to do
        name = segments(image)[0]
        damage(image, name, places[0].offset, 10)
        damage(image, name, places[1].offset, 10)
        assert len({place.offset // 4096 for place in places}) == 1  # all in one block
        found, findings = await look(image)
        assert found == acked
        assert findings == {RESTORED, "unclean_close"}

    run(scenario, 3)


# ---- FAULTS 30: torn slots


def test_torn_slot_is_nothing() -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed, garbage_each=True)
        log = await opened(device, PACK)
        acked = [b"%d" % number * 50 for number in range(9)]
        for payload in acked:
            await log.append(payload)
        with Film(device, log) as film:
            await log.append(b"last" * 1000)
        await log.close()
        until = [moment.operation for moment in film.moments].index("submit.sync") + 1
        torn = 0
        for moment in film.moments[:until]:  # the slot is being written, the log is not
            for image in moment.device.crash_states(20):
                found, findings = await look(image)
                assert found[:9] == acked
                assert (RESTORED in findings) == (len(found) == 10)  # all of the slot had arrived
                torn += slot(image, newest_slot(moment.device))[1] != slot(device, newest_slot(device))[1]
        assert torn > 20

    run(scenario, 4)


def test_every_damaged_byte_of_a_slot_makes_it_nothing() -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device, PACK)
        acked = [b"first" * 9, b"last" * 9]
        for payload in acked:
            place = await log.append(payload)
        image = device.fork().crash()
        await log.close()
        start, data = slot(image, newest_slot(image))
        header = decode_slot_header(data, len(data))
        damage(image, segments(image)[0], place.offset)
        used = [*range(88), *range(124, 128), *range(header.header_bytes, header.header_bytes + header.image_bytes, 61)]
        assert (await look(image))[0] == acked
        for at in used:
            hurt = image.fork()
            damage(hurt, DOUBLE_WRITE_NAME, start + at)
            found, findings = await look(hurt)
            assert found == acked[:1]  # nothing later says that the last one had been acknowledged
            assert RESTORED not in findings

    run(scenario)


# ---- what it covers


@pytest.mark.parametrize("config", [PACK, PAD], ids=["pack", "pad"])
def test_damaged_last_group_is_restored(config: WalConfig) -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device, config)
        acked = [b"%d" % number * 200 for number in range(5)]
        for payload in acked:
            place = await log.append(payload)
        image = device.fork().crash()
        await log.close()
        for at in range(0, 100, 9):
            hurt = image.fork()
            damage(hurt, segments(hurt)[0], place.offset + at)
            assert await look(hurt, config) == (acked, {RESTORED, "unclean_close"})

    run(scenario, 2)


def test_seal_cut_while_it_shares_a_block_with_acknowledged_records_takes_none() -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed, garbage_each=True)
        log = await opened(device, PACK)
        await fill_to_the_last_block(log)
        before = await payloads(log)
        with Film(device, log) as film:
            await log.append(bytes(3000))
            await asyncio.sleep(1)
        assert len(log.writer.segments.ids()) == 2
        await log.close()
        sealing = 0
        for moment, image in film.crashes(6):
            found, findings = await look(image)
            assert found[: len(before)] == before
            assert len(found) >= moment.durable_lsn
            sealing += RESTORED in findings
        assert sealing

    run(scenario, 3)


def test_seal_that_a_killed_process_left_unsynced_is_synced_before_its_slot_is_used_again() -> None:
    """Its block holds acknowledged records, too; the slot is all that is whole of them until the log is synced."""

    async def scenario(seed: int) -> None:
        device = SimDevice(seed, garbage_each=True)
        log = await opened(device, PACK)
        await fill_to_the_last_block(log)
        with Film(device, log) as film:
            await log.append(bytes(3000))
            await asyncio.sleep(1)
        await log.close()
        sealed_again = 0
        for moment in film.moments:
            killed = moment.device.fork()
            killed.kill()
            log = await opened(killed, PACK)
            await fill_to_the_last_block(log)
            await log.append(bytes(3000))
            await asyncio.sleep(1)
            sealed_again += len(log.writer.segments.ids()) == 3
            for image in killed.crash_states(6):
                found, _ = await look(image)
                assert len(found) >= log.durable_lsn
            await log.close()
        assert sealed_again

    run(scenario, 2)


async def fill_to_the_last_block(log: Any) -> None:
    """Append until the next record of 3,000 bytes begins a new segment, which is ready."""
    while log.writer.core.tail.segment.limit - log.writer.core.tail.segment.end > 3000:
        await log.append(b"x" * 500)
    await asyncio.sleep(1)
    assert log.writer.core.tail.spares.spare is not None
    assert log.writer.core.tail.segment.tail


def test_record_too_large_for_a_slot_is_told_and_harms_nothing_before_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "walsvc")

    async def scenario(seed: int) -> None:
        caplog.clear()
        device = SimDevice(seed, garbage_each=True)
        log = await opened(device, dataclasses.replace(PACK, segment_bytes=8 * SEGMENT_BYTES))
        acked = [b"%d" % number * 30 for number in range(6)]
        for payload in acked:
            await log.append(payload)
        assert log.stats().double_write_uncovered == 0
        with Film(device, log) as film:
            await log.append(bytes(100_000))
            await log.append(bytes(100_000))
        assert log.stats().double_write_uncovered == 2
        assert [record.message for record in caplog.records] == [caplog.records[0].message]
        assert "does not fit the double-write file" in caplog.records[0].message
        await log.close()
        for moment, image in film.crashes(8):
            found, findings = await look(image)
            assert found[:6] == acked
            assert len(found) >= moment.durable_lsn
        of_the_log = [moment for moment in film.moments if moment.operation == "submit.write"][1]
        image = of_the_log.device.crash()
        damage(image, segments(image)[0], 4096, 4096)
        found, findings = await look(image)
        assert (found, RESTORED in findings) == (acked, True)  # what the block held before, and not the large record

    run(scenario, 2)


def test_slots_are_wiped_only_while_nothing_is_on_its_way() -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed, garbage_each=True)
        log = await opened(device, PACK)
        double_write = log.writer.core.counters.double_write
        assert double_write is not None
        acked: list[bytes] = []

        async def append(payload: bytes) -> None:
            await log.append(payload)
            acked.append(payload)

        for number in range(5):
            await append(b"before, %d" % number * 9)
        moments: list[tuple[SimDevice, int]] = []
        device.on_operation = lambda *_: moments.append((device.fork(), len(acked)))
        appending = [asyncio.ensure_future(append(b"meanwhile, %d" % number * 9)) for number in range(6)]
        await asyncio.sleep(seed * 70e-6)
        await double_write.wipe()
        device.on_operation = None
        await asyncio.gather(*appending)
        assert (await payloads(log)) == acked
        await log.close()
        for moment, count in moments:
            for image in moment.crash_states(6):
                assert (await look(image))[0][:count] == acked[:count]

    run(scenario, 4)


def test_wiped_slots_hold_nothing() -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device, PACK)
        await log.append(b"secret" * 100)
        double_write = log.writer.core.counters.double_write
        assert double_write is not None
        assert any(any(slot(device, number)[1]) for number in range(SLOTS))
        await double_write.wipe()
        assert not any(any(slot(device, number)[1]) for number in range(SLOTS))
        device.fail("write")
        with pytest.raises(OSError, match="error"):
            await double_write.wipe()
        assert (await log.append(b"on")).lsn == 2
        await log.close()

    run(scenario)


# ---- options, opening, reading


def test_failed_write_of_the_double_write_file_is_terminal() -> None:
    async def scenario(seed: int) -> None:
        for operation, number in (("submit.write", errno.EIO), ("submit.sync", errno.EIO), ("submit", errno.ENOSPC)):
            device = SimDevice(seed)
            log = await opened(device, PACK)
            await log.append(b"acked")
            device.fail(operation, errno=number)
            with pytest.raises(DurabilityLost, match="double-write") as caught:
                await log.append(b"lost")
            assert caught.value.errno == number
            with pytest.raises(DurabilityLost):
                await log.append(b"never")
            await log.close()
            assert (await look(device))[0][:1] == [b"acked"]

    run(scenario)


def test_no_room_for_the_double_write_file_changes_nothing() -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device, dataclasses.replace(PAD, double_write="off"))
        await log.append(b"acked")
        await log.close()
        device.capacity = sum(device.file(name).visible_size for name in device.directory.names) + 64 * KIB
        before = device.fingerprint()
        with pytest.raises(NoSpace, match="double-write"):
            await opened(device, PACK)
        assert device.fingerprint() == before
        empty = SimDevice(seed, capacity=2 * SEGMENT_BYTES)
        with pytest.raises(NoSpace):
            await opened(empty, dataclasses.replace(PACK, max_group_bytes=64 * KIB))
        assert not empty.directory.names

    run(scenario)


def test_larger_groups_get_a_larger_file_and_keep_what_the_old_one_restores() -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device, PACK)
        place = await log.append(b"acked" * 50)
        image = device.fork().crash()
        await log.close()
        damage(image, segments(image)[0], place.offset)
        larger = dataclasses.replace(PACK, max_group_bytes=32 * KIB)
        states: list[SimDevice] = []
        image.on_operation = lambda *_: states.append(image.fork())
        log = await opened(image, larger)
        image.on_operation = None
        assert image.file(DOUBLE_WRITE_NAME).visible_size > device.file(DOUBLE_WRITE_NAME).visible_size
        await log.close()
        for state in states:
            for cut in state.crash_states(6):
                assert (await look(cut, larger))[0] == [b"acked" * 50]

    run(scenario, 2)


def test_existing_log_takes_up_a_layout_with_its_next_segment() -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        count = 0
        for config, ends_as in ((PAD, "pad"), (PACK, "pack"), (PAD, "pad")):
            log = await opened(device, config)
            before = log.stats().layout
            assert before == {0: "pad", 1: "pad", 2: "pack"}[count // 100]
            await fill_segment_any(log)
            assert log.stats().layout == ends_as
            count += 100
            await log.close()
        log = await opened(device, dataclasses.replace(PAD, double_write="off"))
        assert DOUBLE_WRITE_NAME not in device.directory.names  # what it held is of no use any more
        assert [len(each) for each in await payloads(log)] == [700] * len(await payloads(log))
        await log.close()

    run(scenario)


async def fill_segment_any(log: Any) -> None:
    """Append until another segment has begun."""
    while not log.stats().rotations:
        await log.append(bytes(700))


def test_packed_log_is_not_opened_for_writing_without_double_write() -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device, PACK)
        await log.append(b"acked")
        await log.close()
        before, off = device.fingerprint(), dataclasses.replace(PAD, double_write="off")
        with pytest.raises(BadOption, match="packed"):
            await opened(device, off)
        assert device.fingerprint() == before
        reader = await opened(device, dataclasses.replace(off, read_only=True), lock=False)
        assert await payloads(reader) == [b"acked"]
        assert reader.stats().layout == "pack"
        await reader.close()
        assert (await look(device, PAD))[0] == [b"acked"]

    run(scenario)


def test_packed_predecessor_without_its_seal_needs_double_write_too() -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device, PACK)
        await log.append(bytes(100))
        await log.close()
        log = await opened(device, PAD)
        await fill_to_the_last_block(log)
        states: list[SimDevice] = []
        device.on_operation = lambda *_: states.append(device.fork())
        await log.append(bytes(3000))
        await asyncio.sleep(1)
        device.on_operation = None
        assert log.stats().layout == "pad"
        await log.close()
        off, refused = dataclasses.replace(PAD, double_write="off"), 0
        for state in states:
            image = state.crash()
            before = image.fingerprint()
            try:
                log = await opened(image, off)
                await log.close()
            except BadOption:
                assert image.fingerprint() == before
                log = await opened(image, PAD)
                refused += len(log.writer.segments.ids()) == 2
                await log.close()
                if len(log.writer.segments.ids()) == 2:  # the seal is there now
                    await (await opened(image, off)).close()
        assert refused

    run(scenario, 2)


def test_reader_sees_what_the_slots_hold_and_writes_nothing() -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device, PACK)
        acked = [b"%d" % number * 60 for number in range(10)]
        for payload in acked:
            place = await log.append(payload)
        image = device.fork().crash()
        await log.close()
        damage(image, segments(image)[0], place.offset - place.offset % 4096, 4096)
        before = image.fingerprint()
        reader = await opened(image, WalConfig(read_only=True), lock=False)
        assert await payloads(reader) == acked
        assert [finding.kind for finding in reader.report.findings] == [RESTORED, "torn_tail"]  # noise behind the end
        assert image.fingerprint() == before
        log = await opened(image, PACK)
        await log.append(b"new")
        assert [record.payload async for record in reader.read()] == [*acked, b"new"]
        await reader.close()
        await log.close()

    run(scenario, 2)


def test_reader_beside_a_writer_that_packs_sees_every_record_and_no_damage() -> None:
    """Blocks are written again under the reader: each of their sectors is old or new."""

    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        log = await opened(device, PACK)
        sent = [b"%d" % number * (1 + number % 60) for number in range(120)]

        async def write() -> None:
            for at in range(0, len(sent), 6):
                await asyncio.gather(*map(log.append, sent[at : at + 6]))
                await asyncio.sleep(
                    0.02
                )  # simulated: a reader that met a change under its eyes looks again after 50 ms

        writing = asyncio.ensure_future(write())
        readers = []
        while not writing.done():
            reader = await opened(device, WalConfig(read_only=True), lock=False)
            readers.append(reader)
            for each in readers[-3:]:
                seen = await payloads(each)
                assert seen == sent[: len(seen)]
        await writing
        for each in readers:
            assert await payloads(each) == sent
            await each.close()
        assert len(readers) > 3
        await log.close()

    run(scenario, 2)


def test_batch_is_told_of_a_full_device_once_for_each_time() -> None:
    async def scenario(seed: int) -> None:
        for config in (PACK, dataclasses.replace(PAD, double_write="off")):
            device = SimDevice(seed)
            log = await opened(device, dataclasses.replace(config, max_group_records=100))
            device.fail("allocate.write", errno=errno.ENOSPC)
            batch = [b"%d" % number * 500 for number in range(120)]
            with pytest.raises(NoSpace):
                await log.append_batch(batch)
            await log.append_batch(batch)
            assert await payloads(log) == batch
            await log.close()

    run(scenario, 3)


def test_seal_finds_room_where_the_segment_is_not_a_multiple_of_blocks() -> None:
    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        config = dataclasses.replace(PAD, double_write="off", segment_bytes=SEGMENT_BYTES + 2048)
        rotations = 0
        for _ in range(20):
            log = await opened(device, config)
            await log.close()
            rotations += log.stats().rotations
        assert rotations

    run(scenario)


def test_header_of_a_slot_never_reaches_the_log() -> None:
    """A segment's first write has its slot's header laid over the end of its prefix for a while."""

    async def scenario(seed: int) -> None:
        device = SimDevice(seed)
        for config in (PACK, PAD):
            log = await opened(device, config)
            await fill_segment_any(log)
            await asyncio.sleep(1)
            await log.close()
        for name in segments(device):
            file = device.file(name)
            assert b"WALSDW" not in file.read(0, file.visible_size, lambda: True)
        assert (await look(device))[1] == set()

    run(scenario)
