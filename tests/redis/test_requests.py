"""Bytes to commands: the same with hiredis and without, however the bytes are cut; what is no command costs nothing."""

from __future__ import annotations

import random
import time

import pytest

from walsvc.service.fronts.redis import requests
from walsvc.service.fronts.redis.replies import encode
from walsvc.service.fronts.redis.requests import Command, Malformed, Requests

MOST = 1 << 20
HTTP = "this is HTTP, and here Redis clients are answered; curl goes to the address of --http"


def commands_in(pieces: list[bytes]) -> list[Command] | str:
    """All commands, or the words of the error that ends them."""
    parser, found = Requests(), list[Command]()
    try:
        for piece in pieces:
            found += parser.feed(piece, MOST)
    except Malformed as error:
        return str(error)
    return found


def cut(data: bytes, chance: random.Random) -> list[bytes]:
    """Data in pieces."""
    places = sorted(chance.sample(range(len(data)), min(chance.randrange(6), len(data))))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


def some_command(chance: random.Random) -> Command:
    """Words of any bytes; among them some that look like headers."""
    words = [b"", b"XADD", b"\r\n", b"*12345\r\n", b"$5\r\n", b"\x00\xff", b"*9999999999\r\n$1\r\n", b"x" * 3000]
    return [chance.choice(words) for _ in range(chance.randrange(1, 9))]


@pytest.mark.parametrize("seed", range(4))
def test_commands_are_the_same_with_hiredis_and_without_and_however_they_are_cut(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    for _ in range(60):
        wanted = [some_command(chance) for _ in range(chance.randrange(1, 8))]
        data = b"".join(encode(each, 2) for each in wanted)
        assert commands_in(cut(data, chance)) == wanted
        with monkeypatch.context() as patch:
            patch.setattr(requests, "installed", lambda module: False)
            assert commands_in(cut(data, chance)) == wanted


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"*1\r\n*1000000000\r\n", "expected '$', got '*'"),
        (b"*1\r\n:5\r\n", "expected '$', got ':'"),
        (b"*1\r\n~1\r\n*0\r\n", "expected '$', got '~'"),
        (b"*1\r\n%1\r\n*0\r\n+a\r\n", "expected '$', got '%'"),
        (b"*1\r\n$-1\r\n", "invalid bulk length"),
        (b"*1\r\n$99999999999\r\n", "invalid bulk length"),
        (b"*99999999999\r\n", "invalid multibulk length"),
        (b"*x\r\n", "invalid multibulk length"),
        (b"x" * 70_000, "too big inline request"),
        (b'SET "a\r\n', "unbalanced quotes in request"),
        (b'SET "a"b\r\n', "unbalanced quotes in request"),
        (b"SET 'a\\'\r\n", "unbalanced quotes in request"),
        (b"POST / HTTP/1.1\r\nHost: here\r\n\r\nXADD s * a 1\r\n", HTTP),
        (b"host: here\r\n\r\nXADD s * a 1\r\n", HTTP),
        (b"PUT /a HTTP/1.0\r\n\r\nXADD s * a 1\r\n", HTTP),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", HTTP),
    ],
)
def test_what_is_no_command_is_told_in_redis_words(data: bytes, words: str) -> None:
    good = encode([b"PING"], 2)
    assert commands_in([data]) == f"ERR Protocol error: {words}"
    assert commands_in([good + data] if data[:1] == b"*" else [good, data]) == f"ERR Protocol error: {words}"


def test_long_header_makes_no_list_before_its_elements_are_there() -> None:
    parser = Requests()
    assert parser.feed(b"*1048576\r\n", MOST) == []
    assert parser.incomplete_bytes < 100


def test_command_that_grows_beyond_the_limit_is_refused_before_it_is_whole() -> None:
    parser = Requests()
    with pytest.raises(Malformed, match="takes more than 1000 bytes"):
        for _ in range(100):
            parser.feed(b"*100\r\n" if not parser.incomplete_bytes else b"$1\r\nx\r\n", 1000)
    assert parser.incomplete_bytes < 1200


def test_words_on_a_line_are_a_command_and_an_empty_line_is_none() -> None:
    assert commands_in([b"PING\r\n\r\nECHO 'a b'\n"]) == [[b"PING"], [b"ECHO", b"a b"]]
    assert commands_in([b"*0\r\n*1\r\n$4\r\nPING\r\n"]) == [[b"PING"]]
    assert commands_in([rb"""ECHO "a\x41\n\"\q" 'it\'s \n' a\b k"e y" "" #""" + b"\n"]) == [
        [b"ECHO", b'aA\n"q', rb"it's \n", rb"a\b", b"ke y", b"", b"#"]
    ], "as Redis reads a line"


def test_lines_of_quotes_without_an_end_take_no_time_that_grows_with_their_square() -> None:
    started = time.process_time()
    for line in (
        b'"' + b"\\" * 65_000,
        b"'" + rb"\'" * 32_000,
        b'"' + b'\\"' * 32_000,
        b"x" + b" HTTP/1.1 " * 6_000 + b'"',
    ):
        assert commands_in([line + b"\n"]) == "ERR Protocol error: unbalanced quotes in request"
    assert time.process_time() - started < 2
