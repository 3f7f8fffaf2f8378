"""What waits, what does not, and who is told: stalled and failing disks under the public interface."""

from __future__ import annotations

import asyncio
import errno
import gc
import threading

import pytest

import walsvc
from tests.waiting import until
from walsvc import Closed, DurabilityLost, KeyRing, NoSpace, Relaxed, WalConfig, WalError, WalTimeout
from walsvc.disk import threads
from walsvc.disk.sim import SimDevice, SimDisk, run_sim
from walsvc.log.commit.group import Group
from walsvc.log.commit.spares import SHORTAGES
from walsvc.log.extent.singles import Singles
from walsvc.log.extent.steps import segment_begun
from walsvc.opening import open_on

CONFIG = WalConfig(segment_bytes=65536)


async def test_loop_turns_while_a_sync_stalls(tmp_path, monkeypatch):
    """The commit thread stands still inside its system call; the loop must not. Counted in turns, not by a clock."""
    async with walsvc.open(tmp_path / "log", disk="threads") as log:
        await log.append(b"warm")
        stalled, go_on = threading.Event(), threading.Event()
        write_durably = threads.write_durably

        def stall(*args, **kwargs):
            stalled.set()
            assert go_on.wait(60)
            return write_durably(*args, **kwargs)

        monkeypatch.setattr(threads, "write_durably", stall)
        futures = [log.append(b"x")]
        turns = 0
        while not stalled.is_set() or turns < 1000:
            await asyncio.sleep(0)
            futures.append(log.append(b"x" * 100))
            turns += 1
        assert not any(future.done() for future in futures), "acknowledged although no sync has returned"
        assert log.durable_lsn == 1
        go_on.set()
        results = await asyncio.gather(*futures)
        assert [result.lsn for result in results] == list(range(2, 2 + len(futures)))
        assert log.stats().group_records_max > 500, "what came during the stall shared few groups"


def test_stall_of_thirty_seconds_bounds_memory_and_acknowledges_nothing(capsys):
    async def main(seed: int) -> None:
        device = SimDevice(seed)
        log = await open_on(SimDisk(device), WalConfig(segment_bytes=1 << 20, max_pending_bytes=100_000))
        await log.append(b"before")
        device.stall_sync(30)
        started = asyncio.get_running_loop().time()
        futures = [log.append(bytes(1000)) for _ in range(500)]
        await asyncio.sleep(29)
        assert not any(future.done() for future in futures)
        assert log.stats().pending_bytes <= 100_000
        assert log.stats().waiting >= 400
        await asyncio.gather(*futures)
        assert asyncio.get_running_loop().time() - started >= 30
        await log.close()

    run_sim(main, 3)


def test_close_is_one_deadline_and_holds_the_lock_until_the_last_write_ended():
    async def main(seed: int) -> None:
        device = SimDevice(seed)
        log = await open_on(SimDisk(device), CONFIG)
        device.stall_sync(30)
        pending = log.append(b"x")
        with pytest.raises(WalTimeout) as caught:
            await log.close(timeout=1)
        assert isinstance(caught.value, TimeoutError)
        with pytest.raises(walsvc.Locked):
            await open_on(SimDisk(device), CONFIG)
        assert (await pending).durable
        await log.close()
        again = await open_on(SimDisk(device), CONFIG)
        assert again.next_lsn == 2
        assert again.report.clean
        await again.close()

    run_sim(main, 4)


def test_failed_sync_tells_every_waiter_the_original_errno_and_is_terminal():
    async def main(seed: int) -> None:
        device = SimDevice(seed)
        log = await open_on(SimDisk(device), CONFIG)
        await log.append(b"safe")
        device.fail("submit.sync", errno=errno.EIO)
        first = [log.append(b"a") for _ in range(5)]
        outcomes = await asyncio.gather(*first, return_exceptions=True)
        assert all(isinstance(error, DurabilityLost) and error.errno == errno.EIO for error in outcomes)
        assert len({id(error) for error in outcomes}) == 5
        for call in (log.append, log.append_nowait):
            with pytest.raises(DurabilityLost) as caught:
                call(b"later")
            assert caught.value.errno == errno.EIO
        with pytest.raises(DurabilityLost):
            await log.flush()
        assert log.stats().failed
        await log.close()
        again = await open_on(SimDisk(device), CONFIG)
        assert (await anext(again.read())).payload == b"safe"
        await again.close()

    run_sim(main, 5)


