"""A directory on a FUSE file system that tests can count, fail and stop.

    with mounted(tmp_path) as fuse:
        fuse.fail("write", nth=3, errno=errno.ENOSPC, suffix=".wal")
        ... a log in fuse.path ...
        assert fuse.volatile() == []

The daemon (tests/fuse/daemon.py) is another process, so that this one may wait for it in the kernel. Where FUSE is not to be
had the test is skipped with the reason.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes.util import find_library
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

DEVICE = "/dev/fuse"


def why_no_fuse() -> str:
    """Empty where a FUSE file system can be tried."""
    if find_spec("mfusepy") is None:
        return "no mfusepy: make setup installs it"
    if find_library("fuse3") is None:
        return "no libfuse3: as root, apt-get install fuse3"
    try:
        os.close(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"no FUSE here: {error}"
    return ""


WHY_NO_FUSE = why_no_fuse()
needs_fuse = pytest.mark.skipif(bool(WHY_NO_FUSE), reason=WHY_NO_FUSE or "it is there")


class Fuse:
    """A mounted pass-through file system.

    Attributes:
        path: the mount point, an empty directory at first.
        lower: where the files lie in truth; reading them there sends no request.
    """

    def __init__(self, path: Path, lower: Path, daemon: subprocess.Popen[str]) -> None:
        self.path = path
        self.lower = lower
        self._daemon = daemon

    def counts(self) -> dict[str, int]:
        """Requests so far: "write", "fsync", "fsyncdir", "create", "rename", "unlink", ..."""
        found: dict[str, int] = self._order("counts")
        return found

    def volatile(self) -> list[str]:
        """What a power cut could take, sorted: "data log/x.wal" for a file with a write, "name log/x.wal" for a name made,
        changed or removed, after which no FSYNC request for the file, or for its directory, came."""
        found: list[str] = self._order("volatile")
        return found

    def fail(
        self,
        operation: str,
        *,
        errno: int = 0,
        nth: int = 1,
        times: int = 1,
        suffix: str = "",
        short: int | None = None,
    ) -> None:
        """Let the nth request from now (of files whose name ends with `suffix`) and the `times` - 1 after it fail.

        `short`: a write does only so many bytes and answers that, instead of an error.
        """
        self._order("fail", operation=operation, errno=errno, nth=nth - 1, times=times, suffix=suffix, short=short)

    def heal(self) -> None:
        """No further request fails."""
        self._order("heal")

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """No request is answered meanwhile, and no order either."""
        self.stop()
        try:
            yield
        finally:
            self.go_on()

    def stop(self) -> None:
        """From now on no request is answered."""
        self._daemon.send_signal(signal.SIGSTOP)
        _, status = os.waitpid(self._daemon.pid, os.WUNTRACED)  # its threads are told one after the other
        assert os.WIFSTOPPED(status)

    def go_on(self) -> None:
        """The opposite of `stop`."""
        self._daemon.send_signal(signal.SIGCONT)

    def _order(self, order: str, **arguments: object) -> Any:
        assert self._daemon.stdin is not None
        assert self._daemon.stdout is not None
        print(json.dumps({"order": order} | arguments), file=self._daemon.stdin, flush=True)
        line = self._daemon.stdout.readline()
        assert line, f"the FUSE daemon ended with {self._daemon.wait()}"
        return json.loads(line)


@contextmanager
def mounted(directory: Path) -> Iterator[Fuse]:
    """Mount an empty file system at `directory`/fuse, its files in `directory`/lower; skips where that is not allowed."""
    path, lower = directory / "fuse", directory / "lower"
    path.mkdir(parents=True)
    lower.mkdir()
    command = [sys.executable, "-m", "tests.fuse.daemon", str(lower), str(path)]
    errors = directory / "fuse.errors"
    with errors.open("w") as stderr:
        daemon = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            cwd=Path(__file__).parents[2],
        )
    assert daemon.stdin is not None
    assert daemon.stdout is not None
    with daemon:  # closes the pipes, so that it unmounts, and waits for its end
        if not daemon.stdout.readline():
            said = errors.read_text()
            if "not permitted" in said or "ermission denied" in said:
                pytest.skip(f"no FUSE here: {said.strip()}")
            pytest.fail(f"the FUSE daemon ended with {daemon.wait()}: {said}")
        fuse = Fuse(path, lower, daemon)
        try:
            yield fuse
        finally:
            fuse.go_on()
            daemon.stdin.close()
            daemon.wait(120)
