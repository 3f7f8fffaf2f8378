"""P12: CPU time of one durable append beside the first version, which is taken out of the repository and built for the occasion."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncGenerator

from bench import targets
from bench.environment import TOP, loop_name
from bench.plan import Plan
from bench.targets import Point, Verdict
from walsvc.config import WalConfig

COMMIT = "96f01b90bd8bf9a63ae9cf2fbc8832a16795b648"
PROGRAM = os.path.join(TOP, "bench", "cpu.py")
TARGETS = {1: targets.P12A, 64: targets.P12B, 1024: targets.P12C}


def take_out(place: str) -> str:
    """Put the first version below `place`, built. OSError or SubprocessError where that cannot be."""
    tree = os.path.join(place, "first")
    os.mkdir(tree)
    archive = subprocess.run(["git", "-C", TOP, "archive", COMMIT], capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", tree], input=archive, check=True)
    build = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    subprocess.run(build, cwd=tree, capture_output=True, check=True)
    return tree


async def cpu_us(tree: str, place: str, config: WalConfig, tasks: int, seconds: float) -> float:
    """Microseconds of CPU for one append by the walsvc in `tree`."""
    path = os.path.join(place, "log")
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *(PROGRAM, path, config.disk, loop_name(), str(tasks), str(seconds)),
        env={**os.environ, "PYTHONPATH": tree},
        cwd=place,
        stdout=asyncio.subprocess.PIPE,
    )
    answer, _ = await child.communicate()
    await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)
    if child.returncode:
        raise OSError(f"{PROGRAM} ended with {child.returncode} on the walsvc in {tree}")
    return float(answer)


async def cpu(place: str, plan: Plan, config: WalConfig) -> AsyncGenerator[str | Verdict, None]:
    """P12: both versions in turns, each time in a process of its own."""
    verdicts = {tasks: Verdict(target) for tasks, target in TARGETS.items()}
    yield "P12, building the first version"
    try:
        tree = await asyncio.to_thread(take_out, place)
    except (OSError, subprocess.SubprocessError) as error:
        for verdict in verdicts.values():
            verdict.note = f"the first version is not to be had here: {error}"
    else:
        for number in range(plan.rounds):
            for tasks, verdict in verdicts.items():
                yield f"P12, {tasks} tasks, round {number + 1} of {plan.rounds}"
                first, ours = [await cpu_us(each, place, config, tasks, plan.seconds) for each in (tree, TOP)]
                verdict.points.append(Point(ours, first))
    for verdict in verdicts.values():
        yield verdict
