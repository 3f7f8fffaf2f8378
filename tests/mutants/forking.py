"""pytest in a process of its own that does not import pytest, hypothesis and the libraries anew: a fork of one that has.

`python forking.py` reads a line of JSON for each run and answers with another. Nothing of the project is imported before the fork,
since a bug may just have been planted in it.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import random
import select
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

# Modules that take long to import. One that is not there is left out, and the tests that need it are skipped as elsewhere.
COMMON = (
    "aiofiles aiohttp asyncio cffi crc32c cryptography.hazmat.primitives.ciphers.aead hypothesis hypothesis.strategies "
    "hypothesis.internal.conjecture.engine hypothesis.stateful json logging.handlers msgpack nats pytest ssl typer uvloop xml.dom.minidom"
)


class Forks:
    """Runs pytest in forks.

    Args:
        root: working directory of the runs, and where modules come from.
        environment: of the process that forks, and so of the runs.
    """

    def __init__(self, root: Path, environment: dict[str, str]) -> None:
        command = [sys.executable, str(Path(__file__).resolve())]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, cwd=root, env=environment, stdin=pipe, stdout=pipe, text=True)

    def close(self) -> None:
        """End the process that forks."""
        self._process.communicate()

    def run(
        self, arguments: list[str], output: Path, patience: float, *, compiles: bool, environment: dict[str, str]
    ) -> int | None:
        """Run pytest; its exit code, or None where it was killed since it took more than `patience` seconds.

        Args:
            arguments: of pytest.
            output: file that gets what it prints.
            patience: seconds.
            compiles: it may keep the modules that it compiles.
            environment: added to that of the process that forks.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = [arguments, str(output), patience, compiles, environment]
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the process that forks has ended"
        code: int | None = json.loads(answer)
        return code


def serve() -> None:
    """In the process that forks."""
    sys.path[0] = os.getcwd()
    for module in COMMON.split():
        with suppress(ImportError):
            importlib.import_module(module)
    gc.freeze()
    for line in sys.stdin:
        arguments, output, patience, compiles, environment = json.loads(line)
        pid = os.fork()
        if not pid:
            run(arguments, output, environment, compiles=compiles)
        watched = os.pidfd_open(pid)
        in_time = bool(select.select([watched], [], [], patience)[0])
        if not in_time:
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        os.close(watched)
        print(json.dumps(os.waitstatus_to_exitcode(status) if in_time else None), flush=True)


def run(arguments: list[str], output: str, environment: dict[str, str], *, compiles: bool) -> Any:
    """In the fork: be as a new interpreter, run pytest and end."""
    import pytest

    code: Any = 1
    try:
        random.seed()
        os.environ.update(environment)
        sys.dont_write_bytecode = not compiles
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 1)
        os.dup2(1, 2)
        code = pytest.main(arguments)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    finally:
        os._exit(int(code))


if __name__ == "__main__":
    serve()
