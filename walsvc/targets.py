"""Targets: a directory by its path, or something else by its URL. One reading for all verbs, options and calls.

A target is a URL if and only if it is text that begins with a scheme and a colon (RFC 3986, 3.1; case does not matter). So a
URL that is written wrongly is never the name of a directory. `./a:b` is a path, and so is every absolute one. A path object,
or bytes, is a path.

    scheme://[user:password@]host[:port][,host[:port]...][/path][?name=value[&name=value...]]
    scheme:/path, the same as scheme:///path

Most targets are paths, so what only URLs need is imported where it is used.
"""

from __future__ import annotations

import errno
import os
import re
from typing import Any, NamedTuple

from walsvc.errors import BadOption, PathError
from walsvc.options import encodable
from walsvc.visible import visible

SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
SERVED = ("unix", "wal", "wals")
STREAMS = ("nats", "tls")
STORES = ("s3", "gs", "az", "file")
_TAKERS = {
    **dict.fromkeys(
        STREAMS, "walsvc.open takes it, and so does replicate (walsvc serve --replicate), beside a directory"
    ),
    **dict.fromkeys(SERVED, "walsvc.open takes it; what serves the log, or copies it, needs its directory"),
    **dict.fromkeys(STORES, "walsvc archive takes it (walsvc serve --archive), beside a directory"),
}
COLONLESS = re.compile(rf"({'|'.join(_TAKERS)})//", re.IGNORECASE)
LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")  # RFC 1123, and "_", which container networks use
HOST_BYTES_MAX = 253
PORT_MAX = 0xFFFF


def text_of(target: object) -> str:
    """A path or URL as text. BadOption for another type; PathError for what no file system has."""
    if not isinstance(target, (str, bytes, os.PathLike)):
        raise BadOption(f"{type(target).__name__} is not a path of a log", hint="give text, bytes or a path object")
    text = os.fsdecode(target)
    if not text:
        raise PathError("the path is empty", errno=errno.ENOENT, hint="give the directory of the log")
    if "\0" in text or not encodable(text):
        wrong = "a NUL character" if "\0" in text else "half a character, a surrogate"
        raise PathError(f"the path {text!r} contains {wrong}", errno=errno.EINVAL, hint="check how the path was built")
    return text


def scheme_of(target: object) -> str | None:
    """The scheme of a target that is a URL, in lower case; None for a path.

    Raises:
        BadOption: it is neither: it begins with white space or with "~" (a shell's home directory of some user), or is a URL in bytes
            or a path object. PathError: no file system has such a path.
    """
    text = text_of(target)
    bare = _bare(text)
    found = SCHEME.match(bare)
    if text.startswith("~"):
        raise BadOption(
            "a target that begins with ~ is not expanded",
            path=text,
            hint=f"os.path.expanduser gives the home directory; for that very name: {os.path.abspath(text)}",
        )
    if isinstance(target, str):
        if (lacking := COLONLESS.match(bare)) is not None:
            raise BadOption(
                f"the colon of a URL is missing: {shown(text)!r}",
                hint=f"{lacking[1].lower()}://...; with ./ in front it is a directory",
            )
        if bare != text:
            kind = "a URL" if found else "a path"
            raise BadOption(
                f"there is white space before {kind}: {shown(text)!r}", hint="leave it out, or put ./ in front"
            )
        return None if found is None else found[1].lower()
    if (scheme := _meant_scheme(target)) is not None:
        kind = "bytes" if isinstance(target, bytes) else "a path object"
        raise BadOption(f"a URL must be text, not {kind} ({scheme}:...)", hint="for a directory give its absolute path")
    return None


def _meant_scheme(target: object) -> str | None:
    """The scheme of bytes or a path object that were meant as a URL. Others are paths, even with a colon."""
    text = text_of(target)
    found = None if isinstance(target, str) else SCHEME.match(_bare(text))
    if found is None or not (found[1].lower() in _TAKERS or text[text.index(":") + 1 :].startswith("/")):
        return None
    return found[1].lower()


def _bare(text: str) -> str:
    """The text without white space and unprintable characters in front."""
    bare = text.lstrip()
    while bare and not bare[0].isprintable() and not "\ud800" <= bare[0] <= "\udfff":  # a byte that is no UTF-8 is
        bare = bare[1:].lstrip()
    return bare


