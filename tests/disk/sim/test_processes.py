"""Kill, crash, lock, order of operations, memory of writes: rules 5 to 9. Rule numbers: walsvc/disk/sim."""

from __future__ import annotations

import asyncio
import errno
import time
from typing import Any

import pytest

from tests.disk.sim.support import (
    BLOCK,
    SEEDS,
    Answers,
    block,
    content,
    on_disk,
    prepared,
    workload,
)
from walsvc.disk.base import Write
from walsvc.disk.sim import SimCrash, SimDevice, SimDisk, SimLoop, SimPowerOff, run_sim
from walsvc.disk.sim.disk import LATENCY_S
from walsvc.errors import Locked


def test_kill_keeps_names_and_contents_and_tears_writes_in_flight() -> None:
    landed: set[int] = set()
    for seed in SEEDS:
        device = SimDevice(seed)

        async def scenario(disk: SimDisk, device: SimDevice = device) -> int:
            answers = Answers()
            file = await prepared(disk)
            answers.submit(disk, file, 0, block(b"a"), "a")
            await answers.wait()
            answers.submit(disk, file, BLOCK, block(b"b"), "b")
            await disk.rename("f", "g")
            device.kill()
            with pytest.raises(SimPowerOff):
                await disk.list()
            again = SimDisk(device)
            data = await again.read("g", 0, 2 * BLOCK)
            assert data[:BLOCK] == block(b"a")
            await asyncio.sleep(1)
            assert await again.read("g", 0, 2 * BLOCK) == data, "nothing lands later"
            if "b" not in answers.errors:
                return data.count(b"b") // 512
            return -1

        landed.add(on_disk(scenario, seed, device=device))
    assert len(landed) > 4


def test_crash_kills_the_old_device_and_answers_nobody() -> None:
    async def scenario(disk: SimDisk) -> None:
        answers = Answers()
        file = await prepared(disk)
        answers.submit(disk, file, 0, block(b"a"))
        pending = asyncio.ensure_future(disk.read("f", 0, 10))
        await asyncio.sleep(0)
        image = disk.device.crash()
        await asyncio.sleep(10)
        assert answers.order == []
        assert not pending.done()
        with pytest.raises(SimCrash):
            answers.submit(disk, file, 0, block(b"a"))
        with pytest.raises(SimCrash):
            await disk.free_bytes()
        await disk.close()
        with pytest.raises(SimPowerOff):
            SimDisk(disk.device)
        again = SimDisk(image)
        assert await again.list() == {"f": 4 * BLOCK}
        await again.close()

    on_disk(scenario)


def test_lock_excludes_a_second_writer_until_close_kill_or_crash() -> None:
    async def main(seed: int) -> None:
        device = SimDevice(seed)
        first = SimDisk(device)
        with pytest.raises(Locked):
            SimDisk(device)
        reader = SimDisk(device, lock=False)
        assert await reader.list() == {}
        await first.close()
        await first.close()
        second = SimDisk(device)
        device.kill()
        third = SimDisk(device)
        SimDisk(device.crash())
        assert second.lock
        assert third.lock

    run_sim(main, 0)


def test_fork_in_mid_air_must_be_crashed_or_killed_first() -> None:
    async def scenario(disk: SimDisk) -> None:
        answers = Answers()
        file = await prepared(disk)
        answers.submit(disk, file, 0, block(b"a"))
        fork = disk.device.fork()
        with pytest.raises(AssertionError, match="mid-air"):
            SimDisk(fork)
        fork.kill()
        await SimDisk(fork).sync("f")
        await answers.wait()
        assert content(disk.device)[:BLOCK] == block(b"a")

    on_disk(scenario)


def completion_order(seed: int, **options: Any) -> list[Any]:
    async def scenario(disk: SimDisk) -> list[Any]:
        answers = Answers()
        file = await prepared(disk, blocks=8)
        for index in range(8):
            answers.submit(disk, file, index * BLOCK, block(b"x"), index)
        assert answers.order == [], "never from inside submit"
        await answers.wait(8)
        return answers.order

    order: list[Any] = on_disk(scenario, seed, **options)
    assert sorted(order) == list(range(8))
    return order


@pytest.mark.parametrize("latency", [0.0, 1e-4])
@pytest.mark.parametrize("method", ["dsync", "fdatasync"])
def test_order_of_completion_is_drawn_by_the_seed(latency: float, method: str) -> None:
    options = {"latency": latency, "sync_method": method}
    orders = {tuple(completion_order(seed, **options)) for seed in SEEDS}
    assert len(orders) > len(SEEDS) // 2
    assert completion_order(3, **options) == completion_order(3, **options)
    assert completion_order(3, **options, out_of_order=False) == list(range(8))


def test_cold_calls_interleave_in_an_order_drawn_by_the_seed() -> None:
    async def scenario(disk: SimDisk) -> tuple[str, ...]:
        order: list[str] = []

        async def allocate(name: str) -> None:
            await disk.allocate(name, BLOCK)
            order.append(name)

        await asyncio.gather(*map(allocate, "abc"))
        return tuple(order)

    assert len({on_disk(scenario, seed) for seed in SEEDS}) == 6


