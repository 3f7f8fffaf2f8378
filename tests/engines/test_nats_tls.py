"""TLS to NATS by a private authority, with client certificates: said in the address, as options, on the command line."""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

import walsvc
from tests.engines.cluster import WHY_NO_SERVER, Cluster
from tests.forked import run_walsvc
from tests.service.certificates import certificates
from walsvc import BadOption, PathError
from walsvc.engines.jetstream.connect import connect
from walsvc.engines.jetstream.options import JetStreamOptions, parse_url
from walsvc.targets import option_text

ADDRESS = parse_url("nats://127.0.0.1:1/stream")
ALONE = {"allow_unsynced": True, "replicas": 1}


class Encrypted(Cluster):
    """One server that speaks only TLS, to clients with a certificate by the test's authority."""

    def __init__(self) -> None:
        super().__init__(sync_always=(True,))

    def _configure(self, node: int) -> str:
        files = certificates()
        tls = f'tls {{ cert_file: "{files.server_cert}", key_file: "{files.server_key}", ca_file: "{files.ca}", verify: true }}'
        return f"{super()._configure(node)}\n{tls}\n"

    def query(self, stream: str, **options: Any) -> str:
        """The address of a log with options."""
        text = "&".join(f"{name}={option_text(value)}" for name, value in options.items())
        return f"{self.url(stream)}?{text}&monitor={option_text(self.monitor[0])}"


@pytest.fixture(scope="module")
def encrypted() -> Iterator[Encrypted]:
    """One for all tests here."""
    if WHY_NO_SERVER:
        pytest.skip(WHY_NO_SERVER)
    cluster = Encrypted()
    cluster.start()
    yield cluster
    cluster.stop()


@pytest.fixture
def identity() -> dict[str, str]:
    """The options of a client that the server takes."""
    files = certificates()
    return {"ca": files.ca, "cert": files.client_cert, "key": files.client_key}


async def appended(url: str, **options: Any) -> int:
    """The LSN of a record appended to the log at `url`."""
    async with walsvc.open(url, **options) as log:
        return int((await log.append(b"over TLS")).lsn)


async def test_options_address_and_environment_say_the_same(encrypted, identity, monkeypatch):
    stream = encrypted.new_stream()
    in_address = encrypted.query(stream, **identity, allow_unsynced="true", replicas=1)
    assert await appended(in_address) == 1
    assert await appended(in_address.replace("nats://", "tls://")) == 2
    assert await appended(encrypted.url(stream), **identity, **ALONE, monitor=encrypted.monitor) == 3
    context = ssl.create_default_context(cafile=identity["ca"])
    context.load_cert_chain(identity["cert"], identity["key"])
    assert await appended(encrypted.url(stream), tls=context, **ALONE) == 4
    for name, value in identity.items():
        monkeypatch.setenv(f"WALSVC_{name.upper()}", value)
    assert await appended(encrypted.url(stream), **ALONE) == 5
    with pytest.raises(PathError, match="not to be trusted"):
        await walsvc.open(encrypted.url(stream), server_name="other.example", **ALONE)
    monkeypatch.setenv("WALSVC_SERVER_NAME", "localhost")
    assert await appended(encrypted.url(stream), **ALONE) == 6


async def test_server_that_cannot_be_trusted_is_refused_at_once(encrypted):
    with pytest.raises(PathError, match="not to be trusted") as caught:
        await walsvc.open(encrypted.url(encrypted.new_stream()), **ALONE)
    assert "ca=" in caught.value.hint