def test_lost_relaxed_records_are_told_at_close_when_nobody_had_been_told():
    async def main(seed: int) -> None:
        device = SimDevice(seed)
        log = await open_on(SimDisk(device), WalConfig(segment_bytes=65536, relaxed_interval=None))
        await log.append(b"promised", mode=Relaxed)
        device.fail("submit.sync", errno=errno.ENODEV)
        with pytest.raises(DurabilityLost) as caught:
            await log.close()
        assert caught.value.errno == errno.ENODEV
        await log.close()

    run_sim(main, 6)


async def test_group_that_cannot_be_made_is_told_to_all_who_wait(monkeypatch):
    """What no test knows how to provoke: a defect in what closes a group."""
    log = await open_on(SimDisk(SimDevice(1)), CONFIG)
    await log.append(b"safe")
    shown = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: shown.append(context["exception"]))
    with monkeypatch.context() as patch:
        patch.setattr(Group, "close", lambda _: 1 // 0)
        for _ in range(2):
            with pytest.raises(DurabilityLost, match="ZeroDivisionError"):
                await log.append(b"x")
    assert isinstance(shown[0], ZeroDivisionError)
    await log.close()


def test_error_of_a_block_is_not_hidden_by_one_of_closing():
    async def main(seed: int) -> None:
        device = SimDevice(seed)
        log = await open_on(SimDisk(device), WalConfig(segment_bytes=65536, relaxed_interval=None))
        await log.append_batch([b"a", b"b"])
        with pytest.raises(LookupError):
            async with log, await log.consumer("c", delivery=walsvc.AtLeastOnce(100)) as consumer:
                await consumer.ack((await consumer.next()).lsn)
                await log.append(b"promised", mode=Relaxed)
                device.fail("submit.sync", errno=errno.ENODEV)
                raise LookupError
        assert log.writer.core.health.terminal() is not None
        with pytest.raises(Closed):
            await consumer.next()

    run_sim(main, 6)


def test_full_device_burns_no_lsn_and_appends_go_on_after_space_is_freed():
    async def main(seed: int) -> None:
        device = SimDevice(seed, capacity=3 * 65536)
        log = await open_on(SimDisk(device), CONFIG)
        accepted = 0
        with pytest.raises(NoSpace) as caught:
            while True:
                assert (await log.append(bytes(3000))).lsn == accepted + 1
                accepted += 1
        assert caught.value.errno == errno.ENOSPC
        assert caught.value.hint
        with pytest.raises(NoSpace):
            await log.append(bytes(3000))
        assert log.next_lsn == accepted + 1
        await log.truncate_before(accepted)
        assert (await log.append(bytes(3000))).lsn == accepted + 1
        await log.close()
        again = await open_on(SimDisk(device), CONFIG)
        assert again.next_lsn == accepted + 2
        await again.close()

    run_sim(main, 7)


@pytest.mark.parametrize("size", [10, 90_000])
def test_nothing_is_accepted_behind_a_seal_when_the_log_is_closed_meanwhile(size: int):
    async def main(seed: int) -> None:
        device = SimDevice(seed)
        log = await open_on(SimDisk(device), CONFIG)
        before = [log.append(bytes(3000)) for _ in range(20)]
        sealing = asyncio.ensure_future(log.seal())
        await asyncio.sleep(0)
        behind = [log.append(bytes(size)) for _ in range(3)]
        await log.close()
        assert [(await each).lsn for each in before] == list(range(1, 21))
        await sealing
        for each in behind:
            with pytest.raises(Closed, match="sealed"):
                await each
        async with await open_on(SimDisk(device), CONFIG) as log:
            assert [record.lsn async for record in log.read()] == list(range(1, 21))
            with pytest.raises(Closed, match="sealed"):
                await log.append(b"x")

    run_sim(main, 9)


def test_deadline_of_close_ends_the_waiting_for_room():
    async def main(seed: int) -> None:
        device = SimDevice(seed)
        log = await open_on(SimDisk(device), WalConfig(segment_bytes=65536, max_pending_bytes=5000))
        device.stall_sync(30)
        futures = [log.append(bytes(4000)) for _ in range(5)]
        sealing = asyncio.ensure_future(log.seal())
        await asyncio.sleep(0)
        with pytest.raises(WalTimeout):
            await log.close(timeout=1)
        for refused in (*futures[1:], sealing):
            with pytest.raises(Closed):
                await refused
        assert not futures[0].done()
        await log.close()
        assert (await futures[0]).durable
        again = await open_on(SimDisk(device), CONFIG)
        assert again.next_lsn == 2
        await again.close()

    run_sim(main, 8)


def test_seal_takes_what_was_called_before_it_and_nothing_later():
    async def main(seed: int) -> None:
        device = SimDevice(seed)
        log = await open_on(SimDisk(device), WalConfig(segment_bytes=65536, max_pending_bytes=5000))
        before = [log.append(bytes(4000)) for _ in range(5)]
        sealing = asyncio.ensure_future(log.seal())
        await asyncio.sleep(0)
        later = log.append(b"later")
        sealing.cancel()  # that ends only the wait
        assert [result.lsn for result in await asyncio.gather(*before)] == [1, 2, 3, 4, 5]
        with pytest.raises(Closed, match="sealed"):
            await later
        await log.seal()
        await log.close()
        again = await open_on(SimDisk(device), CONFIG)
        with pytest.raises(Closed, match="sealed"):
            again.append(b"no")
        assert again.next_lsn == 6
        await again.close()

    run_sim(main, 8)


def test_exception_in_one_waiters_callback_does_not_reach_the_others():
    async def main(seed: int) -> None:
        device = SimDevice(seed)
        log = await open_on(SimDisk(device), CONFIG)
        caught: list[object] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: caught.append(context["exception"]))
        futures = [log.append(b"x") for _ in range(3)]

        def explode(_: object) -> None:
            raise RuntimeError("in a callback")

        futures[1].add_done_callback(explode)
        assert [result.lsn for result in await asyncio.gather(*futures)] == [1, 2, 3]
        assert (await log.append(b"y")).lsn == 4
        assert [type(error) for error in caught] == [RuntimeError]
        loop.set_exception_handler(None)
        await log.close()

    run_sim(main, 9)