def test_stalled_sync_holds_back_every_answer_but_takes_no_real_time() -> None:
    async def scenario(disk: SimDisk) -> float:
        loop = asyncio.get_running_loop()
        answers = Answers()
        file = await prepared(disk)
        disk.device.stall_sync(30)
        answers.submit(disk, file, 0, block(b"a"))
        started = loop.time()
        ticks = 0
        while loop.time() < started + 29:
            await asyncio.sleep(1)
            ticks += 1
            assert answers.order == []
        assert ticks == 29, "the loop itself runs on"
        await answers.wait()
        return loop.time() - started

    began = time.monotonic()
    assert 30 <= on_disk(scenario) < 30.1
    assert time.monotonic() - began < 29


def test_overlapping_writes_in_flight_are_refused() -> None:
    async def scenario(disk: SimDisk) -> None:
        answers = Answers()
        file = await prepared(disk)
        answers.submit(disk, file, 0, block(b"a", 2))
        with pytest.raises(AssertionError, match="overlap"):
            answers.submit(disk, file, BLOCK, block(b"b"))
        await answers.wait()

    on_disk(scenario)


def test_memory_changed_in_flight_fails_the_run() -> None:
    async def scenario(disk: SimDisk) -> None:
        answers = Answers()
        file = await prepared(disk)
        view = answers.submit(disk, file, 0, block(b"a"))
        view[17] = 0
        await answers.wait()

    with pytest.raises(AssertionError, match="changed while it was in flight"):
        on_disk(scenario)


def test_close_returns_although_the_last_callback_raised() -> None:
    async def main(seed: int) -> list[str]:
        seen: list[str] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(str(context["exception"])))
        disk = SimDisk(SimDevice(seed))
        file = await prepared(disk)

        def done(write: Write, error: OSError | None) -> None:
            raise ValueError("a mistake of the caller")

        disk.submit(Write(file, 0, disk.buffer(BLOCK), done))
        await disk.close()
        return seen

    assert run_sim(main, 0) == ["a mistake of the caller"]


def test_direct_writes_must_be_aligned() -> None:
    async def scenario(disk: SimDisk) -> None:
        answers = Answers()
        file = await prepared(disk)
        with pytest.raises(AssertionError, match="offset"):
            answers.submit(disk, file, 512, block(b"a"))
        with pytest.raises(AssertionError, match="length"):
            answers.submit(disk, file, 0, b"a" * 512)
        with pytest.raises(AssertionError, match="length"):
            await disk.write("f", 0, b"a")
        view = disk.buffer(2 * BLOCK)[8 : BLOCK + 8]
        with pytest.raises(AssertionError, match="memory"):
            disk.submit(Write(file, 0, view, answers.done))
        assert content(disk.device) == bytes(4 * BLOCK)

    on_disk(scenario)


def test_unaligned_writes_pass_through_the_page_cache() -> None:
    async def scenario(disk: SimDisk) -> None:
        await prepared(disk, blocks=1)
        await disk.write("f", 1000, b"hello")
        assert (await disk.read("f", 998, 9)) == b"\0\0hello\0\0"
        assert (await disk.read("f", BLOCK - 2, 9)) == b"\0\0"
        assert (await disk.read("f", BLOCK + 2, 9)) == b""

    on_disk(scenario, direct=False)


def test_reader_sees_each_sector_in_flight_old_or_new() -> None:
    async def scenario(disk: SimDisk) -> None:
        answers = Answers()
        file = await prepared(disk)
        disk.device.stall_sync(1)
        answers.submit(disk, file, 0, block(b"n"))
        counts = {disk.device.file("f").read(0, BLOCK, disk.device.coin).count(b"n") for _ in range(50)}
        assert len(counts) > 3
        await answers.wait()
        assert await disk.read("f", 0, BLOCK) == block(b"n")

    on_disk(scenario)


@pytest.mark.parametrize("begun", [False, True])
def test_cancelled_cold_call_happens_or_not_and_a_begun_one_goes_on(begun: bool) -> None:
    found = set()
    for seed in SEEDS:

        async def scenario(disk: SimDisk) -> tuple[str, ...]:
            task = asyncio.ensure_future(disk.allocate("a", BLOCK))
            await asyncio.sleep(1.6 * LATENCY_S if begun else 0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.sleep(1)
            names = await disk.list()
            assert names in ({}, {"a": BLOCK}), "not a part of it"
            return tuple(names)

        found.add(on_disk(scenario, seed))
    assert found == ({("a",)} if begun else {(), ("a",)})


def test_close_waits_for_writes_and_stops_allocations() -> None:
    async def scenario(disk: SimDisk) -> None:
        answers = Answers()
        file = await prepared(disk)
        disk.device.stall_sync(2)
        answers.submit(disk, file, 0, block(b"a"))
        task = asyncio.ensure_future(disk.allocate("b", BLOCK))
        await asyncio.sleep(1)
        await asyncio.gather(disk.close(), disk.close())
        assert answers.errors == {0: None}
        with pytest.raises(OSError, match="cancel") as caught:
            await task
        assert caught.value.errno == errno.ECANCELED
        assert list(disk.device.directory.names) == ["f"]
        with pytest.raises(OSError, match="Bad file descriptor"):
            await disk.list()
        answers.submit(disk, file, 0, block(b"a"), "late")
        await answers.wait(2)
        assert answers.errors["late"] is not None

    on_disk(scenario)


async def test_works_on_an_ordinary_loop_too() -> None:
    assert not isinstance(asyncio.get_running_loop(), SimLoop)
    disk = SimDisk(SimDevice(0))
    await workload(disk)
    assert await disk.list() == {"f": 8 * BLOCK}
    await disk.close()
