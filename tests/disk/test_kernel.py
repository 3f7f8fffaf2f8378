"""Against the real kernel: short writes by RLIMIT_FSIZE, io_uring taken away by a seccomp filter, loops that end early."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import platform
import random
import subprocess
import sys
from typing import Any

import pytest

from tests import tracer
from tests.conftest import LOOPS
from walsvc.config import WalConfig
from walsvc.disk import ring
from walsvc.disk.base import Disk, Write
from walsvc.disk.choose import open_disk
from walsvc.disk.ring import REAP_MAX, KernelRing
from walsvc.disk.uring import UringDisk

BLOCK = 4096

needs_uring = pytest.mark.skipif(ring.why_not() is not None, reason="no io_uring here")

SHORT_WRITE = """
import asyncio, errno, resource, signal, sys
from walsvc.config import WalConfig
from walsvc.disk import measure
from walsvc.disk.base import Write
from walsvc.disk.choose import open_disk

measure.dsync_wins = lambda timings, way="", doubt="": sys.argv[3] == "dsync"
import walsvc.disk.choose
walsvc.disk.choose.dsync_wins = measure.dsync_wins

async def main():
    loop = asyncio.get_running_loop()
    config = WalConfig(disk=sys.argv[2], direct=False if sys.argv[4] == "buffered" else None)
    disk = await open_disk(sys.argv[1], config=config, loop=loop, exclusive=True)
    assert disk.sync_method == sys.argv[3]
    await disk.allocate("a.wal", 65536)
    file = await disk.open_file("a.wal")
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192 + 4096, resource.RLIM_INFINITY))
    view = disk.buffer(8192)
    view[:] = b"x" * 8192
    async def submit(offset):
        answer = loop.create_future()
        disk.submit(Write(file, offset, view, lambda write, error: answer.set_result(error)))
        return await answer
    error = await submit(0)
    assert error is None, error
    error = await submit(8192)
    assert error.errno == errno.EIO and "4096 of 8192" in str(error), error
    error = await submit(16384)
    assert error.errno == errno.EFBIG, error
    error = await submit(0)
    assert error is None, error
    await disk.close()

asyncio.run(main())
"""

SECCOMP = """
import asyncio, ctypes, struct, sys
from walsvc.config import WalConfig
from walsvc.disk.base import Write
from walsvc.errors import BadOption

IO_URING_SETUP, ALLOW, ERRNO, LOAD_NR, JUMP_EQUAL, RETURN = 425, 0x7FFF0000, 0x00050000, 0x20, 0x15, 0x06
def op(code, yes, no, value):
    return struct.pack("HBBI", code, yes, no, value)
number = int(sys.argv[2])
program = (op(LOAD_NR, 0, 0, 0) + op(JUMP_EQUAL, 0, 1, IO_URING_SETUP)
           + op(RETURN, 0, 0, ERRNO | number) + op(RETURN, 0, 0, ALLOW))
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
filter = Program(4, program)
if libc.prctl(22, 2, ctypes.byref(filter), 0, 0) != 0:
    print("no seccomp")
    sys.exit(0)

from walsvc.disk.choose import open_disk
from walsvc.disk.doctor import probe

async def main():
    loop = asyncio.get_running_loop()
    disk = await open_disk(sys.argv[1], config=WalConfig(), loop=loop, exclusive=True)
    print(disk.kind, "|", disk.reason)
    await disk.allocate("a.wal", 65536)
    answer = loop.create_future()
    view = disk.buffer(4096)
    view[:] = b"y" * 4096
    disk.submit(Write(await disk.open_file("a.wal"), 0, view, lambda write, error: answer.set_result(error)))
    assert await answer is None
    assert await disk.read("a.wal", 0, 4) == b"yyyy"
    await disk.close()
    try:
        await open_disk(sys.argv[1], config=WalConfig(disk="uring"), loop=loop, exclusive=True)
    except BadOption as error:
        print(error)
    found = probe(sys.argv[1])
    print(found.chosen, found.uring, found.uring_reason)