def directory_of(target: object) -> str:
    """The path of a directory, as text. BadOption for a URL, which may hold a secret; else as `scheme_of`."""
    if (scheme := url_scheme_of(target)) is not None:
        hint = _TAKERS.get(scheme, "give the path of a directory; ./ in front of one whose name has a colon")
        raise BadOption(f"a directory is needed here, not a URL ({scheme}:...)", hint=hint)
    text = text_of(target)
    return f"./{text}" if SCHEME.match(text) else text  # a path object: as text it must stay a path


def url_scheme_of(target: object) -> str | None:
    """The scheme of what is, or was meant as, a URL, in lower case; None for a path. Raises as `scheme_of`."""
    return _meant_scheme(target) or scheme_of(target)


def shown(url: str) -> str:
    """A URL without its login, its options and its fragment, any of which may be a secret."""
    place = re.split(r"[?#]", url, maxsplit=1)[0]
    head, mark, rest = place.partition("//")
    return f"{head}{mark}{rest.rpartition('@')[2]}"


class Url(NamedTuple):
    """A URL in its parts.

    Attributes:
        scheme: in lower case.
        login: before the "@"; "" for none. Quoted as it was.
        place: hosts and ports.
        path: from its slash on; "" for none. Quoted as it was.
        options: the query's names and values.
    """

    scheme: str
    login: str
    place: str
    path: str
    options: tuple[tuple[str, str], ...]


def parse_url(text: str, example: str) -> Url:
    """The parts of a URL. BadOption for what is none; its message shows neither login nor options."""
    found = SCHEME.match(text)
    if found is None:
        raise BadOption(f"{shown(text)!r} is no URL", hint=example)
    if visible(text) != text or any(map(str.isspace, text)):
        raise BadOption(
            "a URL holds no white space and no bytes that are no text", path=shown(text), hint="write a space as %20"
        )
    rest = text[found.end() :]
    if "#" in rest:
        raise BadOption(
            f"a URL of a log has no part behind {'#'!r}", path=shown(text), hint="write that character as %23"
        )
    rest, _, query = rest.partition("?")
    place, path = "", rest
    if rest.startswith("//"):
        place, slash, path = rest[2:].partition("/")
        path = slash + path
    elif not rest.startswith("/"):
        raise BadOption(f"{shown(text)!r} is no URL of a log", hint=f"{example}; for a directory: ./{shown(text)}")
    login, _, place = place.rpartition("@")
    try:
        from urllib.parse import parse_qsl

        options = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), errors="surrogateescape")
    except ValueError:
        raise BadOption(
            "the options of a URL are name=value, with & between them", path=shown(text), hint=example
        ) from None
    return Url(found[1].lower(), login, place, path, tuple(options))


def host_and_port(text: str, default: int | None = None) -> tuple[str, int]:
    """Host and port of "127.0.0.1:7421", "localhost:0" or "[::1]:7421"; BadOption for anything else.

    Port 0 stands for any that is free. `default`: the port where none is given. No name is looked up.
    """
    host, colon, digits = text.rpartition(":")
    if default is not None and (not colon or host.count("[") > host.count("]")):
        host, colon, digits = text, ":", str(default)
    bracketed = host.startswith("[") and host.endswith("]")
    name = host[1:-1] if bracketed else host
    plain = digits.isascii() and digits.isdigit() and len(digits) <= 5
    if not (colon and plain and int(digits) <= PORT_MAX) or (":" in name) != bracketed or not is_host(name):
        raise BadOption(f"{text!r} is no address", hint="HOST:PORT, such as 127.0.0.1:7421 or [::1]:7421")
    return name, int(digits)


def is_path(address: str) -> bool:
    """True if an address to listen on is the path of a Unix socket, and no HOST:PORT."""
    return "/" in address


def is_host(name: str) -> bool:
    """True if `name` can be the name or the address of a host."""
    if ":" in name:
        import ipaddress

        address, percent, zone = name.partition("%")
        try:
            ipaddress.IPv6Address(address)
        except ValueError:
            return False
        return not percent or LABEL.fullmatch(zone) is not None
    try:
        ascii_name = name.encode("idna").decode("ascii")
    except UnicodeError:
        return False
    labels = ascii_name.removesuffix(".").split(".")
    return len(ascii_name) <= HOST_BYTES_MAX and all(LABEL.fullmatch(label) for label in labels)


def is_loopback(host: str) -> bool:
    """True if only this machine can reach `host`: a loopback address, or the name localhost. No name is looked up."""
    if host.lower() == "localhost":
        return True
    import ipaddress

    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def option_text(value: Any) -> str:
    """An option's value as a URL's query holds it."""
    from urllib.parse import quote

    return quote(os.fsencode(value) if isinstance(value, (str, os.PathLike)) else str(value), safe="")
