"""The commands by which entries go: XDEL, XTRIM, what XADD trims, DEL and UNLINK."""

from __future__ import annotations

import asyncio
from pathlib import Path

import walsvc
from tests.redis.serving import side, talking, turns
from tests.service.simulated import Devices
from walsvc.service.server.auth import Grant, Tokens

TOKEN = "0123456789abcdef"


async def test_what_is_answered_as_gone_is_gone_after_a_crash_and_for_everybody(tmp_path: Path) -> None:
    devices = Devices()
    async with side(tmp_path, devices) as server, talking(tmp_path) as redis:
        for _ in range(20):
            await redis("XADD", "s", "*", "f", "v")
            await redis("XADD", "other", "*", "f", "v")
        async with walsvc.open(server.addresses[0]) as log:
            reader = log.topic("s").read()
            assert (await anext(reader)).lsn == 1
            assert await redis("XDEL", "s", "3-0", "4-0", "7-0", "7-0", "7-1", "99-0") == 2
            assert await redis("XTRIM", "s", "MAXLEN", "10") == 8
            assert [record.lsn async for record in reader] == list(range(21, 41, 2)), "what was sent ahead is not shown"
        assert await redis("XADD", "s", "MAXLEN", "10", "*", "f", "v") == b"41-0"
        assert await redis("XTRIM", "s", "MINID", "25") == 1
        assert await redis("XLEN", "s") == 9
        after = Devices()
        after.devices[""] = devices[""].fork().crash()
    async with side(tmp_path, after) as server, talking(tmp_path) as redis:
        assert await redis("XLEN", "s") == 9
        assert [entry[0] for entry in await redis("XRANGE", "s", "-", "+", "COUNT", "2")] == [b"25-0", b"27-0"]
        assert await redis("XLEN", "other") == 20
        hidden = server.logs[""].writer.core.metadata.hidden
        assert hidden.count == 1, "trimming leaves one range"


async def test_about_so_many_go_by_hundreds(tmp_path: Path) -> None:
    async with side(tmp_path), talking(tmp_path) as redis:
        for _ in range(450):
            redis.say("XADD", "s", "*", "f", "v")
        for _ in range(450):
            await redis.hear()
        assert await redis("XTRIM", "s", "MAXLEN", "~", "400") == 0
        assert await redis("XTRIM", "s", "MAXLEN", "~", "120") == 300
        assert await redis("XTRIM", "s", "MINID", "~", "430", "LIMIT", "50") == 0
        assert await redis("XTRIM", "s", "MINID", "~", "430") == 100
        assert await redis("XTRIM", "s", "MAXLEN", "~", "0") == 50
        assert await redis("EXISTS", "s") == 1
        assert await redis("XLEN", "s") == 0


async def test_a_stream_that_is_deleted_begins_anew_without_its_groups(tmp_path: Path) -> None:
    async with side(tmp_path) as server, talking(tmp_path) as redis, talking(tmp_path) as waiting:
        for key in ("a", "b"):
            await redis("XADD", key, "*", "f", "v")
            await redis("XGROUP", "CREATE", key, "g", "0")
            await redis("XREADGROUP", "GROUP", "g", "one", "STREAMS", key, ">")
        waiting.say("XREADGROUP", "GROUP", "g", "two", "BLOCK", "0", "STREAMS", "a", ">")
        await turns()
        assert await redis("DEL", "a", "none", "a") == 1
        assert (await asyncio.wait_for(waiting.hear(), 60)).startswith("-")
        assert await redis("KEYS", "*") == [b"b"]
        assert await redis("XADD", "a", "*", "f", "v") == b"3-0"
        assert await redis("XRANGE", "a", "-", "+") == [[b"3-0", [b"f", b"v"]]]
        assert await redis("XINFO", "GROUPS", "a") == []
        assert await redis("UNLINK", "a", "b") == 2
        assert await redis("DBSIZE") == 0
        consumer = await server.logs[""].topic("mine").consumer("c")
        assert (await redis("DEL", "mine")).startswith("-ERR consumer 'c' of topic 'mine' is open")
        await consumer.close()


async def test_letting_entries_go_needs_the_right_of_an_administrator(tmp_path: Path) -> None:
    tokens = Tokens([(TOKEN, Grant("all", frozenset({"append", "read", "consume"})))])
    async with side(tmp_path, tokens=tokens), talking(tmp_path) as redis:
        assert await redis("AUTH", TOKEN) == "OK"
        assert await redis("XADD", "s", "*", "f", "v") == b"1-0"
        for words in (
            ["XDEL", "s", "1-0"],
            ["XTRIM", "s", "MAXLEN", "0"],
            ["XADD", "s", "MAXLEN", "0", "*", "f", "v"],
            ["XADD", "s", "MINID", "~", "9", "*", "f", "v"],
            ["DEL", "s"],
            ["UNLINK", "s"],
        ):
            assert (await redis(*words)).startswith("-NOPERM"), words
        assert await redis("XRANGE", "s", "-", "+") == [[b"1-0", [b"f", b"v"]]]


