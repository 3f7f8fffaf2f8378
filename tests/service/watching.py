"""A server's stand-in for tests of the HTTP side: real logs, made-up connections."""

from __future__ import annotations

import asyncio
import contextlib
import time
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from walsvc.api import Log
from walsvc.service.ops.http import HttpSide
from walsvc.service.server.status import Copy, ServerStatus

FULL: dict[str, Any] = {
    "listeners": ("unix:///run/walsvc/walsvc.sock",),
    "connections": 12,
    "connections_max": 1024,
    "accepted": 57,
    "rejected": {"token": 3, "frame": 1},
    "streams": 4,
    "pending_bytes": 5,
    "received_bytes": 3_000_000,
    "sent_bytes": 200_000,
    "requests": {"append": 1000, "call": 17},
    "errors": {"Backpressure": 2},
}
COPIES = {kind: Copy(lsn=3, records=2, bytes=4096, state="catching up") for kind in ("archive", "replication")}


class Stub:
    """A StatusSource."""

    def __init__(self, **logs: Log) -> None:
        self.logs: dict[str, Log] = {("" if name == "root" else name): log for name, log in logs.items()}
        self.told = ServerStatus(True, time.time_ns())

    def tell(self, **fields: Any) -> None:
        self.told = self.told._replace(**fields)

    def status(self) -> ServerStatus:
        return self.told


def parsed(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Samples of an exposition, as Prometheus' own parser reads it."""
    families = text_string_to_metric_families(text)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


@asynccontextmanager
async def serving(source, **options):
    async with HttpSide(source, port=0, **options) as side, aiohttp.ClientSession(side.url) as session:
        yield session


@asynccontextmanager
async def connected(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def get(session, path, **options):
    async with session.get(path, **options) as answer:
        return answer.status, await answer.text()
