"""Connecting to NATS: to any of the servers first, and to the one that leads the stream where something is to be written."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from walsvc.config import MIB
from walsvc.engines.jetstream_options import Address, JetStreamOptions
from walsvc.engines.jetstream_stream import PAUSE_SECONDS, REQUEST_SECONDS
from walsvc.errors import BadOption, PathError

if TYPE_CHECKING:
    from nats.aio.client import Client

logger = logging.getLogger("walsvc.jetstream")
CONNECT_SECONDS = 2
PENDING_BYTES = 64 * MIB  # what the client may hold back while it is connected to nobody
USER_INFO = "$SYS.REQ.USER.INFO"  # answered by the very server that a client is connected to


async def connect(address: Address, options: JetStreamOptions, *, in_order: bool = False, **login: Any) -> Client:
    """A connection to one of the servers that comes back by itself; `in_order`: to the first of them that answers.

    Raises PathError.
    """
    try:
        from nats.aio.client import Client
        from nats.errors import Error
    except ImportError as error:
        raise BadOption(
            "the NATS client is not installed", path=str(address), hint="pip install 'walsvc[nats]'"
        ) from error
    client, last = Client(), [Exception("no server answered")]

    async def note(error: Exception) -> None:
        last[0] = error
        logger.debug("%s: %s", address, error)

    try:
        async with asyncio.timeout(options.timeout):
            await client.connect(
                list(address.servers),
                name="walsvc",
                error_cb=note,
                max_reconnect_attempts=-1,
                reconnect_time_wait=PAUSE_SECONDS,  # type: ignore[arg-type]  # fractions work
                connect_timeout=CONNECT_SECONDS,
                dont_randomize=in_order,
                ping_interval=5,
                pending_size=PENDING_BYTES,
                tls=options.tls,
                **login,
            )
    except (OSError, Error) as error:  # TimeoutError is an OSError
        with contextlib.suppress(Exception):
            await client.close()
        reason = last[0] if isinstance(error, TimeoutError) else error
        raise PathError(
            f"no NATS server could be reached: {reason or type(reason).__name__}",
            path=str(address),
            hint="check the addresses, the login, and that the servers run",
        ) from error
    return client


async def connect_to(
    leader: str | None, client: Client, address: Address, options: JetStreamOptions, **login: Any
) -> Client:
    """A connection to the server of this name where the address has it; else `client`, which is closed otherwise.

    What is published to another server takes one hop more, and so does its acknowledgement. A later leader is not followed.
    """
    if leader is None or await server_name(client) == leader:
        return client
    for server in address.servers:
        others = (each for each in address.servers if each != server)
        try:
            other = await connect(replace(address, servers=(server, *others)), options, in_order=True, **login)
        except PathError:
            break
        found = False
        try:
            found = await server_name(other) == leader
        finally:
            await (client if found else other).close()
        if found:
            return other
    return client


async def server_name(client: Client) -> str | None:
    """Name of the server that a client is connected to; None: it does not tell."""
    from nats.errors import Error

    try:
        reply = await client.request(USER_INFO, timeout=REQUEST_SECONDS)
    except Error:
        return None
    name: str | None = (json.loads(reply.data or b"{}").get("server") or {}).get("name")
    return name
