"""The tasks that a log runs for itself: nobody cancels them, no factory runs them at once, and one that dies fails the log."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

import walsvc
from tests.waiting import until
from walsvc import DurabilityLost, WalConfig, WalError
from walsvc.disk.sim import SimDevice, SimDisk, run_sim
from walsvc.log.commit.ack import all_done
from walsvc.log.commit.background import Background
from walsvc.opening import open_on

SMALL = WalConfig(segment_bytes=65536, max_group_bytes=16384)
TURNS = 60  # of the loop, in which a rotation, and the preparation of a segment, begin and end several times


def cancel_all_others() -> int:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    return len(others)


async def appended(log, count: int) -> list[int]:
    """Start appends that need several segments; the LSNs of those that were answered, in the end."""
    futures = [log.append(bytes(4000)) for _ in range(count)]
    answers = await asyncio.gather(*futures, return_exceptions=True)
    assert all(isinstance(each, (walsvc.AppendResult, WalError, asyncio.CancelledError)) for each in answers), answers
    return [each.lsn for each in answers if isinstance(each, walsvc.AppendResult)]


@pytest.mark.parametrize("double_write", ["off", "direct"])
def test_cancelling_all_tasks_at_any_turn_hangs_nothing_and_the_log_goes_on(double_write):
    found = []

    async def main(seed: int) -> None:
        device = SimDevice(seed)
        log = await open_on(SimDisk(device, latency=0), WalConfig(segment_bytes=65536, double_write=double_write))
        appends = asyncio.create_task(appended(log, 40))
        for _ in range(seed):
            await asyncio.sleep(0)
        found.append(cancel_all_others())
        assert await asyncio.gather(appends, return_exceptions=True)
        assert (await log.append(b"after")).durable, "no internal task may die of it"
        closing = asyncio.create_task(log.close())
        await asyncio.sleep(0)
        cancel_all_others()
        await asyncio.gather(closing, return_exceptions=True)
        await log.close()
        async with await open_on(SimDisk(device), SMALL) as again:
            assert again.report.clean
            assert [len(each.payload) async for each in again.read()][-1] == len(b"after")

    for turns in range(0, TURNS, 4):
        run_sim(main, turns)
    assert max(found) > 1, "no internal task was ever there to be cancelled"


def test_cancelling_all_tasks_during_truncations_and_batches_hangs_nothing():
    async def endless():
        while True:
            yield bytes(9000)
            await asyncio.sleep(0)

    async def main(seed: int) -> None:
        device = SimDevice(seed)
        log = await open_on(SimDisk(device, latency=0), SMALL)
        await appended(log, 60)
        calls = [
            log.append_batch(endless()),
            log.truncate_before(30),
            log.truncate_after(50),
            log.append(b"x"),
            log.flush(),
        ]
        tasks = [asyncio.ensure_future(each) for each in calls]
        for _ in range(seed):
            await asyncio.sleep(0)
        cancel_all_others()
        await all_done(tasks)
        assert (await log.append(b"after")).durable
        await log.close()
        async with await open_on(SimDisk(device), SMALL) as again:
            assert again.report.clean

    for turns in range(0, 40, 5):
        run_sim(main, turns)


DYING = """
import asyncio, signal, sys, walsvc
async def main():
    async with walsvc.open(sys.argv[1], segment_bytes=65536, disk=sys.argv[3]) as log:
        print("open", flush=True)
        asyncio.get_running_loop().add_signal_handler(signal.SIGALRM, sys.exit, 7)
        signal.setitimer(signal.ITIMER_REAL, float(sys.argv[2]))
        async def one():
            while True:
                await log.append(bytes(8000))
        await asyncio.gather(*(one() for _ in range(8)))
asyncio.run(main())
"""
"""The handler is the loop's: one by `signal.signal` may also raise inside asyncio, whose own call_soon then loses a wake-up.
tests/log/test_interrupted.py has what it does inside of walsvc."""


@pytest.mark.parametrize("disk", ["threads", "auto"])
def test_sys_exit_in_a_signal_handler_ends_the_program_and_loses_nothing(tmp_path, disk):
    for number in range(3):
        arguments = [str(tmp_path / "log"), str(0.02 + 0.013 * number), disk]
        done = subprocess.run(
            [sys.executable, "-c", DYING, *arguments], check=False, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 7, done.stderr
    asyncio.run(check_whole(tmp_path / "log"))


async def check_whole(path) -> None:
    async with walsvc.open(path) as log:
        lsns = [each.lsn async for each in log.read()]
        assert lsns == list(range(1, log.next_lsn))


async def test_no_task_factory_is_asked_for_internal_tasks(tmp_path):
    """An eager factory runs a task before its starter can keep it: retention died after one run, batches were cancelled."""
    loop = asyncio.get_running_loop()
    made = []

    def factory(loop, coro, **options):
        made.append(coro.__qualname__)
        return asyncio.Task(coro, loop=loop, **options)

    async def two():
        yield bytes(3000)
        yield bytes(3000)

    loop.set_task_factory(factory)
    try:
        async with walsvc.open(tmp_path / "log", segment_bytes=65536, retain_bytes=200_000, disk="threads") as log:
            for _ in range(40):
                await log.append_batch([bytes(4000)] * 4)
            assert len(await log.append_batch(two())) == 2
            await log.truncate_before(log.next_lsn - 10)
            await until(lambda: log.retention().dropped_segments >= 3, 0)
    finally:
        loop.set_task_factory(None)
    assert not made


@pytest.mark.skipif(sys.version_info < (3, 12), reason="CPython 3.12 brought eager_task_factory")
async def test_eager_task_factory(tmp_path):
    loop = asyncio.get_running_loop()
    loop.set_task_factory(asyncio.eager_task_factory)
    try:
        async with walsvc.open(tmp_path / "log", segment_bytes=65536, retain_bytes=200_000) as log:
            for _ in range(40):
                await log.append_batch([bytes(4000)] * 4)
            await until(lambda: log.retention().dropped_segments >= 3, 0)
    finally:
        loop.set_task_factory(None)


async def test_work_that_dies_is_told_by_name_and_its_keeper_outlives_cancelling():
    broken = []
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # which is told, too
    background = Background(asyncio.get_running_loop(), lambda name, error: broken.append((name, type(error))))

    async def work(error):
        await asyncio.sleep(0)
        raise error

    tasks = [background.start(str(number), work(error)) for number, error in enumerate([ValueError(), SystemError()])]
    tasks.append(background.start("foreseen", work(KeyError()), foreseen=(LookupError,)))
    keepers = {task.get_name(): task for task in asyncio.all_tasks()}
    assert {"walsvc 0", "walsvc 1", "walsvc foreseen"} <= keepers.keys()
    keepers["walsvc 0"].cancel()
    await asyncio.wait(tasks)
    await asyncio.sleep(0)
    assert broken == [("0 ended", ValueError), ("1 ended", SystemError)]


def test_internal_task_that_dies_fails_the_log_and_wakes_everybody():
    async def main(seed: int) -> None:
        device = SimDevice(seed)
        log = await open_on(SimDisk(device, latency=0), SMALL)

        async def dies(*_: object) -> None:
            raise SystemError("planted")

        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        log.writer.core.disk.rename = dies
        futures = [log.append(bytes(4000)) for _ in range(40)]
        answers = await asyncio.gather(*futures, return_exceptions=True)
        assert isinstance(answers[-1], DurabilityLost)
        assert "planted" in str(answers[-1])
        await asyncio.gather(log.close(), return_exceptions=True)

    run_sim(main, 1)
