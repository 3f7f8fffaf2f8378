"""What a power cut keeps of file contents, and what a sync saves: rules 1, 2 and 4. Rule numbers: walsvc/disk/sim."""

from __future__ import annotations

import pytest

from tests.disk.sim.support import (
    BLOCK,
    SEEDS,
    Answers,
    block,
    content,
    on_disk,
    prepared,
    sectors,
)
from walsvc.disk.base import Disk
from walsvc.disk.sim import SimDevice, SimDisk


def test_implements_the_protocol() -> None:
    async def scenario(disk: SimDisk) -> str:
        as_protocol: Disk = disk
        return as_protocol.kind

    assert on_disk(scenario) == "sim"


@pytest.mark.parametrize("sector", [512, 4096])
def test_cut_keeps_any_subset_of_the_sectors_of_a_write_in_flight(sector: int) -> None:
    device = SimDevice(3, sector=sector)
    images: list[SimDevice] = []

    async def scenario(disk: SimDisk) -> None:
        answers = Answers()
        file = await prepared(disk, blocks=8)
        answers.submit(disk, file, 0, block(b"n", 8))
        images.extend(device.crash_states(100))
        await answers.wait()

    on_disk(scenario, device=device)
    count = 8 * BLOCK // sector
    kept = set()
    for image in images:
        states = sectors(content(image), sector)
        assert set(states) <= {b"n" * sector, bytes(sector)}, "a sector was torn"
        kept.add(tuple(state[0] == ord("n") for state in states))
    assert len(kept) == len(images) == 100
    assert (False,) * count in kept
    assert (True,) * count in kept
    assert any(state[0] < state[-1] for state in kept), "a later sector without the first"
    assert {sum(state[index] for state in kept) > 10 for index in range(count)} == {True}


def test_cut_keeps_younger_writes_without_older_ones() -> None:
    device = SimDevice(1)
    found: set[tuple[bool, bool]] = set()

    async def scenario(disk: SimDisk) -> None:
        answers = Answers()
        file = await prepared(disk)
        answers.submit(disk, file, 0, block(b"a"), "a")
        answers.submit(disk, file, BLOCK, block(b"b"), "b")
        for image in device.crash_states(60):
            data = content(image)
            found.add((data[:BLOCK] == block(b"a"), data[BLOCK : 2 * BLOCK] == block(b"b")))
        await answers.wait(2)

    on_disk(scenario, device=device)
    assert found == {(False, False), (False, True), (True, False), (True, True)}


def test_single_lost_and_single_kept_writes_are_among_the_first_states() -> None:
    device = SimDevice(8)
    found: set[bytes] = set()

    async def scenario(disk: SimDisk) -> None:
        answers = Answers()
        file = await prepared(disk, blocks=4)
        for index, mark in enumerate((b"a", b"b", b"c", b"d")):
            answers.submit(disk, file, index * BLOCK, block(mark), index)
        for image in device.crash_states(2 + 2 * 8):
            found.add(content(image)[::BLOCK])
        await answers.wait(4)

    on_disk(scenario, device=device)
    lost = {b"abcd".replace(bytes((mark,)), b"\0") for mark in b"abcd"}
    kept = {bytes(mark if mark == only else 0 for mark in b"abcd") for only in b"abcd"}
    assert found >= {b"abcd", bytes(4)} | lost | kept


def test_cut_may_keep_an_older_version_of_a_sector_written_twice() -> None:
    device = SimDevice(2, sector=4096)

    async def scenario(disk: SimDisk) -> None:
        await prepared(disk, blocks=1)
        await disk.close()
        for mark in (b"1", b"2"):  # two processes, each killed with its write landed or not
            again = SimDisk(device)
            file = await again.open_file("f")
            Answers().submit(again, file, 0, block(mark))
            device.random.seed(1)  # 0.13: the coin says that it lands
            device.kill()
        assert content(device) == block(b"2")

    on_disk(scenario, device=device)
    assert {content(image)[:1] for image in device.crash_states(50)} == {b"\0", b"1", b"2"}


