"""Forms in which people write an address, a mode or an option, and what they get for a wrong one."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

import walsvc
from tests.engines.replicas import replica_url
from tests.engines.streams import api
from tests.forked import run_walsvc
from walsvc import BadOption, DurabilityLost, PathError, Quorum
from walsvc.engines.jetstream.options import JetStreamOptions, parse_target, parse_url, split_options

ROOT = Path(__file__).resolve().parents[2]


async def test_options_may_stand_in_the_address_and_reach_the_command_line(cluster, stream):
    url = replica_url(cluster, stream, timeout=9)
    async with walsvc.open(url) as log:
        await log.append(b"x")
        assert log.writer.segments.disk._stream.timeout == 9
    async with walsvc.open(url, timeout=8) as log:
        assert log.writer.segments.disk._stream.timeout == 8
    read = await asyncio.to_thread(run_walsvc, "cat", url)
    assert (read.returncode, read.stdout) == (0, b"x\n"), read.stderr


async def test_quorum_is_strict_where_the_stream_is_the_log(open_stream):
    async with open_stream() as log:
        result = await log.append(b"x", mode=Quorum)
        assert await log.wait_replicated(result.lsn) == log.replicated_lsn == log.durable_lsn == 1
        assert (await log.append_nowait(b"y", mode=Quorum)).lsn == 2
        assert [each.lsn for each in await log.append_batch([b"a", b"b"], mode=Quorum)] == [3, 4]
        assert (await log.topic("t").append(b"z", mode=Quorum)).lsn == 5
        await log.truncate_after(2)
        assert log.replicated_lsn == 2
        assert log.stats().replica_state == "current"


async def test_stream_that_is_deleted_under_a_log_is_told(cluster, stream, open_stream):
    log = await open_stream(timeout=5)
    await log.append(b"x")
    async with api(cluster) as ask:
        await ask(f"STREAM.DELETE.{stream}")
    with pytest.raises(DurabilityLost, match="the stream is gone") as caught:
        await log.append(b"y")
    assert str(caught.value).count("Hint: ") <= 1
    await log.close()


async def test_wrong_login_is_no_outage(cluster, stream):
    url = cluster.url(stream).replace("nats://", "nats://log:wrong@")
    begun = time.monotonic()
    with pytest.raises(PathError, match="refuse the login"):
        await walsvc.open(url, monitor=cluster.monitor, timeout=300)
    with pytest.raises(PathError, match="refuse the login"):
        await walsvc.open(cluster.url(stream), system_user="sys", system_password="no", timeout=300)
    assert time.monotonic() - begun < 100


def test_login_before_each_server():
    for url in ("nats://u:p%40@h1,u:p%40@h2:4333/s", "nats://u:p%40@h1,h2:4333/s"):
        address = parse_url(url)
        assert address.servers == ("nats://h1:4222", "nats://h2:4333")
        assert (address.user, address.password) == ("u", "p@")
    for wrong in ("nats://u:p@h1,v:p@h2/s", "nats://u:p@h1,/s"):
        with pytest.raises(BadOption):
            parse_url(wrong)


def test_monitor_as_one_text():
    _, options = parse_target("nats://h/s?monitor=http://a:1,http://b:2&allow_unsynced=1&replicas=1")
    made = JetStreamOptions(**options)
    assert (made.monitors, made.replicas) == (["http://a:1", "http://b:2"], 1)
    assert JetStreamOptions(monitor="http://a:1,http://b:2").monitors == made.monitors
    assert JetStreamOptions(monitor=["http://a:1"]).monitors == ["http://a:1"]
    with pytest.raises(BadOption, match="no URL"):
        JetStreamOptions(monitor="a:8222")


def test_unknown_option_is_told_those_that_there_are():
    with pytest.raises(BadOption, match="unknown option 'monitors'") as caught:
        split_options(None, {"monitors": []})
    known = caught.value.hint.removeprefix("known: ").split(", ")
    assert {"monitor", "replicas", "segment_bytes", "read_only"} <= set(known)
    assert not {"disk", "direct", "namespace", "replicate"} & set(known)
