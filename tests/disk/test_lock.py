"""The lock and what a process may do to it: die, fork, be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from walsvc.disk.lock import DirectoryLock
from walsvc.errors import Locked

HOLD = """
import os, sys, time
from walsvc.disk.lock import DirectoryLock
lock = DirectoryLock(sys.argv[1], os.open(sys.argv[1], os.O_RDONLY))
{more}
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def directory(tmp_path):
    descriptor = os.open(tmp_path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def start(tmp_path, more: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLD.format(more=more), str(tmp_path)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def test_another_process_is_named(tmp_path, directory):
    with start(tmp_path) as holder:
        with pytest.raises(Locked, match=rf"by process {holder.pid} .*`walsvc serve` has the log"):
            DirectoryLock(str(tmp_path), directory)
        holder.kill()
    DirectoryLock(str(tmp_path), directory).release()


def test_kill_releases_the_lock(tmp_path, directory):
    with start(tmp_path) as holder:
        holder.send_signal(signal.SIGKILL)
    lock = DirectoryLock(str(tmp_path), directory)
    assert (tmp_path / "LOCK").read_text() == f"{os.getpid()}\n"
    lock.release()


def test_forked_child_does_not_keep_its_dead_parents_lock(tmp_path, directory):
    more = """
ready, say_ready = os.pipe()
child = os.fork()
if child == 0:
    os.close(1)
    os.write(say_ready, b"x")
    time.sleep(60)
os.read(ready, 1)
open(sys.argv[1] + "/child", "w").write(str(child))
"""
    with start(tmp_path, more) as holder:
        child = int((tmp_path / "child").read_text())
        try:
            with pytest.raises(Locked):
                DirectoryLock(str(tmp_path), directory)
            holder.kill()
            holder.wait()
            os.kill(child, 0)
            DirectoryLock(str(tmp_path), directory).release()
        finally:
            os.kill(child, signal.SIGKILL)


def test_child_that_ends_does_not_release_its_parents_lock(tmp_path, directory):
    more = """
child = os.fork()
if child == 0:
    sys.exit(0)
os.waitpid(child, 0)
"""
    with start(tmp_path, more) as holder:
        with pytest.raises(Locked):
            DirectoryLock(str(tmp_path), directory)
        holder.kill()


def test_holder_that_cannot_be_read_is_elsewhere(tmp_path, directory):
    lock = DirectoryLock(str(tmp_path), directory)
    (tmp_path / "LOCK").write_text("not a number")
    with pytest.raises(Locked, match="elsewhere"):
        DirectoryLock(str(tmp_path), directory)
    lock.release()
    lock.release()


def test_lock_that_is_a_link_is_refused(tmp_path, directory):
    (tmp_path / "LOCK").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="symbolic"):
        DirectoryLock(str(tmp_path), directory)
    assert not (tmp_path / "target").exists()