def test_size_and_contents_survive_apart() -> None:
    device = SimDevice(5)
    found: set[tuple[int, int]] = set()

    async def scenario(disk: SimDisk) -> None:
        answers = Answers()
        file = await prepared(disk, blocks=1)
        answers.submit(disk, file, BLOCK, block(b"x"))
        for image in device.crash_states(200):
            data = content(image)
            found.add((len(data), data.count(b"x")))
        await answers.wait()

    on_disk(scenario, device=device)
    assert {size for size, _ in found} == {BLOCK, 2 * BLOCK}
    assert (BLOCK, 0) in found
    assert (2 * BLOCK, 0) in found, "longer, but empty"
    assert (2 * BLOCK, BLOCK) in found


@pytest.mark.parametrize("method", ["dsync", "fdatasync"])
@pytest.mark.parametrize("direct", [True, False])
def test_answered_write_survives_every_cut(method: str, direct: bool) -> None:
    for seed in SEEDS:
        device = SimDevice(seed, garbage=True, loose=True)

        async def scenario(disk: SimDisk, device: SimDevice = device) -> None:
            file = await prepared(disk, blocks=6)
            answers = Answers()
            for index in range(6):
                answers.submit(disk, file, index * BLOCK, block(b"%d" % index), index)
            for count in range(1, 7):
                await answers.wait(count)
                for image in device.crash_states(4):
                    for index in answers.order:
                        assert content(image)[index * BLOCK :][:BLOCK] == block(b"%d" % index)

        on_disk(scenario, seed, device=device, sync_method=method, direct=direct)


def test_dsync_saves_its_own_write_only() -> None:
    lost = 0
    for seed in SEEDS:
        device = SimDevice(seed)

        async def scenario(disk: SimDisk, device: SimDevice = device) -> bool:
            file = await prepared(disk)
            answers = Answers()
            device.fail("submit.sync")  # the first to land stays unsynced
            answers.submit(disk, file, 0, block(b"a"), "a")
            await answers.wait(1)
            answers.submit(disk, file, BLOCK, block(b"b"), "b")
            await answers.wait(2)
            image = next(device.crash_states(1))
            assert content(image)[BLOCK : 2 * BLOCK] == block(b"b")
            return b"a" not in content(image)

        lost += on_disk(scenario, seed, device=device)
    assert lost == len(SEEDS)


def test_fdatasync_saves_what_had_completed_before_it_began() -> None:
    device = SimDevice(1)

    async def scenario(disk: SimDisk) -> None:
        file = await prepared(disk)
        Answers().submit(disk, file, 0, block(b"a"))
        device.random.seed(1)
        device.kill()  # the write lands, unsynced
        again = SimDisk(device, sync_method="fdatasync", direct=False)
        assert b"a" in await again.read("f", 0, BLOCK)
        before = await again.read("f", 0, BLOCK)
        assert b"a" not in content(next(device.crash_states(1)))
        file = await again.open_file("f")
        answers = Answers()
        answers.submit(again, file, BLOCK, block(b"b"))
        await answers.wait()
        assert content(next(device.crash_states(1)))[:BLOCK] == before
        await again.close()

    on_disk(scenario, device=device)


def test_sync_does_not_cover_a_write_that_completes_during_it() -> None:
    found = set()
    for seed in range(100):
        device = SimDevice(seed)
        landed: list[bool] = []

        def hook(_: int, name: str, device: SimDevice = device, landed: list[bool] = landed) -> None:
            if name == "sync":
                file = device.file("f")
                landed.append(b"a" in file.read(0, BLOCK, lambda: False))

        device.on_operation = hook

        async def scenario(disk: SimDisk, device: SimDevice = device) -> bool | None:
            file = await prepared(disk)
            answers = Answers()
            answers.submit(disk, file, 0, block(b"a"))
            await disk.sync("f")
            return None if answers.order else block(b"a") in content(next(device.crash_states(1)))

        found.add((on_disk(scenario, seed, device=device, sync_method="fdatasync"), *landed))
    # (durable, landed when the sync ended); None: answered by its own sync meanwhile
    assert found == {(None, True), (False, False), (False, True), (True, True)}


