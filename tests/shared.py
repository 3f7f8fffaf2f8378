"""Servers that all processes of one test run share: one NATS cluster and one S3 server, however many processes there are.

The process that needs one first has it started by a keeper, a process of its own, which ends it with the run: when the
process that pytest was started in has ended. `python -m tests.shared KIND OWNER` is the keeper.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID") or f"{os.getpid()}-{time.time_ns()}"
PLACE = Path(tempfile.gettempdir()) / f"walsvc-tests-{RUN}"


@cache
def server_of_this_run(kind: str) -> dict[str, Any]:
    """What the keeper of that kind tells of its server; started where no process of this run has asked before."""
    owner = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
    PLACE.mkdir(mode=0o700, exist_ok=True)
    told = PLACE / f"{kind}.json"
    with (PLACE / f"{kind}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not told.exists():
            command = [sys.executable, "-m", "tests.shared", kind, str(owner)]
            answer = subprocess.run(command, stdout=subprocess.PIPE, cwd=ROOT, check=True).stdout
            assert answer, f"the {kind} server cannot be started"
            told.write_bytes(answer)
    found: dict[str, Any] = json.loads(told.read_text())
    return found


def keep(kind: str, owner: int) -> None:
    """Start a server, tell of it, and end it once the process `owner` has ended. What starts this does not wait for it."""
    from tests.engines.cluster import Cluster
    from tests.engines.s3 import started_s3

    if os.fork():
        return
    os.setsid()  # a Ctrl-C at the tests ends them first
    with contextlib.ExitStack() as stack:
        try:
            watch = os.pidfd_open(owner)
        except ProcessLookupError:
            return
        stack.callback(shutil.rmtree, PLACE, ignore_errors=True)
        server = Cluster().start() if kind == "nats" else started_s3()
        stack.callback(server.stop)
        print(json.dumps(server.address), flush=True)
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        select.select([watch], [], [])


if __name__ == "__main__":
    keep(sys.argv[1], int(sys.argv[2]))