@pytest.mark.parametrize("jump_s", [-365 * 86400, 365 * 86400])
def test_wall_clock_moved_by_a_year_changes_timestamps_only(jump_s):
    async def main(seed: int) -> None:
        log = await open_on(SimDisk(SimDevice(seed)), CONFIG)
        await log.append(b"a")
        clock = log.writer.core.tail.clock
        log.writer.core.tail.clock = lambda: clock() + jump_s * 10**9
        await asyncio.wait_for(log.append(b"b"), 60)
        records = [record async for record in log.read()]
        assert [record.lsn for record in records] == [1, 2]
        assert abs(records[1].timestamp_ns - records[0].timestamp_ns) > 300 * 86400 * 10**9
        await log.close()

    run_sim(main, 10)


@pytest.mark.parametrize("sync_method", ["dsync", "fdatasync"])
@pytest.mark.parametrize("seed", range(5))
def test_reopening_after_a_failed_sync_in_the_page_cache_shows_only_what_the_device_has(sync_method, seed):
    """fsyncgate: the failed pages stay in the page cache, marked as clean; who believes them builds on sand."""

    async def main(_: int) -> None:
        device = SimDevice(seed)

        async def open_again() -> walsvc.Log:
            log: walsvc.Log = await open_on(SimDisk(device, direct=False, sync_method=sync_method), CONFIG)
            return log

        log = await open_again()
        await log.append(b"a")
        device.fail("submit.sync", errno=errno.EIO)
        with pytest.raises(DurabilityLost):
            await log.append(b"never acknowledged")
        await log.close()
        log = await open_again()
        seen = [record.payload async for record in log.read()]
        assert seen[0] == b"a"
        await log.append(b"c")
        after_the_cut = device.fork().crash()
        await log.close()  # the run that the cut ended must not be collected with its tasks pending
        device = after_the_cut
        log = await open_again()
        assert [record.payload async for record in log.read()] == [*seen, b"c"]
        await log.close()

    run_sim(main, seed)


