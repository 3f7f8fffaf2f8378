"""walsvc.blocking: a log for threads, and what it says where it cannot be used."""

from __future__ import annotations

import asyncio
import errno
import inspect
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import walsvc
from tests.forked import ROOT
from tests.service.simulated import SMALL
from walsvc import blocking
from walsvc.disk import pool
from walsvc.service.server.server import serve


def test_threads_append_and_read_and_share_syncs(tmp_path: Path) -> None:
    with walsvc.blocking.open(tmp_path, segment_bytes=65_536) as log:
        assert log.append(b"first", attributes={"tenant": 7}).durable
        gate = threading.Barrier(8)

        def work(number: int) -> int:
            gate.wait()
            return sum(log.append(b"%d" % number, topic="many").lsn > 0 for _ in range(20))

        with ThreadPoolExecutor(8) as threads:
            assert sum(threads.map(work, range(8))) == 160
        assert log.run(sync_count) < 162
        both = log.append_batch([b"all", b"or nothing"], topic="batches")
        assert [each.lsn for each in both] == [162, 163]
        assert log.get(162).payload == b"all"  # type: ignore[union-attr]
        assert [record.payload for record in log.read(where={"tenant": 7})] == [b"first"]
        assert len(list(log.read(2, 162, topic="many"))) == 160
        assert [log.append(b"once", topic="keys", dedupe="k").lsn for _ in range(2)] == [164, 164]
        assert log.flush() == 164
        assert log.run(lambda log: log.topic("batches").count()) == 2
        log.delete_topic("batches")
        assert log.get(162) is None
        with pytest.raises(walsvc.BadOption, match="no topic 'batches'"):
            log.delete_topic("batches")
        with pytest.raises(walsvc.Locked):
            blocking.open(tmp_path)
        reading = log.read()
        assert next(reading).payload == b"first"
    for use in (lambda: log.append(b"x"), lambda: list(reading), lambda: log.get(1)):
        with pytest.raises(walsvc.Closed):
            use()
    log.close()
    assert not [each for each in threading.enumerate() if each.name == "walsvc.blocking"]


async def sync_count(log: walsvc.Log) -> int:
    return log.stats().syncs


def test_wrong_arguments_are_told_as_by_open_and_leave_no_thread(tmp_path: Path) -> None:
    with pytest.raises(walsvc.BadOption, match="segment_bytes"):
        blocking.open(tmp_path, segment_byte=1)  # type: ignore[call-overload]
    with pytest.raises(walsvc.PathError):
        blocking.open(tmp_path / "none", read_only=True)
    assert not [each for each in threading.enumerate() if each.name == "walsvc.blocking"]


def test_calls_under_way_end_when_the_log_is_closed(tmp_path: Path) -> None:
    log = blocking.open(tmp_path)
    begun = threading.Event()

    async def waits(_: walsvc.Log) -> None:
        begun.set()
        await asyncio.get_running_loop().create_future()

    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(log.run, waits)
        assert begun.wait(60)
        log.close()
        with pytest.raises(walsvc.Closed):
            waiting.result(60)


async def test_served_log_and_no_use_on_a_running_loop(tmp_path: Path) -> None:
    with pytest.raises(walsvc.WrongLoop, match=r"await walsvc\.open"):
        blocking.open(tmp_path / "log")

    def client(url: str) -> bytes:
        with blocking.open(url) as log:
            record = log.get(log.append(b"from a script").lsn)
            assert record is not None
            return record.payload

    async with serve(tmp_path / "data", config=SMALL, unix=tmp_path / "s"):
        assert await asyncio.to_thread(client, f"unix://{tmp_path}/s") == b"from a script"


FORKED = """
import os, sys, walsvc
log = walsvc.blocking.open(sys.argv[1])
log.append(b"parent", mode=walsvc.Relaxed)
if (child := os.fork()) == 0:
    try:
        log.append(b"child")
    except walsvc.WrongLoop as error:
        sys.exit(0 if "before a fork" in str(error) else 1)
    sys.exit(2)
assert os.waitpid(child, 0)[1] == 0
"""


