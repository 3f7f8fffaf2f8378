"""Who may ask the HTTP side, and what happens to those who may not, say nothing, or talk nonsense."""

from __future__ import annotations

import base64
import contextlib
import errno
import socket
import ssl
from contextlib import AsyncExitStack

import aiohttp
import pytest

from tests.service.watching import Stub, connected, get, serving
from walsvc import BadOption, PathError
from walsvc.service.ops import few
from walsvc.service.ops.http import HttpSide, is_local_name
from walsvc.targets import host_and_port, is_loopback

TOKEN = "correct horse"


async def test_a_token_is_asked_for_but_not_by_probes(tmp_path):
    async with serving(Stub(), permits=TOKEN.__eq__) as session:
        for path in ("/", "/status", "/metrics"):
            async with session.get(path) as answer:
                assert answer.status == 401
                assert answer.headers["WWW-Authenticate"].startswith("Basic ")
            for wrong in ("Bearer wrong", "Bearer", "Basic !!!", "Basic", "Basic /w==", "Basic é", f"Digest {TOKEN}"):
                assert (await get(session, path, headers={"Authorization": wrong}))[0] == 401, wrong
            assert (await get(session, path, headers={"Authorization": f"Bearer {TOKEN}"}))[0] == 200
            headers = {"Authorization": "Basic " + base64.b64encode(f"anybody:{TOKEN}".encode()).decode()}
            assert (await get(session, path, headers=headers))[0] == 200
        for path in ("/livez", "/healthz", "/readyz"):
            assert (await get(session, path))[0] == 200


async def test_another_sites_name_for_this_machine_is_not_answered():
    async with serving(Stub()) as session:
        for name, code in (("evil.example", 421), ("evil.example:80", 421), ("localhost:9", 200), ("[::1]:9", 200)):
            assert (await get(session, "/status", headers={"Host": name}))[0] == code
        assert (await get(session, "/livez", headers={"Host": "evil.example"}))[0] == 200


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("", True),
        ("localhost", True),
        ("127.0.0.1", True),
        ("[::1]", True),
        ("10.1.2.3:80", True),
        ("walsvc:80", False),
    ],
)
def test_names_that_are_addresses(host, local):
    assert is_local_name(host) is local


async def test_other_paths_and_methods_are_refused_and_headers_are_strict():
    async with serving(Stub()) as session:
        assert (await get(session, "/../etc/passwd"))[0] == 404
        assert (await get(session, "/status/"))[0] == 404
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            async with session.request(method, "/status", data=b"x") as answer:
                assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")
        async with session.head("/status") as answer:
            assert (answer.status, await answer.read()) == (200, b"")
        for path in ("/", "/status", "/metrics", "/livez", "/nothing"):
            async with session.get(path) as answer:
                assert answer.headers["Cache-Control"] == "no-store"
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                policy = answer.headers["Content-Security-Policy"]
                assert "default-src 'none'" in policy
                assert "unsafe" not in policy


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"permits": TOKEN.__eq__},
        {"tls": ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)},
    ],
)
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", ""])
def test_beyond_loopback_it_wants_tls_and_a_token(host, options):
    with pytest.raises(BadOption, match="without"):
        HttpSide(Stub(), host, **options)


async def test_beyond_loopback_insecure_answers_to_any_name():
    async with HttpSide(Stub(), "0.0.0.0", 0, insecure=True) as side, aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{side.port}/status"
        assert (await get(session, url, headers={"Host": "walsvc.example"}))[0] == 200


async def test_a_port_that_is_taken_names_the_way_out():
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(PathError, match="cannot listen on") as caught:
        await HttpSide(Stub(), port=taken.getsockname()[1]).start()
    assert caught.value.errno == errno.EADDRINUSE
    assert "--http" in str(caught.value)


async def test_silent_connections_are_cut_off_and_talking_ones_are_not(monkeypatch):
    looks = []
    monkeypatch.setattr(few.FewConnections, "_look_later", lambda _, *what: looks.append(what))
    async with HttpSide(Stub(), port=0) as side:
        server = side._server
        async with connected(side.port) as (silent, out), aiohttp.ClientSession(side.url) as session:
            out.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n")  # never ends its headers
            assert (await get(session, "/livez"))[0] == 200
            assert len(looks) == 2
            for what in list(looks):
                server.look(*what)
            with contextlib.suppress(ConnectionError):
                assert await silent.read() == b""
            assert (await get(session, "/livez"))[0] == 200
            assert len(looks) == 3, "the talking one is looked at again; no third connection was made"


async def answered(streams):
    """Each connection gets an answer to a request of its own."""
    for reader, writer in streams:
        writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await reader.readuntil(b"\r\n")).endswith(b"200 OK\r\n")
        await reader.readuntil(b"live\n")


async def test_connections_are_few(monkeypatch):
    monkeypatch.setattr(few, "CONNECTIONS_MAX", 3)
    async with HttpSide(Stub(), port=0) as side, AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(connected(side.port)) for _ in range(3)]
        await answered(streams)
        reader, _ = await stack.enter_async_context(connected(side.port))
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        await answered(streams)


async def test_nonsense_is_answered_or_cut_off_and_harms_nobody():
    async with serving(Stub()) as session:
        for nonsense in (b"\x16\x03\x01\x02\x00\x01\x00", b"\xff" * 100, b"GET / HTTP/9.9\r\n\r\n", b"A" * 20000):
            async with connected(session._base_url.port) as (reader, writer):
                writer.write(nonsense)
                writer.write_eof()
                answer = await reader.read()
                assert answer == b"" or answer.startswith(b"HTTP/1."), answer
        assert (await get(session, "/livez"))[0] == 200


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("127.0.0.1:7421", ("127.0.0.1", 7421)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:65535", ("::1", 65535)),
        ("0.0.0.0:80", ("0.0.0.0", 80)),
    ],
)
def test_addresses(text, found):
    assert host_and_port(text) == found


@pytest.mark.parametrize(
    "text", ["", ":", ":80", "host", "host:", "host:65536", "::1:80", "[::1]", "h:-1", "h:٣", "[h]:1", "h:1x"]
)
def test_what_is_no_address(text):
    with pytest.raises(BadOption, match="no address"):
        host_and_port(text)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("LOCALHOST", True),
        ("0.0.0.0", False),
        ("::", False),
        ("localhost.example.org", False),
        ("", False),
    ],
)
def test_loopback(host, loopback):
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    "line", [b"Authorization\xff: Bearer secretsecretsecret", b"Content-Length: -1", b"X: " + b"y" * 9000, b"\x00\x01"]
)
async def test_what_is_no_http_is_refused_and_not_repeated_in_the_log(line, caplog):
    async with HttpSide(Stub(), port=0) as side, connected(side.port) as (reader, writer):
        writer.write(b"GET /livez HTTP/1.1\r\n" + line + b"\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.0 400")
        await reader.read()
    assert caplog.records == []
