"""A thread that cannot be had: opening says so, and a log that is open goes on with those it has."""

from __future__ import annotations

import asyncio
import errno
import gc
import itertools
import os
import threading
import weakref
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

import walsvc
from tests.disk.conftest import Script
from tests.disks import REAL_DISKS
from walsvc.disk.pool import Pool, heard, in_thread
from walsvc.errors import PathError
from walsvc.log.offline.backup import copy_log
from walsvc.log.offline.repair import copy_aside
from walsvc.opening import EMBEDDED, READ_ONLY

Refuse = Callable[[int], None]


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Refuse:
    """From now on no thread can be started, but for the first few. The log is imported before, which takes one as well."""
    for name in (*EMBEDDED, *READ_ONLY):
        import_module(name)

    def begin(allowed: int) -> None:
        left = iter(range(allowed))
        start = threading.Thread.start

        def refused(thread: threading.Thread) -> None:
            if next(left, None) is None:
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", refused)

    return begin


@pytest.mark.parametrize("disk", REAL_DISKS)
async def test_opening_without_a_thread_says_so_and_leaves_nothing_open(
    tmp_path: Path, refuse: Refuse, monkeypatch: pytest.MonkeyPatch, disk: str
) -> None:
    needed = 2 if disk == "threads" else 1
    for allowed in range(needed):
        refuse(allowed)
        with pytest.raises(PathError) as caught:
            await walsvc.open(tmp_path / "log", disk=disk)
        monkeypatch.undo()
        assert caught.value.errno == errno.EAGAIN
        assert caught.value.path == str(tmp_path / "log")
        assert "ulimit -u" in str(caught.value.hint)
        await (await walsvc.open(tmp_path / "log", disk=disk)).close()  # the lock was released


def test_first_opening_of_a_process_without_a_thread_says_which_log_it_was(tmp_path: Path, run_script: Script) -> None:
    assert run_script(FIRST_OPENING, tmp_path / "log").split() == ["EAGAIN", str(tmp_path / "log")]


FIRST_OPENING = """
import asyncio, errno, sys, threading
import walsvc

def refused(thread):
    raise RuntimeError("can't start new thread")

threading.Thread.start = refused
try:
    asyncio.run(walsvc.open(sys.argv[1]).__aenter__())
except walsvc.PathError as error:
    print(errno.errorcode[error.errno], error.path)
"""


async def test_reading_needs_one_thread(tmp_path: Path, refuse: Refuse) -> None:
    async with walsvc.open(tmp_path) as wal:
        await wal.append(b"x")
    refuse(1)
    async with walsvc.open(tmp_path, read_only=True) as log:
        assert [record.payload async for record in log.read()] == [b"x"]


@pytest.mark.parametrize("disk", REAL_DISKS)
async def test_log_goes_on_through_rotations_when_no_further_thread_can_be_had(
    tmp_path: Path, refuse: Refuse, disk: str
) -> None:
    refuse(2 if disk == "threads" else 1)
    async with walsvc.open(tmp_path, disk=disk, segment_bytes=1 << 16) as wal:
        for _ in range(60):
            await wal.append(b"x" * 3000)
        assert wal.stats().rotations > 1
        assert len([record async for record in wal.read()]) == 60


MAIN_THREAD_ENDS = """
import asyncio, sys, threading
import walsvc

async def main():
    async with walsvc.open(sys.argv[1], disk=sys.argv[2], segment_bytes=1 << 16) as wal:
        await wal.append(b"first")
        opened.set()
        while threading.main_thread().is_alive():
            await asyncio.sleep(0.01)
        for _ in range(60):
            await wal.append(b"x" * 3000)
        assert wal.stats().rotations > 1
    print("closed", flush=True)

opened = threading.Event()
threading.Thread(target=asyncio.run, args=(main(),)).start()
opened.wait()
"""


@pytest.mark.parametrize("disk", REAL_DISKS)
def test_log_in_another_thread_outlives_the_main_thread(tmp_path: Path, run_script: Script, disk: str) -> None:
    assert run_script(MAIN_THREAD_ENDS, tmp_path, disk) == "closed\n"


def test_call_that_was_taken_runs_once_though_no_thread_could_be_added(refuse: Refuse) -> None:
    pool = Pool(4, "test")
    going = threading.Event()
    ran: list[int] = []
    waiting = pool.submit(going.wait)
    refuse(0)
    answers = [pool.submit(ran.append, number) for number in range(3)]
    going.set()
    assert waiting.result() is True
    assert [answer.result() for answer in answers] == [None] * 3
    assert ran == [0, 1, 2]
    pool.shutdown()
    with pytest.raises(OSError, match="closed"):
        pool.submit(int)


def test_pool_adds_threads_for_calls_at_the_same_time_and_gives_errors_on() -> None:
    pool = Pool(3, "test")
    together = threading.Barrier(3)
    assert sorted(answer.result() for answer in [pool.submit(together.wait) for _ in range(3)]) == [0, 1, 2]
    with pytest.raises(ZeroDivisionError):
        pool.submit(divmod, 1, 0).result()
    assert len(pool._threads) == 3
    pool.shutdown()
    pool.shutdown()
    assert not any(thread.is_alive() for thread in pool._threads)


def test_dropped_pool_lets_its_threads_go() -> None:
    pool = Pool(2, "test")
    assert pool.submit(int, "7").result() == 7
    threads, alive = pool._threads, weakref.ref(pool)
    del pool
    gc.collect()
    assert alive() is None
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def test_cancelled_call_that_had_not_begun_never_runs() -> None:
    pool = Pool(1, "test")
    going = threading.Event()
    ran: list[int] = []
    pool.submit(going.wait)
    assert pool.submit(ran.append, 1).cancel()
    going.set()
    pool.submit(int).result()
    assert ran == []
    pool.shutdown()


