"""TLS on the command line: options, environment and URL say the same to every verb."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.service.certificates import certificates


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Cli, str, str]]:
    """A server that asks for a client's certificate: the command line, its URL, and its HTTP side."""
    cli, files = Cli(), certificates()
    own = ("--tls-cert", files.server_cert, "--tls-key", files.server_key, "--tls-client-ca", files.ca)
    server = cli.start("serve", "--data", tmp_path / "log", "--listen", "127.0.0.1:0", *own, "--insecure")
    assert server.stdout is not None
    address = server.stdout.readline().split()[-1].decode()
    yield cli, address, address.rpartition(":")[2]
    server.terminate()
    assert server.wait(timeout=120) == 0
    cli.end()


def test_options_environment_and_address_say_the_same(served: tuple[Cli, str, str]) -> None:
    cli, url, _ = served
    files = certificates()
    options = ("--ca", files.ca, "--cert", files.client_cert, "--key", files.client_key)
    assert cli.good("append", url, *options, stdin=b"one\n") == b"1\n"
    environment = {"WALSVC_CA": files.ca, "WALSVC_CERT": files.client_cert, "WALSVC_KEY": files.client_key}
    assert cli("append", url, stdin=b"two\n", environment=environment).stdout == b"2\n"
    in_url = f"{url}?ca={files.ca}&cert={files.client_cert}&key={files.client_key}"
    assert cli.good("cat", in_url) == b"one\ntwo\n"
    assert "certificate is not to be trusted" in cli.bad(10, "cat", url)
    wrong = cli("cat", in_url, environment={"WALSVC_SERVER_NAME": "other.example"})
    assert (wrong.returncode, b"not to be trusted" in wrong.stderr) == (10, True)
    assert cli.good("cat", in_url, "--server-name", "localhost") == b"one\ntwo\n"
    assert "is for TLS only" in cli.bad(2, "cat", url.replace("wals", "wal"), "--ca", files.ca)
    assert "/none.pem" in cli.bad(5, "cat", url, "--ca", "/none.pem")
    assert "twice" in cli.bad(2, "cat", in_url, "--ca", files.ca)
    assert cli("cat", "/tmp", "--ca", files.ca).returncode == 2  # a directory has no TLS
