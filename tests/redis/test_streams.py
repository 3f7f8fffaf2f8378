"""The commands about streams, as a client sees them."""

from __future__ import annotations

import re
from pathlib import Path

import msgpack
import pytest

from tests.redis.serving import GONE, Talk, side, talking, turns
from tests.service.simulated import SMALL, Devices
from tests.waiting import until
from walsvc.disk.sim import SimDisk
from walsvc.opening import open_on
from walsvc.service.fronts.redis import streams
from walsvc.service.fronts.redis.entries import FIELDS
from walsvc.service.server import progress
from walsvc.service.server.auth import Grant, Tokens
from walsvc.service.server.limits import Limits

TOKEN = "0123456789abcdef"


async def test_entry_is_a_record_of_the_topic_and_the_other_way_round(tmp_path: Path) -> None:
    async with side(tmp_path) as server, talking(tmp_path) as redis:
        assert await redis("XADD", "orders", "*", "item", "book", "qty", "3") == b"1-0"
        assert await redis("XADD", "orders", "*", "payload", b"\x00raw") == b"2-0"
        log = server.logs[""]
        await log.topic("orders").append(b"of Python", attributes={"k": 1})
        first, second, _ = [record async for record in log.topic("orders").read()]
        assert (first.type, msgpack.unpackb(first.payload)) == (FIELDS, {b"item": b"book", b"qty": b"3"})
        assert (second.type, second.payload) == (0, b"\x00raw")
        assert await redis("XRANGE", "orders", "-", "+") == [
            [b"1-0", [b"item", b"book", b"qty", b"3"]],
            [b"2-0", [b"payload", b"\x00raw"]],
            [b"3-0", [b"payload", b"of Python"]],
        ]


async def test_fields_of_one_name_keep_their_order_and_number(tmp_path: Path) -> None:
    async with side(tmp_path), talking(tmp_path) as redis:
        await redis("XADD", "s", "*", "a", "1", "b", "2", "a", "3")
        assert await redis("XRANGE", "s", "-", "+") == [[b"1-0", [b"a", b"1", b"b", b"2", b"a", b"3"]]]


async def test_answered_entry_is_on_stable_storage(tmp_path: Path) -> None:
    devices = Devices()
    async with side(tmp_path, devices), talking(tmp_path) as redis:
        for number in range(20):
            redis.say("XADD", "s", "*", "n", number)
        assert [await redis.hear() for _ in range(20)] == [b"%d-0" % lsn for lsn in range(1, 21)]
        left = devices[""].fork().crash()
    async with await open_on(SimDisk(left), SMALL) as log:
        assert [record.lsn async for record in log.topic("s").read()] == list(range(1, 21))


async def test_answers_come_in_the_order_of_the_commands(tmp_path: Path) -> None:
    async with side(tmp_path), talking(tmp_path) as redis:
        for words in (
            ("XADD", "s", "*", "a", "1"),
            ("PING",),
            ("XLEN", "s"),
            ("XADD", "s", "*", "a", "2"),
            ("XLEN", "s"),
        ):
            redis.say(*words)
        assert [await redis.hear() for _ in range(5)] == [b"1-0", "PONG", 1, b"2-0", 2]


async def test_reading_waits_for_an_entry_and_no_longer_than_it_may(tmp_path: Path) -> None:
    async with side(tmp_path), talking(tmp_path) as reader, talking(tmp_path) as writer:
        await writer("XADD", "other", "*", "a", "1")
        reader.say("XREAD", "BLOCK", "0", "STREAMS", "s", "other", "$", "$")
        await turns()
        assert await writer("XADD", "s", "*", "a", "2") == b"2-0"
        assert await reader.hear() == [[b"s", [[b"2-0", [b"a", b"2"]]]]]
        assert await reader("XREAD", "BLOCK", "1", "STREAMS", "s", "$") is None
        assert await reader("XREAD", "COUNT", "1", "STREAMS", "s", "other", "0", "0-0") == [
            [b"s", [[b"2-0", [b"a", b"2"]]]],
            [b"other", [[b"1-0", [b"a", b"1"]]]],
        ]
        assert (await reader("HELLO", "3"))[b"proto"] == 3
        assert await reader("XREAD", "STREAMS", "other", "0") == {b"other": [[b"1-0", [b"a", b"1"]]]}


async def test_reader_that_waits_and_hangs_up_leaves_nothing_behind(tmp_path: Path) -> None:
    async with side(tmp_path) as server:
        async with talking(tmp_path) as reader:
            reader.say("XREAD", "BLOCK", "0", "STREAMS", "s", "$")
            await turns()
            assert len(server.roster) == 1
        await until(lambda: not len(server.roster), 0)
        assert server.budget.bytes == 0


async def test_key_whose_topic_cannot_be_is_refused_and_nothing_is_stored(tmp_path: Path) -> None:
    async with side(tmp_path) as server, talking(tmp_path) as redis:
        for key in (b"", b"\xff", b"k" * 256):
            assert (await redis("XADD", key, "*", "a", "1")).startswith("-"), key
            assert await redis("XLEN", key) == 0
        assert (await redis("XADD", "s", "7-1", "a", "1")).startswith("-ERR The ID specified in XADD must be *")
        assert (await redis("XADD", "s", "MAXLEN", "-5", "*", "a", "1")).startswith("-ERR")
        assert await redis("XADD", "s", "NOMKSTREAM", "*", "a", "1") is None
        assert server.logs[""].next_lsn == 1