def test_a_sector_goes_out_whole() -> None:
    device = SimDevice(4)

    async def scenario(disk: SimDisk) -> bytes:
        file = await prepared(disk)
        answers = Answers()
        device.fail("submit.sync")
        answers.submit(disk, file, 0, b"a" * 100, "a")
        await answers.wait(1)
        answers.submit(disk, file, 100, b"b" * 100, "b")
        await answers.wait(2)
        return content(next(device.crash_states(1)))[:201]

    assert on_disk(scenario, device=device, direct=False) == b"a" * 100 + b"b" * 100 + b"\0"


def test_fdatasync_of_a_submit_does_not_cover_a_write_that_completes_during_it() -> None:
    found = set()
    for seed in range(100):
        device = SimDevice(seed)

        async def scenario(disk: SimDisk, device: SimDevice = device) -> tuple[bool, bool]:
            file = await prepared(disk)
            answers = Answers()
            answers.submit(disk, file, 0, block(b"x"), 0)
            answers.submit(disk, file, BLOCK, block(b"x"), 1)
            await answers.wait(1)
            start = BLOCK * (1 - answers.order[0])
            landed = b"x" in device.file("f").read(start, BLOCK, lambda: False)
            durable = b"x" in content(next(device.crash_states(1)))[start : start + BLOCK]
            await answers.wait(2)
            return landed, durable

        found.add(on_disk(scenario, seed, device=device, sync_method="fdatasync"))
    assert found == {(False, False), (True, False), (True, True)}


def test_sync_leaves_out_what_is_in_flight_in_the_same_sector() -> None:
    device = SimDevice(4, sector=4096)

    async def scenario(disk: SimDisk) -> set[bytes]:
        file = await prepared(disk)
        answers = Answers()
        answers.submit(disk, file, 0, b"a" * 512, "a")
        answers.submit(disk, file, 512, b"b" * 512, "b")
        await answers.wait(1)
        assert answers.order == ["a"]
        found = {content(image)[::512][:2] for image in device.crash_states(10)}
        await answers.wait(2)
        return found

    assert on_disk(scenario, device=device, block_bytes=512, out_of_order=False) == {b"a\0", b"ab"}


def test_cold_write_and_allocate_are_durable_when_they_return() -> None:
    async def scenario(disk: SimDisk) -> None:
        await disk.allocate("f", 3 * BLOCK)
        assert [content(image) for image in disk.device.crash_states(10)] == [bytes(3 * BLOCK)]
        await disk.write("f", BLOCK, block(b"w"))
        assert [content(image)[BLOCK : 2 * BLOCK] for image in disk.device.crash_states(10)] == [block(b"w")]

    for method in ("dsync", "fdatasync"):
        on_disk(scenario, sync_method=method)


def test_garbage_hits_one_unsynced_sector_and_nothing_else() -> None:
    device = SimDevice(9, garbage=True)
    hit: set[int] = set()

    async def scenario(disk: SimDisk) -> None:
        answers = Answers()
        file = await prepared(disk)
        await disk.write("f", 0, block(b"s"))
        answers.submit(disk, file, BLOCK, block(b"n"))
        for image in device.crash_states(200):
            states = sectors(content(image), 512)
            noise = [index for index, state in enumerate(states) if state[:1] * 512 != state]
            assert len(noise) <= 1
            hit.update(noise)
            assert content(image)[:BLOCK] == block(b"s")
        await answers.wait()

    on_disk(scenario, device=device)
    assert hit == set(range(8, 16))


def test_garbage_takes_the_whole_sector_and_so_a_neighbour_in_it() -> None:
    device = SimDevice(9, garbage=True, sector=4096)

    async def scenario(disk: SimDisk) -> bool:
        answers = Answers()
        file = await prepared(disk)
        answers.submit(disk, file, 0, b"a" * 512, "a")
        await answers.wait(1)
        answers.submit(disk, file, 512, b"b" * 512, "b")
        damaged = any(content(image)[:512] != b"a" * 512 for image in device.crash_states(20))
        await answers.wait(2)
        return damaged

    assert on_disk(scenario, device=device, block_bytes=512)
