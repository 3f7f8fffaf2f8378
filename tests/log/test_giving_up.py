"""A caller's timeout around every waiting call, at every await point and ten thousand times: nothing lost, nothing kept."""

from __future__ import annotations

import asyncio
import gc
import itertools

import pytest

from tests.giving_up import interrupted
from tests.waiting_calls import ONCE, ROWS, WORLDS
from tests.waiting_calls import waiting_calls as calls_of
from walsvc import Backpressure, Closed, Relaxed
from walsvc.disk.sim import run_sim

POINTS_MAX = 200  # await points of one call; more would be a call that never ends
TIMES = {"embedded": 10_000, "served": 3_000, "read-only": 2_000}
# Types of what waits, and of what would keep it; the log itself grows by what is appended.
WAITING = {"Task", "Future", "coroutine", "async_generator", "generator", "frame", "traceback", "Handle", "TimerHandle"}
WAITING |= {"cell", "function", "partial", "CancelledError", "TimeoutError", "Iteration", "Calling", "RemoteStream"}
QUIET_SECONDS = 5  # simulated, after which everything that goes on by itself has ended


@pytest.mark.parametrize("kind", WORLDS)
def test_every_waiting_call_has_a_row(kind):
    async def main(_: int) -> None:
        async with WORLDS[kind]() as world:
            assert calls_of(world) - ROWS.keys() - ONCE.keys() == set(), (
                "a call without a row in tests/waiting_calls.py"
            )

    run_sim(main, 1)


def rows_of(kind: str) -> list[str]:
    """The calls that a kind of log has."""
    found: list[str] = []

    async def main(_: int) -> None:
        async with WORLDS[kind]() as world:
            calls = calls_of(world)
            found.extend(name for name in [*ROWS, *ONCE] if name in calls)

    run_sim(main, 1)
    return found


async def tried(world, name: str, at: int, *, late: bool) -> bool:
    """Give a call up at one of its await points; whether it has so many points."""

    async def made() -> None:
        async with asyncio.timeout(QUIET_SECONDS):
            await (ROWS.get(name) or ONCE[name])(world)

    reached, outcome = await interrupted(made(), at, late=late)
    if isinstance(outcome, (Backpressure, Closed, StopAsyncIteration, TimeoutError)):
        return False  # no room at once; a change of a log that is only read; nothing more to be read, now or ever
    if isinstance(outcome, BaseException) and not isinstance(outcome, asyncio.CancelledError):
        raise outcome
    return reached


@pytest.mark.parametrize("kind", WORLDS)
def test_call_that_is_given_up_at_any_point_loses_nothing_and_keeps_nothing(kind):
    async def again_and_again(name: str, *, late: bool) -> None:
        async with WORLDS[kind]() as world:
            await asyncio.sleep(QUIET_SECONDS)
            before, at = world.kept(), 1
            while await tried(world, name, at, late=late):
                at += 1
                assert at < POINTS_MAX, name
            await world.check()
            await asyncio.sleep(QUIET_SECONDS)
            assert world.kept() == before, name

    async def once(name: str, at: int, *, late: bool) -> bool:
        async with WORLDS[kind]() as world:
            reached = await tried(world, name, at, late=late)
            if reached:
                await ONCE[name](world)
            await world.check()
            return reached

    async def main(_: int) -> None:
        for name, late in itertools.product(rows, (False, True)):
            if name in ROWS:
                await again_and_again(name, late=late)
                continue
            at = 1
            while await once(name, at, late=late):
                at += 1
                assert at < POINTS_MAX, name

    rows = rows_of(kind)
    assert len(rows) > 10
    run_sim(main, 2)


@pytest.mark.parametrize("kind", WORLDS)
def test_ten_thousand_timeouts_keep_nothing(kind):
    async def main(_: int) -> None:
        async with WORLDS[kind]() as world:
            rows = [name for name in ROWS if name in calls_of(world)]

            async def round_trip(times: int) -> int:
                for number in range(times):
                    await tried(world, rows[number % len(rows)], 1 + number // len(rows) % 3, late=number % 2 == 0)
                await asyncio.sleep(QUIET_SECONDS)
                gc.collect()
                return sum(type(each).__name__ in WAITING for each in gc.get_objects())

            await asyncio.sleep(QUIET_SECONDS)
            before, objects = world.kept(), await round_trip(TIMES[kind] // 10)
            grown = await round_trip(TIMES[kind]) - objects
            await world.check()
            await asyncio.sleep(QUIET_SECONDS)
            assert world.kept() == before
            assert grown < TIMES[kind] // 100, "timeouts leave something behind"

    run_sim(main, 3)


def test_calls_that_a_stalled_server_does_not_answer_are_given_up_there_too():
    async def main(_: int) -> None:
        async with WORLDS["served"]() as world:
            made = world.log._session.connections
            world.writer.writer.core.disk.device.stall_sync(1_000)
            record = await world.log.append(b"x", Relaxed)
            for call in (world.log.flush, lambda: world.log.wait_durable(record.lsn)):
                for _ in range(1_500):  # more than a connection may have unanswered
                    with pytest.raises(TimeoutError):
                        await asyncio.wait_for(call(), 0.01)
            await asyncio.sleep(0.01)
            assert world.kept()["calls"] == 0
            assert world.kept()["requests"] == 1, "the consumer"
            assert await world.log.flush() == record.lsn
            assert world.log._session.connections == made

    run_sim(main, 4)


def test_look_of_a_read_only_log_that_is_given_up_hides_nothing_from_the_next_one():
    async def main(_: int) -> None:
        async with WORLDS["read-only"]() as world:
            for late in (False, True):
                at, reached = 1, True
                while reached:
                    await world.writer.append(b"new")
                    reached, _ = await interrupted(world.log.refresh(), at, late=late)
                    assert await world.log.refresh() == world.writer.next_lsn, (at, late)
                    at += 1

    run_sim(main, 5)
