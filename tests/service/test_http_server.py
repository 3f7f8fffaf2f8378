"""The HTTP side of a real server, with real clients."""

from __future__ import annotations

import asyncio
import errno
import ssl
import threading
from contextlib import asynccontextmanager

import aiohttp
import pytest

import walsvc
from tests.service.certificates import certificates
from tests.service.watching import Stub, parsed
from walsvc.cli.health import ask
from walsvc.config import WalConfig
from walsvc.disk import threads
from walsvc.errors import Unreachable
from walsvc.service.ops.http import HttpSide, may_look
from walsvc.service.server.auth import Grant, Tokens
from walsvc.service.server.listeners import tls_context
from walsvc.service.server.server import serve

ROOT = frozenset()


@asynccontextmanager
async def watched(tmp_path, **options):
    path = tmp_path / "s.sock"
    async with (
        serve(tmp_path / "log", unix=path, config=WalConfig(disk="threads"), **options) as server,
        HttpSide(server, port=0) as side,
        aiohttp.ClientSession(side.url) as session,
    ):
        yield server, session, f"unix://{path}"


async def text_of(session, path):
    async with session.get(path) as answer:
        return answer.status, await answer.text()


async def test_clients_are_seen(tmp_path, monkeypatch):
    monkeypatch.setattr("walsvc.metrics.looking.WAIT_SECONDS", 60.0)  # a busy machine counts slowly
    async with watched(tmp_path) as (server, session, url):
        async with walsvc.open(url) as one, walsvc.open(url) as two:
            await asyncio.gather(*(log.append(b"x" * 100) for log in (one, two) for _ in range(50)))
            consumer = await one.topic("orders").consumer("billing")
            await one.topic("orders").append(b"y")
            async with session.get("/status") as answer:
                told = await answer.json()
            assert told["ready"]
            assert told["server"]["connections"] == told["server"]["accepted"] == 2
            assert told["server"]["streams"] == 1
            assert told["server"]["requests"]["append"] >= 3
            assert told["server"]["received_bytes"] > 10_000
            assert told["server"]["listeners"] == [url]
            (log,) = told["logs"]
            assert log["stats"]["durable_lsn"] == 101
            assert [(need["name"], need["lag"], need["in_use"]) for need in log["needs"]] == [("billing", 1, True)]
            samples = parsed((await text_of(session, "/metrics"))[1])
            assert samples["walsvc_network_open_connections", ROOT] == 2
            assert samples["walsvc_server_records_total", frozenset({("namespace", "")})] == 101
            await consumer.close()
        assert server.status().live


async def test_every_namespace_is_seen(tmp_path):
    async with watched(tmp_path, namespaces=True) as (_, session, url), walsvc.open(f"{url}?namespace=orders") as log:
        await log.append(b"x")
        async with session.get("/status") as answer:
            told = await answer.json()
        assert [(each["namespace"], each["stats"]["durable_lsn"]) for each in told["logs"]] == [("orders", 1)]


async def test_a_stalled_disk_holds_up_clients_but_no_probe(tmp_path, monkeypatch):
    async with watched(tmp_path) as (_, session, url), walsvc.open(url) as log:
        await log.append(b"warm")
        stalled, go_on = threading.Event(), threading.Event()
        write_durably = threads.write_durably

        def stall(*args, **kwargs):
            stalled.set()
            assert go_on.wait(60)
            return write_durably(*args, **kwargs)

        monkeypatch.setattr(threads, "write_durably", stall)
        waiting = [log.append(b"x") for _ in range(100)]
        await asyncio.to_thread(stalled.wait, 60)
        for _ in range(10):
            assert await text_of(session, "/livez") == (200, "live\n")
            assert await text_of(session, "/readyz") == (200, "ready\n")
        async with session.get("/status") as answer:
            assert (await answer.json())["logs"][0]["stats"]["durable_lsn"] == 1
        assert not any(each.done() for each in waiting)
        go_on.set()
        assert [result.lsn for result in await asyncio.gather(*waiting)] == list(range(2, 102))


async def test_a_failed_log_is_neither_ready_nor_live_and_said_once(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(errno.EIO, "Input/output error")

    async with watched(tmp_path) as (server, session, url):
        log = await walsvc.open(url)
        await log.append(b"x")
        monkeypatch.setattr(threads, "write_durably", fail)
        with pytest.raises(walsvc.DurabilityLost):
            await log.append(b"y")
        code, text = await text_of(session, "/readyz")
        assert (code, text.count("has failed")) == (503, 1)
        assert (await text_of(session, "/livez"))[0] == 503
        async with session.get("/status") as answer:
            assert (await answer.json())["server"]["errors"]["DurabilityLost"] >= 1
        await log.close()
        await server.stop()


async def test_a_stopping_server_is_not_ready_until_it_is_gone(tmp_path, monkeypatch):
    async with watched(tmp_path) as (server, session, url):
        log = await walsvc.open(url)
        await log.append(b"warm")
        stalled, go_on = threading.Event(), threading.Event()
        write_durably = threads.write_durably

        def stall(*args, **kwargs):
            stalled.set()
            assert go_on.wait(60)
            return write_durably(*args, **kwargs)

        monkeypatch.setattr(threads, "write_durably", stall)
        append = log.append(b"x")
        await asyncio.to_thread(stalled.wait, 60)
        stopping = asyncio.create_task(server.stop())
        await asyncio.sleep(0)
        assert await text_of(session, "/readyz") == (503, "not ready\nstopping\n")
        assert (await text_of(session, "/livez"))[0] == 200
        go_on.set()
        assert (await append).lsn == 2
        await stopping
        assert (await text_of(session, "/readyz"))[0] == 503
        await log.close()


@pytest.mark.parametrize(
    ("rights", "namespaces", "may"),
    [
        ({"read"}, None, True),
        ({"admin"}, None, True),
        ({"append"}, None, False),
        ({"append", "read", "admin"}, {"orders"}, False),
        ({"admin"}, {""}, False),
    ],
)
def test_only_a_token_for_every_namespace_may_look(rights, namespaces, may):
    token = "t" * 32
    grant = Grant("somebody", frozenset(rights), None if namespaces is None else frozenset(namespaces))
    permits = may_look(Tokens([(token, grant)]))
    assert permits(token) is may
    assert not permits("")
    assert not permits("wrong" * 8)


async def test_over_tls_it_asks_for_a_token(tmp_path):
    files = certificates()
    tls = tls_context(files.server_cert, files.server_key)
    token = "t" * 32
    permits = may_look(Tokens([(token, Grant("monitoring", frozenset({"read"})))]))
    trust = ssl.create_default_context(cafile=files.ca)
    async with HttpSide(Stub(), "0.0.0.0", 0, tls=tls, permits=permits) as side, aiohttp.ClientSession() as session:
        url = f"https://127.0.0.1:{side.port}"
        assert side.url == f"https://0.0.0.0:{side.port}/"
        for headers, code in (({}, 401), ({"Authorization": f"Bearer {token}"}, 200)):
            async with session.get(f"{url}/metrics", ssl=trust, headers=headers) as answer:
                assert answer.status == code
        for address in (f"0.0.0.0:{side.port}", url):
            assert await asyncio.to_thread(ask, address, "/livez", 30) == (200, "live")
        with pytest.raises(Unreachable, match="does not speak HTTP"):
            await asyncio.to_thread(ask, f"http://127.0.0.1:{side.port}", "/livez", 30)
