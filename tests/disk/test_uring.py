"""The io_uring disk over a fake ring: every way in which the kernel may answer, and every order."""

from __future__ import annotations

import asyncio
import errno
import gc
import itertools
import os
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.disk.fake_ring import FakeRing
from tests.disks import WHY_NO_URING
from walsvc.disk import posix, uring
from walsvc.disk.base import Write
from walsvc.disk.directory import Directory
from walsvc.disk.ring import QUEUE_FULL, KernelRing, extension_built
from walsvc.disk.uring import UringDisk, judge

BLOCK = 4096
MakeDisk = Callable[..., UringDisk]


class Outcomes(dict[Any, OSError | None]):
    """What `done` said by tag, in the order of the calls."""

    def done(self, write: Write, error: OSError | None) -> None:
        assert write.tag not in self, "answered twice"
        self[write.tag] = error

    def number(self, tag: Any) -> int:
        error = self[tag]
        assert error is not None
        assert error.errno is not None
        return error.errno


@pytest.fixture
async def make_disk(tmp_path, monkeypatch) -> AsyncIterator[MakeDisk]:
    monkeypatch.setattr(uring, "RETRY_SECONDS", (0.0,) * 5)
    monkeypatch.setattr(uring, "FLUSH_AGAIN_SECONDS", 0.0)
    made: list[UringDisk] = []

    def make(ring: FakeRing, *, dsync: bool = True) -> UringDisk:
        descriptor = os.open(tmp_path, os.O_RDONLY)
        directory = Directory(str(tmp_path), descriptor, lock=None, direct=False, block_bytes=BLOCK)
        loop = asyncio.get_running_loop()
        disk = UringDisk(directory, loop=loop, dsync=dsync, reason="test", make_ring=lambda: ring)
        made.append(disk)
        return disk

    yield make
    for disk in made:
        assert not disk._in_flight, "the test left a write without an answer"
        await disk.close()


async def turn(times: int = 20) -> None:
    """Let the loop look at its descriptors and timers some times."""
    for _ in range(times):
        await asyncio.sleep(0)


def submit(disk: UringDisk, outcomes: Outcomes, tag: int, *, blocks: int = 1) -> None:
    disk.submit(Write(3, tag * BLOCK, memoryview(bytes([tag]) * (blocks * BLOCK)), outcomes.done, tag))


RESULTS = [BLOCK, BLOCK - 512, 1, 0, -errno.EINTR, -errno.EAGAIN, -errno.ECANCELED, -errno.EIO, -errno.EINVAL]


@pytest.mark.parametrize(("written", "synced"), list(itertools.product(RESULTS, [0, *RESULTS[4:]])))
def test_judge_every_pair_of_results(written, synced):
    verdict = judge(BLOCK, written, synced)
    if written == BLOCK and synced == 0:
        assert verdict == 0
    elif written == BLOCK:
        assert verdict == synced
    elif written in {-errno.EINTR, -errno.EAGAIN}:
        assert verdict == errno.EAGAIN
    elif written < 0:
        assert verdict == written
    else:
        assert verdict == -errno.EIO


async def test_durable_only_when_both_completions_came_in_either_order(make_disk):
    ring, outcomes = FakeRing(), Outcomes()
    disk = make_disk(ring, dsync=False)
    submit(disk, outcomes, 0)
    submit(disk, outcomes, 1)
    assert [submission.linked for submission in ring.submissions] == [True, True]
    ring.complete(0)
    ring.complete(1, sync=True)
    await turn()
    assert outcomes == {}
    ring.complete(0, sync=True)
    ring.complete(1)
    await turn()
    assert outcomes == {0: None, 1: None}


async def test_out_of_order_completions_reach_their_own_writes(make_disk):
    ring, outcomes = FakeRing(), Outcomes()
    disk = make_disk(ring)
    for tag in range(4):
        submit(disk, outcomes, tag)
    ring.complete(3)
    ring.complete(1, -errno.EIO)
    await turn()
    assert list(outcomes) == [3, 1]
    ring.complete(0)
    ring.complete(2)
    await turn()
    assert list(outcomes) == [3, 1, 0, 2]
    assert outcomes.number(1) == errno.EIO
    assert [outcomes[tag] for tag in (0, 2, 3)] == [None] * 3


@pytest.mark.parametrize("short", [0, 1, 512, BLOCK - 1])
@pytest.mark.parametrize("dsync", [True, False])
async def test_short_write_is_an_error_and_not_written_again(make_disk, short, dsync):
    ring, outcomes = FakeRing(), Outcomes()
    disk = make_disk(ring, dsync=dsync)
    submit(disk, outcomes, 0)
    ring.complete(0, short)
    if not dsync:
        ring.complete(0, -errno.ECANCELED, sync=True)
    await turn()
    assert outcomes.number(0) == errno.EIO
    assert f"{short} of {BLOCK}" in str(outcomes[0])
    assert len(ring.submissions) == 1


