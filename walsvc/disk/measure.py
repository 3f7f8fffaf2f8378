"""Finds out by trying: does this directory take O_DIRECT, with which alignment, and which way to sync is faster here. Whether
a way is kept cannot be tried: walsvc/disk/dsync.py knows it.

Trial and not statx(STATX_DIOALIGN): Python has no statx before 3.15, and what counts is whether the write goes through.
A probe file of written zeros is made, its name removed at once (so that a crash leaves nothing), and used by descriptor.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from walsvc.config import BLOCK_BYTES_MAX, BLOCK_BYTES_MIN
from walsvc.disk import system
from walsvc.disk.memory import aligned_buffer, write_all
from walsvc.disk.ring import Ring

PROBE_NAME = "probe.spare"  # `*.spare` is what a log takes for garbage when it opens
PROBE_BYTES = 128 << 10
BLOCK_BYTES_DEFAULT = 4096  # what devices and file systems do in one piece nearly everywhere, whatever they report
ROUNDS = 10  # writes per method; the first warms up and is not counted
TIE = 1.25  # below that it may be noise, and the wrong choice would stand for the life of the process
BUDGET_SECONDS = 0.015  # no further round is begun after this, so that opening on a slow disk stays quick

Timings = dict[str, float]
"""Median microseconds of one durable block: "dsync", "fdatasync" (plain calls), "uring dsync", "uring fdatasync"."""

# By device and way of writing. A device does not change while the process runs, and a wrong choice costs only time.
_measured: dict[tuple[int, bool, bool], Timings] = {}


class Findings(NamedTuple):
    """Result of a trial in a directory.

    Attributes:
        direct: O_DIRECT works.
        device_block_bytes: smallest aligned write that went through with O_DIRECT; 1 where it does not work.
        timings: medians per method; empty when not measured.
    """

    direct: bool
    device_block_bytes: int
    timings: Timings


def try_directory(
    directory: int, *, direct: bool | None, make_ring: Callable[[], Ring] | None, fresh: bool = False
) -> Findings:
    """Try O_DIRECT (unless `direct` is False) and time the ways to sync, or take an earlier timing of the device.

    `make_ring` makes a ring for timing io_uring as well. `fresh` measures anew. Raises OSError where no file can be made.
    """
    file = open_probe(directory)
    try:
        zeros = aligned_buffer(PROBE_BYTES)
        block_bytes = 1 if direct is False else find_block_bytes(file, zeros)
        key = (os.fstat(directory).st_dev, block_bytes > 1, make_ring is not None)
        timings = _measured.get(key)
        if timings is None or fresh:
            write_all(file, zeros, 0)
            system.sync(file)
            block = zeros[: max(block_bytes, BLOCK_BYTES_DEFAULT)]
            timings = _measured[key] = time_methods(file, block, make_ring)
        return Findings(block_bytes > 1, block_bytes, timings)
    finally:
        os.close(file)


def dsync_wins(timings: Timings, way: str = "", doubt: str = "") -> bool:
    """True if RWF_DSYNC is the way to sync ("uring " or "" for plain calls): never where there is a `doubt` that it is kept
    (walsvc/disk/dsync.py), else where it is faster. A tie goes to it: it is one call."""
    dsync, fdatasync = timings.get(way + "dsync"), timings.get(way + "fdatasync")
    if doubt:
        return False
    if dsync is None:
        return fdatasync is None
    return fdatasync is None or dsync <= fdatasync * TIE


def say_timings(timings: Timings, what: str, way: str = "", doubt: str = "") -> str:
    """The choice in words, as "io_uring with RWF_DSYNC: 78 us against 95 us for write and fdatasync"."""
    words = {"dsync": "RWF_DSYNC", "fdatasync": "write and fdatasync"}
    best, other = ("dsync", "fdatasync") if dsync_wins(timings, way, doubt) else ("fdatasync", "dsync")
    text = f"{what} with {words[best]}"
    if way + best in timings:
        text += f": {timings[way + best]:.0f} us"
        if way + other in timings:
            text += f" against {timings[way + other]:.0f} us for {words[other]}"
    return text + (f"; RWF_DSYNC is not used, as {doubt}" if doubt else "")


def open_probe(directory: int) -> int:
    """A file without a name. Two openers at once may remove each other's name, which harms neither."""
    for _ in range(10):
        try:
            file = os.open(PROBE_NAME, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory)
        except FileExistsError:
            with suppress(FileNotFoundError):
                os.unlink(PROBE_NAME, dir_fd=directory)
            continue
        with suppress(FileNotFoundError):
            os.unlink(PROBE_NAME, dir_fd=directory)
        return file
    raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), PROBE_NAME)


