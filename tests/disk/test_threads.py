"""The threads disk: what its thread does with errors, with a loop that is gone, and with a disk that is dropped."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import LOOPS
from walsvc.disk import posix, threads
from walsvc.disk.base import Write
from walsvc.disk.directory import Directory
from walsvc.disk.threads import ThreadsDisk, write_durably

BLOCK = 4096


def make_disk(path: Any, loop: asyncio.AbstractEventLoop, *, dsync: bool = True) -> ThreadsDisk:
    directory = Directory(str(path), os.open(path, os.O_RDONLY), lock=None, direct=False, block_bytes=BLOCK)
    return ThreadsDisk(directory, loop=loop, dsync=dsync, reason="test")


def ignore(write: Write, error: OSError | None) -> None:
    raise AssertionError("nobody is there to be told")


@pytest.fixture
def file(tmp_path):
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    os.ftruncate(descriptor, 16 * BLOCK)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """Names of the durable calls made, with pauses recorded instead of slept."""
    made: list[str] = []

    def recorded(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            made.append(name)
            return real(*args)

        return call

    monkeypatch.setattr(os, "pwritev", recorded("pwritev", os.pwritev))
    monkeypatch.setattr(os, "fdatasync", recorded("fdatasync", os.fdatasync))
    monkeypatch.setattr(time, "sleep", lambda seconds: made.append("sleep"))
    return made


@pytest.mark.parametrize("dsync", [True, False])
def test_one_write_is_one_call_or_write_and_sync(file, calls, dsync):
    assert write_durably(Write(file, BLOCK, memoryview(b"x" * BLOCK), ignore), dsync=dsync) is None
    assert calls == (["pwritev"] if dsync else ["pwritev", "fdatasync"])
    assert os.pread(file, BLOCK, BLOCK) == b"x" * BLOCK


def test_dsync_flag_is_given(file, monkeypatch):
    flags: list[int] = []
    real = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda *args: (flags.append(args[3]), real(*args))[1])
    write_durably(Write(file, 0, memoryview(b"x"), ignore), dsync=True)
    write_durably(Write(file, 0, memoryview(b"x"), ignore), dsync=False)
    assert flags == [os.RWF_DSYNC, 0]


@pytest.mark.parametrize("dsync", [True, False])
def test_short_write_fails_and_nothing_is_synced(file, calls, monkeypatch, dsync):
    real = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda fd, views, offset, flags: real(fd, [views[0][:100]], offset, flags))
    error = write_durably(Write(file, 0, memoryview(b"x" * BLOCK), ignore), dsync=dsync)
    assert error is not None
    assert error.errno == errno.EIO
    assert f"100 of {BLOCK}" in str(error)
    assert "fdatasync" not in calls


@pytest.mark.parametrize("number", [errno.EINTR, errno.EAGAIN])
def test_write_that_was_put_off_is_made_again(file, calls, monkeypatch, number):
    real = os.pwritev
    failures = [number] * 3

    def sometimes(*args: Any) -> int:
        if failures:
            raise OSError(failures.pop(), "put off")
        return real(*args)

    monkeypatch.setattr(os, "pwritev", sometimes)
    assert write_durably(Write(file, 0, memoryview(b"x" * BLOCK), ignore), dsync=True) is None
    assert calls == ["sleep", "sleep", "sleep", "pwritev"]


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EIO, errno.ENOSPC, errno.EINVAL])
def test_write_error_is_given_as_it_is(file, calls, monkeypatch, number):
    attempts: list[int] = []

    def fail(*args: Any) -> int:
        attempts.append(1)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pwritev", fail)
    error = write_durably(Write(file, 0, memoryview(b"x"), ignore), dsync=False)
    assert error is not None
    assert error.errno == number
    assert len(attempts) == (len(threads.RETRY_SECONDS) + 1 if number == errno.EAGAIN else 1)
    assert "fdatasync" not in calls


@pytest.mark.parametrize("number", [errno.EIO, errno.EINTR, errno.EAGAIN, errno.ENOSPC])
def test_failed_sync_is_never_repeated(file, monkeypatch, number):
    attempts: list[int] = []

    def fail(descriptor: int) -> None:
        attempts.append(descriptor)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fdatasync", fail)
    error = write_durably(Write(file, 0, memoryview(b"x"), ignore), dsync=False)
    assert error is not None
    assert error.errno == number
    assert attempts == [file]


@pytest.mark.parametrize("dsync", [True, False])
def test_very_long_write_goes_in_pieces_with_one_sync(file, calls, monkeypatch, dsync):
    monkeypatch.setattr(posix, "WRITE_BYTES_MAX", 2 * BLOCK)
    data = os.urandom(5 * BLOCK)
    assert write_durably(Write(file, BLOCK, memoryview(data), ignore), dsync=dsync) is None
    assert calls == ["pwritev"] * 3 + ([] if dsync else ["fdatasync"])
    assert os.pread(file, 5 * BLOCK, BLOCK) == data


@pytest.mark.parametrize("unforeseen", [MemoryError(), ValueError("released")])
async def test_thread_survives_what_nobody_foresaw(tmp_path, file, monkeypatch, unforeseen):
    loop = asyncio.get_running_loop()
    disk = make_disk(tmp_path, loop)
    real = os.pwritev
    failures = [unforeseen]

    def once(*args: Any) -> int:
        if failures:
            raise failures.pop()
        return real(*args)

    monkeypatch.setattr(os, "pwritev", once)
    answers: list[OSError | None] = []
    both = loop.create_future()

    def done(write: Write, error: OSError | None) -> None:
        answers.append(error)
        if len(answers) == 2:
            both.set_result(None)

    for _ in range(2):
        disk.submit(Write(file, 0, memoryview(b"x"), done))
    await both
    assert isinstance(answers[0], OSError)
    assert answers[0].__cause__ is unforeseen
    assert answers[1] is None
    await disk.close()


async def test_completions_that_come_together_wake_the_loop_once(tmp_path, file, monkeypatch):
    loop = asyncio.get_running_loop()
    disk = make_disk(tmp_path, loop)
    wakes: list[object] = []
    monkeypatch.setattr(disk, "_loop", WakeCounter(loop, wakes))
    all_in = loop.create_future()
    count = 0

    def done(write: Write, error: OSError | None) -> None:
        nonlocal count
        count += 1
        if count == 50:
            all_in.set_result(None)

    for _ in range(50):
        disk.submit(Write(file, 0, memoryview(b"x"), done))
    while len(disk._finished) < 50:  # the loop is not let run, so that all of them come before it looks
        time.sleep(0.001)  # noqa: ASYNC251
    await all_in
    assert len(wakes) == 1
    monkeypatch.undo()
    await disk.close()


class WakeCounter:
    """A loop that counts its thread-safe wake-ups."""

    def __init__(self, loop: asyncio.AbstractEventLoop, wakes: list[object]) -> None:
        self._loop = loop
        self._wakes = wakes

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: object) -> None:
        self._wakes.append(callback)
        self._loop.call_soon_threadsafe(callback, *args)

    def call_soon(self, callback: Callable[..., object], *args: object) -> None:
        self._loop.call_soon(callback, *args)


@pytest.mark.parametrize("name", list(LOOPS))
def test_loop_closed_with_writes_pending(tmp_path, file, name, capfd):
    loop = LOOPS[name]()
    disk = make_disk(tmp_path, loop)
    for number in range(16):
        disk.submit(Write(file, number * BLOCK, memoryview(bytes([number]) * BLOCK), ignore))
    loop.close()
    thread = disk._thread
    assert thread is not None
    del disk
    deadline = time.monotonic() + 60
    while thread.is_alive() and time.monotonic() < deadline:
        gc.collect()
        thread.join(0.01)
    assert not thread.is_alive(), "the thread ends with the disk that nobody holds"
    assert [os.pread(file, 1, number * BLOCK)[0] for number in range(16)] == list(range(16))
    assert capfd.readouterr().err == ""


async def test_thread_starts_with_the_first_write_and_ends_with_close(tmp_path, file):
    loop = asyncio.get_running_loop()
    disk = make_disk(tmp_path, loop)
    await disk.list()
    assert "walsvc-commit" not in {thread.name for thread in threading.enumerate()}
    answered = loop.create_future()
    disk.submit(Write(file, 0, memoryview(b"x"), lambda write, error: answered.set_result(error)))
    assert await answered is None
    assert "walsvc-commit" in {thread.name for thread in threading.enumerate()}
    await disk.close()
    assert not {thread.name for thread in threading.enumerate() if thread.name.startswith("walsvc")}


def test_interpreter_that_ends_without_close_finishes_what_was_submitted(run_script, tmp_path):
    source = """
import asyncio, os, sys
from walsvc.disk.base import Write
from walsvc.disk.directory import Directory
from walsvc.disk.threads import ThreadsDisk
path = sys.argv[1]
loop = asyncio.new_event_loop()
disk = ThreadsDisk(Directory(path, os.open(path, os.O_RDONLY), lock=None, direct=False, block_bytes=4096),
                   loop=loop, dsync=True, reason="test")
file = os.open(path + "/out", os.O_RDWR | os.O_CREAT)
for number in range(100):
    disk.submit(Write(file, number * 4096, memoryview(b"x" * 4096), lambda *_: None))
loop.close()
"""
    run_script(source, tmp_path)
    assert (tmp_path / "out").read_bytes() == b"x" * 4096 * 100
