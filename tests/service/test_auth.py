"""Who may do what: tokens, rights, namespaces, TLS, and doors that stay shut."""

from __future__ import annotations

import hmac
import logging
import os
import ssl

import pytest

from tests.waiting import until
from walsvc import BadOption, Denied, PathError
from walsvc.service.server import auth
from walsvc.service.server.auth import EVERYBODY, Grant, Tokens, load_tokens
from walsvc.service.server.listeners import refuse_open_door, tls_context
from walsvc.service.server.server import Server
from walsvc.service.wire.codes import farewell_of
from walsvc.service.wire.frames import Ack, Batch, Call, Error, Goodbye, Open, Result, Welcome
from walsvc.service.wire.methods import ADMIN, APPEND, READ

from .certificates import certificates
from .raw import Raw
from .simulated import Devices, serving

WRITER, READER, ROOT = "w" * 32, "r" * 32, "a" * 32
TOKENS = Tokens(
    [
        (WRITER, Grant("writer", frozenset({APPEND}), frozenset({"", "jobs"}))),
        (READER, Grant("reader", frozenset({READ}))),
        (ROOT, Grant("root", frozenset({APPEND, READ, ADMIN}))),
    ]
)


@pytest.mark.parametrize("token", [None, "", "w" * 31, "w" * 33, "W" * 32, "x" * 5000, "\ud800" * 8])
def test_only_the_whole_token_gives_anything(token) -> None:
    assert TOKENS.grant(token) is None


