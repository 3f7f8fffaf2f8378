"""The command line as a user has it: a process of its own, with pipes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.forked import POWERLESS, WITHOUT_UVLOOP, Forked, run_walsvc

COMMAND = [sys.executable, "-m", "walsvc.cli"]  # for what is not the same in a forked process

Finished = subprocess.CompletedProcess[bytes]


class Cli:
    """Runs `walsvc` in processes that end with the test.

    Args:
        before: Python text that each of them executes before the command line.
    """

    def __init__(self, before: str = "") -> None:
        self._before = before
        self._started: list[Forked] = []

    def __call__(self, *arguments: object, stdin: bytes = b"", environment: dict[str, str] | None = None) -> Finished:
        """Run to the end; returns exit code and output."""
        return run_walsvc(*arguments, stdin=stdin, before=self._before, environment=environment)

    def good(self, *arguments: object, stdin: bytes = b"") -> bytes:
        """Run to the end, which must be a good and silent one; returns standard output."""
        finished = self(*arguments, stdin=stdin)
        assert (finished.returncode, finished.stderr) == (0, b""), finished
        return finished.stdout

    def bad(self, code: int, *arguments: object, stdin: bytes = b"") -> str:
        """Run to the end, which must be `code` with one line on standard error; returns that line."""
        finished = self(*arguments, stdin=stdin)
        line = finished.stderr.decode()
        assert finished.returncode == code, finished
        assert line.startswith("walsvc: "), finished
        assert line.count("\n") == 1, finished
        assert line.endswith("\n"), finished
        return line

    def start(
        self, *arguments: object, stdout: int = subprocess.PIPE, environment: dict[str, str] | None = None
    ) -> Forked:
        """Start and leave running, with pipes to talk through."""
        pipe = subprocess.PIPE
        options = {"before": self._before, "environment": environment}
        process = Forked(*arguments, **options, stdin=pipe, stdout=stdout, stderr=pipe)
        self._started.append(process)
        return process

    def writer(self, log: Path) -> Forked:
        """`walsvc append`, which has the log open: it has appended LSN 101, and takes more from its standard input."""
        process = self.start("append", log)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"x\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"101\n"
        return process

    def end(self) -> None:
        """Kill what still runs."""
        for process in self._started:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None and not pipe.closed:
                    try:
                        pipe.close()
                    except BrokenPipeError:
                        pass


@pytest.fixture
def walsvc() -> Iterator[Cli]:
    """The command line on the best event loop installed."""
    cli = Cli()
    yield cli
    cli.end()


@pytest.fixture(params=["auto", "asyncio"])
def walsvc_on_both_loops(request: pytest.FixtureRequest) -> Iterator[Cli]:
    """The command line with uvloop (where installed) and as if uvloop were not installed."""
    cli = Cli("" if request.param == "auto" else WITHOUT_UVLOOP)
    yield cli
    cli.end()


@pytest.fixture
def powerless_walsvc() -> Cli:
    """The command line of a user whom file permissions bind."""
    return Cli(POWERLESS)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The logs "short" and "long", made once; tests get copies."""
    folder, cli = tmp_path_factory.mktemp("made"), Cli()
    cli.good("append", folder / "short", "-q", stdin=b"".join(b"record %d\n" % n for n in range(1, 101)))
    lines = b"".join(b"%-1000d\n" % n for n in range(1, 501))
    cli.good("append", folder / "long", "-q", "--segment-bytes", 65536, stdin=lines)
    return folder


@pytest.fixture
def log(tmp_path: Path, made: Path) -> Path:
    """A log with the records b"record 1" to b"record 100", closed in order."""
    return Path(shutil.copytree(made / "short", tmp_path / "log"))


@pytest.fixture
def long_log(tmp_path: Path, made: Path) -> Path:
    """A log of 500 records of 1000 bytes in several segments, closed in order."""
    return Path(shutil.copytree(made / "long", tmp_path / "long"))


@pytest.fixture
def contents() -> Callable[[Path], dict[str, bytes]]:
    """A function that returns name -> bytes of every file in a directory, to show that nothing was changed.

    Without LOCK, which holds no data: its content is the process that last had the log open.
    """

    def read(path: Path) -> dict[str, bytes]:
        return {
            each.name: each.read_bytes() for each in sorted(path.iterdir()) if each.is_file() and each.name != "LOCK"
        }

    return read
