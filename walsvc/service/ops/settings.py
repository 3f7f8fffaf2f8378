"""The settings of `walsvc serve`: flags over WALSVC_* over a TOML file over the defaults, each value with where it comes from.

A setting has one name everywhere: `token_file` in the file, WALSVC_TOKEN_FILE in the environment, --token-file as a flag.
The options of the log and the limits are settings, too; flags give them as `--set NAME=VALUE`. Secrets are no settings: they
stand in files, or in the environment variable WALSVC_TOKEN, so that none is ever in a process list or printed.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from typing import Any

from walsvc.config import WalConfig, between
from walsvc.errors import BadOption
from walsvc.keyring import KeyRing
from walsvc.options import file_of, unreadable
from walsvc.service.ops.fields import (
    FIELDS,
    LIMIT_FIELDS,
    LOG_FIELDS,
    MAIN_FIELDS,
    PREFIX,
    Main,
    Value,
    check_kind,
    check_name,
    from_environment,
    from_file,
)
from walsvc.service.server.auth import Tokens, load_tokens
from walsvc.service.server.limits import Limits
from walsvc.service.server.listeners import refuse_open_door, socket_path, tls_context
from walsvc.service.server.server import Server
from walsvc.targets import directory_of, host_and_port, is_loopback, is_path
from walsvc.visible import visible_json

FILES = ("data", "unix", "tls_cert", "tls_key", "tls_client_ca", "token_file", "key_file")


class Settings:
    """All settings, put together and checked.

    Attributes:
        values: by name, in the order in which they are documented.
        main, limits, log: as objects.
        tokens: who may do what; None: everybody.
        keys: of an encrypted log; None: it is plain.
    """

    def __init__(self, values: Mapping[str, Value], environment: Mapping[str, str]) -> None:
        self.values: dict[str, Value] = dict(values)
        self.main: Main = Main(**self._of(MAIN_FIELDS))
        self.limits: Limits = Limits(**self._of(LIMIT_FIELDS))
        self.keys: KeyRing | None = load_keys(self.main.key_file)
        self.log: WalConfig = WalConfig.of(None, {**self._of(LOG_FIELDS), "keys": self.keys})
        self._environment = environment
        self.tokens: Tokens | None = self.load_tokens()
        self._check()

    def _of(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self.values[name].value for name in fields}

    def _check(self) -> None:
        main = self.main
        for name in FILES:
            if (path := getattr(main, name)) is not None:
                file_of(name, path)
        if main.data is not None:
            directory_of(main.data)
        for path in (main.unix, main.redis if main.redis != "off" and is_path(main.redis) else None):
            if path is not None:
                socket_path(path)
        if main.data is None:
            raise BadOption(
                "the directory of the log is not given", hint="--data PATH, WALSVC_DATA, or data in the file"
            )
        if main.unix is None and main.listen is None:
            raise BadOption(
                "the server would listen nowhere for its own clients",
                hint="--unix PATH, or --listen HOST:PORT, or both; --redis and --http come beside it",
            )
        if main.free_alarm_bytes is not None:
            between("free_alarm_bytes", main.free_alarm_bytes, 0, 1 << 62)
        if not 0.1 <= main.stop_seconds <= 1e6:
            raise BadOption(f"stop_seconds={main.stop_seconds} is out of bounds", hint="allowed: 0.1 to 1e6")
        if main.namespaces and (main.archive is not None or self.log.replicate is not None):
            raise BadOption(
                "archive and replicate are for one log, and namespaces are many",
                hint="serve a log that is to have a copy without --namespaces",
            )
        if main.archive is not None:
            from walsvc.engines.archive.address import address_of

            address_of(main.archive)
        if self.log.replicate is not None:
            check_replica(self.log.replicate)
        if main.tls_cert is None and (main.tls_key or main.tls_client_ca):
            raise BadOption("there is a TLS key or CA, and no certificate", hint="--tls-cert PATH")
        tls = main.tls_cert is not None
        if main.listen is not None:
            host, _ = host_and_port(main.listen)
            refuse_open_door(host, tls=tls, tokens=self.tokens is not None, insecure=main.insecure)
        if main.http_api and main.http == "off":
            raise BadOption("http_api is a part of the HTTP side, which is off", hint="--http HOST:PORT")
        if main.http != "off":
            host, _ = host_and_port(main.http)
            refuse_open_door(host, tls=tls, tokens=self.tokens is not None, insecure=main.insecure)
        if main.redis != "off" and not is_path(main.redis):
            host, _ = host_and_port(main.redis)
            refuse_open_door(host, tls=tls, tokens=self.tokens is not None, insecure=main.insecure)

    def load_tokens(self) -> Tokens | None:
        """Load the tokens from their file. Raises PathError, BadOption."""
        return load_tokens(self.main.token_file, self._environment)

    def load_tls(self) -> ssl.SSLContext | None:
        """Load TLS for clients from its files; None: without TLS. Raises PathError, BadOption."""
        main = self.main
        return None if main.tls_cert is None else tls_context(main.tls_cert, main.tls_key, main.tls_client_ca)

    def load_http_tls(self) -> ssl.SSLContext | None:
        """TLS of the HTTP side: none on loopback, which no certificate names, and no client certificates, which no probe has:
        tokens are asked for. Raises PathError, BadOption."""
        main = self.main
        if main.http == "off" or main.tls_cert is None or is_loopback(host_and_port(main.http)[0]):
            return None
        return tls_context(main.tls_cert, main.tls_key)

    def server(self) -> Server:
        """Make the server that the settings describe. Raises PathError, BadOption for the TLS files."""
        main = self.main
        assert main.data is not None
        host, port = host_and_port(main.listen) if main.listen is not None else (None, 0)
        return Server(
            main.data,
            config=self.log,
            unix=main.unix,
            host=host,
            port=port,
            tls=self.load_tls(),
            tokens=self.tokens,
            namespaces=main.namespaces,
            limits=self.limits,
            insecure=main.insecure,
            archive=main.archive,
        )

    def lines(self) -> list[str]:
        """The settings in effect, as lines of TOML with comments; of tokens only names, rights and namespaces."""
        lines = [f"{f'{name} = {toml(each.value)}':50}  # {each.origin}" for name, each in self.values.items()]
        for grant in self.tokens.grants if self.tokens is not None else []:
            where = "all namespaces" if grant.namespaces is None else ", ".join(map(repr, sorted(grant.namespaces)))
            lines.append(f"# token {grant.name!r}: {', '.join(sorted(grant.rights))}; {where}")
        if self.tokens is None:
            lines.append("# no tokens: whoever can connect may do everything")
        if self.keys is not None:
            older = ", ".join(map(repr, self.keys.ids[1:])) or "none"
            lines.append(f"# current key {self.keys.current_id!r}; older ones: {older}")
        return lines


def load_keys(path: str | None) -> KeyRing | None:
    """Load a key file; None where none is set. Raises PathError where it cannot be read, BadOption for its content."""
    if path is None:
        return None
    try:
        return KeyRing.from_file(path)
    except OSError as error:
        raise unreadable("key", "key_file", path, error) from None


def check_replica(url: str) -> None:
    """Raise BadOption for an address that cannot be used, or that holds a secret, which every list of processes would show."""
    from walsvc.engines.jetstream.options import parse_replica

    address, options = parse_replica(url)
    if (address.user, options.token, options.system_password) != (None, None, None):
        raise BadOption(
            "the replica's address holds a secret", hint="credentials=PATH in its place, a NATS credentials file"
        )


def toml(value: object) -> str:
    """A value as TOML writes it; nothing for None, which TOML does not know."""
    if value is None:
        return '""'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return visible_json(f'"{escaped}"')
    return repr(value)


def load_settings(
    flags: Mapping[str, Any], *, config: str | None = None, environment: Mapping[str, str] = os.environ
) -> Settings:
    """Put the settings together.

    Args:
        flags: what the command line says, by name; None: nothing.
        config: the TOML file; None: WALSVC_CONFIG, or none.
        environment: WALSVC_* of it.

    Raises:
        BadOption: a name or a value is wrong; the message names the setting and where it stands. PathError: a file.
    """
    file = config or environment.get(f"{PREFIX}CONFIG") or None
    values = {name: Value(field.default, "default") for name, field in FIELDS.items()}
    if file is not None:
        values.update({name: Value(value, "file") for name, value in from_file(file).items()})
    values.update({name: Value(value, "environment") for name, value in from_environment(environment).items()})
    for name, value in flags.items():
        check_name(name, "the flags")
        if value is not None:
            check_kind(name, value, "the flags")
    values.update({name: Value(value, "flag") for name, value in flags.items() if value is not None})
    return Settings(values, environment)
