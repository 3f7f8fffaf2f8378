"""`walsvc` in a process of its own without the half second that Python takes to import it.

One process per test process imports the command line and then forks for every command. What is forked has arguments,
environment and pipes of its own, runs walsvc.cli.main.main as `python -m walsvc.cli` does, and ends as an interpreter ends.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "COLUMNS": "200"}
SECONDS = 300  # that a command may take: only against hangs
MESSAGE_BYTES = 1 << 20
LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_CHILD_SUBREAPER = 36
CAPABILITY_VERSION = 0x20080522
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2
# What a new process may execute before the command line: as if uvloop were not installed; as a user whom file permissions bind
WITHOUT_UVLOOP = "import sys; sys.modules['uvloop'] = None"
POWERLESS = "from tests.forked import give_up_override; give_up_override()"
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


class Forked(subprocess.Popen[Any]):
    """The command line, started: a subprocess.Popen, but by a fork of the process that has imported all.

    Args:
        arguments: of the command line.
        before: Python text that the new process executes before the command line.
        environment: added to this process's; None takes a variable away.
        options: of subprocess.Popen: stdin, stdout, stderr, text, cwd.
    """

    def __init__(
        self,
        *arguments: object,
        before: str = "",
        environment: Mapping[str, str | None] | None = None,
        **options: Any,
    ) -> None:
        command = [str(argument) for argument in arguments]
        wanted = {**os.environ, **ENVIRONMENT, **(environment or {})}
        known = {name: value for name, value in wanted.items() if value is not None}
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._message = json.dumps([command, known, str(options.get("cwd") or os.getcwd()), limits, before]).encode()
        super().__init__(["walsvc", *command], **options)

    def _execute_child(self, *arguments: Any) -> None:
        """What Popen leaves to its kind of system, with the descriptors that it has made."""
        pipes = arguments[10:16]
        theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            inner = [number if given == -1 else given for number, given in enumerate((pipes[0], pipes[3], pipes[5]))]
            socket.send_fds(forker(), [self._message], [*inner, theirs.fileno()])
            theirs.close()
            self.pid = int(ours.recv(64))
            ours.recv(64)  # it is our child
        self._child_created = True
        self._close_pipe_fds(*pipes)


def run_walsvc(
    *arguments: object, stdin: Any = b"", timeout: float = SECONDS, **options: Any
) -> subprocess.CompletedProcess[Any]:
    """Run the command line to its end; returns exit code and output. `stdin`: bytes, or text where `text` is an option."""
    pipe = subprocess.PIPE
    with Forked(*arguments, stdin=pipe, stdout=pipe, stderr=pipe, **options) as process:
        try:
            outputs = process.communicate(stdin or None, timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, *outputs)


@cache
def forker() -> socket.socket:
    """The process that forks; it ends with this one. What it forks becomes a child of this one, which may wait for it."""
    if LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a Ctrl-C at the tests
    with socket.socket(fileno=descriptor) as asked:
        while True:
            message, descriptors, _, _ = socket.recv_fds(asked, MESSAGE_BYTES, 4)
            if not message:
                return
            with socket.socket(fileno=descriptors.pop()) as told:
                if between := os.fork():
                    os.waitpid(between, 0)
                    told.send(b"ready")
                else:
                    if pid := os.fork():
                        told.send(b"%d" % pid)
                        os._exit(0)
                    break
            for each in descriptors:
                os.close(each)
    arguments, environment, directory, limits, before = json.loads(message)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    become(arguments, environment, directory, descriptors)
    code: str | int | None = None
    try:
        exec(before, {})
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


def give_up_override() -> None:
    """Give up the power over file permissions, which tests that run as root have."""
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    sets = (
        ctypes.c_uint32 * 6
    )()  # effective, permitted, inheritable: twice, since there are more than 32 capabilities
    if LIBC.capget(header, sets):
        raise OSError(ctypes.get_errno(), "capget")
    for number in (0, 1):
        sets[number] &= ~(1 << CAP_DAC_OVERRIDE | 1 << CAP_DAC_READ_SEARCH)
    if LIBC.capset(header, sets):
        raise OSError(ctypes.get_errno(), "capset")
