"""The address of a log in JetStream, and what only that engine has options for."""

from __future__ import annotations

import dataclasses
import os
import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from walsvc.config import MIB, WalConfig, between, one_of
from walsvc.errors import BadOption
from walsvc.extras import need
from walsvc.options import check_type, file_of, options_of, unknown_option
from walsvc.targets import STREAMS as SCHEMES
from walsvc.targets import host_and_port
from walsvc.targets import parse_url as parse_url_of
from walsvc.tls import Tls

SHAPE = "nats://host:4222,host:4222,host:4222/stream"
CLIENT_PORT = 4222
MONITOR_PORT = 8222
REQUEST_SECONDS = 2.0  # of one attempt; a leader that does not answer by then is probably gone
PAUSE_SECONDS = 0.05  # between two attempts
SEGMENT_BYTES = 8 * MIB  # opening reads the newest segment over the network, so segments are smaller than on a disk
STREAM_NAME = re.compile(r"[A-Za-z0-9_-]{1,200}")  # NATS forbids blanks, dots, wildcards and path separators


@dataclass(frozen=True, slots=True)
class Address:
    """Parts of a URL.

    Attributes:
        servers: "nats://host:port" of each server, or "tls://host:port".
        stream: name of the stream.
        user, password: None where the URL has none.
    """

    servers: tuple[str, ...]
    stream: str
    user: str | None = None
    password: str | None = None

    @property
    def hosts(self) -> tuple[str, ...]:
        """Host names or addresses, IPv6 in brackets."""
        return tuple(each.partition("://")[2].rpartition(":")[0] for each in self.servers)

    @property
    def scheme(self) -> str:
        """ "nats", or "tls": only over TLS."""
        return self.servers[0].partition("://")[0]

    def __str__(self) -> str:
        """The URL without the password, for messages."""
        return f"{self.scheme}://{','.join(each.partition('://')[2] for each in self.servers)}/{self.stream}"


def parse_url(url: str) -> Address:
    """The address in `nats://[user:password@]host[:port][,host[:port]...]/stream`; tls:// alike. Raises BadOption."""
    return parse_target(url)[0]


def parse_target(url: str) -> tuple[Address, dict[str, Any]]:
    """The address and the options in `nats://[user:password@]host[:port],.../stream[?name=value&...]`; tls:// alike.

    Options are those of JetStreamOptions but `tls`; `monitor` is a list of URLs with commas between them. Raises BadOption.
    """
    if not isinstance(url, str):
        raise BadOption(f"the address of a log in JetStream is text, not {type(url).__name__}", hint=SHAPE)
    parts = parse_url_of(url, SHAPE)
    stream = parts.path.removeprefix("/")
    login, hosts = login_in(f"{parts.login}@{parts.place}" if parts.login else parts.place)
    if parts.scheme not in SCHEMES or not parts.path or not hosts:
        raise BadOption("the address of a log in JetStream has a scheme, servers and a stream", hint=SHAPE)
    if not STREAM_NAME.fullmatch(stream):
        raise BadOption(f"{stream!r} is no name for a stream", hint='1 to 200 letters, digits, "_" and "-"')
    servers = []
    for each in hosts.split(","):
        try:
            host, port = host_and_port(each, CLIENT_PORT)
        except BadOption:
            raise BadOption(f"{each!r} is no server", hint=SHAPE) from None
        if port == 0:
            raise BadOption(f"{each!r} is no server: its port is 0", hint=SHAPE)
        host = f"[{host}]" if ":" in host else host.lower()
        servers.append(f"{parts.scheme}://{host}:{port}")
    user, _, password = login.partition(":")
    try:
        user, password = unquote(user, errors="strict"), unquote(password, errors="strict")
    except UnicodeDecodeError:
        raise BadOption("the login in the address is not UTF-8", hint=SHAPE) from None
    address = Address(tuple(servers), stream, user or None, password or None)
    return address, options_of(parts.options, IN_ADDRESS, "the address")


def login_in(place: str) -> tuple[str, str]:
    """Login and hosts of an address, where the login may stand before the first host or before each."""
    login, hosts = place.partition("@")[0], place.split(",")
    if len(hosts) > 1 and all(each.startswith(f"{login}@") for each in hosts):
        return login, ",".join(each.removeprefix(f"{login}@") for each in hosts)
    login, _, rest = place.rpartition("@")
    if "," in login.partition("@")[2]:
        raise BadOption("the servers of an address have one login", hint="user:password@h1,h2; write @ in it as %40")
    return login, rest


