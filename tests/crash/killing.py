"""A child process that writes to a log on a real disk and is killed at a random moment: what the SIGKILL campaigns share."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

LIFE_SECONDS = 0.3  # of a child, at most


def reports_until_killed(
    module: str, report: struct.Struct, path: Path, disk: str, seed: int, *flags: str
) -> Iterator[Any]:
    """Run `python -m module --child path` and kill it; yields what it reported through its standard output.

    The first report says that the log is open; the clock runs from there.
    """
    command = [sys.executable, "-m", module, "--child", str(path), "--seed", str(seed), *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "WALSVC_DISK": disk})
    assert process.stdout is not None
    data = process.stdout.read(report.size)
    os.set_blocking(process.stdout.fileno(), False)
    deadline = time.monotonic() + random.Random(seed).random() * LIFE_SECONDS
    while time.monotonic() < deadline:
        data += process.stdout.read() or b""
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    os.set_blocking(process.stdout.fileno(), True)
    data += process.stdout.read()
    process.stdout.close()
    assert data, "the child did not even open the log"
    return report.iter_unpack(data[: len(data) // report.size * report.size])


def main(
    doc: str | None,
    child: Callable[..., Coroutine[Any, Any, None]],
    campaign: Callable[..., int],
    *,
    rounds: int,
    layouts: tuple[str, ...] = (),
) -> None:
    """The command line of a campaign: `child(path, seed)` appends until killed; `campaign(disk, rounds, seed, directory)`
    kills it so often, prints what it saw, and returns how much was wrong. Both get the layout where there is a choice."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--disk", action="append", choices=("uring", "threads"))
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--dir", help="a directory on a real disk; default: the system's temporary one")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    if layouts:
        parser.add_argument("--layout", default=layouts[0], choices=layouts)
    options = parser.parse_args()
    layout = (options.layout,) if layouts else ()
    if options.child:
        asyncio.run(child(options.child, options.seed, *layout))
        return
    bad = 0
    for disk in options.disk or ("uring", "threads"):
        with tempfile.TemporaryDirectory(dir=options.dir) as directory:
            bad += campaign(disk, options.rounds, options.seed, Path(directory), *layout)
    sys.exit(1 if bad else 0)
