"""What filters, seeking and purging are over a connection; the contract suite has what they have in common with the log."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from typing import Any

import pytest

import walsvc
from walsvc import BadOption, Closed, Denied, ReadStats, Truncated, UnsupportedFormat
from walsvc.api import Log
from walsvc.service.client.consumer import RemoteConsumer
from walsvc.service.client.remote import RemoteLog
from walsvc.service.client.topic import RemoteTopic
from walsvc.service.server.auth import Grant, Tokens
from walsvc.service.wire.frames import ITEMS_MAX, Ack, Call, Error, Open, Purged
from walsvc.service.wire.methods import APPEND, READ, RIGHTS
from walsvc.topics.consumer import Consumer
from walsvc.topics.topic import Topic

from .raw import Raw
from .simulated import serving

NOW = datetime.datetime.now(datetime.UTC)


def names(kind: type) -> set[str]:
    """The public names of a class and, since some are bound when an object is made, of what it makes."""
    bound = {
        "append",
        "append_nowait",
        "append_batch",
        "flush",
        "wait_durable",
        "path",
        "config",
        "writer",
        "report",
    }
    return {name for name in dir(kind) if not name.startswith("_")} | (bound if kind in (Log, RemoteLog) else set())


async def lsns(records: Any) -> list[int]:
    return [record.lsn async for record in records]


@pytest.mark.parametrize(
    ("local", "remote", "more"),
    [(Log, RemoteLog, {"connected", "on_connection"}), (Topic, RemoteTopic, set()), (Consumer, RemoteConsumer, set())],
)
async def test_served_log_has_every_name_of_the_log(local, remote, more) -> None:
    assert names(local) <= names(remote)
    internal = {"again", "cut", "failed", "lost", "opened", "purged", "received"}  # for the session
    assert names(remote) - names(local) <= more | (internal if remote is RemoteConsumer else set())


async def test_what_only_the_server_has_is_a_clear_error(tmp_path) -> None:
    async with serving(tmp_path) as server, walsvc.open(server.addresses[0]) as log:
        await log.append(b"x")
        for name in names(Log):
            with contextlib.suppress(BadOption):
                assert getattr(log, name) is not Log, "an AttributeError would be no clear error"
        with pytest.raises(BadOption, match="the server's"):
            _ = log.writer
        with pytest.raises(BadOption, match="the server's") as caught:
            await log.use_keys(None)
        assert caught.value.hint
        assert log.replicated_lsn is None
        with pytest.raises(BadOption, match="how far"):
            await log.compact(print)
        for reading in (log.read, log.read_batches, log.read_lazy, log.follow, log.topic("t").read):
            with pytest.raises(BadOption, match="counted where the disk is"):
                await anext(reading(stats=ReadStats()))
        with pytest.raises(BadOption, match="counted where the disk is"):
            await log.seek_time(NOW, stats=ReadStats())


async def test_only_what_is_wanted_travels(tmp_path) -> None:
    async with serving(tmp_path) as server, walsvc.open(server.addresses[0]) as log:
        for number in range(50):
            await log.append(bytes(10_000), type=number % 5, attributes={"n": number})
        before = server.status().sent_bytes
        assert await lsns(log.read(where={"n": [7, 31]})) == [8, 32]
        assert await lsns(log.read(types={3}, stop=10)) == [4, 9]
        assert await lsns(log.read(since=NOW + datetime.timedelta(days=1))) == []
        assert await lsns(log.read(until=datetime.datetime.max.replace(tzinfo=datetime.UTC), start=50)) == [50]
        assert server.status().sent_bytes - before < 100_000


async def test_required_type_ends_the_reading_behind_what_precedes_it(tmp_path) -> None:
    async with serving(tmp_path) as server, walsvc.open(server.addresses[0]) as log:
        for type in (1, 2, 1, 0x8001, 1):
            await log.append(b"x", type=type)
        found: list[int] = []
        with pytest.raises(UnsupportedFormat) as caught:
            async for record in log.read(types={1}):
                found.append(record.lsn)
        assert (found, caught.value.lsn) == ([1, 3], 4)
        assert await lsns(log.read(types={1, 0x8001})) == [1, 3, 4, 5]


async def test_filters_go_on_over_a_lost_connection_and_to_the_end(tmp_path) -> None:
    async with serving(tmp_path) as server, walsvc.open(server.addresses[0], read_ahead_bytes=4096) as log:
        following = log.follow(where={"of": "it"})
        for number in range(40):
            await log.append(bytes(500), attributes={"of": "it" if number % 2 else "them"})
        found = [(await anext(following)).lsn for _ in range(3)]
        for connection in server.roster:
            connection.abort()
        found += [(await anext(following)).lsn for _ in range(17)]
        assert found == list(range(2, 41, 2))
        last = asyncio.ensure_future(anext(following))
        await log.append(b"x", attributes={"of": "them"})
        await log.append(b"x", attributes={"of": "it"})
        assert (await last).lsn == 42
        await following.aclose()


async def test_filters_that_no_frame_can_carry_are_refused(tmp_path) -> None:
    async with serving(tmp_path) as server, walsvc.open(server.addresses[0]) as log:
        for wanted in ({"types": range(ITEMS_MAX + 1)}, {"where": {"n": list(range(ITEMS_MAX + 1))}}):
            with pytest.raises(BadOption, match=str(ITEMS_MAX)):
                await lsns(log.read(**wanted))
        with pytest.raises(BadOption, match="cannot be sent"):
            await lsns(log.read(where={"n": object()}))
        assert await lsns(log.read(types=range(ITEMS_MAX))) == []


async def test_server_checks_what_a_client_did_not(tmp_path) -> None:
    deep: list[Any] = []
    for _ in range(900):
        deep = [deep]
    wrong: list[dict[str, Any]] = [
        {"types": ["x"]},
        {"types": [1 << 16]},
        {"types": 5},
        {"where": [1]},
        {"where": {"a": 1}},
        {"where": {b"a": deep}},
        {"since": "now"},
        {"until": (1 << 64) - 1},
        {"stats": None},
    ]
    async with serving(tmp_path) as server, await Raw.welcomed(server) as raw:
        raw.append(1, b"x")
        await raw.next()
        for number, args in enumerate(wrong, 10):
            raw.send(Open(number, "read", args, 65536))
            answer = await raw.next()
            while not isinstance(answer, Error):
                answer = await raw.next()
            assert (answer.id, answer.code) == (number, "BadOption")
        calls = [("seek_time", {"moment": (1 << 64) - 1}), ("seek_time", {}), ("purge", {"labels": {}}), ("purge", {})]
        calls += [
            ("purge", {"labels": {"a": [1]}}),
            ("purge", {"labels": {"a": 1}, "before": 99}),
            ("compact", {"on": 1}),
        ]
        for number, (method, args) in enumerate(calls, 50):
            raw.send(Call(number, method, args))
            answer = await raw.expect(Error, number)
            assert answer.code == "BadOption", method


# ---- purging


async def test_nobody_gets_what_was_purged_after_it_was_sent_ahead(tmp_path) -> None:
    async with serving(tmp_path) as server, walsvc.open(server.addresses[0]) as log:
        url = server.addresses[0]
        for number in range(9):
            await log.topic("ab"[number % 2]).append(b"x", attributes={"key": f"k{number % 3}"})
        async with walsvc.open(url) as other:
            consumer = await other.consumer("c")
            reading, following = other.read(), other.follow()
            ahead = [await consumer.next(), await anext(reading), await anext(following)]
            assert [record.lsn for record in ahead] == [1, 1, 1]
            await log.purge("k1")
            await log.topic("a").purge("k2", before=9)
            await other.refresh()
            left = [3 + 1, 6, 7, 9]  # 2, 5 and 8 have k1; 3 and 9 have k2 and are of topic a, 6 is of b
            assert [(await consumer.next()).lsn for _ in range(4)] == left
            assert await lsns(reading) == left
            assert [(await anext(following)).lsn for _ in range(4)] == left
            await consumer.ack(9)
            await following.aclose()


async def test_purge_by_labels_of_the_program_around_the_server_is_told_to_its_clients(tmp_path) -> None:
    async with serving(tmp_path) as server, walsvc.open(server.addresses[0]) as log:
        for number in range(6):
            await log.topic("t").append(b"x", attributes={"key": f"k{number % 3}"})
        reading, within = log.read(), server.logs[""]
        assert (await anext(reading)).lsn == 1
        await within.purge("k1", before=3)
        await within.topic("t").purge({"key": "k2"})
        assert await lsns(reading) == [4, 5]


async def test_purging_needs_the_right_and_tells_only_those_who_may_read(tmp_path) -> None:
    tokens = Tokens(
        [
            ("a" * 16, Grant("a", frozenset({APPEND}))),
            ("r" * 16, Grant("r", frozenset({READ}))),
            ("x" * 16, Grant("x", RIGHTS)),
        ]
    )
    async with (
        serving(tmp_path, tokens=tokens) as server,
        await Raw.welcomed(server, token="a" * 16) as appending,
        await Raw.welcomed(server, token="r" * 16) as looking,
        await Raw.welcomed(server, token="x" * 16) as admin,
    ):
        appending.append(1, b"x", attributes=b"\x81\xa3key\xa1k")
        await appending.next()
        for raw in (appending, looking):
            raw.send(Call(5, "purge", {"labels": {"key": "k"}}))
            assert (await raw.expect(Error, 5)).code == "Denied"
            raw.send(Call(6, "compact", {}))
            assert (await raw.expect(Error, 6)).code == "Denied"
        admin.send(Call(7, "purge", {"labels": {"key": "k"}, "topic": "t"}))
        assert (await admin.expect(Purged, 0))[:4] == (0, "t", {"key": "k"}, 2)
        assert (await looking.expect(Purged, 0))[:4] == (0, "t", {"key": "k"}, 2)
        assert (await admin.next()).value == 2
        appending.append(2, b"y")
        while not isinstance(answer := await appending.next(), Ack):
            assert not isinstance(answer, Purged), "labels are not for everybody"
        assert answer.parts[0][0] == 2


async def test_what_is_hidden_by_lsn_is_not_shown_though_it_was_sent_ahead(tmp_path) -> None:
    async with (
        serving(tmp_path) as server,
        walsvc.open(server.addresses[0]) as log,
        walsvc.open(server.addresses[0]) as other,
    ):
        topic = log.topic("t")
        for number in range(40):
            await (topic if number % 2 == 0 else log).append(b"%d" % number)
        behind, done, whole = await topic.consumer("behind"), await topic.consumer("done"), await log.consumer("whole")
        reader, lazy, follower = log.read(), log.read_lazy(topic="t"), topic.follow()
        assert [(await each.next()).lsn for each in (behind, done, whole)] == [1, 1, 1]
        assert [(await anext(each)).lsn for each in (reader, lazy, follower)] == [1, 1, 1]
        await done.ack((await done.read_batch(max_records=5))[-1].lsn)
        assert await other.purge(lsns=[2, 21, 39]) == 3
        assert await other.purge(lsns=[2]) == 0
        await other.topic("t").truncate_before(10)
        assert (await anext(reader)).lsn == 4
        assert (await anext(lazy)).lsn == (await anext(follower)).lsn == 11
        assert [(await whole.next()).lsn for _ in range(2)] == [4, 6]
        with pytest.raises(Truncated):
            await behind.next()
        assert (await done.next()).lsn == 13
        await behind.seek("first")
        assert (await behind.next()).lsn == 11
        assert await other.topic("t").purge(keep=3) == 10
        assert [(await behind.next()).lsn for _ in range(3)] == [33, 35, 37]
        assert await lsns(topic.read()) == [33, 35, 37]


async def test_hiding_by_lsn_needs_the_right_of_an_administrator(tmp_path) -> None:
    tokens = Tokens([("a" * 16, Grant("a", RIGHTS - {"admin"})), ("x" * 16, Grant("x", RIGHTS))])
    for name in "ax":
        (tmp_path / name).write_text(name * 16)
        (tmp_path / name).chmod(0o600)
    async with serving(tmp_path, tokens=tokens) as server:
        async with walsvc.open(server.addresses[0], token_file=tmp_path / "a") as log:
            topic = log.topic("t")
            await topic.append(b"x")
            for call in (
                lambda: topic.truncate_before(2),
                lambda: topic.purge(before=2),
                lambda: topic.purge(keep=0),
                lambda: topic.purge(lsns=[1]),
                lambda: log.purge(lsns=[1]),
            ):
                with pytest.raises(Denied):
                    await call()
            assert await topic.count() == 1
        async with walsvc.open(server.addresses[0], token_file=tmp_path / "x", read_only=True) as log:
            with pytest.raises(Closed, match="read_only"):
                await log.topic("t").truncate_before(2)
            with pytest.raises(Closed, match="read_only"):
                await log.purge(lsns=[1])
            assert await log.topic("t").count() == 1


async def test_compaction_gives_space_back_and_the_client_hears_of_it(tmp_path) -> None:
    async with serving(tmp_path) as server, walsvc.open(server.addresses[0]) as log:
        for number in range(100):
            await log.append(bytes(3000), attributes={"key": number % 2})
        await log.refresh()
        before, kept = log.retention().bytes, await lsns(log.read())
        assert await log.compact() == 0
        await log.purge(1)
        freed = await log.compact()
        assert freed > 100_000
        assert log.retention().bytes == before - freed
        assert await lsns(log.read()) == kept[::2]


async def test_lazy_records_are_whole(tmp_path) -> None:
    async with serving(tmp_path) as server, walsvc.open(server.addresses[0]) as log:
        await log.topic("t").append(b"payload", type=3, attributes={"a": 1})
        [record] = [record async for record in log.topic("t").read_lazy(types={3})]
        assert (record.lsn, record.type, record.topic, record.length) == (1, 3, "t", 7)
        assert (await record.payload(), await record.attributes()) == (b"payload", {"a": 1})
        assert [batch[0].lsn async for batch in log.topic("t").read_batches()] == [1]
