"""The pages of examples for curl and redis-cli: each command is run as it is written there, and says what is written there.

`…` stands for anything within a line. Ports are those that the server has found free, and redis-cli prints as on a terminal.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.forked import ROOT

SHIMS = {
    "walsvc": f'exec "{sys.executable}" -m walsvc.cli "$@"',
    "redis-cli": f'exec {shutil.which("redis-cli")} --no-raw "$@"',
}
END = "\x1e"


def steps(page: str) -> list[tuple[str, str]]:
    """The commands of a page, each with what it prints."""
    found: list[tuple[str, str]] = []
    for block in re.findall(r"```console\n(.*?)```", page, re.DOTALL):
        for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, printed = step.partition("\n")
            found.append((command, printed))
    return found


@contextmanager
def serving(command: str, environment: dict[str, str], place: Path) -> Iterator[dict[str, str]]:
    """The server that a page starts; gives the ports that the page names, and those that it has."""
    process = subprocess.Popen(
        command, shell=True, cwd=place, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    try:
        said = ""
        while "Watch: " not in said:
            line = process.stdout.readline()
            assert line, said
            said += line
        ports = {"7421": re.findall(r"Watch: \S+:(\d+)/", said)[0], "7422": re.findall(r"redis-cli -p (\d+)", said)[0]}
        yield ports
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.stdout.close()
        process.wait(120)


@pytest.mark.parametrize(("page", "tool"), [("http.md", "curl"), ("redis.md", "redis-cli")])
def test_each_command_of_the_page_says_what_the_page_says(tmp_path: Path, page: str, tool: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"there is no {tool}")
    for name, script in SHIMS.items():
        (tmp_path / "bin" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WALSVC_")}
    environment = {**clean, "PYTHONPATH": str(ROOT), "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    (started, _), *others = steps((ROOT / "examples" / page).read_text())
    assert len(others) > 10
    with serving(started, environment, tmp_path) as ports:
        lines = [re.sub("742[12]", lambda port: ports[port[0]], command) for command, _ in others]
        typed = "".join(f"{line}\nprintf '{END}'\n" for line in lines)
        done = subprocess.run(
            ["bash", "-e"],
            input=typed,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    for (command, expected), printed in zip(others, done.stdout.split(END), strict=False):
        pattern = ".*".join(map(re.escape, expected.rstrip("\n").split("…")))
        assert re.fullmatch(pattern, printed.rstrip("\n")), (command, printed)
    assert (done.returncode, done.stdout.count(END)) == (0, len(others)), done.stderr
