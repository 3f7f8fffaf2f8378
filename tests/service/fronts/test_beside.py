"""Redis's clients, HTTP and walsvc's own protocol on the same topics and consumers: what one may do to the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import chain

import pytest

import walsvc
from tests.redis.serving import Talk, talking
from tests.service.fronts.conftest import told
from walsvc import InUse, LeaseLost
from walsvc.log.read.counting import Counter
from walsvc.service.fronts.redis.commands import COMMANDS
from walsvc.service.fronts.redis.listening import listen
from walsvc.service.server.auth import Grant, Tokens
from walsvc.service.wire.methods import RIGHTS

TOKEN = "0123456789abcdef"
QUEUE = "/v1/topics/t/consumers"


@pytest.fixture
def both(fronted, tmp_path):
    """`async with both() as (session, log, redis)`: a server, asked over HTTP, by its own protocol and by a client of Redis."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[tuple]:
        async with fronted() as session:
            await listen(session.server, str(tmp_path / "r"))
            async with walsvc.open(f"unix://{tmp_path / 'socket'}") as log, talking(tmp_path) as redis:
                for number in range(6):
                    await log.topic("t").append(b"%d" % number)
                yield session, log, redis

    return opened


ABOUT_A_GROUP = [
    ("XREADGROUP", "GROUP", "q", "w", "STREAMS", "t", ">"),
    ("XPENDING", "t", "q"),
    ("XACK", "t", "q", "1-0"),
    ("XCLAIM", "t", "q", "w", "0", "1-0"),
    ("XAUTOCLAIM", "t", "q", "w", "0", "0"),
    ("XINFO", "CONSUMERS", "t", "q"),
    ("XGROUP", "SETID", "t", "q", "0"),
    ("XGROUP", "CREATECONSUMER", "t", "q", "w"),
    ("XGROUP", "DELCONSUMER", "t", "q", "w"),
    ("XGROUP", "DESTROY", "t", "q"),
]


async def test_work_queue_with_a_lease_is_no_group_whether_it_is_open_or_not(both):
    async with both() as (session, log, redis):
        topic = log.topic("t")
        assert await redis("XGROUP", "CREATE", "t", "g", "0") == "OK"
        one = await topic.consumer("q", shared=True, lease=30.0)
        for _ in "open", "closed":
            for words in ABOUT_A_GROUP:
                assert (await redis(*words)).startswith("-INUSE consumer 'q' of 't' is a work queue with a lease"), (
                    words
                )
            assert (await redis("XGROUP", "CREATE", "t", "q", "0")).startswith("-BUSYGROUP")
            assert [group[1] for group in await redis("XINFO", "GROUPS", "t")] == [b"g"]
            whole = await redis("XINFO", "STREAM", "t", "FULL")
            assert [group[1] for group in whole[whole.index(b"groups") + 1]] == [b"g"]
            short = await redis("XINFO", "STREAM", "t")
            assert short[short.index(b"groups") + 1] == 1
            await one.close()
        again = await topic.consumer("q", shared=True)
        assert again.sharing.lease == 30.0
        assert (await again.next()).record.lsn == 1
        status, given = await told(await session.post(f"{QUEUE}/q/lease", json={}))
        assert (status, given["deliveries"][0]["record"]["lsn"]) == (200, 2)


async def test_group_goes_with_its_topic_once_the_last_client_of_redis_has_left(both, tmp_path):
    async with both() as (session, log, redis):
        topic = log.topic("t")
        for group in "gh":
            assert await redis("XGROUP", "CREATE", "t", group, "0") == "OK"
            await redis("XREADGROUP", "GROUP", group, "w", "COUNT", "2", "STREAMS", "t", ">")
        for body in ({}, {"lease": 5}):
            status, problem = await told(await session.post(f"{QUEUE}/g/lease", json=body))
            assert (status, problem["type"], "worker=" in str(problem)) == (409, "urn:walsvc:InUse", False)
        assert (await session.delete("/v1/topics/t")).status == 409
        with pytest.raises(InUse):
            await topic.delete_consumer("g")
        redis.close()
        while len(session.server.roster) > 1:
            await asyncio.sleep(0)
        await session.server.shared.closing.done()
        await topic.delete_consumer("g")
        async with talking(tmp_path) as back:
            assert (await back("XPENDING", "t", "h"))[0] == 2
            assert (await session.delete("/v1/topics/t")).status == 409
        while len(session.server.roster) > 1:
            await asyncio.sleep(0)
        await session.server.shared.closing.done()
        assert (await session.delete("/v1/topics/t")).status == 204
        assert session.server.logs[""].topics() == []


async def test_client_that_comes_while_the_last_one_leaves_has_its_groups(both, tmp_path):
    async with both() as (_, _, talk):
        redis = talk
        assert await redis("XGROUP", "CREATE", "t", "g", "0") == "OK"
        for number in range(1, 4):
            async with talking(tmp_path) as other:
                given = await other("XREADGROUP", "GROUP", "g", "w", "COUNT", "1", "STREAMS", "t", ">")
                assert given[0][1][0][0] == b"%d-0" % number
                redis.close()
                redis = Talk(*await asyncio.open_unix_connection(tmp_path / "r"))
            assert (await redis("XPENDING", "t", "g"))[0] == number
        redis.close()


