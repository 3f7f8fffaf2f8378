"""Sockets to listen on: a Unix socket that only its owner can use, and TCP with or without TLS."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import ssl
import stat
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from walsvc.disk.pool import in_thread, looking_up
from walsvc.errors import BadOption, Locked, PathError
from walsvc.options import file_of
from walsvc.service.server.entrance import Acceptor
from walsvc.targets import is_loopback, text_of, url_scheme_of
from walsvc.tasks import begin_task
from walsvc.tls import load_identity, loading

UNIX_PATH_BYTES_MAX = 107  # sun_path in unix(7), with its final zero
BACKLOG = 4096  # as many as may be connected: one that finds no room in it is lost before its first byte
Accept = Callable[[socket.socket], Acceptor]  # what begins to accept on a socket that listens


class Listener:
    """A place to listen at.

    Attributes:
        url: how clients write it.
        port: of TCP, else 0.
    """

    def __init__(
        self, acceptors: list[Acceptor], url: str, port: int = 0, path: str | None = None, lock: int | None = None
    ) -> None:
        self._acceptors = acceptors
        self.url = url
        self.port = port
        self._path = path
        self._lock = lock

    @property
    def broken(self) -> OSError | None:
        """Why it lets nobody in any more, though it was not told to stop."""
        return next((each.broken for each in self._acceptors if each.broken is not None), None)

    async def stop_accepting(self) -> None:
        """Let nobody in any more; connections go on. Idempotent."""
        for acceptor in self._acceptors:
            acceptor.close()
        path, self._path = self._path, None
        if path is not None:
            try:
                await in_thread(remove, path)
            except PathError:  # no thread is to be had
                remove(path)

    async def close(self) -> None:
        """Release the address."""
        await self.stop_accepting()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def socket_path(path: object) -> str:
    """The absolute path of a Unix socket. BadOption for what none can have, PathError for what no file system has."""
    if isinstance(path, (str, bytes, os.PathLike)) and not os.fspath(path):
        raise BadOption("the path of the Unix socket is empty", hint="/run/walsvc/walsvc.sock, say")
    if (scheme := url_scheme_of(path)) is not None:
        raise BadOption(
            f"the path of a Unix socket is needed here, not a URL ({scheme}:...)",
            hint="/run/walsvc/walsvc.sock, say; its clients open unix:///run/walsvc/walsvc.sock",
        )
    name = os.path.abspath(text_of(path))
    if len(os.fsencode(name)) > UNIX_PATH_BYTES_MAX:
        raise BadOption(
            f"the path of the Unix socket has {len(os.fsencode(name))} bytes",
            path=name,
            expected=f"at most {UNIX_PATH_BYTES_MAX}",
            hint="take a shorter one, such as /run/walsvc/walsvc.sock",
        )
    return name


async def listen_unix(path: str | os.PathLike[str], accept: Accept) -> Listener:
    """Listen on a Unix socket with mode 0600. The socket file of a dead server is replaced.

    A lock file beside it (`<path>.lock`, which stays) decides between two servers, so that neither removes the other's. The loop waits
    for no file system: a thread does all of it.

    Raises:
        Locked: another server listens there. PathError: it cannot be made, or something else has that name. BadOption: as
        `socket_path`.
    """
    name = socket_path(path)
    making = begin_task(in_thread(make_socket, name))
    try:
        listening, lock = await asyncio.shield(making)
    except asyncio.CancelledError:
        making.add_done_callback(partial(discard, name))
        raise
    return Listener([accept(listening)], f"unix://{name}", path=name, lock=lock)


def make_socket(name: str) -> tuple[socket.socket, int]:
    """A Unix socket that listens, and its lock. Blocks. Raises as listen_unix."""
    lock: int | None = None
    try:
        lock = take_lock(f"{name}.lock", name)
        remove_stale(name)
        listening = bind_unix(name)
    except OSError as error:
        if lock is not None:
            os.close(lock)
        if isinstance(error, PathError):
            raise
        raise PathError(
            f"the Unix socket cannot be made: {error.strerror or error}",
            path=name,
            errno=error.errno,
            hint="its directory has to be there, and to be writable for the server",
        ) from None
    return listening, lock


def discard(name: str, making: asyncio.Future[tuple[socket.socket, int]]) -> None:
    """Remove a socket that was made for a caller that has gone."""
    if not making.cancelled() and making.exception() is None:
        listening, lock = making.result()
        listening.close()
        remove(name)
        os.close(lock)


def remove(path: str) -> None:
    """Remove a socket file, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def take_lock(file: str, name: str) -> int:
    """The descriptor of a locked lock file; the lock ends with it. Locked where another server has it."""
    lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise Locked("another server listens on this Unix socket", path=name, hint="stop it first") from None
    return lock


