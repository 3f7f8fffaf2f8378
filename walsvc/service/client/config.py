"""The address of a served log, and the options of its client: a URL and the options of `walsvc.open` for it, as one frozen value."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

from walsvc import tls
from walsvc.config import GIB, KIB, MIB, WalConfig, between, check_namespace, one_of
from walsvc.errors import BadOption, PathError
from walsvc.options import check_type, file_of, is_utf8, options_of, unknown_option
from walsvc.service.wire.frames import TOKEN_BYTES_MAX
from walsvc.targets import Url, host_and_port, is_loopback, parse_url, shown
from walsvc.tls import Tls

PORT = 7420
NAME_BYTES_MAX = 1024  # it travels in the first frame, whose size is limited
TOKEN_ENVIRONMENT = "WALSVC_TOKEN"
SECRETS = ("token", "password")
NUMBERS = {
    "timeout": (0.001, 1e6),
    "connect_seconds": (0.001, 3600.0),
    "open_seconds": (0.0, 1e6),
    "reconnect_seconds": (0.0, 1e6),
    "backoff_seconds": (0.0, 60.0),
    "backoff_max_seconds": (0.001, 600.0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """Options of a log that is opened by unix://, wal:// or wals://; keywords of `walsvc.open`, or the URL's query.

    The options of the log itself (segment_bytes and so on) belong to the server, and are refused here.

    Attributes:
        namespace: which of the server's logs; None: its main one. Also the path of wal:// and wals://.
        token_file: file whose first line is the token, read for each connection. None: the environment variable
            WALSVC_TOKEN, if it is set. A token itself is never an option, so that it is in no URL, log or process list.
        ca, cert, key, server_name: for wals://, see walsvc.tls. Certificates are always verified.
        timeout: seconds that one call may take, reconnecting included, 0.001 to 1e6; over it WalTimeout, and OutcomeUnknown
            for an append that was sent. Waiting for new records is no call. None: as long as reconnect_seconds allow.
        connect_seconds: seconds for one attempt to connect and be welcomed.
        open_seconds: seconds for which opening goes on trying when it finds nobody there. 0: one attempt.
        reconnect_seconds: seconds without a connection after which waiting calls fail, 0 to 1e6. 0: at once.
        backoff_seconds, backoff_max_seconds: the pause before the second attempt, doubled for each further one up to the
            maximum; each time a random part of it is waited (full jitter).
        max_pending_bytes: payload bytes not yet answered, 4 KiB to 64 GiB; over it, or over the server's own limit, `append`
            waits and `append_nowait` raises.
        read_ahead_bytes: bytes that the server may send ahead of the reader, for each read, follow and consumer, 4 KiB to 1 GiB.
        read_only: only read: appending raises Closed.
        insecure: show a token also over wal:// to another machine, where everybody on the way can read it.
        name: how the server's status calls this client; None: the process id.
    """

    namespace: str | None = None
    token_file: str | os.PathLike[str] | None = None
    ca: str | os.PathLike[str] | None = None
    cert: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = None
    server_name: str | None = None
    timeout: float | None = None
    connect_seconds: float = 10.0
    open_seconds: float = 0.0
    reconnect_seconds: float = 60.0
    backoff_seconds: float = 0.05
    backoff_max_seconds: float = 2.0
    max_pending_bytes: int = 64 * MIB
    read_ahead_bytes: int = 1 * MIB
    read_only: bool = False
    insecure: bool = False
    name: str | None = None

    def __post_init__(self) -> None:
        if self.namespace is not None:
            check_namespace(self.namespace)
        for name, (low, high) in NUMBERS.items():
            if (value := getattr(self, name)) is not None:
                between(name, value, low, high)
        between("max_pending_bytes", self.max_pending_bytes, 4 * KIB, 64 * GIB)
        between("read_ahead_bytes", self.read_ahead_bytes, 4 * KIB, GIB)
        one_of("read_only", self.read_only, (True, False))
        one_of("insecure", self.insecure, (True, False))
        Tls.of(self)
        if self.token_file is not None:
            file_of("token_file", self.token_file)
        check_type("name", self.name, str)
        if self.name is not None and (not is_utf8(self.name) or len(self.name.encode()) > NAME_BYTES_MAX):
            raise BadOption("name is not UTF-8, or too long", expected=f"at most {NAME_BYTES_MAX} bytes")

    def token(self, address: Address) -> str | None:
        """The token for a new connection to `address`.

        Raises:
            PathError: its file cannot be read. BadOption: it would travel to another machine unencrypted.
        """
        token = self._token()
        if token and len(token.encode()) > TOKEN_BYTES_MAX:
            raise BadOption(f"the token has {len(token.encode())} bytes", expected=f"at most {TOKEN_BYTES_MAX}")
        if token and not (address.tls or address.path is not None or self.insecure or is_loopback(address.host)):
            raise BadOption(
                "the token would be sent to another machine unencrypted",
                path=address.url,
                hint="use wals://, or insecure=True where the network is trusted",
            )
        return token

    def _token(self) -> str | None:
        if self.token_file is None:
            token = os.environ.get(TOKEN_ENVIRONMENT) or None
            if token is not None and not is_utf8(token):
                raise BadOption(f"the token in {TOKEN_ENVIRONMENT} is not UTF-8")
            return token
        try:
            with open(self.token_file, encoding="utf-8") as file:
                return file.readline().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise PathError(
                f"the token cannot be read: {getattr(error, 'strerror', None) or error}",
                errno=getattr(error, "errno", None),
                path=self.token_file,
                hint="token_file names a text file whose first line is the token",
            ) from None


@dataclass(frozen=True, slots=True)
class Address:
    """The address to connect to.

    Attributes:
        url: as errors name it: without its query.
        path: of a Unix socket, or None.
        host, port: otherwise.
        tls: whether the connection is encrypted.
    """

    url: str
    path: str | None
    host: str
    port: int
    tls: bool

    def context(self, config: ClientConfig) -> ssl.SSLContext | None:
        """The SSL context that verifies the server, and shows the client's certificate; None without TLS. Reads files."""
        if not self.tls:
            return None
        return Tls.of(config).or_environment().context()

    def server_name(self, config: ClientConfig) -> str | None:
        """The name that the server's certificate must have; None without TLS."""
        return Tls.of(config).or_environment().server_name or self.host if self.tls else None