async def test_worker_of_walsvc_and_one_of_redis_share_a_group(both):
    async with both() as (_, log, redis):
        assert await redis("XGROUP", "CREATE", "t", "g", "0") == "OK"
        ours = await log.topic("t").consumer("g", shared=True, lease=None, worker="ours")
        first = await ours.next()
        given = await redis("XREADGROUP", "GROUP", "g", "theirs", "COUNT", "1", "STREAMS", "t", ">")
        assert (first.record.lsn, given[0][1][0][0]) == (1, b"2-0")
        assert await redis("XCLAIM", "t", "g", "theirs", "0", "1-0", "JUSTID") == [b"1-0"]
        for ending in (first.ack, first.nak):
            with pytest.raises(LeaseLost):
                await ending()
        with pytest.raises(LeaseLost):
            async with log.transaction() as transaction:
                transaction.ack(first)
        assert (await redis("XGROUP", "DESTROY", "t", "g")).startswith("-ERR consumer 'g' is open")
        assert (await redis("DEL", "t")).startswith("-ERR consumer 'g' of topic 't' is open")
        assert (await redis("XPENDING", "t", "g"))[0] == 2
        await ours.close()
        assert await redis("XGROUP", "DESTROY", "t", "g") == 1


RIGHT = {
    **{name: command.right for name, command in COMMANDS.items() if command.right is not None},
    b"XGROUP DESTROY": "admin",
    b"XADD MAXLEN": "admin",
}
WORDS: dict[bytes, tuple[str, ...]] = {
    b"DEL": ("t",),
    b"UNLINK": ("t",),
    b"DBSIZE": (),
    b"EXISTS": ("t",),
    b"INFO": (),
    b"KEYS": ("*",),
    b"SCAN": ("0",),
    b"TYPE": ("t",),
    b"WAIT": ("0", "1"),
    b"WAITAOF": ("0", "0", "1"),
    b"XADD": ("t", "*", "f", "v"),
    b"XADD MAXLEN": ("t", "MAXLEN", "0", "*", "f", "v"),
    b"WATCH": ("t",),
    b"XACK": ("t", "g", "1-0"),
    b"XAUTOCLAIM": ("t", "g", "w", "0", "0"),
    b"XCLAIM": ("t", "g", "w", "0", "1-0"),
    b"XDEL": ("t", "1-0"),
    b"XGROUP": ("CREATECONSUMER", "t", "g", "w"),
    b"XGROUP DESTROY": ("DESTROY", "t", "g"),
    b"XINFO": ("GROUPS", "t"),
    b"XLEN": ("t",),
    b"XPENDING": ("t", "g"),
    b"XRANGE": ("t", "-", "+"),
    b"XREAD": ("STREAMS", "t", "0"),
    b"XREADGROUP": ("GROUP", "g", "w", "STREAMS", "t", ">"),
    b"XREVRANGE": ("t", "+", "-"),
    b"XTRIM": ("t", "MAXLEN", "0"),
}


async def test_each_command_needs_its_right_in_and_out_of_a_transaction(fronted, tmp_path):
    tokens = Tokens([(f"{TOKEN}{right}", Grant(f"not {right}", RIGHTS - {right})) for right in sorted(RIGHTS)])
    assert set(RIGHT) == set(WORDS)
    async with fronted(tokens=tokens) as session:
        await listen(session.server, str(tmp_path / "r"))
        async with talking(tmp_path) as redis:
            for name, words in WORDS.items():
                verb = name.decode().partition(" ")[0]
                assert await redis("AUTH", f"{TOKEN}{RIGHT[name]}") == "OK"
                assert (await redis(verb, *words)).startswith("-NOPERM this token has no right to"), name
                assert await redis("MULTI") == "OK"
                assert (await redis(verb, *words)).startswith(("-NOPERM", "-ERR walsvc's MULTI takes")), name
                broken = verb != "WATCH"  # which is nothing between MULTI and EXEC, in Redis neither
                assert str(await redis("EXEC")).startswith("-EXECABORT") == broken, name
        log = session.server.logs[""]
        assert (log.next_lsn, log.topics()) == (1, [])


async def test_lease_looks_at_what_is_there_without_counting_what_is_done(fronted, monkeypatch):
    counted, count = 0, Counter.count

    async def counting(counter):
        nonlocal counted
        counted += 1
        return await count(counter)

    monkeypatch.setattr(Counter, "count", counting)
    async with fronted() as session:
        log = session.server.logs[""]
        for topic in chain.from_iterable((None, "t") for _ in range(20)):
            await (log if topic is None else log.topic(topic)).append(b"x")
        for place in ("/v1/topics/t/consumers/q", "/v1/consumers/q"):
            seen = 0
            while (answer := await session.post(f"{place}/lease", json={"max_records": 7})).status == 200:
                given = (await answer.json())["deliveries"]
                seen += len(given)
                body = {"deliveries": [each["delivery"] for each in given]}
                assert (await session.post(f"{place}/ack", json=body)).status == 204
            assert (answer.status, seen) == (204, 20 if "topics" in place else 40)
            took = []
            for _ in range(3):  # one of them alone may be slow on a busy machine
                started = asyncio.get_running_loop().time()
                assert (await session.post(f"{place}/lease", json={})).status == 204
                took.append(asyncio.get_running_loop().time() - started)
            assert min(took) < 0.9, "there is nothing to wait for"
        assert counted == 0
