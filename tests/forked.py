"""`walsvc` in a process of its own without the half second that Python takes to import it.

One process per test process imports the command line and then forks for every command. What is forked has arguments,
environment and pipes of its own, runs walsvc.cli.main.main as `python -m walsvc.cli` does, and ends as an interpreter ends.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from functools import cache
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "COLUMNS": "200"}
SECONDS = 300  # that a command may take: only against hangs
MESSAGE_BYTES = 1 << 20
# What the verbs import when they run; they are found there already imported. A name that a version of a library does not have
# costs time and nothing else.
COMMON = (
    "asyncio aiofiles crc32c encodings.ascii msgpack pydantic.plugin._loader rich._emoji_codes rich.progress rich.table "
    "typer._adapters typer._click._textwrap typer._click.decorators uvloop "
    "walsvc.api walsvc.bench.machine walsvc.cli.logs walsvc.cli.main walsvc.cli.printing walsvc.cli.pump walsvc.cli.source "
    "walsvc.disk.doctor walsvc.log.offline.backup walsvc.log.offline.inspect walsvc.log.offline.migration "
    "walsvc.log.offline.repair walsvc.log.offline.verify walsvc.log.read.readonly walsvc.log.recover.watched walsvc.opening "
    "walsvc.topics.readonly"
)


def run_walsvc(
    *arguments: object, stdin: bytes = b"", environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run the command line to its end; returns exit code and output. `environment`: added to this process's."""
    theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pipes = [os.pipe() for _ in range(3)]
    command = [str(argument) for argument in arguments]
    added = {**ENVIRONMENT, **(environment or {})}
    message = json.dumps([command, {**os.environ, **added}, os.getcwd()]).encode()
    inner = [pipes[0][0], pipes[1][1], pipes[2][1], theirs.fileno()]
    socket.send_fds(forker(), [message], inner)
    for descriptor in inner[:3]:
        os.close(descriptor)
    theirs.close()
    outputs: list[bytes] = [b"", b""]
    feeding = threading.Thread(target=feed, args=(pipes[0][1], stdin))
    reading = [threading.Thread(target=collect, args=(outputs, n, pipes[n + 1][0])) for n in range(2)]
    for thread in (feeding, *reading):
        thread.start()
    with ours:
        pid = int(ours.recv(64))
        ended, _, _ = select.select([ours], [], [], SECONDS)
        if not ended:
            os.kill(pid, signal.SIGKILL)
        code = int(ours.recv(64))
    for thread in (feeding, *reading):
        thread.join()
    if not ended:
        raise subprocess.TimeoutExpired(command, SECONDS, *outputs)
    return subprocess.CompletedProcess(command, code, *outputs)


def feed(descriptor: int, data: bytes) -> None:
    """Write to a pipe, as far as somebody reads."""
    try:
        with open(descriptor, "wb", buffering=0) as pipe:
            rest = memoryview(data)
            while rest:
                rest = rest[pipe.write(rest) :]
    except BrokenPipeError:
        pass


def collect(outputs: list[bytes], number: int, descriptor: int) -> None:
    """Read a pipe to its end."""
    with open(descriptor, "rb") as pipe:
        outputs[number] = pipe.read()


@cache
def forker() -> socket.socket:
    """The process that forks; it ends with this one."""
    theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-c", f"from tests.forked import fork; fork({theirs.fileno()})"]
    process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env={**os.environ, **ENVIRONMENT}, cwd=ROOT)
    theirs.close()

    def leave() -> None:
        ours.close()
        process.wait()

    atexit.register(leave)
    return ours


def fork(descriptor: int) -> None:
    """In the process that forks: import, then fork for every command until there is nobody who asks."""
    for module in COMMON.split():
        with contextlib.suppress(ImportError):
            import_module(module)
    import typer.main

    from walsvc.cli.main import app, main

    typer.main.get_command = cache(typer.main.get_command)  # each command would make all verbs anew
    typer.main.get_command(app)
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a Ctrl-C at the tests
    with socket.socket(fileno=descriptor) as asked:
        while True:
            message, descriptors, _, _ = socket.recv_fds(asked, MESSAGE_BYTES, 4)
            if not message:
                return
            if os.fork() == 0:
                break
            for each in descriptors:
                os.close(each)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with socket.socket(fileno=descriptors[3]) as told:
        if pid := os.fork():
            for each in descriptors[:3]:
                os.close(each)
            told.send(b"%d" % pid)
            told.send(b"%d" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            os._exit(0)
    become(*json.loads(message), descriptors[:3])
    code: str | int | None = None
    try:
        main()
    except SystemExit as leaving:
        code = leaving.code
    end(code)


def end(code: str | int | None) -> None:
    """End as an interpreter ends, but leave its modules whole: to take them apart costs more than most commands, since it
    copies every page that is shared with the process that forks."""
    threading._shutdown()
    atexit._run_exitfuncs()
    gc.collect()
    try:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except (OSError, ValueError):
        sys.exit(code)
    if isinstance(code, str):
        sys.exit(code)
    os._exit((code or 0) & 0xFF)


def become(arguments: list[str], environment: dict[str, str], directory: str, descriptors: list[int]) -> None:
    """Be as a new process that was started with these."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    sys.argv = ["walsvc", *arguments]
    sys.stdin = sys.__stdin__ = os.fdopen(0)
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w")
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w", 1, errors="backslashreplace")