def test_forked_child_is_told_and_the_end_of_the_process_closes_the_log(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", FORKED, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    with blocking.open(tmp_path) as log:
        assert log.run(report_of).clean
        assert [record.payload for record in log.read()] == [b"parent"]


async def report_of(log: walsvc.Log) -> walsvc.RecoveryReport:
    return log.report


def test_opening_without_an_asyncio_loop_says_what_to_do(tmp_path: Path) -> None:
    for target in (tmp_path, "unix:///nowhere/s"):
        opening = walsvc.open(target).__await__()
        with pytest.raises(walsvc.WrongLoop, match=r"asyncio\.run.*walsvc\.blocking\.open"):
            next(opening)


class Alarm(Exception):
    """A signal handler's."""


INTERRUPTED = """
import signal, sys, threading
import walsvc.blocking

class Alarm(Exception):
    pass

def raised(*_):
    raise Alarm

def interrupted(call):
    # the handler runs in this thread once it waits: another one sees the call under way
    going = threading.Event()
    def signalled():
        going.wait()
        signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)
    async def begun(log):
        going.set()
        return await call()
    other = threading.Thread(target=signalled)
    other.start()
    try:
        log.run(begun)
    except Alarm:
        print("interrupted")
    other.join()

signal.signal(signal.SIGALRM, raised)
with walsvc.blocking.open(sys.argv[1]) as log:
    one = log.run(lambda log: log.topic("t").consumer("one"))
    shared = log.run(lambda log: log.topic("t").consumer("shared", shared=True))
    interrupted(one.next)
    interrupted(shared.next)
    log.append(b"first", topic="t")
    log.append(b"second", topic="t")
    print(log.run(lambda _: one.next()).payload, log.run(lambda _: shared.next()).record.payload)
"""


def test_call_that_a_signal_handler_ends_takes_no_record(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(tmp_path)], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.stdout.splitlines() == ["interrupted", "interrupted", "b'first' b'first'"], done.stderr


def test_call_takes_no_record_at_whatever_line_a_signal_handler_raises(tmp_path: Path) -> None:
    source, first = inspect.getsourcelines(blocking.Log._wait)
    waiting = next(number for number, line in enumerate(source, first) if "answer.result()" in line)
    passed: list[int] = []

    def line(frame: FrameType, event: str, _: object) -> Callable[..., Any]:
        # no handler runs where a block of `with` ends: CPython looks for signals at calls and jumps
        if event == "line" and "with " not in source[frame.f_lineno - first]:
            passed.append(frame.f_lineno)
            if len(passed) == nth:
                raise Alarm
        return line

    with blocking.open(tmp_path) as log:
        consumer = log.run(lambda log: log.topic("t").consumer("one", shared=True))
        before, nth = sys.gettrace(), 0
        while passed[-1:] != [waiting]:
            passed, nth = [], nth + 1
            sys.settrace(lambda frame, *_: line if frame.f_code is blocking.Log._wait.__code__ else None)
            try:
                with pytest.raises(Alarm):
                    log.run(lambda _: consumer.next())
            finally:
                sys.settrace(before)
        assert nth >= 7, "the lines before it waits"
        log.append(b"first", topic="t")
        assert log.run(lambda _: consumer.next()).record.payload == b"first"


def test_opening_without_a_descriptor_is_an_error_of_the_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left() -> asyncio.AbstractEventLoop:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(asyncio, "new_event_loop", none_left)
    with pytest.raises(walsvc.PathError, match="no event loop can be made") as told:
        blocking.open(tmp_path)
    assert told.value.errno == errno.EMFILE
    monkeypatch.undo()

    def unreadable(name: str) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), name)

    monkeypatch.setattr(pool, "import_module", unreadable)
    monkeypatch.delitem(sys.modules, "walsvc.api", raising=False)
    with pytest.raises(walsvc.PathError, match="cannot be imported") as told:
        blocking.open(tmp_path)
    assert told.value.errno == errno.EMFILE