asyncio.run(main())
"""


@pytest.mark.parametrize("cache", ["direct", "buffered"])
@pytest.mark.parametrize("method", ["dsync", "fdatasync"])
@pytest.mark.parametrize("kind", ["threads", pytest.param("uring", marks=needs_uring)])
def test_real_short_write_is_an_error(run_script, tmp_path, kind, method, cache):
    run_script(SHORT_WRITE, tmp_path, kind, method, cache)
    data = (tmp_path / "a.wal").read_bytes()
    assert data == b"x" * 12288 + bytes(65536 - 12288)


@needs_uring
@pytest.mark.skipif(platform.machine() not in {"x86_64", "aarch64"}, reason="system call number known for these")
@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS])
def test_seccomp_without_io_uring_falls_back_to_threads(run_script, tmp_path, number):
    output = run_script(SECCOMP, tmp_path, number)
    if output.startswith("no seccomp"):
        pytest.skip("this system has no seccomp filters")
    chosen, refused, probed = output.splitlines()
    name = errno.errorcode[number]
    assert chosen.startswith("threads | ")
    assert name in chosen
    assert name in refused
    assert 'disk="threads"' in refused
    assert probed.startswith("threads False")
    assert name in probed


async def opened(path: Any, **options: Any) -> Disk:
    return await open_disk(path, config=WalConfig(**options), loop=asyncio.get_running_loop(), exclusive=True)


@needs_uring
@pytest.mark.parametrize("dsync", [True, False])
async def test_dropped_buffers_are_neither_freed_nor_reused_before_their_completion(tmp_path, monkeypatch, dsync):
    monkeypatch.setattr("walsvc.disk.choose.dsync_wins", lambda *args: dsync)
    disk = await opened(tmp_path, disk="uring")
    writes = 600
    await disk.allocate("a.wal", writes * BLOCK)
    file = await disk.open_file("a.wal")
    loop = asyncio.get_running_loop()
    everything = loop.create_future()
    answers: list[OSError | None] = []
    expected: list[bytes] = []
    rng = random.Random(5)

    def done(write: Write, error: OSError | None) -> None:
        answers.append(error)
        if len(answers) == writes:
            everything.set_result(None)

    for number in range(writes):
        view = disk.buffer(BLOCK)
        view[:] = data = rng.randbytes(BLOCK)
        expected.append(data)
        disk.submit(Write(file, number * BLOCK, view, done))
        del view
        if number % 50 == 0:
            gc.collect()
            noise = [disk.buffer(BLOCK) for _ in range(64)]  # takes the place of memory that was freed too early
            for other in noise:
                other[:] = b"\xee" * BLOCK
    await everything
    assert answers == [None] * writes
    assert await disk.read("a.wal", 0, writes * BLOCK) == b"".join(expected)
    await disk.close()


@needs_uring
@pytest.mark.parametrize("name", list(LOOPS))
def test_loop_closed_with_writes_in_the_ring(tmp_path, name):
    before = len(os.listdir("/proc/self/fd"))
    loop = LOOPS[name]()
    disk = loop.run_until_complete(open_disk(tmp_path, config=WalConfig(disk="uring"), loop=loop, exclusive=True))
    loop.run_until_complete(disk.allocate("a.wal", 64 * BLOCK))
    file = loop.run_until_complete(disk.open_file("a.wal"))
    answers: list[OSError | None] = []
    for number in range(64):
        view = disk.buffer(BLOCK)
        view[:] = bytes([number + 1]) * BLOCK
        disk.submit(Write(file, number * BLOCK, view, lambda write, error: answers.append(error)))
        del view
    loop.close()
    pending = 64 - len(answers)
    del disk, loop
    gc.collect()
    assert pending == 64
    assert answers == []
    data = (tmp_path / "a.wal").read_bytes()
    assert [data[number * BLOCK] for number in range(64)] == list(range(1, 65))
    assert len(os.listdir("/proc/self/fd")) == before, "ring, directory, file and lock are all released"


@needs_uring
async def test_one_ring_for_life_and_descriptors_and_memory_flat(tmp_path):
    disk = await opened(tmp_path, disk="uring")
    assert isinstance(disk, UringDisk)
    await disk.allocate("a.wal", 64 * BLOCK)
    file = await disk.open_file("a.wal")
    kernel_ring = disk._ring
    loop = asyncio.get_running_loop()
    view = disk.buffer(BLOCK)

    async def burst(count: int) -> None:
        finished = loop.create_future()
        left = count

        def done(write: Write, error: OSError | None) -> None:
            nonlocal left
            assert error is None
            left -= 1
            if left == 0:
                finished.set_result(None)

        for number in range(count):
            disk.submit(Write(file, number % 64 * BLOCK, view, done))
        await finished

    await burst(500)
    descriptors, pages = len(os.listdir("/proc/self/fd")), resident_pages()
    for _ in range(6):
        await burst(500)
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert resident_pages() - pages < 256, "one MiB"
    assert disk._ring is kernel_ring
    assert not disk._flights
    assert not disk._pins
    await disk.close()


def resident_pages() -> int:
    gc.collect()
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1])


@needs_uring
def test_more_completions_than_one_reap_takes(tmp_path):
    kernel_ring = KernelRing(256)
    file = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    pinned = kernel_ring.pin(memoryview(b"x" * 512))
    count = 3 * REAP_MAX
    for token in range(count):
        assert kernel_ring.write(file, pinned, 512, token * 512, token, False) == 0
    seen: list[tuple[int, int]] = []
    while len(seen) < count:
        kernel_ring.wait()
        seen += kernel_ring.reap()
    assert sorted(seen) == [(token * 2, 512) for token in range(count)]
    assert kernel_ring.reap() == []
    assert kernel_ring.unsubmitted() == 0
    kernel_ring.close()
    kernel_ring.close()
    os.close(file)


@needs_uring
def test_completion_queue_that_overflows_loses_nothing(tmp_path):
    kernel_ring = KernelRing(4)  # eight completions fit
    file = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    pinned = kernel_ring.pin(memoryview(b"x" * 512))
    taken: list[int] = []
    for token in range(64):
        result = kernel_ring.write(file, pinned, 512, token * 512, token, False)
        if result == 0:
            taken.append(token)
        elif result != -errno.EBUSY:
            assert result == ring.QUEUE_FULL
    seen: list[tuple[int, int]] = []
    while kernel_ring.unsubmitted() or len(seen) < len(taken):
        kernel_ring.wait()
        seen += kernel_ring.reap()
        before = kernel_ring.unsubmitted()
        if before and kernel_ring.flush() == 0:
            taken += [-1] * before
    assert len(seen) == len(taken)
    assert len({token for token, _ in seen}) == len(seen)
    assert all(result == 512 for _, result in seen)
    kernel_ring.close()
    os.close(file)


@needs_uring
def test_forked_child_leaves_its_parents_ring_alone(run_script, tmp_path):
    source = """
