"""Parts of a server that fail or end by themselves: told on standard error, in /readyz, in the metrics and by the exit code."""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import signal
from contextlib import asynccontextmanager

import aiohttp
import pytest

from tests.service.raw import Raw
from tests.service.simulated import Devices, serving
from tests.service.test_serve_cli import appended, running
from tests.service.watching import parsed
from tests.waiting import until
from walsvc import WalConfig
from walsvc.engines.archive import Archive
from walsvc.engines.jetstream.options import Address, JetStreamOptions
from walsvc.engines.replication.session import ShippingSession
from walsvc.engines.replication.shipping import Replication
from walsvc.errors import BadOption, PathError, ReplicaLost, WalError
from walsvc.log.extent.reclaim import Reclaimer
from walsvc.service.ops.http import HttpSide
from walsvc.service.server.server import Server
from walsvc.service.wire.frames import Ack, Error

SMALL = WalConfig(segment_bytes=65536, max_group_bytes=65536, retain_bytes=65536)


class PanicException(BaseException):
    """What obstore raises where its Rust has panicked: no Exception."""


def of_server(server: Server) -> set[tuple[str, str]]:
    return {(trouble.part, trouble.namespace) for trouble in server.status().troubles}


@asynccontextmanager
async def looked_at(server: Server):
    async with HttpSide(server, port=0) as side, aiohttp.ClientSession(side.url) as session:
        yield session


async def is_told(server: Server, part: str, namespace: str, words: str, caplog: pytest.LogCaptureFixture) -> None:
    """A trouble stands in /readyz and in the metrics, and in the server's log once however often it is asked about."""
    async with looked_at(server) as session:
        for _ in range(2):
            async with session.get("/readyz") as answer:
                assert (answer.status, words in await answer.text()) == (503, True)
        async with session.get("/metrics") as answer:
            samples = parsed(await answer.text())
        async with session.get("/status") as answer:
            told = (await answer.json())["server"]["troubles"]
    assert samples["walsvc_server_trouble", frozenset({("namespace", namespace), ("part", part)})] == 1
    assert samples["walsvc_server_ready", frozenset()] == 0
    assert [(each["part"], each["namespace"]) for each in told] == [(part, namespace)]
    said = [each for each in caplog.records if words in each.getMessage() and each.name == "walsvc.service"]
    assert [each.levelno for each in said] == [logging.ERROR]


async def test_namespace_that_fails_is_told_and_the_others_work_on(tmp_path, caplog) -> None:
    devices = Devices()
    async with serving(tmp_path, devices, namespaces=True) as server:
        good, bad = await Raw.welcomed(server, namespace="good"), await Raw.welcomed(server, namespace="bad")
        devices["bad"].fail("submit", errno=errno.EIO)
        bad.append(1, b"x")
        await bad.expect(Error, 1)
        good.append(1, b"x")
        await good.expect(Ack, 1)
        await is_told(server, "log", "bad", "namespace 'bad' has failed", caplog)
        await server.stop()
        assert [type(error).__name__ for error in server.failures] == ["DurabilityLost"]
        await good.close()
        await bad.close()


@pytest.mark.parametrize("how", ["panic", "cancelled", "unexpected"])
async def test_archiver_that_ends_is_told_however_it_ended(tmp_path, monkeypatch, caplog, how) -> None:
    async def push(*_args: object) -> None:
        if how == "panic":
            raise PanicException("relative URL without a base")
        if how == "unexpected":
            raise ZeroDivisionError
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(Archive, "push", push)
    async with serving(tmp_path, archive=(tmp_path / "archive").as_uri()) as server:
        task = server._copying._archiver._task
        if how == "cancelled":
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.wait([task])
        await is_told(server, "archive", "", "archiving has stopped", caplog)
        await server.stop()
        assert [type(error) for error in server.failures] == [WalError]