LIMITED = """
import asyncio, os, resource, shutil, sys, tempfile
import walsvc, walsvc.disk.choose, walsvc.log.opening, walsvc.opening
from walsvc.errors import BadOption, PathError

async def outcome(path, disk, processes):
    resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))
    try:
        wal = await walsvc.open(path, disk=disk, segment_bytes=1 << 16)
    except (PathError, BadOption) as error:
        return "ulimit -u" in f"{error} {error.hint}" and "refused"
    for _ in range(40):
        await wal.append(b"x" * 3000)
    rotations = wal.stats().rotations
    await wal.close()
    return rotations > 1 and "written"

for processes in (1, 2, 3, 4, 8):
    place = tempfile.mkdtemp()
    os.chmod(place, 0o777)
    if (child := os.fork()) == 0:
        os.setgid(54321)
        os.setuid(54321)  # root has no such limit
        print(asyncio.run(outcome(place + "/log", sys.argv[1], processes)), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    shutil.rmtree(place)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user who has a limit on processes and none yet")
@pytest.mark.parametrize("disk", REAL_DISKS)
def test_under_a_limit_on_processes_opening_is_refused_or_the_log_goes_on(run_script: Script, disk: str) -> None:
    """io_uring counts too: the kernel has threads that issue writes and syncs."""
    outcomes = run_script(LIMITED, disk).split()
    refused = outcomes.count("refused")
    assert 2 <= refused < 5
    assert outcomes == ["refused"] * refused + ["written"] * (5 - refused)


async def test_call_without_a_thread_is_an_error_of_the_tree(tmp_path: Path, refuse: Refuse) -> None:
    assert await in_thread(os.path.basename, "a/b") == "b"
    with pytest.raises(ZeroDivisionError):
        await in_thread(divmod, 1, 0)
    refuse(0)
    with pytest.raises(PathError) as caught:
        await in_thread(os.path.basename, "a/b")
    assert caught.value.errno == errno.EAGAIN
    assert "ulimit -u" in str(caught.value.hint)


async def test_copies_without_a_thread_say_so(tmp_path: Path, refuse: Refuse, monkeypatch: pytest.MonkeyPatch) -> None:
    async with walsvc.open(tmp_path / "log") as wal:
        await wal.append(b"x")
    for call in (
        lambda: copy_log(tmp_path / "log", str(tmp_path / "copy"), sparse=False),
        lambda: copy_aside(str(tmp_path / "log")),
    ):
        allowed, done = 0, False
        while not done:  # with one thread more each time, until there are enough
            refuse(allowed)
            try:
                await call()
                done = True
            except OSError as error:
                assert error.errno == errno.EAGAIN  # noqa: PT017
            monkeypatch.undo()
            allowed += 1
        assert allowed > 1


NAMES = """
import asyncio, concurrent.futures, contextlib, errno, sys, threading
import walsvc, walsvc.blocking
from walsvc.service.server.server import serve

start = threading.Thread.start

def refused(thread):
    raise RuntimeError("can't start new thread")

@contextlib.contextmanager
def told(what):
    threading.Thread.start = refused
    try:
        yield
    except walsvc.WalError as error:
        print(what, errno.errorcode[error.errno])
    finally:
        threading.Thread.start = start

async def main():
    async with walsvc.open(sys.argv[1]) as log, serve(log, host="127.0.0.1", port=0) as server:
        await (await walsvc.open(server.addresses[0])).close()  # so that all is imported
        asyncio.get_running_loop().set_default_executor(concurrent.futures.ThreadPoolExecutor())
        with told("client"):
            await walsvc.open(f"wal://localhost:{server.port}")
        with told("server"):
            async with serve(log, host="localhost", port=0):
                pass

asyncio.run(main())
with told("blocking"):
    walsvc.blocking.open(sys.argv[1])
"""


def test_looking_a_name_up_without_a_thread_is_an_error_of_the_tree(tmp_path: Path, run_script: Script) -> None:
    told = run_script(NAMES, tmp_path / "log").split()
    assert told == ["client", "EAGAIN", "server", "EAGAIN", "blocking", "EAGAIN"]


async def test_answer_of_a_thread_that_the_loop_loses_once_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the exception of a signal handler comes before a callback's first line."""
    loop = asyncio.get_running_loop()
    told = loop.call_soon_threadsafe
    calls = itertools.count()

    def losing(callback: Callable[..., object], *args: object, **options: object) -> object:
        return told((lambda *_: None) if next(calls) % 2 == 0 else callback, *args, **options)

    monkeypatch.setattr(loop, "call_soon_threadsafe", losing, raising=False)
    assert await in_thread(pow, 2, 5) == 32
    with pytest.raises(ZeroDivisionError):
        await in_thread(divmod, 1, 0)


async def test_call_whose_wait_is_cancelled_before_it_begins_is_left_out() -> None:
    pool, begun, going = Pool(1, "one"), threading.Event(), threading.Event()
    pool.submit(lambda: (begun.set(), going.wait()))
    begun.wait()
    done: list[int] = []
    waiting = heard(pool.submit(done.append, 1))
    waiting.cancel()
    await asyncio.sleep(0)
    going.set()
    assert await heard(pool.submit(len, done)) == 0
    pool.shutdown()
