"""Every setting of `walsvc serve`: its name, type and default, and its value as a file, the environment or a flag gives it."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from typing import Any, NamedTuple

from walsvc.config import WalConfig
from walsvc.errors import BadOption
from walsvc.options import kinds_of, option_of, unknown_option, unreadable
from walsvc.service.server.limits import Limits
from walsvc.service.server.server import STOP_SECONDS

PREFIX = "WALSVC_"
NOT_OF_THE_LOG = frozenset({"read_only", "namespace", "keys"})  # the server decides, or (keys) a file holds them
NOT_SETTINGS = frozenset({"TOKEN", "CONFIG", "CA", "CERT", "KEY", "SERVER_NAME"})  # secret, file, TLS as a client


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Main:
    """The settings that are neither a limit nor an option of the log.

    Attributes:
        data: the directory of the log. Required.
        unix: path of the Unix socket to listen on.
        listen: HOST:PORT to listen on.
        tls_cert, tls_key, tls_client_ca: PEM files; see walsvc.service.server.listeners.tls_context.
        token_file: TOML file with the tokens; see walsvc.service.server.auth.load_tokens.
        key_file: the keys of an encrypted log; see walsvc.KeyRing.from_file. Every namespace has the same.
        namespaces: serve the namespaces of the directory.
        insecure: listen beyond this machine without TLS and tokens.
        http: HOST:PORT of the HTTP side, or "off".
        http_api: the HTTP side also takes and gives records, at /v1; see docs/HTTP.md.
        free_alarm_bytes: the alarm for the free space of a log's device is given below that, 0 to 1 << 62; None: when fewer than eight
            segments of segment_bytes fit; 0: never.
        redis: HOST:PORT, or the path of a Unix socket, where clients of Redis Streams are answered, or "off"; see docs/REDIS.md.
        stop_seconds: for an orderly end, 0.1 to 1e6.
        archive: URL of an archive to which sealed segments go, see docs/ENGINES.md.
    """

    data: str | None = None
    unix: str | None = None
    listen: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_client_ca: str | None = None
    token_file: str | None = None
    key_file: str | None = None
    namespaces: bool = False
    insecure: bool = False
    http: str = "off"
    http_api: bool = False
    free_alarm_bytes: int | None = None
    redis: str = "off"
    stop_seconds: float = STOP_SECONDS
    archive: str | None = None


class Value(NamedTuple):
    """The value of a setting, and its source: "flag", "environment", "file" or "default"."""

    value: Any
    origin: str


LOG_FIELDS = {each.name: each for each in dataclasses.fields(WalConfig) if each.name not in NOT_OF_THE_LOG}
LIMIT_FIELDS = {each.name: each for each in dataclasses.fields(Limits)}
MAIN_FIELDS = {each.name: each for each in dataclasses.fields(Main)}
FIELDS: dict[str, dataclasses.Field[Any]] = {**MAIN_FIELDS, **LIMIT_FIELDS, **LOG_FIELDS}
assert len(FIELDS) == len(MAIN_FIELDS) + len(LIMIT_FIELDS) + len(LOG_FIELDS), "two settings have one name"


def from_file(path: str) -> dict[str, Any]:
    """The settings of a TOML file: plain keys, all at the top."""
    try:
        with open(path, "rb") as file:
            content = tomllib.load(file)
    except OSError as error:
        raise unreadable("config", "config", path, error) from None
    except ValueError as error:
        raise BadOption(f"the config file is not TOML: {error}", path=path) from None
    if "token" in content:
        raise BadOption(
            "a token stands in the config file", path=path, hint="put it into a file of its own: token_file"
        )
    for name, value in content.items():
        check_name(name, f"the file {path}")
        check_kind(name, value, "the config file")
    return {
        name: None if value == "" and "None" in kinds_of(FIELDS[name]) else value for name, value in content.items()
    }


def from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """The settings of WALSVC_*; an empty one counts as not there. Unknown names are other programs' matter."""
    found = {}
    for name, field in FIELDS.items():
        text = environment.get(PREFIX + name.upper(), "")
        if text:
            found[name] = option_of(field, text, PREFIX + name.upper())
    return found


def from_pairs(pairs: list[str]) -> dict[str, Any]:
    """The settings of `--set NAME=VALUE`."""
    found = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise BadOption(f"--set {pair!r} has no value", hint="--set NAME=VALUE")
        check_name(name, "--set")
        found[name] = option_of(FIELDS[name], text, "--set")
    return found


def check_name(name: str, where: str) -> None:
    """Raise BadOption for an unknown setting."""
    if name not in FIELDS:
        raise unknown_option(name, FIELDS, f" in {where}", "setting")


def check_kind(name: str, value: Any, where: str) -> None:
    """Raise BadOption for a value of another type; the classes check the bounds."""
    kinds = kinds_of(FIELDS[name])
    good = (
        type(value).__name__ in kinds or (type(value) is int and "float" in kinds) or (value == "" and "None" in kinds)
    )
    if not good:
        raise BadOption(f"{name} in {where} is {type(value).__name__}", expected=" or ".join(kinds))