async def test_answer_that_would_be_too_long_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "ANSWER_BYTES_MAX", 2000)
    async with side(tmp_path), talking(tmp_path) as redis:
        for _ in range(10):
            await redis("XADD", "s", "*", "payload", b"x" * 100)
        assert await redis("XRANGE", "s", "-", "+") == "-ERR the answer has more than 2000 bytes: use COUNT"
        assert len(await redis("XRANGE", "s", "-", "+", "COUNT", "5")) == 5


async def test_denials_are_told_at_the_rate_of_all_of_the_servers_denials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = Tokens([(TOKEN, Grant("all", frozenset({"append", "read"}), frozenset({""})))])
    async with side(tmp_path, tokens=tokens, namespaces=True) as server, talking(tmp_path) as redis:
        asked = list[float]()
        monkeypatch.setattr(server.shared.denials, "delay", lambda: (asked.append(1.0), 0.0)[1])
        assert (await redis("AUTH", "nothing-like-it!")).startswith("-WRONGPASS")
        assert (await redis("AUTH", "shop", TOKEN)).startswith("-WRONGPASS"), "not of this namespace"
        assert (await redis("HELLO", "3", "AUTH", "default", "nothing-like-it!")).startswith("-WRONGPASS")
        assert len(asked) == 3
        assert await redis("AUTH", TOKEN) == "OK"
        assert len(asked) == 3


async def test_token_gives_its_rights_and_its_namespaces(tmp_path: Path) -> None:
    tokens = Tokens(
        [
            (TOKEN, Grant("all", frozenset({"append", "read", "consume", "admin"}))),
            (TOKEN + "r", Grant("reader", frozenset({"read"}), frozenset({"shop"}))),
        ]
    )
    async with side(tmp_path, tokens=tokens, namespaces=True) as server:
        async with talking(tmp_path) as redis:
            assert await redis("XADD", "s", "*", "a", "1") == "-NOAUTH Authentication required."
            assert await redis("PING") == "-NOAUTH Authentication required."
            assert (await redis("AUTH", "shop", "nothing-like-it!")).startswith("-WRONGPASS")
            assert await redis("AUTH", "shop", TOKEN) == "OK"
            assert await redis("XADD", "s", "*", "a", "1") == b"1-0"
            assert await redis("SELECT", "7") == "OK"
            assert await redis("XLEN", "s") == 0
            assert (await redis("HELLO", "2", "AUTH", "shop", TOKEN))[:2] == [b"server", b"walsvc"]
            assert await redis("XLEN", "s") == 1
        async with talking(tmp_path) as redis:
            assert (await redis("AUTH", TOKEN + "r")).startswith("-WRONGPASS")
            assert await redis("AUTH", "shop", TOKEN + "r") == "OK"
            assert await redis("XLEN", "s") == 1
            assert (await redis("XADD", "s", "*", "a", "1")).startswith("-NOPERM")
            assert (await redis("SELECT", "7")).startswith("-NOPERM")
        assert sorted(server.logs) == ["7", "shop"]


async def test_page_that_has_a_browser_post_commands_appends_nothing(tmp_path: Path) -> None:
    async with side(tmp_path), talking(tmp_path) as page, talking(tmp_path) as redis:
        page.send(b"POST / HTTP/1.1\r\nHost: 127.0.0.1:6380\r\nContent-Length: 20\r\n\r\nXADD s * a 1\r\n")
        assert (await page.hear()).startswith("-ERR Protocol error: this is HTTP")
        assert await page.hear() == GONE
        assert await redis("EXISTS", "s") == 0


async def test_client_that_resets_itself_is_a_stranger_again(tmp_path: Path) -> None:
    tokens = Tokens([(TOKEN, Grant("all", frozenset({"append", "read"})))])
    async with side(tmp_path, tokens=tokens, namespaces=True), talking(tmp_path) as redis:
        assert await redis("RESET") == "RESET"
        assert await redis("AUTH", "shop", TOKEN) == "OK"
        assert await redis("XADD", "s", "*", "a", "1") == b"1-0"
        assert await redis("MULTI") == "OK"
        assert await redis("RESET") == "RESET"
        assert await redis("XLEN", "s") == "-NOAUTH Authentication required."
        assert await redis("AUTH", TOKEN) == "OK"
        assert await redis("XLEN", "s") == 0, "in the log of the directory itself, and not in a transaction"


async def test_commands_are_documented_for_clients_that_ask_at_their_start(tmp_path: Path) -> None:
    async with side(tmp_path), talking(tmp_path) as redis:
        assert len(await redis("COMMAND", "DOCS")) == 2 * await redis("COMMAND", "COUNT")
        name, about = await redis("COMMAND", "DOCS", "XLEN", "nosuch")
        assert name == b"xlen"
        assert about[:2] == [b"summary", b"XLEN."]