async def test_truncation_that_nobody_waits_for_and_that_a_closed_log_refuses_leaves_no_stray_error(tmp_path):
    """It waits behind a batch; its caller is cancelled, and the log is closed, before its turn comes."""
    strays: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: strays.append(context))

    async def source():
        yield b"first"
        await asyncio.Event().wait()

    log = await walsvc.open(tmp_path / "log")
    await log.append(b"before")
    batch = log.append_batch(source())
    await asyncio.sleep(0)
    truncating = asyncio.create_task(log.truncate_after(0))
    await asyncio.sleep(0)
    truncating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await truncating
    with pytest.raises(WalTimeout):
        await log.close(timeout=0)  # nobody has his turn any more
    await log.close()
    with pytest.raises(walsvc.Closed):
        await batch
    del truncating, batch
    gc.collect()
    assert strays == []
    async with walsvc.open(tmp_path / "log") as log:
        assert [record.payload async for record in log.read()] == [b"before"]


def test_cancelled_waits_of_every_kind_remove_themselves():
    """A wait with a timeout is cancelled many times; 100,000 of them once kept 25 MB."""

    async def main(seed: int) -> None:
        device = SimDevice(seed)
        log = await open_on(SimDisk(device), WalConfig(segment_bytes=1 << 20, max_pending_bytes=20_000))
        writer = log.writer
        device.stall_sync(30)
        pending = [log.append(bytes(1000)) for _ in range(25)]
        assert log.stats().waiting > 0, "the appends behind the cap wait"
        for _ in range(300):
            follower = log.follow(start=log.next_lsn)
            waits = [
                log.append(b"x"),
                asyncio.ensure_future(log.wait_durable(1)),
                asyncio.ensure_future(log.flush()),
                asyncio.ensure_future(anext(follower)),
                asyncio.ensure_future(log.topic("t").consumer("c")),
                asyncio.ensure_future(log.hold("h", 1)),
            ]
            await asyncio.sleep(0)
            for each in waits:
                each.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
            await asyncio.sleep(0)
        assert len(writer.core.waits) < 5, "cancelled waits for an LSN, a topic or room are still there"
        assert writer.core.waits.kept < 200
        assert log.stats().waiting <= 25
        assert writer.core.changes.length == 0
        await asyncio.gather(*pending)
        await log.close()

    run_sim(main, 11)


async def test_flush_waits_for_a_streamed_batch_under_way_but_not_inside_its_own_source(tmp_path):
    go_on, flushed = asyncio.Event(), []

    async with walsvc.open(tmp_path / "log") as log:

        async def source():
            yield b"first"
            flushed.append(await log.flush())
            await go_on.wait()
            yield b"last"

        batch = log.append_batch(source())
        flush = asyncio.create_task(log.flush())
        await until(lambda: flushed, 0)
        assert not flush.done(), "the batch was called before, and is not durable"
        go_on.set()
        assert await flush == 2
        assert [each.lsn for each in await batch] == [1, 2]
        go_on.clear()
        given_up = log.append_batch(source())
        flush = asyncio.create_task(log.flush())
        await asyncio.sleep(0)
        given_up.cancel()
        assert await flush == 2, "one that is given up is not waited for any longer"


class Interrupted(BaseException):
    """What a signal handler raises."""