@pytest.mark.parametrize("number", [errno.ECANCELED, errno.EIO, errno.EINTR, errno.EAGAIN, errno.ENOSPC])
async def test_failed_sync_is_an_error_and_never_repeated(make_disk, number):
    ring, outcomes = FakeRing(), Outcomes()
    disk = make_disk(ring, dsync=False)
    submit(disk, outcomes, 0)
    ring.complete_pair(0, synced=-number)
    await turn()
    assert outcomes.number(0) == number
    assert len(ring.submissions) == 1


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ECANCELED, errno.EBADF])
@pytest.mark.parametrize("dsync", [True, False])
async def test_failed_write_gives_its_own_errno(make_disk, number, dsync):
    ring, outcomes = FakeRing(), Outcomes()
    disk = make_disk(ring, dsync=dsync)
    submit(disk, outcomes, 0)
    ring.complete(0, -number)
    if not dsync:
        ring.complete(0, -errno.ECANCELED, sync=True)
    await turn()
    assert outcomes.number(0) == number
    assert len(ring.submissions) == 1


@pytest.mark.parametrize("number", [errno.EINTR, errno.EAGAIN])
@pytest.mark.parametrize("dsync", [True, False])
async def test_write_that_was_put_off_is_submitted_again(make_disk, number, dsync):
    ring, outcomes = FakeRing(), Outcomes()
    disk = make_disk(ring, dsync=dsync)
    submit(disk, outcomes, 1)
    for attempt in range(3):
        ring.complete(attempt, -number)
        if not dsync:
            ring.complete(attempt, -errno.ECANCELED, sync=True)
        await turn()
        assert outcomes == {}
        assert len(ring.submissions) == attempt + 2
    assert {(each.data, each.offset) for each in ring.submissions} == {(b"\1" * BLOCK, BLOCK)}
    ring.complete_pair(3) if not dsync else ring.complete(3)
    await turn()
    assert outcomes == {1: None}


async def test_write_that_is_put_off_for_ever_fails_with_that_errno(make_disk):
    ring, outcomes = FakeRing(), Outcomes()
    disk = make_disk(ring)
    submit(disk, outcomes, 0)
    for attempt in range(len(uring.RETRY_SECONDS) + 1):
        ring.complete(attempt, -errno.EAGAIN)
        await turn()
    assert outcomes.number(0) == errno.EAGAIN
    assert len(ring.submissions) == len(uring.RETRY_SECONDS) + 1


@pytest.mark.parametrize("dsync", [True, False])
async def test_more_writes_than_slots_wait_their_turn(make_disk, dsync):
    ring, outcomes = FakeRing(slots=4), Outcomes()
    disk = make_disk(ring, dsync=dsync)
    at_once = 4 if dsync else 2
    for tag in range(10):
        submit(disk, outcomes, tag)
    assert len(ring.submissions) == at_once
    for index in range(10):
        assert len(ring.submissions) == min(index + at_once, 10)
        ring.complete(index) if dsync else ring.complete_pair(index)
        await turn()
    assert list(outcomes.items()) == [(tag, None) for tag in range(10)]
    assert [each.offset for each in ring.submissions] == [tag * BLOCK for tag in range(10)]


async def test_full_submission_queue_is_no_error(make_disk):
    ring, outcomes = FakeRing(), Outcomes()
    disk = make_disk(ring)
    ring.outcomes.extend([QUEUE_FULL, 0])
    submit(disk, outcomes, 0)
    submit(disk, outcomes, 1)
    assert ring.submissions == []
    await turn()
    assert [each.offset for each in ring.submissions] == [0, BLOCK]
    ring.complete(0)
    ring.complete(1)
    await turn()
    assert outcomes == {0: None, 1: None}


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EBUSY])
async def test_kernel_without_room_is_asked_again(make_disk, number):
    ring, outcomes = FakeRing(), Outcomes()
    disk = make_disk(ring)
    ring.outcomes.extend([-number, -number, -number])
    submit(disk, outcomes, 0)
    assert outcomes == {}
    await turn()
    assert ring.flushes == 3
    assert len(ring.submissions) == 1
    ring.complete(0)
    await turn()
    assert outcomes == {0: None}