def prepare(url: str, config: WalConfig | None, options: dict[str, Any]) -> tuple[Address, ClientConfig]:
    """`parse`, for `walsvc.open`. BadOption also for `config`."""
    if config is not None:
        raise BadOption(
            "config holds the options of a log in a directory", hint="give single options, see walsvc.ClientConfig"
        )
    return parse(url, options)


def parse(url: str, options: dict[str, Any]) -> tuple[Address, ClientConfig]:
    """The address and the options in `url` and `options`, of which the latter win. BadOption for what is not understood."""
    parts = parse_url(url, "wal://host:port/namespace, or unix:///run/walsvc.sock")
    if parts.login:
        raise BadOption(
            "a URL must not hold a user or a secret", hint=f"use token_file, or the variable {TOKEN_ENVIRONMENT}"
        )
    namespace = None
    if parts.scheme == "unix":
        address = unix_address(url, parts)
    else:
        address, namespace = inet_address(url, parts)
    refuse_others(name for name, _ in parts.options)
    given = options_of(parts.options, FIELDS, "the URL")
    if namespace is not None:
        given.setdefault("namespace", namespace)
    refuse_others(options)
    config = replace(ClientConfig(), **{**given, **options})
    if not address.tls and (used := [name for name in tls.NAMES if getattr(config, name) is not None]):
        raise BadOption(f"{used[0]} is for TLS only", hint="use wals://")
    return address, config


def unix_address(url: str, parts: Url) -> Address:
    """unix:///run/walsvc.sock"""
    path = os.fsdecode(unquote_to_bytes(parts.path))
    if parts.place or not path.startswith("/") or "\0" in path:
        raise BadOption(f"{shown(url)!r} names no socket", hint="unix:///run/walsvc.sock, with an absolute path")
    return Address(f"unix://{parts.path}", path, "", 0, tls=False)


def inet_address(url: str, parts: Url) -> tuple[Address, str | None]:
    """wal://host:port/namespace"""
    try:
        host, port = host_and_port(parts.place, PORT)
    except BadOption:
        host, port = "", 0
    if port == 0:
        raise BadOption(
            f"{shown(url)!r} names no server", hint=f"{parts.scheme}://host:port; port {PORT} if none is given"
        )
    host = host.lower()
    namespace = unquote(parts.path.removeprefix("/")) or None
    bracketed = f"[{host}]" if ":" in host else host
    name = f"{parts.scheme}://{bracketed}:{port}{parts.path.rstrip('/')}"
    return Address(name, None, host, port, tls=parts.scheme == "wals"), namespace


FIELDS = {field.name: field for field in fields(ClientConfig)}


def refuse_others(names: Iterable[str]) -> None:
    """BadOption for names that a client does not have, with the reason."""
    for name in names:
        if name in FIELDS:
            continue
        if name in SECRETS:
            hint = f"put it into a file and give token_file, or into the variable {TOKEN_ENVIRONMENT}"
            raise BadOption("a token is no option, so that it shows nowhere", hint=hint)
        if name in {field.name for field in fields(WalConfig)}:
            raise BadOption(
                f"{name!r} is an option of the server's log",
                hint="set it where `walsvc serve` runs; known here: " + ", ".join(sorted(FIELDS)),
            )
        raise unknown_option(name, FIELDS)
