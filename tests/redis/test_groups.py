"""Groups: what a consumer has stays its own over restarts, may be taken over, and is done once it is acknowledged."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

from tests.redis.serving import Talk, side, talking, turns
from tests.service.simulated import Devices
from tests.waiting import until
from walsvc.service.server.limits import Limits


async def add(redis: Talk, count: int, key: str = "s") -> list[bytes]:
    """Entries, as many as asked for; returns their ids."""
    return [await redis("XADD", key, "*", "n", str(number)) for number in range(count)]


def ids(answer: Any) -> list[bytes]:
    """The ids in an answer of XREADGROUP about one stream."""
    return [] if answer is None else [entry[0] for entry in answer[0][1]]


async def test_each_entry_goes_to_one_consumer_and_is_acknowledged_in_any_order(tmp_path: Path) -> None:
    async with side(tmp_path), talking(tmp_path) as redis:
        all_of_them = await add(redis, 4)
        assert await redis("XGROUP", "CREATE", "s", "g", "0") == "OK"
        first = ids(await redis("XREADGROUP", "GROUP", "g", "one", "COUNT", "2", "STREAMS", "s", ">"))
        second = ids(await redis("XREADGROUP", "GROUP", "g", "two", "STREAMS", "s", ">"))
        assert [*first, *second] == all_of_them
        assert await redis("XREADGROUP", "GROUP", "g", "one", "STREAMS", "s", ">") is None
        assert await redis("XACK", "s", "g", first[1], second[0], "99-0", first[1]) == 2
        assert await redis("XACK", "s", "g", first[1]) == 0
        assert await redis("XPENDING", "s", "g") == [2, first[0], second[1], [[b"one", b"1"], [b"two", b"1"]]]
        assert ids(await redis("XREADGROUP", "GROUP", "g", "one", "STREAMS", "s", "0")) == [first[0]]


async def test_what_a_consumer_has_is_there_after_a_crash(tmp_path: Path) -> None:
    devices = Devices()
    async with side(tmp_path, devices), talking(tmp_path) as redis:
        given = await add(redis, 3)
        await redis("XGROUP", "CREATE", "s", "g", "0")
        await redis("XREADGROUP", "GROUP", "g", "one", "COUNT", "2", "STREAMS", "s", ">")
        await redis("XACK", "s", "g", given[0])
        after = Devices()
        after.devices[""] = devices[""].fork().crash()
    async with side(tmp_path, after), talking(tmp_path) as redis:
        assert await redis("XPENDING", "s", "g") == [1, given[1], given[1], [[b"one", b"1"]]]
        assert ids(await redis("XREADGROUP", "GROUP", "g", "one", "STREAMS", "s", ">")) == [given[2]]
        assert ids(await redis("XREADGROUP", "GROUP", "g", "one", "STREAMS", "s", "0")) == given[1:]
        assert await redis("XACK", "s", "g", *given) == 2
        assert await redis("XPENDING", "s", "g") == [0, None, None, None]


async def test_consumer_that_is_gone_loses_its_entries_to_who_claims_them(tmp_path: Path) -> None:
    async with side(tmp_path) as server, talking(tmp_path) as redis:
        given = await add(redis, 3)
        await redis("XGROUP", "CREATE", "s", "g", "0")
        await redis("XREADGROUP", "GROUP", "g", "one", "STREAMS", "s", ">")
        assert await redis("XCLAIM", "s", "g", "two", "3600000", given[0]) == []
        assert [entry[0] for entry in await redis("XCLAIM", "s", "g", "two", "0", given[0], "77-0")] == [given[0]]
        assert await redis("XCLAIM", "s", "g", "two", "0", given[1], "JUSTID") == [given[1]]
        rows = await redis("XPENDING", "s", "g", "-", "+", "10")
        assert [(id_, who, attempts) for id_, who, _, attempts in rows] == [
            (given[0], b"two", 2),
            (given[1], b"two", 1),
            (given[2], b"one", 1),
        ]
        assert await redis("XAUTOCLAIM", "s", "g", "three", "0", "0", "COUNT", "2", "JUSTID") == [
            given[2],
            given[:2],
            [],
        ]
        assert len(await redis("XPENDING", "s", "g", "-", "+", "10", "three")) == 2
        assert await redis("XPENDING", "s", "g", "IDLE", "3600000", "-", "+", "10") == []
        assert await redis("XGROUP", "DELCONSUMER", "s", "g", "three") == 2
        statuses = await server.logs[""].topic("s").consumers()
        assert [(each.name, each.outstanding) for each in statuses] == [("g", 1)]


async def test_reading_waits_for_what_nobody_has_had(tmp_path: Path) -> None:
    async with side(tmp_path), talking(tmp_path) as one, talking(tmp_path) as two:
        assert await one("XGROUP", "CREATE", "s", "g", "$", "MKSTREAM") == "OK"
        one.say("XREADGROUP", "GROUP", "g", "one", "BLOCK", "0", "COUNT", "1", "STREAMS", "s", ">")
        await turns()
        given = await add(two, 2)
        assert ids(await one.hear()) == [given[0]]
        assert ids(await two("XREADGROUP", "GROUP", "g", "two", "NOACK", "STREAMS", "s", ">")) == [given[1]]
        assert await two("XPENDING", "s", "g") == [1, given[0], given[0], [[b"one", b"1"]]]
        assert await two("XREADGROUP", "GROUP", "g", "two", "BLOCK", "1", "STREAMS", "s", ">") is None


async def test_consumer_that_waits_and_hangs_up_takes_nothing(tmp_path: Path) -> None:
    async with side(tmp_path) as server, talking(tmp_path) as two:
        await two("XGROUP", "CREATE", "s", "g", "$", "MKSTREAM")
        async with talking(tmp_path) as one:
            one.say("XREADGROUP", "GROUP", "g", "one", "BLOCK", "0", "STREAMS", "s", ">")
            await turns()
        await until(lambda: len(server.roster) <= 1, 0)
        given = await add(two, 1)
        assert ids(await two("XREADGROUP", "GROUP", "g", "two", "STREAMS", "s", ">")) == given


async def test_group_goes_and_others_are_told(tmp_path: Path) -> None:
    async with side(tmp_path), talking(tmp_path) as redis:
        await add(redis, 1)
        assert await redis("XGROUP", "DESTROY", "s", "g") == 0
        await redis("XGROUP", "CREATE", "s", "g", "0")
        assert await redis("XGROUP", "CREATECONSUMER", "s", "g", "one") == 1
        assert await redis("XGROUP", "CREATECONSUMER", "s", "g", "one") == 0
        [group] = await redis("XINFO", "GROUPS", "s")
        numbers = [b"last-delivered-id", b"0-0", b"entries-read", 0, b"lag", 1]
        assert group == [b"name", b"g", b"consumers", 1, b"pending", 0, *numbers]
        [consumer] = await redis("XINFO", "CONSUMERS", "s", "g")
        assert consumer[:4] == [b"name", b"one", b"pending", 0]
        assert await redis("XGROUP", "DESTROY", "s", "g") == 1
        told = "-NOGROUP No such key 's' or consumer group 'g' in XREADGROUP with GROUP option"
        assert await redis("XREADGROUP", "GROUP", "g", "one", "STREAMS", "s", ">") == told


async def test_those_that_wait_hear_that_their_group_goes_and_survive_that_their_consumer_does(tmp_path: Path) -> None:
    async with side(tmp_path), talking(tmp_path) as one, talking(tmp_path) as two:
        await two("XGROUP", "CREATE", "s", "g", "$", "MKSTREAM")
        await two("XGROUP", "CREATECONSUMER", "s", "g", "one")
        one.say("XREADGROUP", "GROUP", "g", "one", "BLOCK", "0", "STREAMS", "s", ">")
        await turns()
        assert await two("XGROUP", "DELCONSUMER", "s", "g", "one") == 0
        given = await add(two, 1)
        assert ids(await one.hear()) == given
        one.say("XREADGROUP", "GROUP", "g", "one", "BLOCK", "0", "STREAMS", "s", ">")
        await turns()
        assert await two("XGROUP", "DESTROY", "s", "g") == 1
        assert await one.hear() == "-NOGROUP the consumer group this client was blocked on no longer exists"
        assert await one("PING") == "PONG"


async def test_claim_says_when_and_how_often_and_the_log_keeps_it(tmp_path: Path) -> None:
    devices = Devices()
    async with side(tmp_path, devices), talking(tmp_path) as redis:
        first, _, third = await add(redis, 3)
        await redis("XGROUP", "CREATE", "s", "g", "0")
        await redis("XREADGROUP", "GROUP", "g", "one", "COUNT", "2", "STREAMS", "s", ">")
        assert ids(
            [[b"s", await redis("XCLAIM", "s", "g", "two", "0", first, "RETRYCOUNT", "7", "IDLE", "3600000")]]
        ) == [first]
        assert await redis("XCLAIM", "s", "g", "two", "0", third, "JUSTID") == []
        assert await redis("XCLAIM", "s", "g", "two", "0", third, first, "JUSTID", "FORCE", "TIME", "1000") == [
            third,
            first,
        ]
        assert await redis("XREADGROUP", "GROUP", "g", "one", "STREAMS", "s", ">") is None
        after = Devices()
        after.devices[""] = devices[""].fork().crash()
    async with side(tmp_path, after), talking(tmp_path) as redis:
        found = await redis("XPENDING", "s", "g", "IDLE", "3600000", "-", "+", "10")
        assert [[each[0], each[1], each[3]] for each in found] == [[first, b"two", 7], [third, b"two", 1]]


async def test_each_look_at_what_a_consumer_has_is_another_delivery(tmp_path: Path) -> None:
    async with side(tmp_path), talking(tmp_path) as redis:
        given = await add(redis, 2)
        await redis("XGROUP", "CREATE", "s", "g", "0")
        await redis("XREADGROUP", "GROUP", "g", "one", "STREAMS", "s", ">")
        assert ids(await redis("XREADGROUP", "GROUP", "g", "one", "STREAMS", "s", given[0])) == given[1:]
        assert [each[3] for each in await redis("XPENDING", "s", "g", "-", "+", "10")] == [1, 2]


async def test_groups_count_as_consumers_of_the_log(tmp_path: Path) -> None:
    async with side(tmp_path, limits=Limits(consumers=1)) as server, talking(tmp_path) as redis:
        assert await redis("XGROUP", "CREATE", "s", "g", "$", "MKSTREAM") == "OK"
        assert (await redis("XGROUP", "CREATE", "s", "h", "$")).startswith("-BACKPRESSURE the log has 1 consumers")
        assert [each.name for each in await server.logs[""].topic("s").consumers()] == ["g"]


async def test_wait_that_ends_while_entries_are_being_taken_loses_none(tmp_path: Path) -> None:
    """Two streams have something at once, and the note of who has the second one's takes longer than BLOCK allows."""
    devices = Devices()
    async with side(tmp_path, devices) as server, talking(tmp_path) as redis, talking(tmp_path) as adding:
        for key in ("s", "t"):
            await redis("XGROUP", "CREATE", key, "g", "0", "MKSTREAM")
        redis.say("XREADGROUP", "GROUP", "g", "w", "BLOCK", "50", "STREAMS", "t", "s", ">", ">")
        commits = count(1)

        def committed(*_: object) -> None:
            if next(commits) == 2:  # behind the entries' and the note about the first stream's
                devices[""].stall_sync(0.2)

        await turns()
        server.logs[""].writer.core.counters.observer = committed
        given = await transaction(adding, ("XADD", "s", "*", "n", "1"), ("XADD", "t", "*", "n", "2"))
        got = [entry[0] for stream in await redis.hear() or () for entry in stream[1]]
        for _ in range(3):
            answer = await redis("XREADGROUP", "GROUP", "g", "w", "STREAMS", "t", "s", ">", ">")
            got += [entry[0] for stream in answer or () for entry in stream[1]]
        assert sorted(got) == sorted(given)


async def transaction(redis: Talk, *commands: tuple[str, ...]) -> Any:
    """What EXEC answers."""
    for command in (("MULTI",), *commands, ("EXEC",)):
        redis.say(*command)
    return [await redis.hear() for _ in range(len(commands) + 2)][-1]