@pytest.mark.parametrize("where", ["close", "encode"])
@pytest.mark.parametrize("error", [MemoryError("planted"), ValueError("planted"), Interrupted()])
def test_group_that_fails_inside_its_own_pump_tells_its_callers_and_close(monkeypatch, where, error):
    """However its group came to be closed: by an append, a batch, a change of metadata, or one that waits for room."""

    async def main(seed: int) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        log = await open_on(SimDisk(SimDevice(seed)), WalConfig(segment_bytes=1 << 20, max_group_bytes=4096))
        await log.append(b"before", attributes={"a": 1})

        def fails(*_, **__):
            raise error

        calls = [
            lambda: log.append(bytes(3000)),
            lambda: log.append(bytes(3000), mode=Relaxed),
            lambda: log.append_batch([bytes(1000)] * 3),
            lambda: log.append_batch([bytes(3000)] * 9),
            lambda: log.topic("t").append(bytes(3000)),
            lambda: log.hold("h", 1),
            lambda: log.truncate_before(2),
            log.flush,
        ]
        futures = []
        with monkeypatch.context() as planted:
            planted.setattr(Group, where, fails)
            for call in calls[seed:] + calls[:seed]:
                try:
                    futures.append(asyncio.ensure_future(call()))
                except (WalError, Interrupted):
                    continue
            answers = await asyncio.wait_for(asyncio.gather(*futures, return_exceptions=True), 60)
        assert any(isinstance(each, DurabilityLost) for each in answers) or not futures
        assert all(isinstance(each, (BaseException, walsvc.AppendResult)) for each in answers)
        await asyncio.gather(log.close(), return_exceptions=True)

    for seed in range(8):
        run_sim(main, seed)


@pytest.mark.parametrize("number", sorted(SHORTAGES))
def test_shortage_while_a_segment_is_prepared_ends_nothing(number):
    """The active segment takes what fits; what needs the next one is told, and goes on once the shortage is over."""

    async def main(seed: int) -> None:
        device = SimDevice(seed)
        log = await open_on(SimDisk(device), CONFIG)
        for operation in ("allocate", "open_file", "allocate.write"):
            device.fail(operation, errno=number)
            device.fail(operation, nth=2, errno=number)
            told = []
            for _ in range(40):
                try:
                    assert (await log.append(bytes(4000))).durable
                except NoSpace as error:
                    told.append(error)
            assert all(error.errno == number and error.hint for error in told)
        first, following = log.first_lsn, log.next_lsn
        await log.close()
        log = await open_on(SimDisk(device), CONFIG)
        assert [each.lsn async for each in log.read()] == list(range(first, following))
        await log.close()

    run_sim(main, 2)


async def test_refused_thread_while_a_segment_is_prepared_ends_nothing(tmp_path, monkeypatch):
    """RuntimeError is what CPython says where no thread can be had."""
    async with walsvc.open(tmp_path / "log", segment_bytes=65536, disk="threads") as log:
        allocate, refused = log.writer.core.disk.allocate, []

        async def refuse(*_, **__):
            refused.append(1)
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(log.writer.core.disk, "allocate", refuse)
        with pytest.raises(NoSpace) as caught:
            for _ in range(30):
                await log.append(bytes(4000))
        assert caught.value.errno == errno.EAGAIN
        assert refused
        monkeypatch.setattr(log.writer.core.disk, "allocate", allocate)
        assert (await log.append(bytes(4000))).durable


async def test_append_cancelled_in_the_turn_in_which_it_could_go_writes_nothing():
    async with await open_on(SimDisk(SimDevice(1)), WalConfig()) as log:
        queue = log.writer.core.queue
        queue.hold(1)
        waiting = log.append(b"given up")
        waiting.cancel()
        queue.hold(-1)  # before any callback of the cancelled one
        assert log.next_lsn == 1
        assert (await log.append(b"next")).lsn == 1