import asyncio, gc, os, sys
from walsvc.config import WalConfig
from walsvc.disk.base import Write
from walsvc.disk.choose import open_disk

async def main():
    loop = asyncio.get_running_loop()
    disk = await open_disk(sys.argv[1], config=WalConfig(disk="uring"), loop=loop, exclusive=True)
    await disk.allocate("a.wal", 65536)
    file = await disk.open_file("a.wal")
    view = disk.buffer(4096)
    answers = [loop.create_future() for _ in range(16)]
    for number, answer in enumerate(answers):
        disk.submit(Write(file, number * 4096, view, lambda write, error, answer=answer: answer.set_result(error)))
        if number == 8 and os.fork() == 0:
            sys.exit(0)  # runs what a normal end of the interpreter runs
    os.wait()
    for answer in answers:
        assert await asyncio.wait_for(answer, 60) is None
    await disk.close()
asyncio.run(main())
"""
    run_script(
        source.replace("sys.exit(0)", "(gc.collect(), __import__('atexit')._run_exitfuncs(), os._exit(0))"), tmp_path
    )


@needs_uring
def test_interpreter_that_ends_without_close_finishes_what_was_submitted(run_script, tmp_path):
    source = """
import asyncio, sys
from walsvc.config import WalConfig
from walsvc.disk.base import Write
from walsvc.disk.choose import open_disk

async def main():
    loop = asyncio.get_running_loop()
    disk = await open_disk(sys.argv[1], config=WalConfig(disk="uring"), loop=loop, exclusive=True)
    await disk.allocate("a.wal", 400 * 4096)
    file = await disk.open_file("a.wal")
    for number in range(100):
        view = disk.buffer(4096)
        view[:] = b"z" * 4096
        disk.submit(Write(file, number * 4096, view, lambda *_: None))
    return disk
disk = asyncio.run(main())
"""
    run_script(source, tmp_path)
    assert (tmp_path / "a.wal").read_bytes() == b"z" * 100 * BLOCK + bytes(300 * BLOCK)


HALVED = """
import asyncio, sys
import walsvc, walsvc.disk.choose
from walsvc.errors import DurabilityLost

walsvc.disk.choose.dsync_wins = lambda timings, way="", doubt="": False

async def main():
    wal = await walsvc.open(sys.argv[1], disk="uring")
    assert wal.stats().sync_method == "fdatasync"
    print("ready", flush=True)
    sys.stdin.readline()
    answered = 0
    try:
        while True:
            await wal.append(b"x" * 3000)
            answered += 1
    except DurabilityLost as error:
        print(answered, error.errno, flush=True)
    await wal.close()
    print("closed", flush=True)

asyncio.run(main())
"""


@needs_uring
@pytest.mark.skipif(bool(tracer.WHY_NOT), reason=tracer.WHY_NOT or "it can be done")
def test_kernel_that_takes_half_a_link_ends_the_log(tmp_path):
    """The kernel may take fewer submissions than it is offered, when it has no memory: a tracer makes it so."""
    command = [sys.executable, "-W", "error", "-c", HALVED, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        offered: list[int] = []

        def submitting(count: int) -> int:
            offered.append(count)
            return 1 if len(offered) == 20 else count

        try:
            tracer.attach(child.pid)
        except PermissionError as error:
            child.kill()
            pytest.skip(f"tracing is not allowed here: {error}")
        print(file=child.stdin, flush=True)
        tracer.trace(child.pid, submitting)
        assert offered == [2] * 20, "nothing is submitted after half a pair"
        answered, number = map(int, child.stdout.readline().split())
        assert number in {errno.ENOLINK, errno.ECANCELED}
        assert answered == 19
        assert child.stdout.read() == "closed\n"
