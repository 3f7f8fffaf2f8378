"""What a measurement ran on, and where its results go: JSON lines, each complete in itself."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from statistics import median
from typing import Any, NamedTuple, Self

import walsvc
from walsvc.bench import machine
from walsvc.disk.doctor import MEMORY_FILE_SYSTEMS, mount_of

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # the repository


class Spread(NamedTuple):
    """Several measurements of the same thing: median, least and greatest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Of at least one value."""
        known = list(values)
        return cls(median(known), min(known), max(known))

    @classmethod
    def over(cls, ours: Iterable[float], theirs: Iterable[float]) -> Spread:
        """Of ratios: each of ours over that of theirs which was measured beside it."""
        return cls.of(a / b for a, b in zip(ours, theirs, strict=True))

    def __format__(self, spec: str) -> str:
        return f"{self.median:{spec}} ({self.low:{spec}} to {self.high:{spec}})"


@dataclass(frozen=True, slots=True)
class Environment:
    """Where a run happens.

    Attributes:
        run: a name for the run, its time in UTC.
        commit: of the sources, with "+" when they differ from it; None outside a checkout.
        file_system, device: of the directory measured.
        memory_backed: the file system lives in memory; nothing measured there is durable.
        loop: "asyncio" or "uvloop".
        machine: kernel, processor, Python.
    """

    run: str
    walsvc: str
    commit: str | None
    file_system: str
    device: str
    memory_backed: bool
    loop: str
    machine: Mapping[str, str | int]

    @classmethod
    def of(cls, path: str) -> Environment:
        """For a run below `path` on the running loop. Calls git; blocks for some milliseconds."""
        file_system, device = mount_of(path)
        return cls(
            run=time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()),
            walsvc=walsvc.__version__,
            commit=commit(),
            file_system=file_system,
            device=device,
            memory_backed=file_system in MEMORY_FILE_SYSTEMS,
            loop=loop_name(),
            machine=machine.describe(),
        )

    def warning(self) -> str | None:
        """What must be said before any figure from here is believed."""
        if not self.memory_backed:
            return None
        return f"NOT DURABLE: the file system ({self.file_system}) lives in memory; nothing here says anything about a disk."


def commit() -> str | None:
    """The commit that the measured sources come from; None where git does not know."""
    place = os.path.dirname(os.path.abspath(walsvc.__file__))
    try:
        found = [
            subprocess.run(["git", "-C", place, *words], capture_output=True, text=True, check=True, timeout=10).stdout
            for words in (("rev-parse", "--short=12", "HEAD"), ("status", "--porcelain", "--", "."))
        ]
    except (OSError, subprocess.SubprocessError):
        return None
    return found[0].strip() + ("+" if found[1].strip() else "")


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """For `Environment.loop`, in another process."""
    made: Callable[[], asyncio.AbstractEventLoop] = import_module(name).new_event_loop
    return made


def loop_name() -> str:
    """The running loop's: asyncio or uvloop."""
    return type(asyncio.get_running_loop()).__module__.partition(".")[0]


@dataclass(frozen=True, slots=True)
class Argument:
    """A value that a program of these tools takes as the one argument of its command line."""

    def as_argument(self) -> str:
        """For the command line."""
        return json.dumps(asdict(self))

    @classmethod
    def given(cls) -> Self:
        """From the command line of this process."""
        return cls(**json.loads(sys.argv[1]))


async def in_own_process(module: str, *arguments: str) -> bytes:
    """What `python -m MODULE` prints, a module of these tools; paths among the arguments must be absolute."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *arguments, stdout=asyncio.subprocess.PIPE, cwd=TOP
    )
    answer, _ = await child.communicate()
    if child.returncode:
        raise OSError(f"the measuring process {module} ended with {child.returncode}")
    return answer


class Results:
    """A file of JSON lines below a directory, one for each thing measured in a run."""

    def __init__(self, directory: str, kind: str, environment: Environment) -> None:
        os.makedirs(directory, exist_ok=True)
        self.path = os.path.join(directory, f"{kind}-{environment.run}.jsonl")
        self._common = {"kind": kind, "durable": not environment.memory_backed, "environment": as_dict(environment)}

    def add(self, **values: Any) -> None:
        """Append one line; written at once, so that an interrupted run keeps what it has."""
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({**self._common, **values}, ensure_ascii=False) + "\n")


def as_dict(environment: Environment) -> dict[str, Any]:
    """For JSON."""
    return {name: getattr(environment, name) for name in Environment.__slots__}


def load_results(directory: str, kind: str) -> list[dict[str, Any]]:
    """The lines of the newest file of that kind; empty when there is none."""
    try:
        named = re.compile(re.escape(kind) + r"-[^-]+\.jsonl")  # "compare" is not "compare-service"
        names = sorted(filter(named.fullmatch, os.listdir(directory)))
    except FileNotFoundError:
        return []
    if not names:
        return []
    with open(os.path.join(directory, names[-1]), encoding="utf-8") as file:
        return [json.loads(line) for line in file]