def remove_stale(name: str) -> None:
    """Remove the socket file that a dead server left; the caller has the lock. PathError for anything but a socket."""
    try:
        mode = os.lstat(name).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise PathError("there is something else than a socket at this path", path=name, hint="choose another path")
    os.unlink(name)


def bind_unix(name: str) -> socket.socket:
    """A socket that listens. Its file is private from the first moment: on Linux it gets the mode that the socket had before. chmod
    would come too late, and the umask is of all threads."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if sys.platform == "linux":
            os.fchmod(listening.fileno(), 0o600)
            listening.bind(name)
        else:
            before = os.umask(0o177)
            try:
                listening.bind(name)
            finally:
                os.umask(before)
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


async def listen_tcp(host: str, port: int, accept: Accept, scheme: str) -> Listener:
    """Listen for TCP on every address of a host. Raises PathError where the address cannot be used."""
    sockets: list[socket.socket] = []
    try:
        for family, address in await addresses_of(host, port):
            sockets.append(bind_tcp(family, address))
            sockets[-1].listen(BACKLOG)
    except OSError as error:
        for each in sockets:
            each.close()
        raise PathError(
            f"cannot listen on {host}:{port}: {error.strerror or error}",
            errno=error.errno,
            hint="is another server there, or is it not an address of this machine?",
        ) from None
    bound: int = sockets[0].getsockname()[1]
    where = f"[{host}]" if ":" in host else host
    return Listener(list(map(accept, sockets)), f"{scheme}://{where}:{bound}", bound)


async def addresses_of(host: str, port: int) -> list[tuple[int, Any]]:
    """Families and addresses to bind for a host, each once; all of the machine for an empty one."""
    loop = asyncio.get_running_loop()
    with looking_up():
        found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((int(family), address) for family, _, _, _, address in found))


def bind_tcp(family: int, address: Any) -> socket.socket:
    """A bound socket, of IPv6 alone where that is its family: IPv4 has its own."""
    listening = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(address)
    except OSError:
        listening.close()
        raise
    return listening


def refuse_open_door(host: str, *, tls: bool, tokens: bool, insecure: bool) -> None:
    """BadOption for an address that other machines reach, without TLS and token."""
    if insecure or is_loopback(host) or (tls and tokens):
        return
    missing = " and ".join([*([] if tls else ["no TLS"]), *([] if tokens else ["no token"])])
    raise BadOption(
        f"{host or 'every address'} can be reached from other machines, and there is {missing}",
        hint="listen on 127.0.0.1 or a Unix socket, or give a certificate and a token file; --insecure does without",
    )


def tls_context(certificate: str, key: str | None = None, client_ca: str | None = None) -> ssl.SSLContext:
    """TLS 1.2 or newer for a server.

    Args:
        certificate: PEM file with the chain (and the key, unless `key` names its file).
        key: PEM file with the private key.
        client_ca: PEM file; clients must show a certificate that one of these has signed.

    Raises:
        PathError, BadOption: a file cannot be read, or is not what it should be.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    load_identity(context, certificate, key, BadOption)
    if client_ca is not None:
        with loading("client CA", client_ca, BadOption):
            context.load_verify_locations(file_of("client CA", client_ca))
        context.verify_mode = ssl.CERT_REQUIRED
    return context
