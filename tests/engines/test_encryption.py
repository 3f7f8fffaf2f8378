"""An encrypted log in a real JetStream cluster: the servers hold ciphertext, and everything else is as without keys."""

from __future__ import annotations

import asyncio
import base64

import pytest

from tests.engines.replicas import assert_beginning, opening, replica_url, replicated
from tests.engines.streams import api
from walsvc import BadOption, KeyRing, MissingKey, Quorum, WrongKey
from walsvc.engines.replication.restore import restore_replica

OLD, NEW = ("old", bytes(range(32))), ("new", bytes(range(32, 64)))
SECRET = b"nobody but us may read this"


async def payloads(log, **wanted):
    return [record.payload async for record in log.read(**wanted)]


async def stored(cluster, stream: str) -> bytes:
    """All messages of a stream, one behind the other."""
    async with api(cluster) as ask:
        state = (await ask(f"STREAM.INFO.{stream}"))["state"]
        rows = [
            (await ask(f"STREAM.MSG.GET.{stream}", {"seq": number}))["message"]
            for number in range(state["first_seq"], state["last_seq"] + 1)
        ]
    return b"".join(base64.b64decode(row.get("data", "")) for row in rows)


async def test_servers_hold_ciphertext_and_the_log_is_the_same(cluster, stream, open_stream):
    keys = KeyRing(current=OLD)
    async with open_stream(keys=keys) as log:
        await log.topic("a topic's name").append(SECRET, attributes={"tenant": SECRET.decode()})
        await log.append_batch([SECRET + b"%d" % number + bytes(700) for number in range(200)])
        expected = await payloads(log)
        assert len(expected) == 201
        assert log.stats().key_id == "old"
        assert log.stats().segments > 1
    async with open_stream(keys=keys) as log:
        assert log.report.clean
        assert await payloads(log) == expected
        assert await payloads(log, topic="a topic's name") == [SECRET]
    async with open_stream(keys=keys, read_only=True) as log:
        assert await payloads(log, where={"tenant": SECRET.decode()}) == [SECRET]
    data = await stored(cluster, stream)
    assert len(data) > 100_000
    assert SECRET not in data
    assert b"a topic's name" not in data


async def test_without_the_key_the_log_does_not_open(open_stream):
    async with open_stream(keys=KeyRing(current=OLD)) as log:
        await log.append(SECRET)
    with pytest.raises(MissingKey, match="old"):
        async with open_stream():
            pass
    with pytest.raises(WrongKey):
        async with open_stream(keys=KeyRing(current=("old", bytes(32)))):
            pass
    async with open_stream(keys=KeyRing(current=OLD)) as log:
        assert await payloads(log) == [SECRET]


async def test_plain_log_is_encrypted_and_its_key_changed_while_it_is_used(cluster, stream, open_stream):
    async with open_stream() as log:
        await log.append(b"plain")
        await log.use_keys(KeyRing(current=OLD))
        await log.append(SECRET)
        futures = [log.append(SECRET + bytes(500)) for _ in range(50)]
        await log.use_keys(KeyRing(current=NEW, older=[OLD]))
        await asyncio.gather(*futures)
        assert (await log.append(b"last")).lsn == 53
        assert log.stats().key_id == "new"
    async with open_stream(keys=KeyRing(current=NEW, older=[OLD])) as log:
        assert await payloads(log) == [b"plain", SECRET, *[SECRET + bytes(500)] * 50, b"last"]
    assert SECRET not in await stored(cluster, stream)


async def test_purging_hides_and_compacting_is_refused(open_stream):
    async with open_stream() as log:
        for number in range(120):
            await log.append(bytes(1000), attributes={"key": number % 2})
        assert log.stats().segments > 1
        await log.purge(1)
        with pytest.raises(BadOption, match="cannot be compacted") as caught:
            await log.compact()
        assert caught.value.hint
        assert len(await payloads(log)) == 60
    async with open_stream() as log:
        assert len(await payloads(log)) == 60


async def test_replica_of_an_encrypted_log_is_ciphertext_and_comes_back(tmp_path, cluster, stream):
    """Also with a key changed on the way; restoring needs no key, and reading what was restored needs both."""
    url, keys = replica_url(cluster, stream), KeyRing(current=OLD)
    async with opening(tmp_path / "log", url, keys=keys) as log:
        await log.topic("a topic's name").append(SECRET, attributes={"tenant": SECRET.decode()})
        await log.append_batch([SECRET + b"%d" % number + bytes(700) for number in range(200)])
        await log.use_keys(KeyRing(current=NEW, older=[OLD]))
        for number in range(5):
            assert (await log.append(SECRET + b" under the new key %d" % number, mode=Quorum)).durable
        expected = await payloads(log)
        assert len(expected) == 206
        await replicated(log)
        copied = await restore_replica(url, str(tmp_path / "back"))
        assert (copied.first_lsn, copied.next_lsn) == (1, 207)
        assert_beginning(tmp_path / "back", tmp_path / "log")
    data = await stored(cluster, stream)
    assert len(data) > 100_000
    assert SECRET not in data
    assert b"a topic's name" not in data
    with pytest.raises(MissingKey):
        async with opening(tmp_path / "back", None, keys=KeyRing(current=NEW)) as back:
            await payloads(back)
    async with opening(tmp_path / "back", None, keys=KeyRing(current=NEW, older=[OLD])) as back:
        assert await payloads(back) == expected
        assert await payloads(back, topic="a topic's name") == [SECRET]
        assert (await back.append(b"on")).lsn == 207