async def test_verbs_take_the_options_and_a_replica_is_restored(encrypted, identity, tmp_path):
    stream = encrypted.new_stream()
    url = encrypted.query(stream, allow_unsynced=1, replicas=1)
    given = [text for name, value in identity.items() for text in (f"--{name}", value)]
    replicate = encrypted.query(stream, **identity, allow_unsynced=1, replicas=1)
    async with walsvc.open(tmp_path / "log", replicate=replicate) as log:
        await log.append(b"one\n", mode=walsvc.Quorum)

    def run(*arguments: str) -> tuple[int, bytes]:
        ended = run_walsvc(*arguments, *given)
        return ended.returncode, ended.stderr + ended.stdout

    assert await asyncio.to_thread(run, "cat", url) == (0, b"one\n\n")
    assert (await asyncio.to_thread(run, "restore", url, str(tmp_path / "back")))[0] == 0
    assert (await asyncio.to_thread(run, "restore", str(tmp_path / "log"), str(tmp_path / "other")))[0] == 2
    async with walsvc.open(tmp_path / "back", read_only=True) as back:
        assert [each.payload async for each in back.read()] == [b"one\n"]
    checked = ("serve", "--check", "--data", str(tmp_path / "log"), "--unix", str(tmp_path / "s"), "--replicate", url)
    code, told = await asyncio.to_thread(run, *checked)
    assert (code, told.count(option_text(identity["ca"]).encode())) == (0, 1), told


@pytest.mark.parametrize("asked", [{"scheme": "tls"}, {"server_name": "h"}, {"tls": ssl.create_default_context()}])
async def test_server_without_tls_hears_nothing(asked):
    heard: list[bytes] = []

    async def pretend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","max_payload":1048576,"tls_required":false}\r\n')
        heard.append(await reader.read(1000))
        writer.close()

    async with await asyncio.start_server(pretend, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        asked = dict(asked)
        url = f"{asked.pop('scheme', 'nats')}://user:hunter2@127.0.0.1:{port}/stream"
        with pytest.raises(PathError, match="offers no TLS") as caught:
            await walsvc.open(url, **asked, **ALONE)
    assert set(heard) == {b""}
    assert "hunter2" not in str(caught.value)


FILES = [
    ({"key": "k.pem"}, BadOption),
    ({"ca": 7}, BadOption),
    ({"ca": ""}, BadOption),
    ({"ca": "a\0b"}, BadOption),
    ({"server_name": "a b"}, BadOption),
    ({"ca": "/none/ca.pem"}, PathError),
    ({"ca": __file__}, PathError),
    ({"cert": "/none/cert.pem"}, PathError),
    ({"cert": certificates().client_cert, "key": "/none/key.pem"}, PathError),
    ({"cert": certificates().client_cert, "key": certificates().server_key}, PathError),
]
OTHERS = [
    {"tls": "ca.pem"},
    {"tls": True},
    {"credentials": b"x"},
    {"token": 7},
    {"monitor": 7},
    {"monitor": ["http://["]},
]


@pytest.mark.parametrize("url", ["nats://127.0.0.1:1/stream", "wals://127.0.0.1:1"])
@pytest.mark.parametrize(("options", "error"), FILES)
async def test_wrong_options_are_told_with_the_file(url, options, error):
    with pytest.raises(error) as caught:
        await walsvc.open(url, **options)
    if error is PathError:
        assert caught.value.path in options.values()


@pytest.mark.parametrize("options", [*OTHERS, {"tls": ssl.create_default_context(), "ca": "ca.pem"}])
def test_wrong_options_of_the_engine_are_refused_at_once(options):
    with pytest.raises(BadOption):
        walsvc.open("nats://127.0.0.1:1/stream", **options)


@pytest.mark.parametrize("option", ["credentials", "system_credentials"])
async def test_credentials_that_cannot_be_used_are_told_at_once(tmp_path, monkeypatch, option):
    monkeypatch.setitem(sys.modules, "nkeys", None)
    (tmp_path / "junk").write_bytes(bytes(range(256)))
    with pytest.raises(BadOption, match="nkeys"):
        await connect(ADDRESS, JetStreamOptions(**{option: "none"}), user_credentials="none")
    monkeypatch.setitem(sys.modules, "nkeys", ModuleType("nkeys"))
    for name in ("none", "junk", "."):
        path = str(tmp_path / name)
        with pytest.raises(PathError, match="credentials") as caught:
            await connect(ADDRESS, JetStreamOptions(**{option: path}), user_credentials=path)
        assert caught.value.path == path
