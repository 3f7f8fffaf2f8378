"""What the device does by itself: one durable write after the other, and plain sequential reading.

Measured by a small C program (device.c), compiled when it is needed, so that nothing of Python is in the figure. Without a
C compiler a loop in Python takes its place and says so: its figures are a few microseconds too high, which flatters us.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from statistics import median
from types import TracebackType
from typing import NamedTuple, Protocol

from walsvc.config import MIB
from walsvc.disk.memory import aligned_buffer, write_all

FILE_BYTES = 64 * MIB  # as a segment
METHODS = ("dsync", "fdatasync")
COMPILERS = ("cc", "gcc", "clang")


class Writes(NamedTuple):
    """A loop of durable writes: median time of one, and of all of them together, in seconds."""

    p50: float
    total: float


class Reading(NamedTuple):
    """A file read from its beginning to its end."""

    bytes: int
    seconds: float


class Bare(Protocol):
    """The device without a log; blocking calls.

    Attributes:
        how: "C" or why it is Python, in words for the record.
        direct: whether the writes bypass the page cache.
    """

    how: str
    direct: bool

    def write(self, method: str, size: int, count: int) -> Writes:
        """`count` durable writes of `size` bytes, one after the other, by "dsync" or "fdatasync"."""

    def read(self, path: str, chunk: int, *, direct: bool) -> Reading:
        """Read a whole file that is not in the page cache, `chunk` bytes at a time."""

    def close(self) -> None:
        """Give everything back."""


class CompiledDevice:
    """device.c as a child process."""

    def __init__(self, place: str, compiler: str) -> None:
        program = os.path.join(place, "device")
        source = os.path.join(os.path.dirname(__file__), "device.c")
        subprocess.run([compiler, "-O2", "-o", program, source], check=True, capture_output=True, text=True)
        self.how = "C"
        self._child = subprocess.Popen(
            [program, place, str(FILE_BYTES)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.direct = self._answer() == ["ready", "1"]

    def write(self, method: str, size: int, count: int) -> Writes:
        p50, total = map(int, self._ask(f"write {method} {size} {count}"))
        return Writes(p50 / 1e9, total / 1e9)

    def read(self, path: str, chunk: int, *, direct: bool) -> Reading:
        length, total = map(int, self._ask(f"read {os.path.abspath(path)} {chunk} {int(direct)}"))
        return Reading(length, total / 1e9)

    def close(self) -> None:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.close()
        self._child.stdout.close()
        self._child.wait()

    def _ask(self, command: str) -> list[str]:
        assert self._child.stdin is not None
        self._child.stdin.write(command + "\n")
        return self._answer()

    def _answer(self) -> list[str]:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise OSError(f"the measuring program ended with {self._child.wait()}")
        return line.split()


class InterpretedDevice:
    """The same loops in Python."""

    def __init__(self, place: str, reason: str) -> None:
        self.how = f"Python, {reason}: some microseconds too slow"
        name = os.path.join(place, f"floor.{os.getpid()}")
        self._file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.unlink(name)
        zeros = aligned_buffer(MIB)
        for offset in range(0, FILE_BYTES, MIB):
            write_all(self._file, zeros, offset)
        os.fsync(self._file)
        self.direct = self._go_direct()

    def _go_direct(self) -> bool:
        import fcntl

        try:
            fcntl.fcntl(self._file, fcntl.F_SETFL, os.O_DIRECT)
        except OSError:
            return False
        return True

    def write(self, method: str, size: int, count: int) -> Writes:
        data, flags, clock = (aligned_buffer(size),), os.RWF_DSYNC if method == "dsync" else 0, time.perf_counter
        taken, offset, began = [], 0, clock()
        for _ in range(count):
            offset = 0 if offset + size > FILE_BYTES else offset
            called = clock()
            os.pwritev(self._file, data, offset, flags)
            if not flags:
                os.fdatasync(self._file)
            taken.append(clock() - called)
            offset += size
        return Writes(median(taken), clock() - began)

    def read(self, path: str, chunk: int, *, direct: bool) -> Reading:
        buffer = aligned_buffer(chunk)
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | (os.O_DIRECT if direct else 0))
        try:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            length, began = 0, time.perf_counter()
            while got := os.readv(file, [buffer]):
                length += got
            return Reading(length, time.perf_counter() - began)
        finally:
            os.close(file)

    def close(self) -> None:
        os.close(self._file)


class Device:
    """The bare device below `place`. Use it as a context manager; every call blocks.

    floor(size) is the median time of one durable write by the better of the two ways to sync.
    """

    def __init__(self, place: str) -> None:
        self._bare = open_bare(place)
        self.how = self._bare.how
        self.direct = self._bare.direct

    def floor(self, size: int, seconds: float) -> float:
        """Seconds of one durable write of `size` bytes (median), measured for about `seconds`."""
        return min(self._both(size, seconds), key=lambda writes: writes.p50).p50

    def bandwidth(self, size: int, seconds: float) -> float:
        """Bytes per second of a loop of durable writes of `size` bytes, measured for about `seconds`."""
        count = self._count(size, seconds)
        return max(size * count / self._bare.write(method, size, count).total for method in METHODS)

    def reading(self, paths: list[str], chunk: int = MIB) -> float:
        """Bytes per second of reading `paths` one after the other from cold, by the better of O_DIRECT and read-ahead."""
        ways = [True, False] if self.direct else [False]
        best = 0.0
        for direct in ways:
            read = [self._bare.read(path, chunk, direct=direct) for path in paths]
            best = max(best, sum(each.bytes for each in read) / sum(each.seconds for each in read))
        return best

    def _both(self, size: int, seconds: float) -> list[Writes]:
        count = self._count(size, seconds)
        return [self._bare.write(method, size, count) for method in METHODS]

    def _count(self, size: int, seconds: float) -> int:
        """How many writes of each method fit into `seconds`, by a first look at the device."""
        once = min(self._bare.write(method, size, 8).p50 for method in METHODS)
        return max(16, int(seconds / len(METHODS) / max(once, 1e-7)))

    def __enter__(self) -> Device:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bare.close()


def open_bare(place: str) -> Bare:
    """The C program where a compiler is there, else the loops in Python."""
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        return InterpretedDevice(place, "no C compiler here")
    try:
        return CompiledDevice(place, compiler)
    except (subprocess.CalledProcessError, OSError) as error:
        return InterpretedDevice(place, f"the C program does not work here ({type(error).__name__})")
