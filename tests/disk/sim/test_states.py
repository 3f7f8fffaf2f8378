"""The hook, forks, crash states, and that the seed decides everything. Rule numbers: walsvc/disk/sim."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import walsvc.disk.base
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
from walsvc.disk.sim import SimCrash, SimDevice, SimDisk


def trace(seed: int, look: bool = False) -> list[Any]:
    """Every operation of the workload with the time and the crash states at it."""
    device = SimDevice(seed, garbage=True, loose=True)
    events: list[Any] = []

    def hook(n: int, name: str) -> None:
        states = [image.fingerprint() for image in device.crash_states(5)] if look else None
        if look:
            device.fork().crash()
        events.append((n, name, asyncio.get_running_loop().time(), states))

    device.on_operation = hook
    on_disk(workload, seed, device=device)
    assert device.operations == len(events)
    return events


def test_hook_sees_every_operation_in_order() -> None:
    events = trace(1)
    assert [event[0] for event in events] == list(range(1, len(events) + 1))
    names = [event[1] for event in events]
    for name in ("submit", "submit.write", "submit.sync", "submit.complete"):
        assert names.count(name) == 8
    assert names.count("allocate.write") == 4
    assert {"allocate", "allocate.sync", "allocate.sync_directory", "rename", "remove", "sync_directory"} <= set(names)


def test_same_seed_same_run_and_looking_does_not_change_it() -> None:
    for seed in range(5):
        looked = trace(seed, look=True)
        assert looked == trace(seed, look=True)
        assert [event[:3] for event in looked] == [event[:3] for event in trace(seed)]
    assert trace(1) != trace(2)


def test_same_seed_same_run_in_another_process() -> None:
    script = (
        "import hashlib; from tests.disk.sim.test_states import trace;"
        "print(hashlib.sha256(repr(trace(11, look=True)).encode()).hexdigest())"
    )
    marks = {hashlib.sha256(repr(trace(11, look=True)).encode()).hexdigest()}
    path = os.pathsep.join([str(Path(__file__).parents[3]), str(Path(walsvc.disk.base.__file__).parents[2])])
    for salt in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": salt, "PYTHONPATH": path}
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        marks.add(done.stdout.strip())
    assert len(marks) == 1


def test_hook_can_cut_the_power_at_every_operation() -> None:
    total = len(trace(4))
    for at in range(1, total + 1):
        device = SimDevice(4)

        def hook(n: int, name: str, at: int = at) -> None:
            if n == at:
                raise SimCrash(name)

        device.on_operation = hook
        with pytest.raises(SimCrash):
            on_disk(workload, 4, device=device)
        assert device.dead
        assert device.operations == at
        image = device.crash()
        assert set(image.directory.names) <= {"f", "spare", "next"}


def test_crash_at_submit_ends_the_run_although_a_task_swallowed_it() -> None:
    device = SimDevice(0)

    def hook(_: int, name: str) -> None:
        if name == "submit":
            raise SimCrash

    device.on_operation = hook
    tasks: list[asyncio.Future[None]] = []

    async def scenario(disk: SimDisk) -> None:
        file = await prepared(disk)
        tasks.append(asyncio.ensure_future(background(disk, file)))
        await asyncio.get_running_loop().create_future()

    async def background(disk: SimDisk, file: int) -> None:
        Answers().submit(disk, file, 0, block(b"a"))

    with pytest.raises(SimCrash):
        on_disk(scenario, device=device)


def test_crash_states_are_distinct_stable_and_end() -> None:
    device = SimDevice(3, sector=4096)

    async def scenario(disk: SimDisk) -> None:
        file = await prepared(disk, blocks=3)
        assert len(list(device.crash_states(50))) == 1
        for index in range(3):
            Answers().submit(disk, file, index * BLOCK, block(b"x"))
        states = [image.fingerprint() for image in device.crash_states(50)]
        assert len(set(states)) == len(states) == 8, "three sectors, all 2 ** 3 states"
        assert states == [image.fingerprint() for image in device.crash_states(50)]
        assert len(list(device.crash_states(5))) == 5
        later = device.crash_states(50)
        device.kill()
        assert [image.fingerprint() for image in later] == states, "of the moment of the call"

    on_disk(scenario, device=device)


def test_image_is_wholly_durable_and_fingerprint_is_its_contents() -> None:
    for seed in SEEDS:
        device = SimDevice(seed, garbage=True)

        async def scenario(disk: SimDisk, device: SimDevice = device) -> None:
            file = await prepared(disk)
            Answers().submit(disk, file, 0, block(b"x"))
            await disk.rename("f", "g")
            image = device.crash()
            assert [each.fingerprint() for each in image.crash_states(5)] == [image.fingerprint()]
            (name,) = image.directory.names
            before = image.fingerprint()
            image.flip(name, 100, 0)
            assert image.fingerprint() != before
            image.flip(name, 100, 0)
            assert image.fingerprint() == before

        on_disk(scenario, seed, device=device)


def test_fork_is_independent_and_shares_what_did_not_change() -> None:
    device = SimDevice(0)

    async def scenario(disk: SimDisk) -> None:
        await prepared(disk)
        await disk.write("f", 0, block(b"a"))
        fork = device.fork()
        assert fork.file("f").durable is device.file("f").durable
        await disk.write("f", 0, block(b"b"))
        await disk.remove("f")
        assert content(fork) == block(b"a") + bytes(3 * BLOCK)
        assert fork.operations < device.operations

    on_disk(scenario, device=device)


def test_fork_and_cut_of_a_large_prepared_file_are_cheap() -> None:
    device = SimDevice(0)

    async def scenario(disk: SimDisk) -> None:
        await disk.allocate("f", 1 << 30)
        file = await disk.open_file("f")
        Answers().submit(disk, file, 1 << 29, block(b"x"))
        began = time.process_time()
        images = [device.fork().crash() for _ in range(1000)]
        assert time.process_time() - began < 5, "a copy of 1 GiB takes about as long by itself"
        assert all(len(image.file("f").durable) <= BLOCK // 512 for image in images)

    on_disk(scenario, device=device)


def test_dump_and_load_keep_every_byte(tmp_path: Path) -> None:
    device = SimDevice(0)

    async def scenario(disk: SimDisk) -> None:
        await prepared(disk)
        await disk.write("f", 2 * BLOCK, block(b"a"))
        await disk.allocate("empty", 0)

    on_disk(scenario, device=device)
    device.dump(tmp_path / "image")
    assert (tmp_path / "image" / "f").read_bytes() == content(device)
    again = SimDevice.load(tmp_path / "image")
    assert again.fingerprint() == device.fingerprint()
    assert [image.fingerprint() for image in again.crash_states(5)] == [device.fingerprint()]
