"""A server with an HTTP front in this process, and clients of it."""

from __future__ import annotations

from contextlib import asynccontextmanager

import aiohttp
import pytest

from walsvc.service.fronts.http.routes import HttpFront
from walsvc.service.ops.doors import ServerAccess
from walsvc.service.ops.http import HttpSide
from walsvc.service.server import serve


@pytest.fixture
def fronted(tmp_path):
    """`async with fronted(...) as session`: a server, its HTTP side with the front, and a client session."""

    @asynccontextmanager
    async def open_front(*, headers=None, source=None, **options):
        options.setdefault("unix", tmp_path / "socket")
        async with serve(source or tmp_path / "log", **options) as server:
            front = HttpFront(ServerAccess(server), server.shared.limits)
            permits = None if options.get("tokens") is None else (lambda _: False)
            side = HttpSide(server, port=0, front=front, permits=permits)
            async with side, aiohttp.ClientSession(side.url, headers=headers) as session:
                session.server = server
                session.side = side
                yield session

    return open_front


async def told(answer) -> tuple[int, dict]:
    """Status and document of an answer."""
    return answer.status, await answer.json(content_type=None)