def find_block_bytes(file: int, zeros: memoryview) -> int:
    """Switch `file` to O_DIRECT and find the smallest block it takes; 1, and O_DIRECT off, where it takes none."""
    plain = fcntl.fcntl(file, fcntl.F_GETFL)
    block_bytes = BLOCK_BYTES_MIN
    try:
        system.set_direct(file, plain)
        while block_bytes <= BLOCK_BYTES_MAX:
            try:
                os.pwrite(file, zeros[:block_bytes], block_bytes)
                return block_bytes
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                block_bytes *= 2
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
    fcntl.fcntl(file, fcntl.F_SETFL, plain)
    return 1


def time_methods(file: int, block: memoryview, make_ring: Callable[[], Ring] | None) -> Timings:
    """Medians of a few durable writes, the methods in turn, so that a slow moment hits all of them alike."""
    methods: dict[str, Callable[[int], object]] = {"fdatasync": lambda offset: write_and_sync(file, block, offset)}
    if system.RWF_DSYNC:
        methods["dsync"] = lambda offset: os.pwritev(file, [block], offset, system.RWF_DSYNC)
    ring: Ring | None = None
    if make_ring is not None:
        with suppress(OSError):
            ring = made = make_ring()
            methods["uring dsync"] = lambda offset: write_and_wait(made, file, block, offset, linked=False)
            methods["uring fdatasync"] = lambda offset: write_and_wait(made, file, block, offset, linked=True)
    try:
        return time_in_turn(methods, len(block))
    finally:
        if ring is not None:
            ring.close()


def write_and_sync(file: int, block: memoryview, offset: int) -> None:
    """The two calls that RWF_DSYNC does in one."""
    os.pwrite(file, block, offset)
    system.sync_data(file)


def time_in_turn(methods: dict[str, Callable[[int], object]], block_bytes: int) -> Timings:
    """Median microseconds per method; a method that fails is left out."""
    samples: dict[str, list[float]] = {name: [] for name in methods}
    offset = 0
    start = time.perf_counter()
    for done in range(ROUNDS):
        if done >= 2 and time.perf_counter() - start > BUDGET_SECONDS:
            break
        for name in list(methods):
            before = time.perf_counter()
            try:
                methods[name](offset)
            except OSError:
                del methods[name], samples[name]
                continue
            samples[name].append((time.perf_counter() - before) * 1e6)
            offset = (offset + block_bytes) % PROBE_BYTES
    return {name: round(median(times[1:] or times), 1) for name, times in samples.items() if times}


def median(values: list[float]) -> float:
    """The middle one, the upper of two: the module `statistics` takes longer to import than a probe takes."""
    return sorted(values)[len(values) // 2]


def write_and_wait(ring: Ring, file: int, block: memoryview, offset: int, *, linked: bool) -> None:
    """One durable write through a ring, waited for. OSError where any part of it failed."""
    pinned = ring.pin(block)
    result = ring.write(file, pinned, len(block), offset, 0, linked)
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    answers: list[int] = []
    while len(answers) < (2 if linked else 1):
        ring.wait()
        answers += [answer for _, answer in ring.reap()]
    for answer in answers:
        if answer < 0:
            raise OSError(-answer, os.strerror(-answer))
