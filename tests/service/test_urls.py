"""URLs of logs behind a server, and the options of a client."""

from __future__ import annotations

import dataclasses

import pytest

import walsvc
from walsvc import BadOption, ClientConfig, PathError, Unreachable
from walsvc.service.client.config import Address, parse


@pytest.mark.parametrize(
    ("url", "address", "namespace"),
    [
        ("unix:///run/walsvc.sock", Address("unix:///run/walsvc.sock", "/run/walsvc.sock", "", 0, False), None),
        ("unix:///run/a%20b?namespace=x", Address("unix:///run/a%20b", "/run/a b", "", 0, False), "x"),
        ("wal://log.example:99", Address("wal://log.example:99", None, "log.example", 99, False), None),
        ("wal://h/orders", Address("wal://h:7420/orders", None, "h", 7420, False), "orders"),
        ("wal://[::1]:8/", Address("wal://[::1]:8", None, "::1", 8, False), None),
        ("wals://10.0.0.1", Address("wals://10.0.0.1:7420", None, "10.0.0.1", 7420, True), None),
    ],
)
def test_url_says_where_the_server_is(url, address, namespace):
    found, config = parse(url, {})
    assert found == address
    assert config.namespace == namespace


def test_query_holds_options_and_keywords_win():
    url = "wals://host/ns?timeout=2.5&max_pending_bytes=8192&read_only=true&ca=/etc/ca.pem&token_file=/run/token"
    _, config = parse(url, {"timeout": 3.0})
    assert config == ClientConfig(
        namespace="ns", timeout=3.0, max_pending_bytes=8192, read_only=True, ca="/etc/ca.pem", token_file="/run/token"
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.timeout = 1.0


@pytest.mark.parametrize(
    "url",
    [
        *("http://host", "tcp://host:1", "walsvc://host"),
        *("unix://run/socket", "unix://", "unix:///a%00b", "unix:///a#b"),
        *("wal://", "wal://:7", "wal://host:0", "wal://host:99999", "wal://host:x", "wal://h/a/b", "wal://h/.."),
        *("wal://hunter2@host", "wal://user:hunter2@host", "wals://h?token=hunter2", "wal://h?password=hunter2"),
        *(
            "wal://h?timeout=soon",
            "wal://h?timeout=-1",
            "wal://h?timeout=nan",
            "wal://h?read_only=perhaps",
            "wal://h?nothing=1",
        ),
        *("wal://h?max_pending_bytes=1", "wal://h?ca=/ca.pem", "unix:///s?cert=/c.pem", "wals://h?key=/k.pem"),
        "wal://h?segment_bytes=65536",
    ],
)
def test_bad_urls_are_refused_at_once_and_show_no_secret(url):
    with pytest.raises(BadOption) as caught:
        walsvc.open(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        *({"segment_bytes": 1 << 20}, {"disk": "threads"}, {"direct": True}, {"nothing": 1}, {"token": "hunter2"}),
        *({"namespace": "../x"}, {"timeout": "1"}, {"read_only": 1}, {"token_file": 7}, {"reconnect_seconds": -1.0}),
        *({"config": walsvc.WalConfig()}, {"config": 7}, {"name": "\udcff"}, {"name": "x" * 1025}, {"name": 7}),
        *({"token_file": "a\0b"}, {"token_file": "\ud800"}, {"token_file": ""}),
    ],
)
def test_options_that_are_not_a_clients_are_refused_at_once(options):
    with pytest.raises(BadOption) as caught:
        walsvc.open("unix:///run/socket", **options)
    assert (
        caught.value.hint
        or "integer" in str(caught.value)
        or "number" in str(caught.value)
        or "path" in str(caught.value)
        or caught.value.expected
    )
    assert "hunter2" not in str(caught.value)


def test_option_of_the_log_says_that_it_is_the_servers():
    with pytest.raises(BadOption, match="the server's log"):
        walsvc.open("wal://host", max_group_bytes=4096)


async def test_nobody_there_is_unreachable_and_says_where(tmp_path):
    url = f"unix://{tmp_path}/socket"
    with pytest.raises(Unreachable) as caught:
        await walsvc.open(url)
    assert caught.value.path == url
    assert caught.value.errno
    assert isinstance(caught.value, OSError)
    with pytest.raises(Unreachable, match=r"the server cannot be reached: Connection refused \[wal://127.0.0.1:1\]"):
        async with walsvc.open("wal://127.0.0.1:1", connect_seconds=5.0):
            pass
    with pytest.raises(Unreachable) as nameless:
        await walsvc.open("wal://no-such-host.invalid")
    assert nameless.value.hint == "check the host's name"


async def test_files_that_are_not_there_are_named(tmp_path):
    with pytest.raises(PathError) as caught:
        await walsvc.open("unix:///run/socket", token_file=tmp_path / "token")
    assert caught.value.path == str(tmp_path / "token")
    with pytest.raises(PathError):
        await walsvc.open("wals://127.0.0.1:1", ca=tmp_path / "ca.pem")


def test_token_is_read_from_file_or_environment_and_shows_nowhere(tmp_path, monkeypatch):
    (tmp_path / "token").write_text("hunter2 of a file\n")
    monkeypatch.setenv("WALSVC_TOKEN", "hunter2 of the environment")
    address, config = parse("unix:///run/socket", {"token_file": tmp_path / "token"})
    assert config.token(address) == "hunter2 of a file"
    assert ClientConfig().token(address) == "hunter2 of the environment"
    assert "hunter2" not in repr(config) + repr(ClientConfig())
    monkeypatch.delenv("WALSVC_TOKEN")
    assert ClientConfig().token(address) is None


async def test_token_that_no_server_takes_is_told_before_it_is_sent(monkeypatch):
    for token in ("x" * 5000, "a\udcff"):
        monkeypatch.setenv("WALSVC_TOKEN", token)
        with pytest.raises(BadOption, match="token"):
            await walsvc.open("unix:///none")


async def test_token_is_not_sent_to_another_machine_unencrypted(monkeypatch):
    monkeypatch.setenv("WALSVC_TOKEN", "hunter2 of the environment")
    with pytest.raises(BadOption, match="unencrypted"):
        await walsvc.open("wal://192.0.2.1")
    for url in (
        "wals://192.0.2.1",
        "wal://127.0.0.1",
        "wal://[::1]",
        "wal://localhost",
        "wal://192.0.2.1?insecure=true",
    ):
        address, config = parse(url, {})
        assert config.token(address) == "hunter2 of the environment"