def test_every_token_is_compared_in_constant_time_whatever_matched(monkeypatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    compare = hmac.compare_digest

    def watching(one, other):
        compared.append((one, other))
        return compare(one, other)

    monkeypatch.setattr(auth.hmac, "compare_digest", watching)
    for token, name in ((WRITER, "writer"), (READER, "reader"), ("nobody's", None)):
        compared.clear()
        grant = TOKENS.grant(token)
        assert (grant.name if grant else None) == name
        assert len(compared) == 3
        assert {len(each) for pair in compared for each in pair} == {32}, "digests: no length is told either"


def test_tokens_are_not_kept_and_not_shown() -> None:
    assert WRITER not in repr(TOKENS.__dict__)
    assert [grant.name for grant in TOKENS.grants] == ["writer", "reader", "root"]


@pytest.mark.parametrize("token", ["SECRET" * 8, None])
async def test_wrong_token_is_told_and_has_no_effect(tmp_path, token, caplog) -> None:
    devices = Devices()
    with caplog.at_level(logging.INFO, "walsvc.service"):
        async with serving(tmp_path, devices, tokens=TOKENS, namespaces=True) as server, await Raw.to(server) as raw:
            raw.hello(token, "jobs", producer=9)
            raw.append(1, b"x")
            raw.send(Call(2, "seal", {}))
            goodbye = await raw.expect(Goodbye)
            assert (goodbye.code, "the token is not known" in goodbye.message) == ("Denied", True)
            assert ("none" in goodbye.message) == (token is None)
            assert await raw.ended()
            assert devices.opened == []
            assert not server.roster._producers
            assert server.status().rejected == {"token": 1}
    assert "SECRET" not in caplog.text


def test_hint_of_a_goodbye_stands_behind_the_url() -> None:
    told = Denied("the token is not known", hint="the client takes it from WALSVC_TOKEN")
    error = farewell_of("Denied", str(told), "unix:///s")
    assert (type(error), error.message, error.path, error.hint) == (Denied, told.message, "unix:///s", told.hint)
    assert str(error) == "the token is not known [unix:///s]. Hint: the client takes it from WALSVC_TOKEN"
    assert farewell_of("Closed", "the server is stopping", "unix:///s").hint is None


async def test_namespaces_of_a_token_are_the_only_ones_it_opens(tmp_path) -> None:
    devices = Devices()
    async with serving(tmp_path, devices, tokens=TOKENS, namespaces=True) as server:
        for namespace, code in (("jobs", None), ("", None), ("other", "Denied")):
            async with await Raw.to(server) as raw:
                raw.hello(WRITER, namespace)
                if code is None:
                    assert (await raw.expect(Welcome)).info["rights"] == ["append"]
                else:
                    goodbye = await raw.expect(Goodbye)
                    assert goodbye.code == code
                    assert "Hint: it opens '', 'jobs'" in goodbye.message
        assert devices.opened == ["jobs", ""]


CALLS = {
    APPEND: ["flush", "wait_durable"],
    READ: ["holds", "retention", "stats", "topics", "consumers", "topic.count"],
    ADMIN: [
        "hold",
        "release",
        "truncate_before",
        "truncate_after",
        "seal",
        "reclaim",
        "move_consumer",
        "delete_consumer",
        "delete_topic",
        "topic.number",
    ],
}


@pytest.mark.parametrize(("token", "may"), [(WRITER, APPEND), (READER, READ)])
async def test_a_token_does_what_it_has_the_right_to_and_nothing_else(tmp_path, token, may) -> None:
    args = {
        "wait_durable": {"lsn": 0},
        "hold": {"name": "h", "lsn": 1},
        "release": {"name": "h"},
        "topic.count": {"topic": "t"},
    }
    async with serving(tmp_path, tokens=TOKENS) as server, await Raw.welcomed(server, token) as raw:
        id = 10
        for right, methods in CALLS.items():
            for method in methods:
                raw.send(Call(id := id + 1, method, args.get(method, {})))
                answer = await raw.next()
                if right == may:
                    assert isinstance(answer, Result), answer
                else:
                    assert isinstance(answer, Error)
                    assert answer.code == "Denied"
        raw.append(1, b"x")
        raw.send(
            Batch(2, 0, 0, 0, 0, None, 0, True, [b"x"]), Open(3, "follow", {}, 1), Open(4, "consumer", {"name": "c"}, 1)
        )
        got = {frame.id: frame for frame in [await raw.next() for _ in range(4)] if frame is not None}
        if may == APPEND:
            assert [type(got[id]) for id in (1, 2, 3, 4)] == [Ack, Ack, Error, Error]
        else:
            assert [type(got[id]) for id in (1, 2, 3, 4)] == [Error, Error, Result, Error]
        assert all(frame.code == "Denied" for frame in got.values() if isinstance(frame, Error))
        assert server.logs[""].next_lsn == (3 if may == APPEND else 1)


async def test_producer_of_another_token_is_not_taken_over(tmp_path) -> None:
    async with (
        serving(tmp_path, tokens=TOKENS) as server,
        await Raw.welcomed(server, WRITER, producer=9) as raw,
        await Raw.to(server) as thief,
    ):
        thief.hello(ROOT, producer=9)
        assert (await thief.expect(Goodbye)).code == "InUse"
        raw.append(1, b"x", seq=1)
        assert (await raw.expect(Ack, 1)).durable


# ---- files


def test_token_file_and_environment_are_put_together(tmp_path) -> None:
    path = tmp_path / "tokens"
    path.write_text(
        f'[[token]]\nname = "a"\ntoken = "{WRITER}"\nrights = ["append"]\nnamespaces = ["x", ""]\n'
        f'[[token]]\nname = "b"\ntoken = "{READER}"\n'
    )
    tokens = load_tokens(str(path), {"WALSVC_TOKEN": ROOT})
    assert tokens is not None
    assert tokens.grants == [
        Grant("a", frozenset({APPEND}), frozenset({"x", ""})),
        Grant("b", EVERYBODY.rights),
        Grant("environment", EVERYBODY.rights),
    ]
    assert load_tokens(None, {}) is None
    assert load_tokens(None, {"WALSVC_TOKEN": ""}) is None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "none"),
        ("token = 5", "none"),
        ("[[token]]\nname = 'a'", "a name and a token"),
        ("[[token]]\nname = ''\ntoken = 'SECRETSECRETSECRET'", "a name and a token"),
        ("[[token]]\nname = 'a'\ntoken = 'SECRET'", "has 6 bytes"),
        ("[[token]]\nname = 'a'\ntoken = 'SECRETSECRETSECRET'\nrights = ['all']", "unknown right"),
        ("[[token]]\nname = 'a'\ntoken = 'SECRETSECRETSECRET'\nrights = 'read'", "is not a list"),
        ("[[token]]\nname = 'a'\ntoken = 'SECRETSECRETSECRET'\nnamespaces = ['../x']", "not a name for a directory"),
        ("[[token]]\nname = 'a'\ntoken = 'SECRETSECRETSECRET'\nnamespace = ['x']", "unknown key"),
        ("[[token]]\nname = 'a'\ntoken = 'SECRETSECRETSECRET", r"not TOML \(at (end of document|line 3, column \d+)\)"),
        ("[[token]]\nname = 'a'\ntoken = 'SECRETSECRETSECRET'\n" * 2, "there twice"),
    ],
)
def test_token_file_that_is_wrong_is_refused_without_showing_what_is_in_it(tmp_path, content, says) -> None:
    path = tmp_path / "tokens"
    path.write_text(content)
    with pytest.raises(BadOption, match=says) as told:
        load_tokens(str(path), {})
    assert "SECRET" not in str(told.value)


