"""The contract of a disk, line by line of walsvc.disk.base. Threads, io_uring and the simulation pass this one suite."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import random
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from walsvc.config import WalConfig
from walsvc.disk import ring
from walsvc.disk.base import Disk, Write
from walsvc.disk.choose import open_disk
from walsvc.disk.sim import SimDevice, SimDisk

FILE_BYTES = 1 << 20
Maker = Callable[[], Awaitable[Disk]]
KINDS = ["threads", "threads-buffered", "threads-mapped", "uring", "uring-buffered", "sim", "sim-buffered"]


class Answers:
    """Collects what `done` says: in which order, in which thread, and whether from inside `submit`."""

    def __init__(self) -> None:
        self.order: list[Any] = []
        self.errors: list[OSError | None] = []
        self.threads: set[int] = set()
        self.submitting = False
        self.inside_submit = False
        self._more = asyncio.Event()

    def submit(self, disk: Disk, file: int, offset: int, view: memoryview, tag: object = None) -> Write:
        write = Write(file, offset, view, self.done, tag)
        self.submitting = True
        disk.submit(write)
        self.submitting = False
        return write

    def done(self, write: Write, error: OSError | None) -> None:
        self.inside_submit |= self.submitting
        self.threads.add(threading.get_ident())
        self.order.append(write.tag)
        self.errors.append(error)
        self._more.set()

    async def wait(self, count: int) -> None:
        while len(self.order) < count:
            self._more.clear()
            await self._more.wait()


def make_disk(kind: str, tmp_path: Path) -> Maker:
    """Opens the same directory again and again, on one kind of disk."""
    name, _, way = kind.partition("-")
    direct = way != "buffered"
    device = SimDevice(3)

    async def maker() -> Disk:
        if name == "sim":
            return SimDisk(device, direct=direct)
        reading = "mapped" if way == "mapped" else "direct"
        config = WalConfig(disk=name, direct=None if direct else False, reading=reading)
        return await open_disk(tmp_path / "log", config=config, loop=asyncio.get_running_loop(), exclusive=True)

    return maker


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    if request.param.startswith("uring") and (why := ring.why_not()):
        pytest.skip(why)
    return request.param


@pytest.fixture
def maker(kind, tmp_path) -> Maker:
    return make_disk(kind, tmp_path)


@pytest.fixture
async def disk(maker) -> AsyncIterator[Disk]:
    made = await maker()
    yield made
    await made.close()


@pytest.fixture
async def file(disk) -> int:
    await disk.allocate("a.wal", FILE_BYTES)
    return await disk.open_file("a.wal")


def filled(disk: Disk, length: int, seed: object) -> memoryview:
    view = disk.buffer(length)
    view[:] = random.Random(str(seed)).randbytes(length)
    return view


def address(view: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


async def test_attributes_say_what_the_disk_is(disk, kind):
    assert disk.kind == kind.partition("-")[0]
    assert disk.reason
    assert disk.path
    assert isinstance(disk.direct, bool)
    assert disk.block_bytes >= 512
    assert disk.block_bytes & (disk.block_bytes - 1) == 0
    assert disk.sync_method in {"dsync", "fdatasync"}
    if kind.endswith("-buffered"):
        assert not disk.direct


@pytest.mark.parametrize("blocks", [1, 2, 256])
async def test_buffer_is_zeroed_aligned_and_of_the_length_asked_for(disk, blocks):
    view = disk.buffer(blocks * disk.block_bytes)
    assert len(view) == blocks * disk.block_bytes
    assert bytes(view) == bytes(len(view))
    assert address(view) % disk.block_bytes == 0
    view[-1] = 7
    assert view[-1] == 7
    assert disk.buffer(disk.block_bytes)[-1] == 0


async def test_allocate_makes_zeros_that_list_shows(disk):
    await disk.allocate("a.spare", 3 * 65536)
    assert (await disk.list())["a.spare"] == 3 * 65536
    assert await disk.read("a.spare", 0, 1 << 20) == bytes(3 * 65536)


async def test_reserved_room_reads_as_zeros_and_takes_a_durable_write(disk):
    await disk.allocate("a.spare", FILE_BYTES, reserved=True)
    assert (await disk.list())["a.spare"] == FILE_BYTES
    file, view = await disk.open_file("a.spare"), filled(disk, disk.block_bytes, 1)
    outcome = asyncio.get_running_loop().create_future()
    disk.submit(Write(file, disk.block_bytes, view, lambda _, error: outcome.set_result(error)))
    assert await outcome is None
    block = bytes(disk.block_bytes)
    expected = (block + bytes(view)).ljust(FILE_BYTES, b"\0")
    assert await disk.read("a.spare", 0, FILE_BYTES) == expected


async def test_listings_at_the_same_time_each_see_everything(disk):
    for number in range(40):
        await disk.allocate(f"{number:02}.spare", 4096)
    everything = await disk.list()
    assert set(everything) >= {f"{number:02}.spare" for number in range(40)}
    for found in await asyncio.gather(*(disk.list() for _ in range(32))):
        assert found == everything


async def test_allocate_leaves_an_existing_file_alone(disk, file):
    await disk.write("a.wal", 0, b"x" * disk.block_bytes)
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is asserted
        await disk.allocate("a.wal", 65536)
    assert caught.value.errno == errno.EEXIST
    assert (await disk.list())["a.wal"] == FILE_BYTES
    assert (await disk.read("a.wal", 0, 4))[:4] == b"xxxx"


async def test_submitted_bytes_are_read_back(disk, file):
    answers = Answers()
    view = filled(disk, 2 * disk.block_bytes, "bytes")
    write = answers.submit(disk, file, disk.block_bytes, view, "tag")
    await answers.wait(1)
    assert answers.errors == [None]
    assert answers.order == [write.tag] == ["tag"]
    assert await disk.read("a.wal", disk.block_bytes, len(view)) == bytes(view)
    assert await disk.read("a.wal", 0, disk.block_bytes) == bytes(disk.block_bytes)


async def test_done_is_called_once_on_the_loop_and_never_inside_submit(disk, file):
    answers = Answers()
    view = filled(disk, disk.block_bytes, 1)
    for number in range(20):
        answers.submit(disk, file, number * disk.block_bytes, view, number)
    await answers.wait(20)
    for _ in range(5):
        await asyncio.sleep(0)
    assert sorted(answers.order) == list(range(20))
    assert answers.threads == {threading.get_ident()}
    assert not answers.inside_submit


async def test_a_thousand_writes_in_flight_all_land(disk):
    length = 1000 * disk.block_bytes
    await disk.allocate("big.wal", length)
    file = await disk.open_file("big.wal")
    answers = Answers()
    views = [filled(disk, disk.block_bytes, number) for number in range(1000)]
    for number, view in enumerate(views):
        answers.submit(disk, file, number * disk.block_bytes, view, number)
    await answers.wait(1000)
    assert answers.errors == [None] * 1000
    assert sorted(answers.order) == list(range(1000))
    assert await disk.read("big.wal", 0, length) == b"".join(views)


async def test_a_megabyte_in_one_write(disk, file):
    answers = Answers()
    view = filled(disk, FILE_BYTES, "megabyte")
    answers.submit(disk, file, 0, view)
    await answers.wait(1)
    assert answers.errors == [None]
    assert await disk.read("a.wal", 0, FILE_BYTES) == bytes(view)


async def test_submit_from_inside_done(disk, file):
    answers = Answers()
    view = filled(disk, disk.block_bytes, 1)

    def first_done(write: Write, error: OSError | None) -> None:
        assert error is None
        answers.submit(disk, file, disk.block_bytes, view, "second")

    disk.submit(Write(file, 0, view, first_done))
    await answers.wait(1)
    assert answers.errors == [None]
    assert not answers.inside_submit


async def test_a_bad_handle_fails_through_done(disk):
    answers = Answers()
    answers.submit(disk, 999_999, 0, disk.buffer(disk.block_bytes))
    await answers.wait(1)
    assert answers.errors[0].errno == errno.EBADF
    assert not answers.inside_submit


async def test_a_failed_write_leaves_the_others_alone(disk, file):
    answers = Answers()
    view = filled(disk, disk.block_bytes, 1)
    for number, handle in enumerate([file, 999_999, file]):
        answers.submit(disk, handle, number * disk.block_bytes, view, number)
    await answers.wait(3)
    by_tag = dict(zip(answers.order, answers.errors, strict=True))
    assert by_tag[0] is None
    assert by_tag[1].errno == errno.EBADF
    assert by_tag[2] is None


async def test_a_handle_survives_rename_and_replacement_of_its_name(disk, file):
    await disk.rename("a.wal", "b.wal")
    await disk.allocate("a.wal", 65536)
    answers = Answers()
    view = filled(disk, disk.block_bytes, "renamed")
    answers.submit(disk, file, 0, view)
    await answers.wait(1)
    assert answers.errors == [None]
    assert await disk.read("b.wal", 0, len(view)) == bytes(view)
    assert await disk.read("a.wal", 0, len(view)) == bytes(len(view))


async def test_a_cached_handle_is_as_durable_through_the_page_cache(disk, file):
    cached = await disk.open_file("a.wal", cached=True)
    answers = Answers()
    view = filled(disk, disk.block_bytes, "cached")
    answers.submit(disk, cached, 2 * disk.block_bytes, view)
    await answers.wait(1)
    assert answers.errors == [None]
    assert await disk.read("a.wal", 2 * disk.block_bytes, len(view)) == bytes(view)
    await disk.close_file(cached)


async def test_closed_handle_is_refused(disk, file):
    await disk.close_file(file)
    with pytest.raises(OSError) as caught:  # noqa: PT011
        await disk.close_file(file)
    assert caught.value.errno == errno.EBADF
    answers = Answers()
    answers.submit(disk, file, 0, disk.buffer(disk.block_bytes))
    await answers.wait(1)
    assert answers.errors[0].errno == errno.EBADF


@pytest.mark.parametrize("operation", ["open_file", "read", "read_into", "write", "sync", "rename", "remove"])
async def test_a_missing_name_is_enoent(disk, operation):
    view = disk.buffer(disk.block_bytes)
    arguments = {
        "read": (0, 10),
        "read_into": (0, view),
        "write": (0, bytes(disk.block_bytes)),
        "rename": ("other.wal",),
    }
    with pytest.raises(OSError) as caught:  # noqa: PT011
        await getattr(disk, operation)("missing.wal", *arguments.get(operation, ()))
    assert caught.value.errno == errno.ENOENT
    assert not {"missing.wal", "other.wal"} & set(await disk.list())


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, 1), (1, 1), (511, 2), (4095, 2), (4096, 4096), (100, 9000), (FILE_BYTES - 10, 10), (0, FILE_BYTES), (7, 0)],
)
async def test_read_takes_any_offset_and_length(disk, file, offset, length):
    data = bytes(filled(disk, FILE_BYTES, "read"))
    await disk.write("a.wal", 0, data)
    assert await disk.read("a.wal", offset, length) == data[offset : offset + length]
    for view in (memoryview(bytearray(length + 3))[3:], disk.buffer(length)):
        assert await disk.read_into("a.wal", offset, view) == length
        assert view == data[offset : offset + length]


@pytest.mark.parametrize("beyond", [0, 1, 5000])
async def test_read_is_short_only_at_the_end(disk, file, beyond):
    assert await disk.read("a.wal", FILE_BYTES - 10, 10 + beyond) == bytes(10)
    assert await disk.read("a.wal", FILE_BYTES + beyond, 100) == b""
    view = disk.buffer(2 * disk.block_bytes)
    assert await disk.read_into("a.wal", FILE_BYTES - disk.block_bytes, view) == disk.block_bytes
    assert await disk.read_into("a.wal", FILE_BYTES + beyond, view) == 0


async def test_reading_does_not_pin_a_removed_file(disk, file):
    assert await disk.read("a.wal", 0, 8) == bytes(8)
    await disk.remove("a.wal")
    with pytest.raises(FileNotFoundError):
        await disk.read("a.wal", 0, 8)
    assert "a.wal" not in await disk.list()


async def test_cold_write_and_sync(disk, file):
    data = bytes(filled(disk, 3 * disk.block_bytes, "cold"))
    await disk.write("a.wal", 2 * disk.block_bytes, data)
    await disk.sync("a.wal")
    assert await disk.read("a.wal", 2 * disk.block_bytes, len(data)) == data
    assert (await disk.list())["a.wal"] == FILE_BYTES


async def test_rename_replaces_and_sync_directory_follows(disk, file):
    await disk.write("a.wal", 0, b"n" * disk.block_bytes)
    await disk.allocate("b.wal", 65536)
    await disk.rename("a.wal", "b.wal")
    await disk.sync_directory()
    listed = await disk.list()
    assert "a.wal" not in listed
    assert listed["b.wal"] == FILE_BYTES
    assert await disk.read("b.wal", 0, 2) == b"nn"


async def test_free_bytes_is_what_can_be_allocated(disk):
    assert await disk.free_bytes() > FILE_BYTES


async def test_misaligned_writes_are_not_taken_where_direct(disk, file):
    if not disk.direct:
        answers = Answers()
        answers.submit(disk, file, 3, memoryview(b"abc"))
        await answers.wait(1)
        assert answers.errors == [None]
        assert await disk.read("a.wal", 2, 5) == b"\0abc\0"
        return
    with pytest.raises((OSError, AssertionError)) as caught:
        await disk.write("a.wal", 1, b"abc")
    assert isinstance(caught.value, AssertionError) or caught.value.errno == errno.EINVAL
    if disk.kind == "sim":
        with pytest.raises(AssertionError):
            disk.submit(Write(file, 1, disk.buffer(disk.block_bytes), lambda *_: None))
        return
    answers = Answers()
    answers.submit(disk, file, 1, disk.buffer(disk.block_bytes), 0)
    answers.submit(disk, file, 0, disk.buffer(disk.block_bytes)[: disk.block_bytes - 1], 1)
    await answers.wait(2)
    assert [error.errno for error in answers.errors] == [errno.EINVAL] * 2
    assert not answers.inside_submit


async def test_close_waits_for_every_write(maker):
    disk = await maker()
    await disk.allocate("a.wal", FILE_BYTES)
    file = await disk.open_file("a.wal")
    answers = Answers()
    view = filled(disk, disk.block_bytes, 1)
    for number in range(64):
        answers.submit(disk, file, number * disk.block_bytes, view, number)
    await disk.close()
    assert answers.errors == [None] * 64


async def test_close_is_idempotent_also_for_many_at_once(maker):
    disk = await maker()
    await disk.allocate("a.wal", 65536)
    await disk.open_file("a.wal")
    await asyncio.gather(disk.close(), disk.close(), disk.close())
    await disk.close()
    again = await maker()
    assert "a.wal" in await again.list()
    await again.close()


async def test_close_releases_the_lock(maker):
    for _ in range(3):
        await (await maker()).close()
    disk = await maker()
    assert disk.reason
    await disk.close()


async def test_after_close_everything_is_refused(maker):
    disk = await maker()
    await disk.allocate("a.wal", 65536)
    file = await disk.open_file("a.wal")
    await disk.close()
    answers = Answers()
    answers.submit(disk, file, 0, disk.buffer(disk.block_bytes))
    await answers.wait(1)
    assert isinstance(answers.errors[0], OSError)
    assert not answers.inside_submit
    with pytest.raises(OSError):  # noqa: PT011 - which number is the disk's choice
        await disk.list()


async def test_close_stops_an_allocation_and_removes_its_file(maker):
    disk = await maker()
    allocating = asyncio.create_task(disk.allocate("huge.spare", 1 << 30))
    await asyncio.sleep(0)
    await disk.close()
    with pytest.raises(OSError) as caught:  # noqa: PT011
        await allocating
    assert caught.value.errno == errno.ECANCELED
    again = await maker()
    assert "huge.spare" not in await again.list()
    await again.close()


async def test_a_cancelled_cold_call_harms_nobody(disk, file):
    reading = [asyncio.create_task(disk.read("a.wal", 0, FILE_BYTES)) for _ in range(8)]
    await asyncio.sleep(0)
    for task in reading[::2]:
        task.cancel()
    results = await asyncio.gather(*reading, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results[::2])
    assert results[1::2] == [bytes(FILE_BYTES)] * 4
    assert await disk.read("a.wal", 0, 1) == b"\0"


async def test_a_callback_that_raises_harms_nobody(disk, file):
    loop = asyncio.get_running_loop()
    seen: list[BaseException | None] = []
    loop.set_exception_handler(lambda _, context: seen.append(context.get("exception")))
    answers = Answers()
    view = filled(disk, disk.block_bytes, 1)

    def raising(write: Write, error: OSError | None) -> None:
        raise ValueError("a callback's own mistake")

    for number in range(6):
        if number % 2:
            answers.submit(disk, file, number * disk.block_bytes, view, number)
        else:
            disk.submit(Write(file, number * disk.block_bytes, view, raising))
    await answers.wait(3)
    await disk.close()
    assert answers.errors == [None] * 3
    assert [str(error) for error in seen] == ["a callback's own mistake"] * 3


async def test_writes_and_cold_calls_go_on_side_by_side(disk, file):
    answers = Answers()
    view = filled(disk, disk.block_bytes, 1)
    allocating = asyncio.create_task(disk.allocate("next.spare", 8 << 20))
    for number in range(100):
        answers.submit(disk, file, number * disk.block_bytes, view, number)
        assert len(await disk.read("a.wal", 0, 512)) == 512
    await allocating
    await answers.wait(100)
    assert answers.errors == [None] * 100
    assert (await disk.list())["next.spare"] == 8 << 20
