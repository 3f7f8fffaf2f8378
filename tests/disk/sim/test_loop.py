"""Simulated time and the runner. Rule numbers: walsvc/disk/sim."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.disk.sim.support import (
    on_disk,
    prepared,
)
from walsvc.disk.sim import SimDeadlock, SimDisk, run_sim


def test_sleeping_takes_no_real_time() -> None:
    async def main(seed: int) -> float:
        await asyncio.gather(asyncio.sleep(86400 * 365), asyncio.sleep(5))
        return asyncio.get_running_loop().time()

    began = time.monotonic()
    assert run_sim(main, 0) == pytest.approx(86400 * 365)
    assert time.monotonic() - began < 60


def test_timers_fire_in_order_at_their_time() -> None:
    async def main(seed: int) -> list[float]:
        loop = asyncio.get_running_loop()
        seen: list[float] = []
        for delay in (0.3, 0.1, 1e-12, 0.2, 1e6):
            loop.call_later(delay, lambda: seen.append(loop.time()))
        await asyncio.sleep(2e6)
        return seen

    assert run_sim(main, 0) == pytest.approx([1e-12, 0.1, 0.2, 0.3, 1e6])


def test_timeout_fires_in_simulated_time() -> None:
    async def scenario(disk: SimDisk) -> None:
        await prepared(disk)
        disk.device.stall_sync(100)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(disk.sync("f"), 30)
        assert 30 <= asyncio.get_running_loop().time() < 31

    on_disk(scenario)


def test_nothing_left_to_happen_is_an_error() -> None:
    async def main(seed: int) -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(SimDeadlock):
        run_sim(main, 0)


def test_failure_prints_the_seed(capsys: pytest.CaptureFixture[str]) -> None:
    async def main(seed: int) -> None:
        raise ValueError(seed)

    with pytest.raises(ValueError, match="4711") as caught:
        run_sim(main, 4711)
    assert "seed 4711" in capsys.readouterr().err
    assert caught.value.__notes__ == ["simulation seed 4711"]


def test_failing_callback_and_unnoticed_task_fail_the_run() -> None:
    def fail() -> None:
        raise KeyError("stray")

    async def callback(seed: int) -> None:
        asyncio.get_running_loop().call_soon(fail)
        await asyncio.sleep(1)

    async def task(seed: int) -> None:
        async def failing() -> None:
            fail()

        asyncio.ensure_future(failing())  # noqa: RUF006 — losing it is the point
        await asyncio.sleep(1)

    for main in (callback, task):
        with pytest.raises(KeyError, match="stray"):
            run_sim(main, 0)


def test_leftover_tasks_are_cancelled() -> None:
    ended: list[str] = []

    async def main(seed: int) -> str:
        async def forever() -> None:
            try:
                await asyncio.sleep(1e9)
            finally:
                ended.append("cancelled")

        task = asyncio.ensure_future(forever())
        await asyncio.sleep(1)
        assert not task.done()
        return "result"

    assert run_sim(main, 0) == "result"
    assert ended == ["cancelled"]
