"""Where a server answers clients of Redis Streams. They are connections of the server: its roster, its limits, its budget, its end."""

from __future__ import annotations

from functools import partial

from walsvc.service.fronts.redis.session import Session
from walsvc.service.server.server import Server


async def listen(server: Server, address: str) -> str:
    """Answer clients of Redis Streams.

    Args:
        server: one that has started.
        address: HOST:PORT, or the path of a Unix socket.

    Returns:
        Where it listens, as redis-cli takes it with -u.

    Raises:
        PathError, Locked, BadOption: the address cannot be had.
    """
    return await server.listen(address, partial(Session, server.shared), "redis")