def test_token_file_that_others_may_write_or_nobody_can_read_is_refused(tmp_path) -> None:
    path = tmp_path / "tokens"
    with pytest.raises(PathError, match="cannot be read") as caught:
        load_tokens(str(path), {})
    assert caught.value.hint
    path.write_text(f'[[token]]\nname = "a"\ntoken = "{WRITER}"')
    path.chmod(0o620)
    with pytest.raises(PathError, match="others may write"):
        load_tokens(str(path), {})
    path.chmod(0o440)
    assert load_tokens(str(path), {}) is not None


# ---- doors


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
def test_beyond_this_machine_tls_and_token_are_wanted(host, tmp_path) -> None:
    for tls, tokens in ((False, False), (True, False), (False, True)):
        with pytest.raises(BadOption, match="can be reached from other machines") as told:
            refuse_open_door(host, tls=tls, tokens=tokens, insecure=False)
        assert ("no TLS" in str(told.value)) is not tls
        assert ("no token" in str(told.value)) is not tokens
    refuse_open_door(host, tls=True, tokens=True, insecure=False)
    refuse_open_door(host, tls=False, tokens=False, insecure=True)
    with pytest.raises(BadOption, match="other machines"):
        Server(tmp_path, host=host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_on_this_machine_they_are_not(host) -> None:
    refuse_open_door(host, tls=False, tokens=False, insecure=False)


# ---- TLS


def client_context(with_certificate: bool) -> ssl.SSLContext:
    files = certificates()
    context = ssl.create_default_context(cafile=files.ca)
    if with_certificate:
        context.load_cert_chain(files.client_cert, files.client_key)
    return context


async def test_tls_carries_the_protocol_and_knows_its_clients(tmp_path) -> None:
    files = certificates()
    tls = tls_context(files.server_cert, files.server_key, files.ca)
    async with serving(tmp_path, host="127.0.0.1", port=0, tls=tls, tokens=TOKENS) as server:
        assert server.addresses == (f"wals://127.0.0.1:{server.port}",)
        async with await Raw.to(server, ssl=client_context(True), server_hostname="localhost") as raw:
            raw.hello(WRITER)
            await raw.expect(Welcome)
            raw.append(1, bytes(60_000))
            assert (await raw.expect(Ack, 1)).durable
        stranger = None
        with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
            stranger = await Raw.to(server, ssl=client_context(False), server_hostname="localhost")
            stranger.hello(WRITER)  # in TLS 1.3 a client learns at its first read that its certificate was missed
            await stranger.expect(Welcome)
        if stranger is not None:
            await stranger.close()
        async with await Raw.to(server) as plain:
            plain.hello(WRITER)
            assert await plain.ended()
        assert server.status().accepted == 1


async def test_tls_goodbye_arrives(tmp_path) -> None:
    files = certificates()
    tls = tls_context(files.server_cert, files.server_key)
    async with serving(tmp_path, host="127.0.0.1", port=0, tls=tls, tokens=TOKENS) as server:
        async with await Raw.to(server, ssl=client_context(False), server_hostname="localhost") as raw:
            raw.hello("wrong" * 8)
            assert (await raw.expect(Goodbye)).code == "Denied"
            assert await raw.ended()
        await until(lambda: not server.status().connections, 0)


def test_tls_files_that_are_wrong_are_told(tmp_path) -> None:
    files = certificates()
    with pytest.raises(PathError, match="cannot be read"):
        tls_context(os.fspath(tmp_path / "none"))
    with pytest.raises(BadOption, match="is not good"):
        tls_context(files.server_cert, files.client_key)
    with pytest.raises(BadOption, match="is not good"):
        tls_context(files.server_cert, files.server_key, files.server_key)
    assert tls_context(files.server_cert, files.server_key).minimum_version >= ssl.TLSVersion.TLSv1_2
