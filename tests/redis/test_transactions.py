"""MULTI and EXEC: one group, or nothing of it."""

from __future__ import annotations

from pathlib import Path

from tests.redis.serving import GONE, side, talking
from tests.service.simulated import Devices
from walsvc.service.server.limits import Limits


async def test_entries_and_acknowledgements_are_one_group(tmp_path: Path) -> None:
    async with side(tmp_path) as server, talking(tmp_path) as redis:
        await redis("XADD", "jobs", "*", "n", "1")
        await redis("XGROUP", "CREATE", "jobs", "g", "0")
        await redis("XREADGROUP", "GROUP", "g", "one", "STREAMS", "jobs", ">")
        before = server.logs[""].stats().groups
        assert await redis("MULTI") == "OK"
        for words in (("XADD", "a", "*", "n", "1"), ("XACK", "jobs", "g", "1-0", "9-0"), ("XADD", "b", "*", "n", "2")):
            assert await redis(*words) == "QUEUED"
        assert await redis("XACK", "jobs", "g", "1-0") == "QUEUED"
        told = "-ERR walsvc's MULTI takes XADD, XACK and commands that only look, and not XGROUP"
        assert await redis("XGROUP", "DESTROY", "jobs", "g") == told
        assert (await redis("EXEC")).startswith("-EXECABORT")
        assert await redis("XLEN", "a") == 0
        await redis("MULTI")
        for words in (("XADD", "a", "*", "n", "1"), ("XACK", "jobs", "g", "1-0", "9-0"), ("XADD", "b", "*", "n", "2")):
            assert await redis(*words) == "QUEUED"
        assert await redis("XACK", "jobs", "g", "1-0") == "QUEUED"
        assert await redis("XADD", "a", "*", "odd", "1", "2") == "QUEUED"
        told = "-ERR wrong number of arguments for 'xadd' command"
        assert await redis("EXEC") == [b"2-0", 1, b"3-0", 0, told]
        assert server.logs[""].stats().groups == before + 1
        assert await redis("XPENDING", "jobs", "g") == [0, None, None, None]


async def test_looks_in_front_see_the_log_as_it_was_and_looks_behind_what_was_done(tmp_path: Path) -> None:
    async with side(tmp_path), talking(tmp_path) as redis, talking(tmp_path) as other:
        await redis("MULTI")
        for words in (("XLEN", "s"), ("PING",), ("XADD", "s", "*", "n", "1"), ("XADD", "s", "*", "n", "2")):
            assert await redis(*words) == "QUEUED"
        for words in (
            ("XLEN", "s"),
            ("XREAD", "COUNT", "1", "BLOCK", "0", "STREAMS", "s", "$"),
            ("XRANGE", "s", "x", "+"),
        ):
            assert await redis(*words) == "QUEUED"
        bad = "-ERR Invalid stream ID specified as stream command argument"
        assert await redis("EXEC") == [0, "PONG", b"1-0", b"2-0", 2, None, bad]
        await redis("MULTI")
        await redis("XADD", "s", "*", "n", "3")
        assert await redis("XLEN", "s") == "QUEUED"
        told = "-ERR walsvc's MULTI takes no XADD behind a command that looks at what others before it write"
        assert await redis("XADD", "s", "*", "n", "4") == told
        assert (await redis("EXEC")).startswith("-EXECABORT")
        await redis("WATCH", "s")
        await other("XADD", "s", "*", "n", "5")
        await redis("MULTI")
        await redis("XLEN", "s")
        assert await redis("EXEC") is None


async def test_answered_transaction_is_on_stable_storage(tmp_path: Path) -> None:
    devices = Devices()
    async with side(tmp_path, devices), talking(tmp_path) as redis:
        await redis("MULTI")
        for key in ("a", "b"):
            await redis("XADD", key, "*", "n", "1")
        assert await redis("EXEC") == [b"1-0", b"2-0"]
        after = Devices()
        after.devices[""] = devices[""].fork().crash()
    async with side(tmp_path, after), talking(tmp_path) as redis:
        assert [await redis("XLEN", key) for key in ("a", "b")] == [1, 1]


async def test_stream_that_is_watched_must_end_as_it_did(tmp_path: Path) -> None:
    async with side(tmp_path), talking(tmp_path) as one, talking(tmp_path) as two:
        for other in (False, True):
            await one("WATCH", "s", "none")
            if other:
                await two("XADD", "s", "*", "n", "2")
            await one("MULTI")
            assert await one("WATCH", "s") == "-ERR WATCH inside MULTI is not allowed"
            await one("XADD", "s", "*", "n", "1")
            assert await one("EXEC") == (None if other else [b"1-0"])
        await one("WATCH", "s")
        await two("XADD", "s", "*", "n", "3")
        assert await one("UNWATCH") == "OK"
        await one("MULTI")
        await one("XADD", "s", "*", "n", "1")
        assert await one("EXEC") == [b"4-0"]


async def test_what_is_kept_until_exec_is_counted_and_bounded(tmp_path: Path) -> None:
    async with side(tmp_path, limits=Limits(pending_bytes=65536)) as server:
        async with talking(tmp_path) as redis:
            await redis("MULTI")
            answers = [await redis("XADD", "s", "*", "payload", b"x" * 10_000) for _ in range(7)]
            assert answers[:6] == ["QUEUED"] * 6
            assert answers[6].startswith("-ERR a transaction takes 65536 bytes at most")
            assert 60_000 < server.budget.bytes < 70_000
            assert (await redis("EXEC")).startswith("-EXECABORT")
            assert server.budget.bytes == 0
            assert await redis("EXEC") == "-ERR EXEC without MULTI"
            assert await redis("DISCARD") == "-ERR DISCARD without MULTI"
            await redis("MULTI")
            await redis("XADD", "s", "*", "payload", b"x" * 10_000)
            redis.say("QUIT")
            assert [await redis.hear(), await redis.hear()] == ["OK", GONE]
        assert server.budget.bytes == 0