async def test_kernel_that_never_takes_it_loses_the_ring(make_disk, monkeypatch):
    monkeypatch.setattr(uring, "FLUSH_ATTEMPTS_MAX", 3)
    ring, outcomes = FakeRing(), Outcomes()
    disk = make_disk(ring)
    ring.outcomes.extend([-errno.EAGAIN] * 10)
    ring.backlog = 1
    submit(disk, outcomes, 0)
    await turn()
    assert outcomes.number(0) == errno.EAGAIN
    assert ring.flushes == 3


async def test_lost_ring_fails_what_the_kernel_has_not_and_waits_for_what_it_has(make_disk):
    ring, outcomes = FakeRing(), Outcomes()
    disk = make_disk(ring)
    submit(disk, outcomes, 0)
    ring.outcomes.append(-errno.EBADFD)
    ring.backlog = 1
    submit(disk, outcomes, 1)
    assert outcomes == {}, "not from inside submit"
    submit(disk, outcomes, 2)
    await turn()
    assert set(outcomes) == {1, 2}
    assert outcomes.number(1) == outcomes.number(2) == errno.EBADFD
    ring.complete(0)
    await turn()
    assert outcomes[0] is None
    assert len(ring.submissions) == 2
    assert ring.flushes == 0, "what is left in the queue must never reach the kernel"


@pytest.mark.parametrize("write_first", [True, False])
async def test_lost_ring_that_took_a_write_without_its_sync(make_disk, write_first):
    ring, outcomes = FakeRing(), Outcomes()
    disk = make_disk(ring, dsync=False)
    submit(disk, outcomes, 0)
    if write_first:
        ring.complete(0)
        await turn()
    ring.backlog = 1
    disk._lose(errno.ENXIO)
    await turn()
    if not write_first:
        assert outcomes == {}, "the kernel still reads that memory"
        ring.complete(0)
        await turn()
    assert outcomes.number(0) == errno.ECANCELED


@pytest.mark.parametrize("write_first", [True, False])
async def test_link_that_the_kernel_took_by_halves_is_never_acknowledged(make_disk, write_first):
    ring, outcomes = FakeRing(), Outcomes()
    disk = make_disk(ring, dsync=False)
    submit(disk, outcomes, 0)
    ring.outcomes.append(-errno.ENOLINK)
    ring.backlog = 1
    submit(disk, outcomes, 1)
    submit(disk, outcomes, 2)
    if write_first:
        ring.complete(1)
    await turn()
    assert outcomes.number(2) == errno.ENOLINK
    assert "without its sync" in str(outcomes[2])
    if not write_first:
        assert 1 not in outcomes, "the kernel still reads that memory"
        ring.complete(1)
        await turn()
    assert outcomes.number(1) == errno.ECANCELED
    ring.complete_pair(0)
    await turn()
    assert outcomes[0] is None
    assert (ring.flushes, len(ring.submissions)) == (0, 2), "the sync must not go alone"


async def test_links_taken_by_halves_when_the_kernel_is_asked_again(make_disk):
    ring, outcomes = FakeRing(), Outcomes()
    disk = make_disk(ring, dsync=False)
    ring.outcomes.extend([-errno.EAGAIN, -errno.EAGAIN, -errno.ENOLINK])
    submit(disk, outcomes, 0)
    submit(disk, outcomes, 1)
    ring.backlog = 3
    await turn()
    assert outcomes.number(1) == errno.ENOLINK, "none of it was taken"
    assert 0 not in outcomes
    ring.complete(0)
    await turn()
    assert outcomes.number(0) == errno.ECANCELED
    assert ring.flushes == 1


async def test_waiting_writes_fail_with_a_lost_ring(make_disk):
    ring, outcomes = FakeRing(slots=1), Outcomes()
    disk = make_disk(ring)
    for tag in range(3):
        submit(disk, outcomes, tag)
    disk._lose(errno.ENXIO)
    await turn()
    assert set(outcomes) == {1, 2}
    ring.complete(0, -errno.EAGAIN)
    await turn()
    assert outcomes.number(0) == errno.EAGAIN
    assert len(ring.submissions) == 1


