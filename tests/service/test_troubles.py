"""Troubles of the server's disk, and servers that are none, as a client meets them."""

from __future__ import annotations

import asyncio
import errno
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

import walsvc
from tests.service.wire import placed
from walsvc import DurabilityLost, NoSpace, OutcomeUnknown, ProtocolError, Unreachable, WalConfig, WalError


async def test_full_disk_is_retryable_and_costs_no_lsn():
    config = WalConfig(segment_bytes=65536, max_group_bytes=65536)
    async with placed(config) as place, walsvc.open(place.wire.url) as log:
        place.devices[""].capacity = 3 * 65536
        with pytest.raises(NoSpace) as caught:
            while True:
                await log.append(bytes(15_000))
        assert caught.value.errno == errno.ENOSPC
        assert caught.value.hint
        following = place.log.next_lsn
        with pytest.raises(NoSpace):
            await log.append_batch([bytes(15_000)] * 2)
        place.devices[""].capacity = None
        assert (await log.append(bytes(15_000))).lsn == following


async def test_failed_write_is_terminal_for_every_client():
    async with placed() as place, walsvc.open(place.wire.url) as one, walsvc.open(place.wire.url) as two:
        await one.append(b"safe")
        place.devices[""].fail("submit.write", errno=errno.EIO)
        results = await asyncio.gather(*(one.append(b"x") for _ in range(5)), return_exceptions=True)
        assert {type(result) for result in results} == {DurabilityLost}
        assert results[0].errno == errno.EIO
        with pytest.raises(DurabilityLost):
            await two.append(b"y")
        assert one.durable_lsn == 1
        await one.refresh()
        assert one.stats().failed is not None
        place.log.writer.core.health.told = 1


async def test_stalled_disk_delays_appends_and_nothing_else():
    async with (
        placed() as place,
        walsvc.open(place.wire.url, timeout=1.0) as impatient,
        walsvc.open(place.wire.url) as patient,
    ):
        await patient.append(b"before")
        place.devices[""].stall_sync(3.0)
        waiting = [patient.append(b"x"), patient.append(b"y")]
        with pytest.raises(OutcomeUnknown):
            await impatient.append(b"z")
        results = await asyncio.gather(*waiting)
        assert [result.lsn for result in results] == [2, 3]
        assert [record.payload async for record in patient.read()] == [b"before", b"x", b"y", b"z"]


class Pretender(asyncio.Protocol):
    """Says a few words to whoever comes."""

    def __init__(self, words: bytes, stay: bool) -> None:
        self._words = words
        self._stay = stay

    def connection_made(self, transport) -> None:
        transport.write(self._words)
        if not self._stay:
            transport.close()


@asynccontextmanager
async def pretender(words: bytes, *, stay: bool) -> AsyncIterator[str]:
    """Something that listens and is no walsvc server."""
    loop = asyncio.get_running_loop()
    with tempfile.TemporaryDirectory(prefix="walsvc-") as place:
        server = await loop.create_unix_server(lambda: Pretender(words, stay), f"{place}/socket")
        try:
            yield f"unix://{place}/socket"
        finally:
            server.close()
            await server.wait_closed()


@pytest.mark.parametrize(
    ("words", "stay", "error", "says"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", True, ProtocolError, "SSH"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", True, ProtocolError, "no walsvc server"),
        (b"\xff\xff\xff\x7f", True, ProtocolError, "no walsvc server"),
        (b"\x03\x00\x00\x00\x93\x17\x01", True, ProtocolError, "msgpack"),
        (b"\x02\x00\x00\x00\x92\x17", True, ProtocolError, "msgpack"),
        (b"", False, Unreachable, "closed|lost"),
        (b"", True, Unreachable, "did not answer"),
    ],
)
async def test_what_is_no_server_is_told_from_one(words, stay, error, says):
    async with pretender(words, stay=stay) as url:
        with pytest.raises(error, match=says) as caught:
            await walsvc.open(url, connect_seconds=0.2 if says == "did not answer" else 60.0)
        assert isinstance(caught.value, WalError)
        assert caught.value.path == url
        await asyncio.sleep(0.01)  # the other side hears that the client has left