@dataclass(frozen=True, slots=True, kw_only=True)
class JetStreamOptions:
    """Options of `walsvc.open("nats://...")` beside those of every log.

    Attributes:
        replicas: of a stream that is created, 3 or 5. One that exists keeps its own, at least 3.
        allow_unsynced: open also where servers do not sync every write, where nobody can tell whether they do, and where
            there are fewer than three replicas. stats() says so.
        monitor: URLs of the servers' monitoring ports, which tell whether they sync, also as one text with commas between
            them; None: port 8222 of each host in the address.
        system_user, system_password, system_credentials: a login of the system account (a name and a password, or the path
            of a credentials file), which is asked instead of the monitoring ports.
        credentials: path of a NATS credentials file.
        token: instead of a user and a password in the address.
        ca, cert, key, server_name: see walsvc.tls. With one of them, as with tls://, nothing is said to a server without TLS.
        tls: in their place, a context of the caller's.
        timeout: seconds, 1 to 3600, that opening, or one commit, may take altogether while servers fail and come back;
            after that the log has lost its durability, or cannot be opened.
    """

    replicas: int = 3
    allow_unsynced: bool = False
    monitor: Sequence[str] | str | None = None
    system_user: str | None = None
    system_password: str | None = None
    system_credentials: str | None = None
    credentials: str | None = None
    token: str | None = None
    ca: str | os.PathLike[str] | None = None
    cert: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = None
    server_name: str | None = None
    tls: ssl.SSLContext | None = None
    timeout: float = 30.0

    def __post_init__(self) -> None:
        one_of("allow_unsynced", self.allow_unsynced, (True, False))
        between("replicas", self.replicas, 1 if self.allow_unsynced else 3, 5)
        between("timeout", self.timeout, 1.0, 3600.0)
        given = Tls.of(self)
        if self.tls is not None and not isinstance(self.tls, ssl.SSLContext):
            raise BadOption(f"tls must be an ssl.SSLContext, not {type(self.tls).__name__}", hint='ca="ca.pem"')
        if self.tls is not None and given != Tls(server_name=given.server_name):
            raise BadOption("tls is given beside ca or cert", hint="give one of them: a context has its own")
        for name in ("credentials", "system_credentials"):
            if (path := getattr(self, name)) is not None:
                file_of(name, path)
        for name in ("token", "system_user", "system_password"):
            if (text := getattr(self, name)) is not None and not isinstance(text, str):
                raise BadOption(f"{name} must be text, not {type(text).__name__}")
        if not isinstance(self.monitor, (str, Sequence, type(None))):
            raise BadOption(f"monitor must be a list of URLs, not {type(self.monitor).__name__}")
        for url in self.monitors or ():
            if not isinstance(url, str) or not is_monitor(url):
                raise BadOption(f"monitor={url!r} is no URL", hint=f"http://host:{MONITOR_PORT}")

    @property
    def monitors(self) -> Sequence[str] | None:
        """`monitor` as a list."""
        return self.monitor.split(",") if isinstance(self.monitor, str) else self.monitor


def is_monitor(url: str) -> bool:
    """True if `url` is one of a monitoring port."""
    try:
        parts = parse_url_of(url, "")
        host_and_port(parts.place, MONITOR_PORT)
    except BadOption:
        return False
    return parts.scheme in ("http", "https") and not parts.login


def login_of(address: Address, options: JetStreamOptions) -> dict[str, Any]:
    """The login of the client to the log's account: arguments of nats-py's connect."""
    login: dict[str, Any] = {"user_credentials": options.credentials, "token": options.token}
    if address.user is not None:
        login |= {"user": address.user, "password": address.password}
    return login


# Options of a log in a directory that mean nothing here, their only value, and why.
DIRECTORY_OPTIONS: dict[str, tuple[object, str]] = {
    "disk": ("auto", "the records are messages on the servers, so no disk of this machine is written"),
    "direct": (None, "the servers write the files, and choose how"),
    "reading": ("direct", "what is read are messages of the servers, no files of this machine"),
    "double_write": ("off", "a message is stored as a whole or not at all, so no group is ever torn"),
    "layout": ("pad", "padding is not sent, so packing would save nothing"),
    "replicate": (None, "the stream has its replicas; a copy elsewhere is a mirror of the stream, see the NATS manual"),
}
OPTION_NAMES = frozenset(field.name for field in dataclasses.fields(JetStreamOptions))
LOG_OPTIONS = frozenset(field.name for field in dataclasses.fields(WalConfig))
IN_ADDRESS = {field.name: field for field in dataclasses.fields(JetStreamOptions) if field.name != "tls"}


def prepare(url: str, config: WalConfig | None, options: dict[str, Any]) -> tuple[Address, WalConfig, JetStreamOptions]:
    """Check the address and the options; returns them as they are to be used.

    Args:
        url: nats://[user:password@]host[:port],.../stream[?name=value&...], with options of the engine behind the mark.
        config: the log's options; None: the defaults, with segments of 8 MiB.
        options: single options of the log (WalConfig) and of the engine (JetStreamOptions).

    Raises:
        BadOption: one of them is wrong, or the NATS client is not installed (`pip install 'walsvc[nats]'`).
    """
    need("nats", "a log in JetStream")
    address, given = parse_target(url)
    return address, *split_options(config, given | options)


def parse_replica(url: str) -> tuple[Address, JetStreamOptions]:
    """The address and the options in the URL of a replica (WalConfig's `replicate`). Raises BadOption as `prepare` does."""
    need("nats", "replication")
    address, options = parse_target(url)
    return address, JetStreamOptions(**options)


def split_options(config: WalConfig | None, overrides: dict[str, Any]) -> tuple[WalConfig, JetStreamOptions]:
    """The log's options and the engine's. Raises BadOption for an unknown one, or one that means nothing here."""
    check_type("config", config, WalConfig)
    options = JetStreamOptions(**{name: value for name, value in overrides.items() if name in OPTION_NAMES})
    others = {name: value for name, value in overrides.items() if name not in OPTION_NAMES}
    if unknown := others.keys() - LOG_OPTIONS:
        raise unknown_option(min(unknown), OPTION_NAMES | LOG_OPTIONS - DIRECTORY_OPTIONS.keys() - {"namespace"})
    if config is None:
        others.setdefault("segment_bytes", SEGMENT_BYTES)
    for name, (value, reason) in DIRECTORY_OPTIONS.items():  # as they were given: WALSVC_DISK is for all logs
        if others.get(name, value if config is None else getattr(config, name)) != value:
            raise BadOption(f"{name} means nothing for a log in JetStream: {reason}", hint="leave it out")
    whole = WalConfig.of(config, others)
    if whole.namespace is not None:
        raise BadOption("a log in JetStream has no namespaces", hint="give each log a stream of its own")
    if whole.replicate is not None:
        raise BadOption(
            "a log in JetStream is replicated by its stream", hint="leave replicate= out; Strict waits for a majority"
        )
    return whole, options
