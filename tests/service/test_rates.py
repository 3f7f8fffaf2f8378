"""How fast a token may ask: a bucket that holds a second's worth, for all its connections together."""

from __future__ import annotations

import asyncio

import pytest

import walsvc
from walsvc.service.fronts.redis.listening import listen
from walsvc.service.server import serve
from walsvc.service.server.auth import Grant, Tokens, load_tokens
from walsvc.service.server.rates import Rates


def test_bucket_holds_a_second_may_be_overdrawn_and_refills_steadily():
    now = 100.0
    rates = Rates(lambda: now)
    slow = Grant("slow", frozenset(), requests_per_second=2.0, bytes_per_second=1000.0)
    assert [rates.spend(slow, 1, 10) for _ in range(3)] == [0, 0, 0.5]
    now += 0.25
    assert rates.pause(slow) == pytest.approx(0.25)
    now += 0.75
    assert rates.spend(slow, 1, 5000) == pytest.approx(4.0), (
        "one that is larger than the bucket is not refused for ever"
    )
    now += 1000
    assert [rates.spend(slow, 1, 0) for _ in range(3)] == [0, 0, 0.5], "an hour of silence is worth a second"


def test_tokens_have_their_own_buckets_and_those_without_a_rate_have_none():
    rates = Rates(lambda: 0.0)
    one, other = (Grant(name, frozenset(), requests_per_second=1.0) for name in ("one", "other"))
    assert [rates.spend(one, 2, 0), rates.pause(one), rates.pause(other)] == [1.0, 1.0, 0]
    assert rates.spend(Grant("free", frozenset()), 1_000_000, 1 << 40) == 0


async def test_connections_of_a_token_are_read_no_faster_than_it_may_ask_and_others_are(tmp_path, monkeypatch):
    tokens = Tokens(
        (
            ("slow" * 4, Grant("slow", frozenset({"append"}), requests_per_second=10.0)),
            ("free" * 4, Grant("free", frozenset({"append"}))),
        )
    )
    slept = []
    async with serve(tmp_path / "log", unix=tmp_path / "s", tokens=tokens) as server:
        url, loop = f"unix://{tmp_path / 's'}", asyncio.get_running_loop()
        monkeypatch.setenv("WALSVC_TOKEN", "slow" * 4)
        monkeypatch.setattr(server.shared.rates, "_clock", lambda: 100.0)  # else a slow machine would refill the bucket
        slow = await walsvc.open(url)
        spend = server.shared.rates.spend
        monkeypatch.setattr(server.shared.rates, "spend", lambda *what: slept.append(spend(*what)) or slept[-1])
        began = loop.time()
        for _ in range(12):
            await slow.append(b"x")
        assert slept == pytest.approx([0.0] * 9 + [0.1, 0.2, 0.3]), "the client's first frame counts, too"
        assert loop.time() - began >= 0.29, "the eleventh is read 0.1 s later, the twelfth another 0.2 s"
        monkeypatch.setenv("WALSVC_TOKEN", "free" * 4)
        free = await walsvc.open(url)
        told = len(slept)
        for _ in range(100):
            await free.append(b"y")
        assert len(slept) == told
        await free.close()
        await slow.close()
        assert server.logs[""].next_lsn == 113


@pytest.mark.parametrize("value", ['"10"', "0", "-1", "true", "1e13", "nan"])
def test_rates_in_the_file_have_bounds(tmp_path, value):
    file = tmp_path / "tokens.toml"
    file.touch(0o600)
    file.write_text(f'[[token]]\nname = "a"\ntoken = "{"x" * 16}"\nrequests_per_second = {value}\n')
    with pytest.raises(walsvc.BadOption, match="requests_per_second of token 'a'"):
        load_tokens(str(file), {})


def test_rates_are_read_from_the_file(tmp_path):
    file = tmp_path / "tokens.toml"
    file.touch(0o600)
    file.write_text(f'[[token]]\nname = "a"\ntoken = "{"x" * 16}"\nrequests_per_second = 10\nbytes_per_second = 1e6\n')
    tokens = load_tokens(str(file), {})
    assert tokens is not None
    assert (tokens.grants[0].requests_per_second, tokens.grants[0].bytes_per_second) == (10.0, 1e6)


async def test_clients_of_redis_streams_are_held_back_as_well(tmp_path, monkeypatch):
    tokens = Tokens([("slow" * 4, Grant("slow", frozenset({"append"}), requests_per_second=5.0))])
    async with serve(tmp_path / "log", unix=tmp_path / "s", tokens=tokens) as server:
        await listen(server, str(tmp_path / "r"))
        told = []
        spend = server.shared.rates.spend
        monkeypatch.setattr(
            server.shared.rates, "spend", lambda *what: told.append((what[1], spend(*what))) or told[-1][1]
        )
        reader, writer = await asyncio.open_unix_connection(tmp_path / "r")
        writer.write(b"AUTH %s\r\n" % (b"slow" * 4))
        assert await reader.readline() == b"+OK\r\n"
        writer.write(b"XADD t * f v\r\n" * 6)
        for number in range(6):
            assert await reader.readline() == b"$3\r\n"
            assert await reader.readline() == b"%d-0\r\n" % (number + 1)
        assert sum(requests for requests, _ in told) in (6, 7), "AUTH counts where it was answered at once"
        assert told[-1][1] > 0
        writer.close()