async def test_a_transaction_takes_nothing_that_lets_entries_go(tmp_path: Path) -> None:
    async with side(tmp_path), talking(tmp_path) as redis:
        await redis("XADD", "s", "*", "f", "v")
        for words in (
            ["XADD", "s", "MAXLEN", "0", "*", "f", "v"],
            ["XDEL", "s", "1-0"],
            ["XTRIM", "s", "MAXLEN", "0"],
            ["DEL", "s"],
        ):
            assert await redis("MULTI") == "OK"
            assert (await redis(*words)).startswith("-ERR walsvc's MULTI takes")
            assert (await redis("EXEC")).startswith("-EXECABORT")
        assert await redis("XLEN", "s") == 1


async def test_entries_that_went_stay_pending_until_somebody_acknowledges_or_claims_them(tmp_path: Path) -> None:
    async with side(tmp_path), talking(tmp_path) as redis:
        for _ in range(6):
            await redis("XADD", "s", "*", "f", "v")
        await redis("XGROUP", "CREATE", "s", "g", "0")
        await redis("XREADGROUP", "GROUP", "g", "one", "COUNT", "4", "STREAMS", "s", ">")
        assert await redis("XDEL", "s", "1-0", "2-0", "5-0") == 3
        assert (await redis("XPENDING", "s", "g"))[0] == 4
        assert await redis("XREADGROUP", "GROUP", "g", "one", "COUNT", "2", "STREAMS", "s", "0") == [
            [b"s", [[b"1-0", None], [b"2-0", None]]]
        ]
        assert await redis("XACK", "s", "g", "1-0") == 1
        assert await redis("XAUTOCLAIM", "s", "g", "two", "0", "0", "JUSTID") == [b"0-0", [b"3-0", b"4-0"], [b"2-0"]]
        assert await redis("XREADGROUP", "GROUP", "g", "one", "STREAMS", "s", ">") == [[b"s", [[b"6-0", [b"f", b"v"]]]]]


async def test_entries_that_went_while_pending_are_acknowledged_after_a_restart(tmp_path: Path) -> None:
    devices = Devices()
    async with side(tmp_path, devices), talking(tmp_path) as redis:
        for _ in range(8):
            await redis("XADD", "s", "*", "f", "v")
        await redis("XGROUP", "CREATE", "s", "g", "0")
        await redis("XREADGROUP", "GROUP", "g", "one", "STREAMS", "s", ">")
        assert await redis("XDEL", "s", "1-0", "3-0", "5-0", "6-0", "8-0") == 5
    async with side(tmp_path, devices), talking(tmp_path) as redis:
        assert (await redis("XPENDING", "s", "g"))[0] == 8
        assert await redis("XACK", "s", "g", "2-0", "4-0", "3-0", "3-0") == 3  # those behind it take none of it along
        assert [each[0] for each in await redis("XPENDING", "s", "g", "-", "+", "9")] == [
            b"1-0",
            b"5-0",
            b"6-0",
            b"7-0",
            b"8-0",
        ]
        assert await redis("MULTI") == "OK"
        await redis("XACK", "s", "g", "5-0", "7-0")
        await redis("XACK", "s", "g", "5-0", "1-0")
        assert await redis("EXEC") == [2, 1]
    async with side(tmp_path, devices), talking(tmp_path) as redis:
        assert await redis("XREADGROUP", "GROUP", "g", "one", "STREAMS", "s", "0") == [
            [b"s", [[b"6-0", None], [b"8-0", None]]]
        ]
        assert await redis("XADD", "s", "*", "f", "v") == b"9-0"
        found = await redis("XREADGROUP", "GROUP", "g", "two", "STREAMS", "s", ">")
        assert found == [[b"s", [[b"9-0", [b"f", b"v"]]]]]
        assert await redis("XACK", "s", "g", "9-0", "8-0", "6-0") == 3
        assert (await redis("XPENDING", "s", "g"))[0] == 0
        assert await redis("XACK", "s", "g", "9-0", "8-0", "6-0") == 0


async def test_group_that_a_truncation_has_overtaken_says_so_until_it_is_moved(tmp_path: Path) -> None:
    async with side(tmp_path) as server, talking(tmp_path) as redis:
        for number in range(6):
            await redis("XADD", "s", "*", "n", number)
        assert await redis("XGROUP", "CREATE", "s", "g", "0") == "OK"
        await redis("XREADGROUP", "GROUP", "g", "w", "COUNT", "2", "STREAMS", "s", ">")
        await server.logs[""].topic("s").truncate_before(5)
        failure = await redis("XREADGROUP", "GROUP", "g", "w", "STREAMS", "s", ">")
        assert failure.startswith("-TRUNCATED consumer 'g' was overtaken"), failure
        assert failure.endswith("Hint: XGROUP SETID key group 0 goes on with what is there")
        assert (await redis("XPENDING", "s", "g"))[:3] == [2, b"1-0", b"2-0"]
        assert await redis("XREADGROUP", "GROUP", "g", "w", "STREAMS", "s", "0") == [
            [b"s", [[b"1-0", None], [b"2-0", None]]]
        ]
        assert (await redis("XINFO", "GROUPS", "s"))[0][-1] is None
        assert await redis("XACK", "s", "g", "1-0", "2-0") == 2
        assert await redis("XGROUP", "SETID", "s", "g", "0") == "OK"
        given = await redis("XREADGROUP", "GROUP", "g", "w", "STREAMS", "s", ">")
        assert [id for id, _ in given[0][1]] == [b"5-0", b"6-0"]
