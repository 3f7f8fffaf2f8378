"""Certificates, client CAs and tokens that change while the server runs."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import ssl
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.service.certificates import Files, certificates
from tests.service.raw import Raw
from tests.service.simulated import Devices
from tests.service.test_serve_cli import running
from tests.waiting import line_with, until
from walsvc import BadOption
from walsvc.service.ops import reload
from walsvc.service.ops.reload import Reloader
from walsvc.service.ops.settings import Settings, load_settings
from walsvc.service.server.auth import EVERYBODY, Tokens
from walsvc.service.wire.frames import Ack, Goodbye, Welcome

ONE, OTHER = certificates(), certificates("another authority")
# Python text for a server that looks at its files when it is told to, and not just while they change
NO_LOOKS = "from walsvc.service.ops import reload; reload.LOOK_SECONDS = 3600.0"
OLD, NEW = "old-token-old-token", "new-token-new-token"


class Identity:
    """The files that a server is started with, and what is in them."""

    def __init__(self, place: Path) -> None:
        self.cert, self.key, self.ca, self.tokens = (str(place / name) for name in ("cert", "key", "ca", "tokens"))
        self.put(ONE, OLD)

    def put(self, files: Files, token: str) -> None:
        for source, target in ((files.server_cert, self.cert), (files.server_key, self.key), (files.ca, self.ca)):
            shutil.copy(source, f"{target}.new")
            os.replace(f"{target}.new", target)
        Path(f"{self.tokens}.new").write_text(f'[[token]]\nname = "t"\ntoken = "{token}"\n')
        os.replace(f"{self.tokens}.new", self.tokens)

    def spoil(self) -> None:
        Path(self.key).write_text("half of a key")

    @property
    def arguments(self) -> dict[str, str]:
        return {"tls_cert": self.cert, "tls_key": self.key, "tls_client_ca": self.ca, "token_file": self.tokens}


def trusting(files: Files) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=files.ca)
    context.load_cert_chain(files.client_cert, files.client_key)
    return context


async def welcomed(port: int, files: Files, token: str) -> bool:
    """Whether a client that trusts and shows certificates of one authority is let in with a token."""
    try:
        raw = Raw(*await asyncio.open_connection("127.0.0.1", port, ssl=trusting(files)))
    except (ssl.SSLError, ConnectionError):
        return False
    async with raw:
        raw.hello(token)
        return isinstance(await raw.next(), Welcome)


def settings_of(identity: Identity, place: Path) -> Settings:
    given = {"data": str(place / "d"), "listen": "127.0.0.1:0", **identity.arguments}
    return load_settings(given, environment={})


async def test_files_that_change_are_taken_by_who_comes_next(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(reload, "LOOK_SECONDS", 0.005)
    identity = Identity(tmp_path)
    server = settings_of(identity, tmp_path).server()
    server.logs_by_name._opener = Devices().open
    await server.start()
    watching = asyncio.ensure_future(Reloader(settings_of(identity, tmp_path), server, None).watch())
    try:
        assert await welcomed(server.port, ONE, OLD)
        raw = Raw(*await asyncio.open_connection("127.0.0.1", server.port, ssl=trusting(ONE)))
        raw.hello(OLD)
        await raw.expect(Welcome)
        identity.put(OTHER, NEW)
        await until(lambda: welcomed(server.port, OTHER, NEW), 0)
        assert not await welcomed(server.port, ONE, OLD)
        assert not await welcomed(server.port, OTHER, OLD), "the old token"
        raw.append(1, b"an old connection goes on")
        await raw.expect(Ack, 1)
        await raw.close()
    finally:
        watching.cancel()
        await server.stop()


async def test_files_that_are_not_good_change_nothing(tmp_path, caplog) -> None:
    identity = Identity(tmp_path)
    settings = settings_of(identity, tmp_path)
    server = settings.server()
    server.logs_by_name._opener = Devices().open
    await server.start()
    try:
        reloader = Reloader(settings, server, None)
        identity.spoil()
        await reloader.reload()
        assert await welcomed(server.port, ONE, OLD)
        identity.put(ONE, "short")
        await reloader.reload()
        assert await welcomed(server.port, ONE, OLD)
        said = [each.getMessage() for each in caplog.records if "not taken anew" in each.getMessage()]
        assert len(said) == 2
        assert "short" not in "".join(said)
        with pytest.raises(BadOption, match="cannot come or go"):
            server.renew(tls=None, tokens=Tokens([(NEW, EVERYBODY)]))
    finally:
        await server.stop()


def page(port: int, files: Files, token: str) -> int:
    """Status of the answer of the HTTP side."""
    request = urllib.request.Request(f"https://127.0.0.1:{port}/status", headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, context=ssl.create_default_context(cafile=files.ca), timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_sighup_reloads_and_ends_nothing(tmp_path) -> None:
    identity, path, http = Identity(tmp_path), tmp_path / "s", free_port()
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in identity.arguments.items()]
    everything = ("--data", str(tmp_path / "d"), "--unix", str(path), "--http", f"0.0.0.0:{http}", *arguments)
    with running(*everything, before=NO_LOOKS) as (process, _):
        assert page(http, ONE, OLD) == 200

        async def both() -> None:
            old = Raw(*await asyncio.open_unix_connection(path))
            old.hello(OLD)
            await old.expect(Welcome)
            identity.put(OTHER, NEW)
            process.send_signal(signal.SIGHUP)
            line_with("taken anew: certificates and tokens", process.stderr)
            old.append(1, b"x")
            await old.expect(Ack, 1)
            late = Raw(*await asyncio.open_unix_connection(path))
            late.hello(OLD)
            assert (await late.expect(Goodbye)).code == "Denied"
            await late.close()
            await old.close()

        asyncio.run(both())
        assert page(http, OTHER, NEW) == 200
        assert page(http, OTHER, OLD) == 401
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0


def test_sighup_at_a_server_without_files_means_nothing(tmp_path) -> None:
    with running("--data", str(tmp_path / "d"), "--unix", str(tmp_path / "s")) as (process, _):
        for _ in range(3):
            process.send_signal(signal.SIGHUP)
        line_with("nothing, since the server has neither", process.stderr)
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
