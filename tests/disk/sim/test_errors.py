"""Planned faults and what they leave behind: rules 10 to 14. Rule numbers: walsvc/disk/sim."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from typing import Any

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
)
from walsvc.disk.sim import SimDevice, SimDisk

OPERATIONS: dict[str, Callable[[SimDisk, int], Awaitable[Any]]] = {
    "list": lambda disk, _: disk.list(),
    "open_file": lambda disk, _: disk.open_file("f"),
    "close_file": lambda disk, file: disk.close_file(file),
    "allocate": lambda disk, _: disk.allocate("n", BLOCK),
    "allocate.write": lambda disk, _: disk.allocate("n", BLOCK),
    "allocate.sync": lambda disk, _: disk.allocate("n", BLOCK),
    "allocate.sync_directory": lambda disk, _: disk.allocate("n", BLOCK),
    "read": lambda disk, _: disk.read("f", 0, 1),
    "write": lambda disk, _: disk.write("f", 0, block(b"w")),
    "write.sync": lambda disk, _: disk.write("f", 0, block(b"w")),
    "sync": lambda disk, _: disk.sync("f"),
    "rename": lambda disk, _: disk.rename("f", "g"),
    "remove": lambda disk, _: disk.remove("f"),
    "sync_directory": lambda disk, _: disk.sync_directory(),
    "free_bytes": lambda disk, _: disk.free_bytes(),
}


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.EACCES])
@pytest.mark.parametrize("operation", sorted(OPERATIONS))
def test_every_cold_operation_fails_once_with_the_planned_errno(operation: str, number: int) -> None:
    async def scenario(disk: SimDisk) -> None:
        file = await prepared(disk)
        disk.device.fail(operation, errno=number)
        with pytest.raises(OSError, match=r"\[Errno") as caught:
            await OPERATIONS[operation](disk, file)
        assert caught.value.errno == number
        assert await disk.list() == {"f": 4 * BLOCK}, "it had no visible effect"
        await OPERATIONS[operation](disk, file)

    on_disk(scenario)


@pytest.mark.parametrize("operation", ["submit", "submit.write", "submit.sync", "submit.complete", "write", "sync"])
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_nth_submit_fails_through_done(operation: str, nth: int) -> None:
    async def scenario(disk: SimDisk) -> list[int | None]:
        answers = Answers()
        file = await prepared(disk)
        disk.device.fail(operation, nth=nth, errno=errno.EDQUOT)
        for index in range(4):
            answers.submit(disk, file, index * BLOCK, block(b"x"), index)
            await answers.wait(index + 1)
        return [None if error is None else error.errno for error in answers.errors.values()]

    expected = [None, None, None, None]
    assert on_disk(scenario) == [*expected[: nth - 1], errno.EDQUOT, *expected[nth:]]


def test_fault_fails_as_many_times_as_asked() -> None:
    async def scenario(disk: SimDisk) -> list[bool]:
        disk.device.fail("list", nth=2, times=3)
        failed = []
        for _ in range(6):
            try:
                await disk.list()
                failed.append(False)
            except OSError:
                failed.append(True)
        return failed

    assert on_disk(scenario) == [False, True, True, True, False, False]


def failed_write(seed: int, operation: str, direct: bool, **fault: Any) -> tuple[bytes, bytes]:
    """What readers see after a failed write over zeros, and what is durable after a later, successful sync."""
    device = SimDevice(seed)

    async def scenario(disk: SimDisk) -> tuple[bytes, bytes]:
        answers = Answers()
        file = await prepared(disk, blocks=1)
        device.fail(operation, **fault)
        answers.submit(disk, file, 0, block(b"n"))
        await answers.wait()
        error = answers.errors[0]
        assert error is not None
        assert error.errno == errno.EIO
        seen = await disk.read("f", 0, BLOCK)
        await disk.sync("f")
        return seen, content(next(device.crash_states(1)))

    result: tuple[bytes, bytes] = on_disk(scenario, seed, device=device, direct=direct)
    return result


def test_failed_write_leaves_any_subset_of_its_sectors() -> None:
    for direct in (False, True):
        results = [failed_write(seed, "submit.write", direct) for seed in SEEDS]
        assert len({seen for seen, _ in results}) > 10
        assert all(seen == durable for seen, durable in results), "what stayed can be synced"


def test_failed_sync_with_page_cache_marks_pages_clean() -> None:
    for seed in SEEDS:
        assert failed_write(seed, "submit.sync", False) == (block(b"n"), bytes(BLOCK))


def test_failed_sync_without_page_cache_forgets_some_sectors() -> None:
    results = [failed_write(seed, "submit.sync", True) for seed in SEEDS]
    assert len({seen for seen, _ in results}) > 10
    assert all(seen == durable for seen, durable in results)


def test_pages_lost_by_a_failed_sync_may_have_reached_the_disk_and_are_saved_by_a_rewrite() -> None:
    device = SimDevice(1)

    async def scenario(disk: SimDisk) -> None:
        await prepared(disk, blocks=1)
        device.fail("write.sync")
        with pytest.raises(OSError, match="Input/output"):
            await disk.write("f", 0, block(b"n"))
        assert {content(image).count(b"n") for image in device.crash_states(50)} >= {0, BLOCK}
        await disk.write("f", 0, await disk.read("f", 0, BLOCK))
        assert [content(image) for image in device.crash_states(50)] == [block(b"n")]

    on_disk(scenario, device=device, direct=False)


@pytest.mark.parametrize("short", [0, 100, 512, 4000])
def test_short_write_leaves_a_prefix(short: int) -> None:
    for direct in (False, True):
        seen, _ = failed_write(1, "submit.write", direct, short=short)
        assert seen == (b"n" * short).ljust(BLOCK, b"\0")


def test_failed_sync_directory_leaves_the_names_unsynced() -> None:
    async def steps(disk: SimDisk) -> None:
        await disk.rename("a", "x")
        disk.device.fail("sync_directory")
        with pytest.raises(OSError, match="Input/output"):
            await disk.sync_directory()

    assert names_after(False, steps) == {("a", "b"), ("b", "x")}


def test_failed_allocate_leaves_no_name() -> None:
    for step in ("allocate", "allocate.write", "allocate.sync", "allocate.sync_directory"):

        async def scenario(disk: SimDisk, step: str = step) -> None:
            disk.device.fail(step, errno=errno.ENOSPC)
            with pytest.raises(OSError, match="No space"):
                await disk.allocate("f", BLOCK)
            assert await disk.list() == {}
            await disk.allocate("f", BLOCK)

        on_disk(scenario)


def test_capacity_counts_what_is_named_or_open() -> None:
    device = SimDevice(0, capacity=10 * BLOCK)

    async def scenario(disk: SimDisk) -> None:
        file = await prepared(disk, blocks=6)
        assert await disk.free_bytes() == 4 * BLOCK
        with pytest.raises(OSError, match="No space") as caught:
            await disk.allocate("g", 5 * BLOCK)
        assert caught.value.errno == errno.ENOSPC
        assert await disk.list() == {"f": 6 * BLOCK}
        with pytest.raises(OSError, match="No space"):
            await disk.write("f", 6 * BLOCK, block(b"x", 5))
        await disk.write("f", 5 * BLOCK, block(b"x"))
        await disk.remove("f")
        assert await disk.free_bytes() == 4 * BLOCK, "removed, but open"
        await disk.close_file(file)
        await disk.allocate("g", 10 * BLOCK)
        assert await disk.free_bytes() == 0

    on_disk(scenario, device=device)


def test_flipped_bit_is_seen_by_readers_and_after_a_cut() -> None:
    async def scenario(disk: SimDisk) -> None:
        await prepared(disk)
        await disk.write("f", 0, block(b"\0"))
        disk.device.flip("f", 5000, 6)
        expected = bytes(5000) + b"\x40" + bytes(4 * BLOCK - 5001)
        assert await disk.read("f", 0, 4 * BLOCK) == expected
        assert content(disk.device.crash()) == expected

    on_disk(scenario)


def test_kernel_errors_of_wrong_calls() -> None:
    async def scenario(disk: SimDisk) -> None:
        file = await prepared(disk)
        for call in (
            disk.open_file("?"),
            disk.read("?", 0, 1),
            disk.sync("?"),
            disk.remove("?"),
            disk.rename("?", "!"),
        ):
            with pytest.raises(FileNotFoundError):
                await call
        with pytest.raises(FileNotFoundError):
            await disk.write("?", 0, b"")
        with pytest.raises(FileExistsError):
            await disk.allocate("f", BLOCK)
        assert content(disk.device) == bytes(4 * BLOCK)
        answers = Answers()
        answers.submit(disk, file, 0, block(b"a"))
        with pytest.raises(AssertionError, match="in flight"):
            await disk.close_file(file)
        await answers.wait()
        await disk.close_file(file)
        with pytest.raises(OSError, match="Bad file descriptor"):
            await disk.close_file(file)
        answers.submit(disk, file, 0, block(b"a"), "closed")
        await answers.wait(2)
        assert answers.errors["closed"] is not None

    for seed in range(3):
        on_disk(scenario, seed, out_of_order=False)
