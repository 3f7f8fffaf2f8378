"""The options of a server, all checked before anything is made."""

from __future__ import annotations

import os
import ssl
from typing import Any

from walsvc.api import Log
from walsvc.config import WalConfig
from walsvc.errors import BadOption
from walsvc.options import check_type
from walsvc.service.server.auth import Tokens
from walsvc.service.server.limits import Limits
from walsvc.service.server.listeners import refuse_open_door
from walsvc.targets import PORT_MAX, is_host

KINDS: dict[str, tuple[type, ...]] = {
    "config": (WalConfig,),
    "host": (str,),
    "port": (int,),
    "tls": (ssl.SSLContext,),
    "tokens": (Tokens,),
    "namespaces": (bool,),
    "limits": (Limits,),
    "insecure": (bool,),
    "archive": (str, os.PathLike),
}
"""Options of Server, and what each may be besides None. `unix` is looked at where it is listened to."""


def check_options(source: object, options: dict[str, Any]) -> None:
    """BadOption or PathError for options of Server that are of the wrong kind, or contradict each other or `source`."""
    for name, kinds in KINDS.items():
        check_type(name, options[name], *kinds)
    check_address(options)
    opener, config, several = options["opener"], options["config"], options["namespaces"]
    if opener is not None and not callable(opener):
        raise BadOption(f"opener is {type(opener).__name__}", hint="a function that opens the log of a WalConfig")
    if isinstance(source, Log):
        if several or config is not None:
            raise BadOption("an open log is served as it is", hint="give its directory for namespaces or a config")
    elif config is not None:
        check_config(config, several=several)
    if options["archive"] is not None:
        check_archive(options["archive"], several=several)


def check_address(options: dict[str, Any]) -> None:
    """BadOption for a server that would listen nowhere, or where it must not."""
    unix, host, port, tls = options["unix"], options["host"], options["port"], options["tls"]
    if unix is None and host is None:
        raise BadOption("the server would listen nowhere", hint="give a path for a Unix socket, or a host and a port")
    if tls is not None and tls.protocol == ssl.PROTOCOL_TLS_CLIENT:
        raise BadOption("tls is a context for clients", hint="walsvc.service.server.listeners.tls_context makes one")
    if host is not None:
        if (host and not is_host(host)) or port is None or not 0 <= port <= PORT_MAX:
            raise BadOption(f"{host}:{port} is no address to listen on", hint="127.0.0.1 and 7420, say; port 0: any")
        has_tokens = options["tokens"] is not None
        refuse_open_door(host, tls=tls is not None, tokens=has_tokens, insecure=bool(options["insecure"]))


def check_config(config: WalConfig, *, several: bool) -> None:
    """BadOption for options of a log that no server can keep."""
    if config.read_only:
        raise BadOption(
            "a log that is opened with read_only=True cannot be served",
            hint="leave read_only out; a client may open it with read_only=True, or have a token with the right to read",
        )
    if several and config.namespace:
        raise BadOption("clients name the namespaces", hint="leave namespace out of the config, or namespaces=True")
    if config.replicate is not None:
        from walsvc.engines.jetstream.options import parse_replica

        if several:
            raise BadOption(
                "a replica is for one log, and namespaces are many", hint="serve the log without namespaces"
            )
        parse_replica(config.replicate)


def check_archive(url: str | os.PathLike[str], *, several: bool) -> None:
    """BadOption, PathError for what is no URL of an archive, or for one that several logs would share."""
    from walsvc.engines.archive.address import checked_address

    if several:
        raise BadOption("an archive is for one log, and namespaces are many", hint="serve the log without namespaces")
    checked_address(url)
