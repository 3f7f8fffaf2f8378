"""`walsvc serve --dev`: the first minute."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

import walsvc
from tests.forked import ROOT
from walsvc.cli import dev, exits

COMMAND = [sys.executable, "-m", "walsvc.cli"]


def test_one_line_starts_everything_and_what_it_says_can_be_typed(tmp_path):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WALSVC_")}
    environment = {**clean, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        [*COMMAND, "serve", "--dev"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stdout is not None
        lines = []
        while not lines or not lines[-1].startswith("Watch:"):
            lines.append(process.stdout.readline())
            assert lines[-1], process.stderr.read()
        text = "".join(lines)
        [directory] = re.findall(r"in (\S+), for this machine only", text)
        assert directory.startswith(str(tmp_path))
        [url] = re.findall(r"curl -d hello (\S+)", text)
        with urllib.request.urlopen(urllib.request.Request(url, b"hello")) as answer:
            assert answer.status == 201
        [target, topic] = re.findall(r"walsvc append (\S+) --topic (\S+)", text)[0]
        subprocess.run([*COMMAND, "append", target, "--topic", topic], input=b"again", check=True, env=environment)
        if port := re.findall(r"redis-cli -p (\d+) XADD", text):
            with socket.create_connection(("127.0.0.1", int(port[0]))) as redis:
                redis.sendall(b"XADD greetings * payload hello\r\n")
                assert b"3-0" in redis.recv(100)
        with urllib.request.urlopen(url) as answer:
            assert answer.read().count(b"\n") >= 2
        [page] = re.findall(r"Watch: (\S+)", text)
        with urllib.request.urlopen(page) as answer:
            assert b"<title>walsvc</title>" in answer.read()
    finally:
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=120)
    assert (process.returncode, complaints) == (0, "")
    assert (tmp_path / directory).exists()


def test_what_is_given_counts_and_a_port_that_is_taken_is_not():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert dev.free(port) != port
    chosen = dev.settings({"data": "d", "http": "off", "http_api": False, "listen": "127.0.0.1:1"})
    here = os.path.abspath("d")
    assert (chosen["data"], chosen["unix"], chosen["http"]) == (here, f"{here}/walsvc.sock", "off")
    assert (chosen["listen"], chosen["http_api"]) == ("127.0.0.1:1", False)


@pytest.mark.parametrize(
    ("number", "kind", "code", "said"),
    [
        (errno.ENOSPC, walsvc.NoSpace, exits.NO_SPACE, "free some space, or give --data DIR, or set TMPDIR"),
        (errno.EDQUOT, walsvc.NoSpace, exits.NO_SPACE, "free some space, or give --data DIR, or set TMPDIR"),
        (errno.ENOENT, walsvc.PathError, exits.PATH, "give --data DIR, or set TMPDIR"),
        (errno.EACCES, walsvc.PathError, exits.PATH, "give --data DIR, or set TMPDIR"),
        (errno.EROFS, walsvc.PathError, exits.PATH, "give --data DIR, or set TMPDIR"),
    ],
)
def test_no_directory_for_a_log_is_said_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, number: int, kind: type[walsvc.WalError], code: int, said: str
) -> None:
    def full(**_: object) -> str:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("tempfile.mkdtemp", full)
    monkeypatch.setenv("TMPDIR", "/there")
    with pytest.raises(kind, match="no directory can be made for a log") as caught:
        dev.settings({})
    assert (caught.value.path, caught.value.errno, caught.value.hint) == ("/there", number, said)
    assert exits.code_of(caught.value) == code
    assert dev.settings({"data": "given"})["data"] == os.path.abspath("given"), "what is given needs no other directory"
