"""Connecting to NATS: to any of the servers first, and to the one that leads the stream where something is to be written."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import ssl
import time
from collections.abc import Coroutine
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from walsvc.config import MIB
from walsvc.disk.pool import imported, in_thread, looking_up
from walsvc.engines.jetstream.options import PAUSE_SECONDS, REQUEST_SECONDS, Address, JetStreamOptions
from walsvc.errors import BadOption, PathError
from walsvc.tasks import begin_task

if TYPE_CHECKING:
    from nats.aio.client import Client

Answer = TypeVar("Answer")
logger: logging.Logger = logging.getLogger("walsvc.jetstream")
CONNECT_SECONDS = 2
CANCEL_SECONDS = 0.1  # between two cancellations of what goes on all the same
PENDING_BYTES = 64 * MIB  # that the client may hold back while it has no connection
CLOSE_SECONDS = 2.0  # that a connection may take to end; then it is cut
UNACKNOWLEDGED_MS = 5000  # that sent bytes may stay unanswered by a server's machine, before the kernel gives it up
CREDENTIALS_BYTES_MAX = 64 << 10
CREDENTIALS_MARKS = (b"BEGIN NATS USER JWT", b"BEGIN USER NKEY SEED")
UNAUTHORIZED = "authorization violation"
USER_INFO = "$SYS.REQ.USER.INFO"  # answered by the very server that a client is connected to


class Refused(PathError):
    """The stream is no place for a log, or the login is wrong: no outage, it stays so until an operator changes it."""


async def within(seconds: float | None, work: Coroutine[Any, Any, Answer]) -> Answer:
    """Run `work` of nats-py, for `seconds` (None: as long as it takes), and cancel it until it has ended where that is over or the
    caller is cancelled.

    Whoever waits for nats-py itself may not be heard any more: on CPython 3.11 its asyncio.wait_for swallows a cancellation that comes
    together with an answer or an error, connecting goes on after any error, and a closed connection makes an Error of a
    cancellation. Raises TimeoutError.
    """
    task = begin_task(work)
    try:
        await asyncio.wait([task], timeout=seconds)
        if not task.done():
            raise TimeoutError
        return task.result()
    finally:
        while not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=CANCEL_SECONDS)
        if not task.cancelled():
            task.exception()


async def connect(address: Address, options: JetStreamOptions, *, in_order: bool = False, **login: Any) -> Client:
    """A connection to one of the servers that comes back by itself; `in_order`: to the first of them that answers.

    Raises PathError; Refused where every server refuses the login.
    """
    await imported("walsvc.engines.jetstream.encryption")
    from nats.errors import Error

    from walsvc.engines.jetstream.encryption import client_for, encryption_of

    encryption = await in_thread(encryption_of, address, options)
    if (credentials := login.get("user_credentials")) is not None:
        await in_thread(check_credentials, credentials)
    client, last = client_for(encryption), [Exception("no server answered")]
    refusals = 0  # while it connects

    async def note(error: Exception) -> None:
        nonlocal refusals
        last[0] = error
        logger.debug("%s: %s", address, error)
        refusals += is_refusal(error)
        if refusals == len(address.servers) and not client.is_closed:
            raise error  # ends `connect` below: no waiting makes the login right

    async def reconnected() -> None:
        limit_silence(client)
        say_encrypted(client)

    try:
        connecting = client.connect(
            list(address.servers),
            name="walsvc",
            error_cb=note,
            reconnected_cb=reconnected,
            max_reconnect_attempts=-1,
            reconnect_time_wait=PAUSE_SECONDS,  # type: ignore[arg-type]  # fractions work
            connect_timeout=CONNECT_SECONDS,
            dont_randomize=in_order,
            ping_interval=5,
            pending_size=PENDING_BYTES,
            tls=encryption.context,
            tls_hostname=encryption.server_name,
            **login,
        )
        with looking_up():
            await within(options.timeout, connecting)
    except BaseException as error:
        await close_client(client)
        if not isinstance(error, (OSError, Error)):  # TimeoutError is an OSError
            raise
        raise not_connected(error, last[0], address) from error
    limit_silence(client)
    say_encrypted(client)
    return client


def not_connected(error: BaseException, last: Exception, address: Address) -> PathError:
    """The error for a connection that did not come about, `last` being what was met on the way: Refused where waiting helps nothing."""
    if is_unauthorized(error):
        return Refused(
            "the NATS servers refuse the login",
            path=str(address),
            hint="check user and password, token or credentials, of the log's account or the system's",
        )
    if is_refusal(error):
        return Refused(
            f"the NATS servers are not to be trusted: {getattr(error, 'verify_message', None) or error}",
            path=str(address),
            hint="give ca=, the authority's certificate, and server_name= where theirs bears another name",
        )
    reason = last if isinstance(error, TimeoutError) else error
    return PathError(
        f"no NATS server could be reached: {reason or type(reason).__name__}",
        path=str(address),
        hint="check the addresses, the login, and that the servers run",
    )


def check_credentials(path: str) -> None:
    """PathError for a credentials file that cannot be used: no waiting makes it another one. BadOption without nkeys."""
    try:
        import_module("nkeys")  # what nats-py signs with
    except ImportError:
        raise BadOption("credentials need nkeys", hint="pip install 'nats-py[nkeys]'") from None
    try:
        with open(path, "rb") as file:
            content = file.read(CREDENTIALS_BYTES_MAX)
    except OSError as error:
        raise PathError(
            f"the credentials cannot be read: {error.strerror or error}", errno=error.errno, path=path
        ) from None
    if any(mark not in content for mark in CREDENTIALS_MARKS):
        raise PathError("there are no credentials in the file", path=path, hint="`nsc generate creds` makes one")


def is_unauthorized(error: BaseException) -> bool:
    """True if a server has refused the login."""
    return UNAUTHORIZED in str(error).lower()


def is_refusal(error: BaseException) -> bool:
    """True if no waiting helps: a refused login, a certificate that is not to be trusted, a server without TLS."""
    from walsvc.engines.jetstream.encryption import Unencrypted

    return is_unauthorized(error) or isinstance(error, (ssl.SSLCertVerificationError, Unencrypted))


async def close_client(client: Client) -> None:
    """Disconnect, whatever the state of the connection, soon and without an error. Unsent bytes are dropped."""
    closing = asyncio.ensure_future(client.close())  # fails half-way where something is unsent and nobody is connected
    closing.add_done_callback(lambda task: task.cancelled() or task.exception())
    try:
        await asyncio.wait([closing], timeout=CLOSE_SECONDS)
    finally:
        if (transport := transport_of(client)) is not None:
            transport.abort()
        until = time.monotonic() + CLOSE_SECONDS
        while (left := [task for task in (closing, *tasks_of(client)) if not task.done()]) and time.monotonic() < until:
            for task in left:  # again, where it went on: wait_for swallows one that arrives together with its result
                task.cancel()
            await asyncio.wait(left, timeout=PAUSE_SECONDS)


def tasks_of(client: Client) -> list[asyncio.Task[Any]]:
    """The tasks of a NATS client, as far as they can be seen: nothing public leads to them, and closing may leave some behind."""
    holders = [client, *getattr(client, "_subs", {}).values()]
    return [value for holder in holders for value in vars(holder).values() if isinstance(value, asyncio.Task)]


def limit_silence(client: Client) -> None:
    """Have the kernel give up a server that is frozen or without power, instead of trying for a quarter of an hour: the
    client reconnects only when the former connection has ended."""
    transport = transport_of(client)
    connection = None if transport is None else transport.get_extra_info("socket")
    if connection is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS)


def say_encrypted(client: Client) -> None:
    """Tell the client's stream that it is encrypted, as StreamWriter.start_tls does and nats-py does not: asyncio otherwise
    complains of it on standard error when the connection ends."""
    transport = transport_of(client)
    if transport is not None and transport.get_extra_info("ssl_object") is not None:
        with contextlib.suppress(AttributeError):
            transport.get_protocol()._over_ssl = True  # type: ignore[attr-defined]  # noqa: SLF001 - asyncio's own start_tls does it


def transport_of(client: Client) -> asyncio.Transport | None:
    """The transport of a NATS client. Nothing public leads to it: where it is not found, only speed is lost."""
    writer = getattr(getattr(client, "_transport", None), "_io_writer", None)
    return getattr(writer, "transport", None)


async def connect_to(
    leader: str | None, client: Client, address: Address, options: JetStreamOptions, **login: Any
) -> Client:
    """A connection to the server of this name where the address has it; else `client`, which stays open in any case.

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
            if not found:
                await close_client(other)
        if found:
            return other
    return client


async def server_name(client: Client) -> str | None:
    """Name of the server that a client is connected to; None: it does not tell."""
    from nats.errors import Error

    try:
        reply = await within(None, client.request(USER_INFO, timeout=REQUEST_SECONDS))
    except Error:
        return None
    name: str | None = (json.loads(reply.data or b"{}").get("server") or {}).get("name")
    return name
