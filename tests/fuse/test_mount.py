"""The FUSE file system of the tests does what it says."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.fuse.mount import mounted, needs_fuse

pytestmark = needs_fuse


def test_it_knows_what_no_sync_came_after(tmp_path: Path) -> None:
    with mounted(tmp_path) as fuse:
        file = os.open(fuse.path / "a", os.O_RDWR | os.O_CREAT)
        os.write(file, b"x" * 5000)
        assert fuse.volatile() == ["data a", "name a"]
        os.fsync(file)
        assert fuse.volatile() == ["name a"]
        os.rename(fuse.path / "a", fuse.path / "b")
        assert fuse.volatile() == ["name a", "name b"]
        directory = os.open(fuse.path, os.O_RDONLY)
        os.fsync(directory)
        os.pwrite(file, b"y", 0)
        assert fuse.volatile() == ["data b"]
        os.unlink(fuse.path / "b")  # a file without a name has nothing to lose
        os.fsync(directory)
        os.pwrite(file, b"z", 0)
        assert os.pread(file, 9000, 0)[:2] == b"zx"
        assert fuse.volatile() == []
        assert fuse.counts() == {
            "create": 1,
            "write": 3,
            "fsync": 1,
            "fsyncdir": 2,
            "rename": 1,
            "unlink": 1,
            "read": 1,
        }
        os.close(directory)
        os.close(file)
    assert not os.path.ismount(tmp_path / "fuse")


def test_the_nth_write_of_some_files_fails(tmp_path: Path) -> None:
    with mounted(tmp_path) as fuse:
        other, file = (os.open(fuse.path / name, os.O_WRONLY | os.O_CREAT) for name in ("a", "b.wal"))
        fuse.fail("write", nth=2, errno=errno.ENOSPC, suffix=".wal")
        fuse.fail("fsync", errno=errno.EIO, times=2)
        for number in range(4):
            os.pwrite(other, b"x", number)
        os.pwrite(file, b"x", 0)
        with pytest.raises(OSError, match="No space left"):
            os.pwrite(file, b"x", 0)
        os.pwrite(file, b"x", 0)
        for _ in range(2):
            with pytest.raises(OSError, match="Input/output"):
                os.fsync(other)
        assert fuse.volatile() == ["data a", "data b.wal", "name a", "name b.wal"]
        os.fsync(other)
        fuse.fail("fsync", errno=errno.EIO)
        fuse.fail("write", short=3, suffix="a")
        fuse.heal()
        os.fsync(file)
        assert os.pwrite(other, b"12345", 0) == 5
        os.close(other)
        os.close(file)


def test_while_it_is_stopped_nothing_is_answered(tmp_path: Path) -> None:
    with mounted(tmp_path) as fuse, ThreadPoolExecutor(1) as pool:
        with fuse.stopped():
            looking = pool.submit(os.path.exists, fuse.path / "a")
            with pytest.raises(TimeoutError):
                looking.result(0.05)
        assert looking.result() is False