async def test_namespace_is_left_when_its_last_client_is(tmp_path: Path) -> None:
    limits = Limits(open_namespaces=1)
    async with side(tmp_path, namespaces=True, limits=limits) as server:
        for name in ("one", "two"):
            async with talking(tmp_path) as redis:
                assert await redis("AUTH", name, "any") == "OK"
            await until(lambda: not len(server.roster), 0)


async def test_client_beyond_the_limit_is_told_so(tmp_path: Path) -> None:
    async with side(tmp_path, limits=Limits(connections=1)), talking(tmp_path) as first:
        assert await first("PING") == "PONG"
        async with talking(tmp_path) as second:
            assert (await second.hear()).startswith("-BACKPRESSURE too many connections")
            assert await second.hear() == GONE
        assert await first("PING") == "PONG"


async def test_client_that_shows_no_token_in_time_is_hung_up_on(tmp_path: Path) -> None:
    tokens = Tokens([(TOKEN, Grant("all", frozenset({"append"})))])
    async with side(tmp_path, tokens=tokens, limits=Limits(handshake_seconds=0.01)), talking(tmp_path) as redis:
        assert await redis.hear() == "-WALTIMEOUT no token came within 0.01 s"
        assert await redis.hear() == GONE


async def test_what_is_unanswered_is_counted_and_given_back(tmp_path: Path) -> None:
    limits = Limits(pending_bytes=65536, pending_total_bytes=65536)
    async with side(tmp_path, limits=limits) as server, talking(tmp_path) as redis:
        for number in range(2000):
            redis.say("XADD", "s", "*", "n", number)
        assert [await redis.hear() for _ in range(2000)][-1] == b"2000-0"
        assert server.budget.bytes == 0
        redis.send(b"*2\r\n$4\r\nECHO\r\n$1000\r\n" + b"x" * 500)
        await until(lambda: server.budget.bytes, 0)
        assert 500 < server.budget.bytes < 1500
        redis.send(b"x" * 500 + b"\r\n")
        assert await redis.hear() == b"x" * 1000
        assert server.budget.bytes == 0


async def test_half_commands_of_many_do_not_hold_more_than_all_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "TIGHT_SECONDS", 0.01)
    limits = Limits(pending_total_bytes=65536, handshake_seconds=0.04)
    async with side(tmp_path, limits=limits) as server, talking(tmp_path) as one, talking(tmp_path) as two:
        for each in (one, two):
            assert await each("PING") == "PONG"
            each.send(b"*2\r\n$4\r\nECHO\r\n$100000\r\n" + b"x" * 40_000)
        assert {(await each.hear())[:11] for each in (one, two)} == {"-WALTIMEOUT"}
        assert server.budget.bytes == 0


async def test_stopping_answers_what_was_appended(tmp_path: Path) -> None:
    async with side(tmp_path) as server, talking(tmp_path) as redis, talking(tmp_path) as waiting:
        waiting.say("XREAD", "BLOCK", "0", "STREAMS", "s", "$")
        assert await redis("PING") == "PONG"
        redis.say("XADD", "s", "*", "a", "1")
        await until(lambda: server.budget.bytes, 0)
        await server.stop()
        assert await redis.hear() == b"1-0"
        assert await redis.hear() == GONE


async def test_clients_that_wait_are_told_of_in_info_until_they_go_on(tmp_path: Path) -> None:
    async def waiting(talk: Talk) -> int:
        found = re.search(rb"blocked_clients:(\d+)", await talk("INFO", "clients"))
        assert found is not None
        return int(found[1])

    async with side(tmp_path), talking(tmp_path) as talk, talking(tmp_path) as reader, talking(tmp_path) as worker:
        assert b"connected_clients:3\r\n" in await talk("INFO")
        assert await talk("XGROUP", "CREATE", "s", "g", "$", "MKSTREAM") == "OK"
        assert await waiting(talk) == 0
        reader.say("XREAD", "BLOCK", "0", "STREAMS", "s", "$")
        worker.say("XREADGROUP", "GROUP", "g", "w", "BLOCK", "0", "STREAMS", "s", ">")
        while await waiting(talk) < 2:
            await turns(1)
        await talk("XADD", "s", "*", "f", "v")
        await reader.hear()
        await worker.hear()
        assert await waiting(talk) == 0
        reader.say("XREAD", "BLOCK", "0", "STREAMS", "s", "$")
        while await waiting(talk) < 1:
            await turns(1)
        reader.close()
        while await waiting(talk):
            await turns(1)


@pytest.mark.parametrize("command", ["CLIENT", "COMMAND", "XGROUP", "XINFO"])
async def test_help_that_an_unknown_subcommand_names_is_there(tmp_path: Path, command: str) -> None:
    async with side(tmp_path), talking(tmp_path) as redis:
        assert f"Try {command} HELP." in str(await redis(command, "nothing", "s", "g", "x"))
        first, *lines = await redis(command, "help")
        assert first.startswith(f"{command} <subcommand>")
        assert lines
        assert all(line.startswith("    ") == bool(place % 2) for place, line in enumerate(lines))