async def test_panic_of_the_store_s_client_is_an_answer_and_is_tried_again(tmp_path, monkeypatch) -> None:
    import obstore

    async def panicking(*_args: object) -> None:
        raise PanicException("called `Result::unwrap()` on an `Err` value")

    monkeypatch.setattr(obstore, "list_with_delimiter_async", panicking)
    with pytest.raises(PathError, match="client of the store has broken down: called"):
        await Archive.at((tmp_path / "archive").as_uri()).logs()


@pytest.mark.parametrize("endpoint", ["localhost:9000", "minio", "http://", "http:///x", "://h", "http://h:x", "[::1"])
@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT"])
def test_endpoint_on_which_the_store_s_client_would_break_down_is_refused(monkeypatch, name, endpoint) -> None:
    monkeypatch.setenv(name, endpoint)
    with pytest.raises(BadOption, match=f"{name} is .*no URL"):
        Archive.at("s3://bucket/prefix")
    monkeypatch.setenv(name, "https://[::1]:9000")
    Archive.at("s3://bucket/prefix")


async def test_replication_that_is_cancelled_tells_who_waits_and_the_server(tmp_path, monkeypatch, caplog) -> None:
    async def run(*_args: object) -> None:
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(ShippingSession, "run", run)
    async with serving(tmp_path) as server:
        log = server.logs[""]
        replication = Replication(log, Address(servers=("h",), stream="s"), JetStreamOptions())
        await replication.start()
        result = await log.append(b"x")
        waiting = log.writer.core.replicated.wait(result.lsn)
        assert of_server(server) == set()
        replication._task.cancel()
        with pytest.raises(ReplicaLost, match="cancelled from outside"):
            await waiting
        await is_told(server, "replication", "", "replication has ended", caplog)


async def test_retention_that_fails_is_told_until_it_works_again(tmp_path, monkeypatch, caplog) -> None:
    async def broken(*_args: object, **_options: object) -> None:
        raise ZeroDivisionError

    async with serving(tmp_path, config=SMALL) as server:
        log = server.logs[""]
        with monkeypatch.context() as patch:
            patch.setattr(Reclaimer, "_pass", broken)
            while log.retention().failed is None:
                await log.append(bytes(20_000))
            await is_told(server, "retention", "", "retention has failed", caplog)
        while log.retention().failed is not None:
            await log.append(bytes(20_000))
        assert of_server(server) == set()
        assert server.status().ready


async def test_watch_over_connections_that_ends_is_told(tmp_path, caplog) -> None:
    async with serving(tmp_path) as server:
        server._looking.cancel()
        await asyncio.wait([server._looking])
        await is_told(server, "watch", "", "the watch over connections has ended", caplog)


async def test_listener_and_http_side_that_end_are_told(tmp_path, caplog) -> None:
    async with serving(tmp_path) as server, HttpSide(server, port=0) as side:
        server.troubles.watch(side.troubles)
        assert of_server(server) == set()
        side._listener._acceptors[0].broken = OSError(errno.EBADF, "Bad file descriptor")
        await until(lambda: of_server(server) == {("http", "")})
        server._listening.listeners[0]._acceptors[0].broken = OSError(errno.EBADF, "Bad file descriptor")
        await until(lambda: of_server(server) == {("http", ""), ("listener", "")})
        said = [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]
        assert len(said) == 2
        assert "the listener at unix://" in said[1]


def test_served_log_that_fails_is_said_on_standard_error_and_by_the_exit_code(tmp_path) -> None:
    arguments = ("--data", str(tmp_path / "d"), "--unix", str(tmp_path / "s"), "--set", "segment_bytes=65536")
    with running(*arguments) as (process, _):
        assert appended(tmp_path / "s", b"one") == 1
        # from now on no write beyond the first KiB of a file succeeds: EFBIG
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1024, resource.RLIM_INFINITY))
        with pytest.raises(AssertionError, match="DurabilityLost"):
            appended(tmp_path / "s", b"two")
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=120)
        assert process.returncode == 1
        lines = said.splitlines()
        assert any(line.startswith("ERROR walsvc.service: the log has failed: ") for line in lines), said
        assert lines[-1].startswith("walsvc: "), said
        assert "File too large" in lines[-1]
