"""What a power cut keeps of the directory: rules 3 and 13. Rule numbers: walsvc/disk/sim."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.disk.sim.support import (
    BLOCK,
    SEEDS,
    Answers,
    block,
    content,
    names_after,
    on_disk,
    prepared,
    rename_both,
)
from walsvc.disk.sim import SimDevice, SimDisk


def test_cut_undoes_the_last_names_only_by_default() -> None:
    assert names_after(False, rename_both) == {("a", "b"), ("b", "x"), ("x", "y")}


def test_loose_cut_undoes_any_names() -> None:
    assert names_after(True, rename_both) == {("a", "b"), ("b", "x"), ("a", "y"), ("x", "y")}


def test_loose_cut_keeps_the_order_for_each_name() -> None:
    device = SimDevice(7, loose=True)

    async def scenario(disk: SimDisk) -> None:
        for name in ("a", "b"):
            await disk.allocate(name, BLOCK)
            await disk.write(name, 0, block(name.encode()))
        await disk.rename("a", "x")
        await disk.rename("b", "a")

    on_disk(scenario, device=device)
    found = {
        tuple((name, content(image, name)[:1]) for name in sorted(image.directory.names))
        for image in device.crash_states(200)
    }
    assert found == {
        (("a", b"a"), ("b", b"b")),
        (("b", b"b"), ("x", b"a")),
        (("a", b"b"), ("x", b"a")),
    }, "the second rename without the first would have lost a file"


@pytest.mark.parametrize("loose", [False, True])
def test_random_cuts_undo_names_as_the_rule_says(loose: bool) -> None:
    device = SimDevice(7, loose=loose)

    async def scenario(disk: SimDisk) -> None:
        await disk.allocate("a", BLOCK)
        await disk.allocate("b", BLOCK)
        await rename_both(disk)

    on_disk(scenario, device=device)
    found = {"".join(sorted(device.fork().crash(random.Random(seed)).directory.names)) for seed in SEEDS}
    assert found == {"ab", "bx", "xy"} | ({"ay"} if loose else set())


def test_names_are_durable_after_sync_directory() -> None:
    async def steps(disk: SimDisk) -> None:
        await rename_both(disk)
        await disk.sync_directory()
        await disk.remove("x")

    assert names_after(True, steps) == {("x", "y"), ("y",)}


def test_rename_replaces_atomically_and_keeps_the_handle() -> None:
    device = SimDevice(2)
    contents: set[bytes] = set()

    async def scenario(disk: SimDisk) -> None:
        for name in ("old", "new"):
            await disk.allocate(name, BLOCK)
            await disk.write(name, 0, block(name[:1].encode()))
        file = await disk.open_file("new")
        await disk.rename("new", "old")
        assert await disk.list() == {"old": BLOCK}
        contents.update(content(image, "old") for image in device.crash_states(20))
        answers = Answers()
        answers.submit(disk, file, 0, block(b"m"))
        await answers.wait()
        assert await disk.read("old", 0, BLOCK) == block(b"m")

    on_disk(scenario, device=device)
    assert contents == {block(b"o"), block(b"n")}


def test_sync_directory_does_not_cover_names_changed_during_it() -> None:
    found = set()
    for seed in range(100):
        device = SimDevice(seed)
        seen: list[str] = []

        def hook(_: int, name: str, device: SimDevice = device, seen: list[str] = seen) -> None:
            if name == "sync_directory":
                seen.extend(device.directory.names)

        device.on_operation = hook

        async def scenario(disk: SimDisk, device: SimDevice = device) -> tuple[str, ...]:
            await disk.allocate("a", BLOCK)
            await asyncio.gather(disk.rename("a", "x"), disk.sync_directory())
            return tuple(next(device.crash_states(1)).directory.durable)

        found.add((*on_disk(scenario, seed, device=device), *seen))
    assert found == {("a", "a"), ("a", "x"), ("x", "x")}, "(durable, visible when the sync ended)"


@pytest.mark.parametrize("sync_names", [False, True])
def test_sync_of_a_file_does_not_save_its_name_unless_asked(sync_names: bool) -> None:
    async def steps(disk: SimDisk) -> None:
        disk.device.fail("allocate.sync_directory")
        await disk.rename("a", "x")
        await disk.sync("x")

    expected = {("b", "x")} if sync_names else {("a", "b"), ("b", "x")}
    assert names_after(False, steps, sync_names=sync_names) == expected


def test_cut_during_allocate_leaves_nothing_a_part_or_all_zeros() -> None:
    device = SimDevice(6)
    found: set[int] = set()

    def hook(_: int, name: str) -> None:
        for image in device.crash_states(20):
            names = image.directory.durable
            found.add(len(content(image)) if "f" in names else -1)

    device.on_operation = hook
    on_disk(prepared, device=device)
    assert found == {-1, 0, 2 * BLOCK, 4 * BLOCK}
