"""walsvc.testing finds what it is for, tells it so that it can be tried again, and passes what is right."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import walsvc
from tests.forked import ROOT
from walsvc.disk.sim.faults import OPERATIONS
from walsvc.testing import Disk, PowerCuts, SimDeadlock, run

from . import bare

EXAMPLE = ROOT / "examples" / "crash_tests"
DAY_SECONDS = 86_400
Work = Callable[[Disk], Awaitable[Any]]
cuts = PowerCuts()


def appending(mode: walsvc.Mode = walsvc.Strict, **options: Any) -> Work:
    """A program that appends 0 to 3 in this mode, and says so each time."""

    async def program(disk: Disk) -> None:
        async with walsvc.open(disk, segment_bytes=65_536, **options) as log:
            for number in range(4):
                await log.append(b"%d" % number, mode=mode)
                disk.witness.append(number)

    return program


async def all_there(disk: Disk) -> None:
    async with walsvc.open(disk) as log:
        found = [int(record.payload) async for record in log.read()]
    assert found[: len(disk.witness)] == disk.witness


def note_of(failed: pytest.ExceptionInfo[BaseException]) -> str:
    return "\n".join(failed.value.__notes__)


def name_in(note: str) -> str:
    return note.partition("only='")[2].partition("'")[0]


def test_program_that_is_right_passes_every_cut_and_fault() -> None:
    explored = cuts(appending(), all_there, seeds=1, lives=2, faults=["submit.sync", "allocate"])
    assert explored.runs > 2 + 4  # two lives, each of its syncs, and its files
    assert explored.moments > 40
    assert explored.checks > 40


def test_relaxed_append_told_as_stored_is_found_at_its_first_cut_and_tried_again_by_name() -> None:
    wrong = appending(walsvc.Relaxed)
    with pytest.raises(AssertionError) as failed:
        cuts(wrong, all_there, seeds=1)
    note = note_of(failed)
    assert "witness at that moment: [0, 1, 2, 3]" in note
    with pytest.raises(AssertionError) as again:
        PowerCuts(only=name_in(note))(wrong, all_there)
    assert name_in(note_of(again)) == name_in(note)
    assert PowerCuts(only=name_in(note))(appending(), all_there).checks == 1


def test_shortest_cut_is_found_among_those_that_were_passed_over() -> None:
    wrong, names = appending(walsvc.Relaxed, relaxed_interval=None), []
    for checks_max in (10_000, 30):
        with pytest.raises(AssertionError) as failed:
            cuts(wrong, all_there, seeds=1, checks_max=checks_max)
        names.append(name_in(note_of(failed)))
    assert names[0] == names[1]


def test_report_says_what_was_not_synced_and_what_became_of_it() -> None:
    async def told_too_early(disk: Disk) -> None:
        async with walsvc.open(disk) as log:
            disk.witness.append(0)
            await log.append(b"0")

    async def not_yet(disk: Disk) -> None:
        async with walsvc.open(disk) as log:
            assert not disk.witness or log.next_lsn == 1

    for check, fate in ((all_there, "nothing"), (not_yet, "4096 bytes at 8192 of 0000000000000001.wal: is there")):
        with pytest.raises(AssertionError) as failed:
            cuts(told_too_early, check, seeds=1)
        assert f"not synced then: {fate}" in note_of(failed)


def test_answer_in_spite_of_a_failed_sync_is_found_and_named() -> None:
    async def program(disk: Disk) -> None:
        log = await walsvc.open(disk)
        try:
            await log.append(b"0")
        except walsvc.DurabilityLost:
            pass  # the bug
        disk.witness.append(0)

    with pytest.raises(AssertionError) as failed:
        cuts(program, all_there, seeds=1, faults=["submit.sync"])
    note = note_of(failed)
    assert name_in(note).startswith("0+submit.sync@")
    with pytest.raises(AssertionError):
        PowerCuts(only=name_in(note))(program, all_there)


def test_two_logs_of_a_program_lose_power_at_once() -> None:
    async def moves(disk: Disk, *, hasty: bool) -> None:
        async with walsvc.open(disk, namespace="here") as here, walsvc.open(disk, namespace="there") as there:
            await here.append(b"0")
            disk.witness.append(0)
            forwarded = there.append(b"0")
            if not hasty:
                await forwarded
            await here.truncate_before(2)
            await forwarded

    async def somewhere(disk: Disk) -> None:
        async with walsvc.open(disk, namespace="here") as here, walsvc.open(disk, namespace="there") as there:
            kept = (here.next_lsn - here.first_lsn) + (there.next_lsn - there.first_lsn)
        assert kept >= len(disk.witness)

    cuts(lambda disk: moves(disk, hasty=False), somewhere, seeds=1)
    with pytest.raises(AssertionError):
        cuts(lambda disk: moves(disk, hasty=True), somewhere)


def test_a_month_of_retention_takes_no_time() -> None:
    async def program(disk: Disk) -> tuple[int, float]:
        began = time.time()
        async with walsvc.open(disk, segment_bytes=65_536, retain_seconds=30 * DAY_SECONDS) as log:
            for _ in range(60):
                await log.append(bytes(40_000))
                await asyncio.sleep(DAY_SECONDS)
            await log.reclaim()
            return log.first_lsn, time.time() - began

    first_lsn, passed = run(program)
    assert 25 <= first_lsn <= 32
    assert passed == pytest.approx(60 * DAY_SECONDS, rel=1e-3)


def test_same_seed_makes_the_same_world_and_the_system_has_its_own_again() -> None:
    async def program(disk: Disk) -> tuple[Any, ...]:
        await asyncio.to_thread(time.time)
        return uuid.uuid4(), disk.random.random(), time.time_ns()

    before = time.time, time.time_ns, os.urandom
    assert run(program, 3) == run(program, 3) != run(program, 4)
    assert (time.time, time.time_ns, os.urandom) == before


def test_full_disk_and_stalled_disk_and_damaged_disk() -> None:
    async def program(disk: Disk) -> None:
        async with walsvc.open(disk, segment_bytes=65_536) as log:
            disk.stall(100)
            before = asyncio.get_running_loop().time()
            await log.append(b"0")
            assert asyncio.get_running_loop().time() - before >= 100
            disk.capacity = sum(disk.files().values())
            with pytest.raises(walsvc.NoSpace):
                while True:
                    await log.append(bytes(30_000))
            disk.capacity = None
            place = await log.append(b"after")
            await log.append(b"behind it")
        disk.damage(f"{place.segment_id:016x}.wal", place.offset)
        with pytest.raises(walsvc.Corruption):
            async with walsvc.open(disk) as log:
                async for _ in log.read():
                    pass

    run(program)


def test_endless_program_is_cut_for_good_and_one_that_hangs_is_told() -> None:
    async def endless(disk: Disk) -> None:
        async with walsvc.open(disk) as log:
            while True:
                await log.append(b"%d" % len(disk.witness))
                disk.witness.append(len(disk.witness))

    assert cuts(endless, all_there, seeds=1, operations_max=60).moments == 61

    async def hangs(disk: Disk) -> None:
        async with walsvc.open(disk):
            await asyncio.get_running_loop().create_future()

    with pytest.raises(SimDeadlock) as failed:
        cuts(hangs, all_there)
    assert "the program failed, before any power cut" in note_of(failed)


def test_program_without_its_disk_is_told_and_so_are_values_that_are_from_another_time() -> None:
    async def nothing(disk: Disk) -> None:
        pass

    with pytest.raises(AssertionError, match=r"walsvc\.open\(disk\)"):
        cuts(nothing, nothing)

    told: list[int] = []

    async def program(disk: Disk) -> None:
        async with walsvc.open(disk) as log:
            await log.append(b"0")
            told.append(0)

    async def check(disk: Disk) -> None:
        async with walsvc.open(disk) as log:
            assert log.next_lsn > len(told)

    with pytest.raises(AssertionError) as failed:
        cuts(program, check, seeds=1)
    assert "program and check share [0]" in note_of(failed)


@pytest.mark.parametrize("name", ["", "x", "0:1", "0:99999:0", "0:1:77", "0+sync", "0:1:0/"])
def test_name_of_no_cut_is_a_bad_option(name: str) -> None:
    with pytest.raises(walsvc.BadOption):
        PowerCuts(only=name)(appending(), all_there)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"faults": ["submit.synk"]}, r"unknown operation of the disk 'submit\.synk'.*submit\.sync\?"),
        ({"faults": "sync"}, "faults is str"),
        ({"seeds": 0}, "seeds=0 is out of bounds"),
        ({"lives": 0}, "lives=0"),
        ({"images": 0}, "images=0"),
        ({"checks_max": 0}, "checks_max=0"),
        ({"operations_max": -1}, "operations_max=-1"),
    ],
)
def test_what_would_try_nothing_is_a_bad_option(options: dict[str, Any], told: str) -> None:
    with pytest.raises(walsvc.BadOption, match=told):
        cuts(appending(), all_there, **options)


def test_fault_that_never_comes_is_a_bad_option() -> None:
    for wrong in ({"operation": "fsync"}, {"operation": "sync", "nth": 0}, {"operation": "sync", "times": 0}):
        with pytest.raises(walsvc.BadOption):
            Disk(0).fail(**wrong)
    with pytest.raises(walsvc.BadOption):
        PowerCuts(seeds=0)(appending(), all_there)


def test_every_operation_of_the_disk_can_be_named() -> None:
    seen = set[str]()

    async def program(disk: Disk) -> None:
        disk.watch(seen.add)
        await appending(retain_bytes=70_000)(disk)
        async with walsvc.open(disk, segment_bytes=65_536) as log:
            for _ in range(4):
                await log.append(bytes(40_000))
            await log.truncate_before(log.next_lsn)
            await log.compact()

    run(program)
    assert {"submit.sync", "allocate.write", "rename", "read", "list"} <= seen
    assert seen <= {*OPERATIONS}


async def test_works_inside_an_asynchronous_test() -> None:
    assert PowerCuts()(appending(), all_there, seeds=1).checks > 10


def test_needs_no_package_beside_those_of_the_base(tmp_path: Path) -> None:
    script = "import sys, walsvc, walsvc.testing as t\nassert 'pytest' not in sys.modules\n" + (
        "async def p(disk):\n"
        "    async with walsvc.open(disk) as log: await log.append(b'x')\n"
        "print(t.PowerCuts()(p, p, seeds=1).checks > 10)"
    )
    done = bare.run(bare.install(tmp_path / "site"), "-c", script)
    assert done.stdout.strip() == "True", done.stderr


ANYIO = """
import anyio, pytest, walsvc

