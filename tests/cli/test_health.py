"""`walsvc health` against the HTTP side of a server."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import ssl
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.service.watching import Stub
from walsvc.cli.health import ask
from walsvc.errors import BadOption, Unreachable
from walsvc.service.ops.http import HttpSide

from .conftest import Cli


async def test_it_says_what_the_server_says(walsvc: Cli) -> None:
    source = Stub()
    async with HttpSide(source, port=0) as side:
        address = f"127.0.0.1:{side.port}"

        async def health(*arguments: object, environment: dict[str, str] | None = None) -> tuple[int, str, str]:
            finished = await asyncio.to_thread(walsvc, "health", *arguments, environment=environment)
            return finished.returncode, finished.stdout.decode(), finished.stderr.decode()

        assert await health(address) == (0, "live\n", "")
        environment = {"WALSVC_HTTP": f"0.0.0.0:{side.port}", "http_proxy": "http://192.0.2.1:1"}
        assert await health(environment=environment) == (0, "live\n", "")
        source.tell(ready=False, reason="stopping")
        assert await health(f"http://{address}/", "--ready") == (
            1,
            "",
            f"walsvc: http://{address}/ answers 503 to /readyz: not ready stopping\n",
        )
        assert (await health(address))[0] == 0
        code, told, complaint = await health(address, "--ready", "--json")
        expected = {"server": address, "path": "/readyz", "ok": False, "status": 503, "error": None}
        assert (code, json.loads(told), complaint) == (1, {**expected, "answer": ["not ready", "stopping"]}, "")
        code, told, _ = await health(address, "--json")
        assert (code, json.loads(told)["ok"], json.loads(told)["answer"]) == (0, True, ["live"])


def test_nobody_there(walsvc: Cli) -> None:
    port = free_port()
    assert "WALSVC_HTTP" in walsvc.bad(1, "health", f"127.0.0.1:{port}")
    nobody = walsvc("health", f"127.0.0.1:{port}", "--json")
    told = json.loads(nobody.stdout)
    assert (nobody.returncode, told["ok"], told["status"], told["answer"]) == (1, False, None, [])
    assert "does not answer" in told["error"]
    assert "no address" in walsvc.bad(2, "health", "off")


def test_a_server_that_never_answers_ends_the_wait() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(Unreachable, match="does not answer: timed out"),
    ):
        ask(f"127.0.0.1:{silent.getsockname()[1]}", "/livez", 0.05)


async def test_something_else_listens() -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as other:
        port = other.sockets[0].getsockname()[1]
        with pytest.raises(Unreachable, match=r"does not (speak HTTP|answer)"):
            await asyncio.to_thread(ask, f"127.0.0.1:{port}", "/livez", 10)


def test_tls_to_itself_is_not_verified_and_to_others_is(monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []

    class Connection:
        def __init__(self, host: str, port: int, *, timeout: float, context: ssl.SSLContext) -> None:
            modes.append((host, context.verify_mode))
            raise OSError("not today")

    monkeypatch.setattr("http.client.HTTPSConnection", Connection)
    for host in ("127.0.0.1", "0.0.0.0", "[::]", "walsvc.example"):
        with pytest.raises(OSError, match="not today"):
            ask(f"https://{host}:1", "/livez", 1)
    assert modes == [
        ("127.0.0.1", ssl.CERT_NONE),
        ("127.0.0.1", ssl.CERT_NONE),
        ("::1", ssl.CERT_NONE),
        ("walsvc.example", ssl.CERT_REQUIRED),
    ]


def test_bad_addresses() -> None:
    with pytest.raises(BadOption):
        ask("unix:///run/walsvc.sock", "/livez", 1)


def test_a_server_from_start_to_sigterm(walsvc: Cli, tmp_path: Path) -> None:
    server = walsvc.start("serve", "--data", tmp_path / "log", "--unix", tmp_path / "s", "--http", "127.0.0.1:0")
    assert server.stderr is not None
    assert server.stdout is not None
    assert server.stdout.readline().startswith(b"listening on unix://")
    said = next(line for line in server.stderr if b"status page on" in line)
    url = said.decode().split()[-1]
    assert walsvc.good("health", url, "--ready") == b"ready\n"
    server.send_signal(signal.SIGTERM)
    assert server.wait(120) == 0
    assert "does not answer" in walsvc.bad(1, "health", url)
