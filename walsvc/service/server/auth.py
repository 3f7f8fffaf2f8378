"""Tokens, compared in constant time, each with rights and namespaces."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import stat
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from walsvc.config import check_namespace
from walsvc.errors import BadOption, PathError
from walsvc.options import is_utf8, unreadable
from walsvc.service.wire.frames import TOKEN_BYTES_MAX
from walsvc.service.wire.methods import ADMIN, APPEND, RIGHTS

MAKES = frozenset({APPEND, ADMIN})  # either of them makes a namespace that is not there
ENVIRONMENT = "WALSVC_TOKEN"
RATES = ("requests_per_second", "bytes_per_second")
TOKEN_BYTES_MIN = 16  # nobody guesses 128 bits


class Grant(NamedTuple):
    """The rights of a token.

    Attributes:
        name: whose it is; said in logs, where a token never is.
        rights: of "append", "read", "consume" and "admin".
        namespaces: the only ones that it opens, "" for the log of the directory itself; None: all.
        requests_per_second, bytes_per_second: that all its clients together may send; None: as fast as they can.
    """

    name: str
    rights: frozenset[str]
    namespaces: frozenset[str] | None = None
    requests_per_second: float | None = None
    bytes_per_second: float | None = None

    @property
    def limited(self) -> bool:
        """True if it has a rate."""
        return self.requests_per_second is not None or self.bytes_per_second is not None

    @property
    def makes(self) -> bool:
        """True if it makes a namespace that is not there."""
        return not self.rights.isdisjoint(MAKES)

    def opens(self, namespace: str) -> bool:
        """True if it opens a namespace."""
        return self.namespaces is None or namespace in self.namespaces


EVERYBODY = Grant("anybody", RIGHTS)


class Tokens:
    """The tokens of a server. Kept as SHA-256 digests, so that comparing takes the same time whatever their lengths are."""

    def __init__(self, entries: Iterable[tuple[str, Grant]]) -> None:
        """BadOption for a token that is too short or too long, for a name or a token that is there twice."""
        self._grants: list[tuple[bytes, Grant]] = []
        names: set[str] = set()
        for token, grant in entries:
            length = len(token.encode(errors="replace"))
            if not is_utf8(token):
                raise BadOption(f"the token of {grant.name!r} is not UTF-8", hint="make one by `openssl rand -hex 32`")
            if not TOKEN_BYTES_MIN <= length <= TOKEN_BYTES_MAX:
                raise BadOption(
                    f"the token of {grant.name!r} has {length} bytes",
                    expected=f"{TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX}",
                    hint="make one by `openssl rand -hex 32`",
                )
            digest = digest_of(token)
            if grant.name in names or any(digest == known for known, _ in self._grants):
                raise BadOption(f"token {grant.name!r} is there twice")
            names.add(grant.name)
            self._grants.append((digest, grant))
        if not self._grants:
            raise BadOption("there is no token", hint="add a [[token]] table, or leave the tokens out")

    def grant(self, token: str | None) -> Grant | None:
        """The rights of a token; None: there is no such token. Compares with every token, whichever it is."""
        digest = digest_of(token or "")
        found: Grant | None = None
        for known, grant in self._grants:
            if hmac.compare_digest(known, digest):
                found = grant
        return found

    @property
    def grants(self) -> list[Grant]:
        """All of them, without the tokens."""
        return [grant for _, grant in self._grants]


def digest_of(token: str) -> bytes:
    """The digest of a token that is kept and compared."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def load_tokens(path: str | None, environment: Mapping[str, str] = os.environ) -> Tokens | None:
    """The tokens in a TOML file and the one in WALSVC_TOKEN, which has all rights; None: there is neither.

    The file has a `[[token]]` table for each: `name`, `token`, `rights` (a list; absent: all), `namespaces` (a list, "" is
    the log of the directory itself; absent: all), `requests_per_second` and `bytes_per_second` (absent: no limit). PathError where it cannot be read, or others than its owner may write it;
    BadOption for what is in it.
    """
    entries: list[tuple[str, Grant]] = []
    if path is not None:
        entries += [entry_of(path, table) for table in tables_of(path)]
    if token := environment.get(ENVIRONMENT):
        entries.append((token, Grant("environment", RIGHTS)))
    return Tokens(entries) if entries or path is not None else None


def tables_of(path: str) -> list[Any]:
    """The token tables of a file."""
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise PathError("others may write the token file", path=path, hint="chmod go-w")
            content = tomllib.load(file)
    except OSError as error:
        if isinstance(error, PathError):
            raise
        raise unreadable("token", "token_file", path, error) from None
    except ValueError as error:  # never with the text: a token may stand in it
        place = re.search(r"\(at [^()]*\)$", str(error))
        raise BadOption(f"the token file is not TOML{(place and ' ' + place[0]) or ''}", path=path) from None
    tables = content.pop("token", None)
    if content or not isinstance(tables, list) or not tables:
        raise BadOption("the token file has something else than [[token]] tables, or none", path=path)
    return tables


def entry_of(path: str, table: Any) -> tuple[str, Grant]:
    """One table: the token and what it gives."""
    known = {"name", "token", "rights", "namespaces", *RATES}
    if not isinstance(table, dict) or set(table) - known:
        raise BadOption("a [[token]] table has an unknown key", path=path, expected=", ".join(sorted(known)))
    name, token = table.get("name"), table.get("token")
    if not isinstance(name, str) or not isinstance(token, str) or not name:
        raise BadOption("a [[token]] table needs a name and a token, both text", path=path)
    rights = names_of(path, name, "rights", table.get("rights", sorted(RIGHTS)))
    if rights - RIGHTS:
        raise BadOption(f"token {name!r} has an unknown right", path=path, expected=", ".join(sorted(RIGHTS)))
    namespaces = None
    if "namespaces" in table:
        namespaces = names_of(path, name, "namespaces", table["namespaces"])
        for each in namespaces - {""}:
            check_namespace(each)
    rates = {rate: rate_of(path, name, rate, table[rate]) for rate in RATES if rate in table}
    return token, Grant(name, rights, namespaces, **rates)


def rate_of(path: str, token: str, key: str, value: Any) -> float:
    """A number above 0."""
    if type(value) not in (int, float) or not 0.001 <= value <= 1e12:
        raise BadOption(f"{key} of token {token!r} is no number from 0.001 to 1e12", path=path)
    return float(value)


def names_of(path: str, token: str, key: str, value: Any) -> frozenset[str]:
    """A list of text as a set."""
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise BadOption(f"{key} of token {token!r} is not a list of text", path=path)
    return frozenset(value)