async def test_very_long_write_goes_in_pieces_and_is_one_answer(make_disk, monkeypatch):
    monkeypatch.setattr(posix, "WRITE_BYTES_MAX", 2 * BLOCK)
    ring, outcomes = FakeRing(), Outcomes()
    disk = make_disk(ring)
    data = b"".join(bytes([number]) * BLOCK for number in range(5))
    disk.submit(Write(3, 7 * BLOCK, memoryview(data), outcomes.done, "long"))
    for index in range(3):
        assert outcomes == {}
        ring.complete(index)
        await turn()
    assert outcomes == {"long": None}
    assert b"".join(each.data for each in ring.submissions) == data
    assert [each.offset // BLOCK for each in ring.submissions] == [7, 9, 11]


async def test_memory_is_held_until_the_writes_completion(make_disk):
    class Memory(bytearray):
        pass

    ring, outcomes = FakeRing(), Outcomes()
    disk = make_disk(ring, dsync=False)
    memory = Memory(BLOCK)
    alive = weakref.ref(memory)
    disk.submit(Write(3, 0, memoryview(memory), outcomes.done, 0))
    del memory
    gc.collect()
    assert alive() is not None
    ring.complete_pair(0)
    await turn()
    gc.collect()
    assert alive() is None
    assert outcomes == {0: None}


@pytest.mark.skipif(bool(WHY_NO_URING), reason=WHY_NO_URING or "it is there")
async def test_memory_that_cannot_be_pinned_is_einval_through_done(make_disk):
    if not extension_built():
        pytest.skip("without the extension")
    ring, outcomes = FakeRing(), Outcomes()
    kernel_ring = KernelRing(2)
    ring.pin = kernel_ring.pin  # type: ignore[method-assign]
    disk = make_disk(ring)
    disk.submit(Write(3, 0, memoryview(bytes(2 * BLOCK))[::2], outcomes.done, 0))
    assert outcomes == {}
    await turn()
    assert outcomes.number(0) == errno.EINVAL
    assert ring.submissions == []
    kernel_ring.close()


async def test_memory_error_while_starting_is_an_answer(make_disk):
    def fail(view: memoryview) -> object:
        raise MemoryError

    ring, outcomes = FakeRing(), Outcomes()
    disk = make_disk(ring)
    ring.pin = fail  # type: ignore[method-assign]
    submit(disk, outcomes, 0)
    await turn()
    assert outcomes.number(0) == errno.ENOMEM
    assert ring.submissions == []


async def test_close_waits_for_completions_and_gives_the_ring_back_once(make_disk):
    ring, outcomes = FakeRing(), Outcomes()
    disk = make_disk(ring)
    submit(disk, outcomes, 0)
    closing = asyncio.create_task(disk.close())
    await turn()
    assert not closing.done()
    assert ring.closed == 0
    ring.complete(0)
    await closing
    assert outcomes == {0: None}
    assert ring.closed == 1


async def test_dropped_disk_is_drained_before_its_ring_goes(tmp_path):
    ring, outcomes = FakeRing(), Outcomes()
    order: list[str] = []

    def completes() -> None:
        order.append("waited")
        ring.complete(0)

    ring.waits = completes
    descriptor = os.open(tmp_path, os.O_RDONLY)
    directory = Directory(str(tmp_path), descriptor, lock=None, direct=False, block_bytes=BLOCK)
    loop = asyncio.get_running_loop()
    disk = UringDisk(directory, loop=loop, dsync=True, reason="test", make_ring=lambda: ring)
    submit(disk, outcomes, 0)
    loop.remove_reader(ring.event)
    del disk, directory
    gc.collect()
    assert order == ["waited"]
    assert ring.closed == 1
    assert outcomes == {}
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_drain_does_not_wait_for_what_the_kernel_never_took():
    ring = FakeRing()
    ring.backlog = 3
    pins: dict[int, object] = {1: b"", 2: b""}
    ring.submissions.clear()
    waited: list[int] = []

    def completes() -> None:
        waited.append(1)
        ring._completions.append((2, BLOCK))

    ring.waits = completes
    uring.drain(os.getpid(), ring, pins, 2)
    assert waited == [1]
    assert ring.closed == 1


def test_forked_child_does_not_touch_its_parents_ring():
    ring = FakeRing()
    uring.drain(os.getpid() + 1, ring, {1: b""}, 1)
    assert ring.closed == 0
    ring.close()


async def test_exception_out_of_a_submission_keeps_no_pinned_memory_in_its_frames(make_disk: MakeDisk) -> None:
    """In a cycle with the exception CPython's collector would free the memory although it is pinned, and crash."""

    class Interrupted(FakeRing):
        def pin(self, view: memoryview) -> object:
            self.pinned = weakref.ref(made := memoryview(view))
            return made

        def write(self, *arguments: Any) -> int:
            super().write(*arguments)
            raise KeyboardInterrupt

    ring, outcomes = Interrupted(), Outcomes()
    disk = make_disk(ring)
    try:
        submit(disk, outcomes, 0)
    except KeyboardInterrupt as error:
        frame = error.__traceback__
        while frame is not None:
            code = frame.tb_frame.f_code
            if code.co_filename == uring.__file__:
                assert not any(value is ring.pinned() for value in frame.tb_frame.f_locals.values()), code
            frame = frame.tb_next
    else:
        raise AssertionError("it comes out of submit")
    ring.complete(0)
    disk.hear()
    assert outcomes == {0: None}
