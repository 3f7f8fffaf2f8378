"""Ctrl-C, SIGTERM and SIGPIPE: quiet, and nothing acknowledged is lost."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import pytest

from tests.forked import ROOT
from walsvc.cli import exits

from .conftest import COMMAND, Cli


def test_cat_into_head_ends_quietly(walsvc_on_both_loops: Cli, tmp_path: Path) -> None:
    walsvc = walsvc_on_both_loops
    walsvc.good("append", tmp_path / "log", "-q", stdin=b"a line of some length\n" * 50_000)  # more than a pipe holds
    cat = walsvc.start("cat", tmp_path / "log")
    head = subprocess.run(["head", "-n", "1"], stdin=cat.stdout, capture_output=True, check=True, timeout=120)
    assert cat.stdout is not None
    assert cat.stderr is not None
    cat.stdout.close()
    assert head.stdout == b"a line of some length\n"
    assert cat.wait(timeout=120) == exits.BROKEN_PIPE
    assert cat.stderr.read() == b""


def to_nobody(walsvc: Cli, *arguments: object) -> tuple[int, bytes]:
    """Exit code and error output of a command whose output goes into a pipe without a reader."""
    reader, writer = os.pipe()
    os.close(reader)
    process = walsvc.start(*arguments, stdout=writer)
    os.close(writer)
    _, error = process.communicate(timeout=120)
    return process.returncode, error


@pytest.mark.parametrize("verb", [["inspect"], ["inspect", "--groups"], ["verify"], ["tail"]])
def test_a_reader_that_is_gone_from_the_start_is_no_noise(walsvc: Cli, log: Path, verb: list[str]) -> None:
    assert to_nobody(walsvc, verb[0], log, *verb[1:]) == (exits.BROKEN_PIPE, b"")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["version", "--json"], ["doctor"]])
def test_short_answers_to_nobody_are_no_noise(walsvc: Cli, arguments: list[str]) -> None:
    assert to_nobody(walsvc, *arguments) == (exits.BROKEN_PIPE, b"")


def test_ctrl_c_ends_cat_although_nobody_empties_the_pipe(walsvc_on_both_loops: Cli, tmp_path: Path) -> None:
    walsvc = walsvc_on_both_loops
    walsvc.good("append", tmp_path / "log", "-q", stdin=b"a line of some length\n" * 50_000)
    cat = walsvc.start("cat", tmp_path / "log")
    assert cat.stdout is not None
    assert cat.stderr is not None
    assert cat.stdout.read(1) == b"a"  # it has begun, and will soon be stuck
    cat.send_signal(signal.SIGINT)
    assert cat.wait(timeout=120) == exits.INTERRUPTED
    assert cat.stderr.read() == b""


@pytest.mark.parametrize("verb", [["cat"], ["inspect"], ["verify"], ["version"], ["append"]])
def test_a_full_device_under_the_output_is_one_line(walsvc: Cli, log: Path, verb: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        process = walsvc.start(verb[0], *([] if verb == ["version"] else [log]), stdout=full.fileno())
        _, error = process.communicate(b"x\n", timeout=120)
    assert process.returncode == exits.OTHER  # not the log's NO_SPACE: that has room
    assert error.startswith(b"walsvc: cannot write to standard output: ")
    assert error.count(b"\n") == 1


def test_closed_standard_streams_do_no_harm(walsvc: Cli, tmp_path: Path) -> None:
    command = [*COMMAND, "append", str(tmp_path / "log")]
    subprocess.run(["sh", "-c", '"$@" >&- 2>&-', "sh", *command], input=b"a\nb\n", check=True, timeout=120, cwd=ROOT)
    subprocess.run(["sh", "-c", '"$@" <&-', "sh", *command], check=True, timeout=120, cwd=ROOT)
    assert walsvc.good("cat", tmp_path / "log") == b"a\nb\n"


def test_tail_notices_that_its_reader_left_while_nothing_comes(walsvc_on_both_loops: Cli, log: Path) -> None:
    tail = walsvc_on_both_loops.start("tail", log, "-f", "-n", 1)
    assert tail.stdout is not None
    assert tail.stderr is not None
    assert tail.stdout.readline() == b"record 100\n"
    tail.stdout.close()
    assert tail.wait(timeout=120) == exits.BROKEN_PIPE
    assert tail.stderr.read() == b""


def test_ctrl_c_ends_tail_quietly(walsvc_on_both_loops: Cli, log: Path) -> None:
    tail = walsvc_on_both_loops.start("tail", log, "-f", "-n", 1)
    assert tail.stdout is not None
    assert tail.stderr is not None
    assert tail.stdout.readline() == b"record 100\n"
    tail.send_signal(signal.SIGINT)
    assert tail.wait(timeout=120) == exits.INTERRUPTED
    assert tail.stderr.read() == b""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("batch", [1, 7])
def test_interrupted_append_has_everything_it_printed(
    walsvc_on_both_loops: Cli, tmp_path: Path, number: signal.Signals, batch: int
) -> None:
    walsvc = walsvc_on_both_loops
    append = walsvc.start("append", tmp_path / "log", "--batch", batch)
    assert append.stdin is not None
    assert append.stdout is not None
    assert append.stderr is not None

    def feed() -> None:
        assert append.stdin is not None
        try:
            line = 0
            while True:
                line += 1
                append.stdin.write(b"line %d\n" % line)
        except (BrokenPipeError, ValueError):
            pass

    feeding = threading.Thread(target=feed)
    feeding.start()
    printed = [append.stdout.readline() for _ in range(5000)]
    append.send_signal(number)
    printed += append.stdout.readlines()
    code = append.wait(timeout=120)
    feeding.join(timeout=120)
    assert code == (exits.INTERRUPTED if number == signal.SIGINT else exits.TERMINATED)
    assert append.stderr.read() == b""
    assert printed == [b"%d\n" % lsn for lsn in range(1, len(printed) + 1)]
    stored = walsvc.good("cat", tmp_path / "log").splitlines()
    assert stored == [b"line %d" % line for line in range(1, len(stored) + 1)]
    assert len(stored) == len(printed)  # it waited for what was under way, and printed that, too


def test_ctrl_c_while_waiting_for_input_ends_at_once(walsvc_on_both_loops: Cli, tmp_path: Path) -> None:
    append = walsvc_on_both_loops.start("append", tmp_path / "log")
    assert append.stdin is not None
    assert append.stdout is not None
    append.stdin.write(b"a\n")
    append.stdin.flush()
    assert append.stdout.readline() == b"1\n"
    append.send_signal(signal.SIGINT)
    assert append.wait(timeout=120) == exits.INTERRUPTED  # and not only after the next line of input


def test_append_whose_reader_left_keeps_what_it_acknowledged(walsvc_on_both_loops: Cli, tmp_path: Path) -> None:
    walsvc = walsvc_on_both_loops
    append = walsvc.start("append", tmp_path / "log")
    assert append.stdin is not None
    assert append.stdout is not None
    assert append.stderr is not None
    append.stdin.write(b"1\n2\n")
    append.stdin.flush()
    assert [append.stdout.readline(), append.stdout.readline()] == [b"1\n", b"2\n"]
    append.stdout.close()
    with pytest.raises(BrokenPipeError):
        append.stdin.writelines(itertools.repeat(b"more\n" * 20_000))
    assert append.wait(timeout=120) == exits.BROKEN_PIPE
    assert append.stderr.read() == b""
    assert walsvc.good("cat", tmp_path / "log").startswith(b"1\n2\n")


def test_killed_append_has_everything_it_printed(walsvc: Cli, tmp_path: Path) -> None:
    append = walsvc.start("append", tmp_path / "log")
    assert append.stdin is not None
    assert append.stdout is not None
    append.stdin.write(b"".join(b"line %d\n" % n for n in range(1, 2001)))
    append.stdin.flush()
    printed = [append.stdout.readline() for _ in range(1000)]
    append.kill()
    printed += [line for line in append.stdout.readlines() if line.endswith(b"\n")]
    append.wait(timeout=120)
    stored = walsvc.good("cat", tmp_path / "log").splitlines()
    assert len(stored) >= len(printed)
    assert stored == [b"line %d" % n for n in range(1, len(stored) + 1)]


INTERRUPTED_IMPORT = """
import os, runpy, signal, sys

