"""A served log with copies: settings, what the server tells of them, and the way back on the command line."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

import walsvc
from tests.cli.conftest import Cli
from tests.engines.replicas import SEGMENT, alone_url, records_in, replica_url
from walsvc import BadOption, Closed, Quorum
from walsvc.cli.main import app
from walsvc.config import WalConfig
from walsvc.engines.jetstream.options import parse_replica
from walsvc.service.ops.http import HttpSide
from walsvc.service.ops.settings import load_settings
from walsvc.service.server.server import serve


async def test_status_tells_of_archive_and_replica_and_restore_gives_the_log_back(tmp_path, cluster, stream):
    pytest.importorskip("obstore", reason="the archive needs obstore (walsvc[archive])")
    url = replica_url(cluster, stream)
    config = WalConfig(disk="threads", segment_bytes=SEGMENT, replicate=url)
    async with (
        serve(tmp_path / "log", unix=tmp_path / "s", config=config, archive=f"file://{tmp_path}/archive") as server,
        HttpSide(server, port=0) as side,
        aiohttp.ClientSession(side.url) as session,
        walsvc.open(f"unix://{tmp_path}/s") as client,
    ):
        for _ in range(29):
            await client.append(bytes(4000))
        answer = await client.append(bytes(4000), mode=Quorum)
        assert server.logs[""].replicated_lsn == await client.wait_replicated(answer.lsn) == 30
        async with session.get("/status") as answer:
            (told,) = (await answer.json())["logs"]
        assert told["copies"]["replication"] == {
            "lsn": 30,
            "records": 0,
            "bytes": told["stats"]["replica_bytes"],
            "state": told["stats"]["replica_state"],
        }
        assert set(told["copies"]["archive"]) == {"lsn", "records", "bytes", "state"}
        assert {pin["pin"]["name"] if "pin" in pin else pin["name"] for pin in told["needs"]} == {"archive", "replica"}
        async with session.get("/metrics") as answer:
            assert 'walsvc_replication_lsn{namespace=""} 30.0' in await answer.text()
    assert (tmp_path / "archive").is_dir()


def test_server_told_to_end_in_an_outage_answers_who_waits_and_ends_in_order(tmp_path, mortal):
    cli = Cli()
    server = cli.start("serve", "--data", tmp_path / "log", "--unix", tmp_path / "s", "--replicate", alone_url(mortal))
    assert b"listening" in server.stdout.readline()

    async def outage() -> None:
        async with walsvc.open(f"unix://{tmp_path}/s") as log:
            await log.append(b"x", mode=Quorum)
            mortal.kill(0)
            waiting = log.append(b"waits", mode=Quorum)
            await log.flush()
            server.terminate()
            async with asyncio.timeout(60):
                with pytest.raises(Closed, match="durable here"):
                    await waiting

    asyncio.run(outage())
    assert server.wait(timeout=120) == 0
    cli.end()
    assert [record.payload for record in asyncio.run(records_in(tmp_path / "log"))] == [b"x", b"waits"]


def test_restore_verb_takes_a_replica(tmp_path, cluster, stream):
    from typer.testing import CliRunner

    url = replica_url(cluster, stream)

    async def write() -> None:
        async with walsvc.open(tmp_path / "log", replicate=url) as log:
            await log.append(b"kept", mode=walsvc.Quorum)

    asyncio.run(write())
    done = CliRunner().invoke(app, ["restore", url, str(tmp_path / "back")])
    assert done.exit_code == 0, done.output
    assert "LSN 1 to 1" in done.output
    assert [record.payload for record in asyncio.run(records_in(tmp_path / "back"))] == [b"kept"]
    missing = CliRunner().invoke(app, ["restore", replica_url(cluster, f"{stream}-no"), str(tmp_path / "none")])
    assert missing.exit_code == 5


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        ({"namespaces": True, "replicate": "nats://h/s"}, "one log"),
        ({"namespaces": True, "archive": "file:///a"}, "one log"),
        ({"replicate": "nats://user:secret@h/s"}, "secret"),
        ({"replicate": "nats://h/s?token=secret"}, "secret"),
        ({"replicate": "nats://h"}, "scheme"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(tmp_path, flags, why):
    with pytest.raises(BadOption, match=why):
        load_settings({"data": str(tmp_path), "unix": str(tmp_path / "s"), **flags}, environment={})


def test_address_of_a_replica_holds_its_options():
    address, options = parse_replica(
        "nats://h1,h2:4333/stream?monitor=http://h1:1,http://h2:2&timeout=7.5&replicas=5&credentials=/etc/c&allow_unsynced=1"
    )
    assert str(address) == "nats://h1:4222,h2:4333/stream"
    assert (options.monitor, options.timeout, options.replicas) == (["http://h1:1", "http://h2:2"], 7.5, 5)
    assert (options.credentials, options.allow_unsynced) == ("/etc/c", True)
    for wrong in ("?timeout=soon", "?nonsense=1", "?allow_unsynced=perhaps", "?timeout", "?replicas=2"):
        with pytest.raises(BadOption):
            parse_replica(f"nats://h/stream{wrong}")