async def program(disk):
    async with walsvc.open(disk) as log, anyio.create_task_group() as tasks:
        for n in range(3):
            tasks.start_soon(log.append, b"%d" % n)

@pytest.mark.anyio
async def test_anyio(power_cuts, anyio_backend):
    assert power_cuts(program, program, seeds=1).checks > 10
"""
BACKEND = """
import pytest

@pytest.fixture
def anyio_backend():
    return "asyncio"
"""


@pytest.mark.timeout(400)
def test_guide_and_example_run_as_their_reader_runs_them_and_the_planted_bug_is_told_with_its_command(
    tmp_path: Path,
) -> None:
    in_a_test, alone = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "TESTING.md").read_text(), re.M | re.S)
    exec(alone, {})
    (tmp_path / "test_guide.py").write_text(in_a_test)
    for name in ("orders.py", "test_orders.py", "forward.py", "test_forward.py"):
        (tmp_path / name).write_text((EXAMPLE / name).read_text())
    (tmp_path / "test_anyio.py").write_text(ANYIO)
    (tmp_path / "conftest.py").write_text(BACKEND)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--runxfail", "--power-cut-seeds", "1"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert "1 failed, 4 passed" in done.stdout, done.stdout + done.stderr
    again = done.stdout.partition("again: pytest ")[2].split()[:3]
    assert again[:2] == ["test_orders.py::test_a_hasty_snapshot", "--power-cut"]