class Hook:
    def find_spec(self, name, *_):
        if name == "typer":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Hook())
sys.argv = ["walsvc", "version"]
"""
SCRIPT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["walsvc"].split(":")


@pytest.mark.parametrize(
    "start",
    [
        "runpy.run_module('walsvc', run_name='__main__')",
        "runpy.run_module('walsvc.cli', run_name='__main__')",
        f"from {SCRIPT[0]} import {SCRIPT[1]}; {SCRIPT[1]}()",
    ],
)
def test_ctrl_c_during_the_imports_is_quiet(start: str) -> None:
    command = [sys.executable, "-c", f"{INTERRUPTED_IMPORT}\n{start}"]
    finished = subprocess.run(command, capture_output=True, cwd=ROOT, timeout=120, check=False)
    assert (finished.returncode, finished.stdout, finished.stderr) == (exits.INTERRUPTED, b"", b"")


# The signal comes to a thread beside the main one, which sleeps in the loop: as if it had come right before it fell asleep
IN_ANOTHER_THREAD = """
import asyncio, signal, sys, threading
from walsvc.cli import interrupt, runner

interrupt.replace(signal.default_int_handler, interrupt.end)
asleep, arrived = threading.Event(), threading.Event()

def beside():
    asleep.wait()
    signal.raise_signal(signal.SIGINT)

async def verb():
    threading.Thread(target=beside, daemon=True).start()
    asyncio.get_running_loop().call_soon(asleep.set)
    await asyncio.get_running_loop().create_future()

runner.run(verb, loop=sys.argv[1], only_reads=sys.argv[2] == "reads")
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("kind", ["reads", "writes"])
def test_ctrl_c_wakes_a_loop_that_sleeps(loop: str, kind: str) -> None:
    command = [sys.executable, "-c", f"import sys\ntry:\n exec({IN_ANOTHER_THREAD!r})\nexcept BaseException as end:\n"
               " sys.exit(end.exit_code)", loop, kind]  # fmt: skip
    finished = subprocess.run(command, capture_output=True, cwd=ROOT, timeout=120, check=False)
    assert (finished.returncode, finished.stdout, finished.stderr) == (exits.INTERRUPTED, b"", b"")


def test_ctrl_c_stays_ignored_where_it_was(walsvc: Cli, tmp_path: Path) -> None:
    tail = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *COMMAND, "tail", "-f", str(tmp_path / "log")]
    walsvc.good("append", tmp_path / "log", stdin=b"a\n")
    with subprocess.Popen(tail, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"a\n"
        process.send_signal(signal.SIGINT)
        walsvc.good("append", tmp_path / "log", stdin=b"b\n")
        assert process.stdout.readline() == b"b\n"
        process.kill()


def test_python_m_walsvc_is_walsvc() -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "walsvc", "--help"], capture_output=True, cwd=ROOT, timeout=120, check=True
    )
    assert finished.stdout.startswith(b"Usage: walsvc ")