@pytest.mark.parametrize("behind", ["a record larger than a segment", "another key"])
async def test_change_that_is_nothing_begins_no_segment_that_nobody_writes(behind):
    """Its first group would be empty, and so never sent; no other segment begins before it is."""
    pytest.importorskip("cryptography", reason="encryption needs walsvc[crypto]")
    first = ("first", bytes(32))
    log = await open_on(SimDisk(SimDevice(1)), WalConfig(segment_bytes=65536, keys=KeyRing(current=first)))
    topic = log.topic("t")
    consumer = await topic.consumer("c")
    await topic.append_batch([b"x"] * 64)
    await consumer.read_batch(max_records=64)
    core = log.writer.core
    for lsn in range(1, 65):  # one of the acknowledgements leaves no room in the segment for another change
        await consumer.ack(lsn)
        assert core.changes.join_lazily(dict)
        assert not (core.pipeline.rotation.head_in_flight and core.placement.group.empty)
    if behind == "another key":
        await asyncio.wait_for(log.use_keys(KeyRing(current=("second", b"2" * 32), older=[first])), 60)
    assert (await asyncio.wait_for(log.append(bytes(200_000)), 60)).lsn == 65
    await log.close()


async def test_truncation_during_which_the_log_fails_is_told_so(monkeypatch):
    """It had decided, and wrote a group that nobody sends any more."""
    log = await open_on(SimDisk(SimDevice(1)), WalConfig(segment_bytes=65536))
    for _ in range(20):
        await log.append(bytes(9000))
    needs, plan = log._reclaimer.needs, log._reclaimer.needs.plan

    async def planned(*arguments):
        made = await plan(*arguments)
        log.writer.core.health.fail("a write or its sync failed", OSError(errno.EIO, "Input/output error"))
        return made

    monkeypatch.setattr(needs, "plan", planned)
    with pytest.raises(DurabilityLost):
        await asyncio.wait_for(log.truncate_before(15), 10)
    with pytest.raises(DurabilityLost):
        await asyncio.wait_for(log.append(b"x"), 10)
    await asyncio.wait_for(log.close(), 10)


async def test_failed_log_takes_no_group_of_metadata():
    """It would never be sent, and its caller never told."""
    log = await open_on(SimDisk(SimDevice(1)), WalConfig(segment_bytes=65536))
    core = log.writer.core
    core.health.fail("a write or its sync failed", OSError(errno.EIO, "Input/output error"))
    with pytest.raises(DurabilityLost):
        core.changes.try_write({"positions": {}})
    with pytest.raises(DurabilityLost):  # no call of the log has told of it
        await log.close()


def test_change_that_waits_for_a_segment_that_is_begun_is_told_that_the_log_has_failed():
    """It comes to that wait behind the failure, which has woken all that waited by then."""

    async def main(seed: int) -> None:
        device = SimDevice(seed)
        log = await open_on(SimDisk(device), CONFIG)
        core = log.writer.core
        device.fail("submit", errno=errno.EIO, nth=2)
        await asyncio.gather(*(log.append(bytes(30_000)) for _ in range(8)), return_exceptions=True)
        assert core.health.failure is not None
        assert core.pipeline.rotation.busy, "the first group of a segment was not written"
        with pytest.raises(DurabilityLost):
            await asyncio.wait_for(segment_begun(core), 10)
        await log.close()

    run_sim(main, 1)


async def test_purge_whose_work_ends_by_an_error_that_nobody_foresaw_is_told(monkeypatch):
    log = await open_on(SimDisk(SimDevice(1)), WalConfig(segment_bytes=65536))
    await log.append_batch([b"x"] * 3)

    async def no_memory(*arguments):
        raise MemoryError

    monkeypatch.setattr(Singles, "_find", no_memory)
    first, second = (asyncio.ensure_future(log.purge(lsns=[lsn])) for lsn in (1, 2))
    for ended in (await asyncio.wait([first, second], timeout=10))[0]:
        assert isinstance(ended.exception(), DurabilityLost)
    assert first.done()
    assert second.done()
    await log.close()
