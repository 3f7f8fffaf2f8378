"""Arguments and options that several verbs share."""

from __future__ import annotations

import enum
import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from walsvc.keyring import KeyRing, Keys


class DiskChoice(enum.Enum):
    """Disk backends that a user can ask for."""

    AUTO = "auto"
    URING = "uring"
    THREADS = "threads"


class Loop(enum.Enum):
    """Event loops that a user can ask for."""

    AUTO = "auto"
    ASYNCIO = "asyncio"
    UVLOOP = "uvloop"


class PrintFormat(enum.Enum):
    """How cat and tail print a record."""

    RAW = "raw"
    JSON = "json"
    HEX = "hex"


def is_url(target: str) -> bool:
    """True if a log is named by a URL. What is neither a URL nor a path is none: opening it says what is wrong."""
    from walsvc.errors import WalError
    from walsvc.targets import scheme_of

    try:
        return scheme_of(target) is not None
    except WalError:
        return False


def directory_only(target: str) -> str:
    """Refuse a URL where a verb looks at a log's files: the command ends with one line that says so."""
    from walsvc.cli import runner
    from walsvc.errors import BadOption, WalError
    from walsvc.targets import scheme_of, shown

    try:
        if scheme_of(target) is not None:
            raise BadOption(
                "this needs the files of the log, and a URL gives only its records",
                path=shown(target),
                hint="run it on the machine that serves the log, with the log's directory",
            )
    except WalError as error:
        raise typer.Exit(runner.report(error)) from None
    return target


def url_only(target: str | None) -> str | None:
    """Refuse a path where an option names a served log: the command ends with one line that says so."""
    if target is not None and not is_url(target):
        raise typer.BadParameter(f"{target!r} is no URL of a log")
    return target


TLS_HELP = {
    "ca": ("FILE", "PEM file of the authorities to trust, for wals:// and tls://; also WALSVC_CA."),
    "cert": ("FILE", "PEM file of this client's certificate; also WALSVC_CERT."),
    "key": ("FILE", "PEM file of its key, unless it is in the same file; also WALSVC_KEY."),
    "server_name": ("NAME", "The name in the server's certificate, if it is not the URL's; also WALSVC_SERVER_NAME."),
}
Verb = Callable[..., None]


def reaching(target: str) -> Callable[[Verb], Verb]:
    """Give a verb --ca, --cert, --key and --server-name, for the URL that its argument `target` holds.

    They become options of that URL, so whoever takes the URL takes them, and refuses them where there is no TLS. An option
    of the verb that has the name already stays as it is.
    """

    def decorate(verb: Verb) -> Verb:
        signature = inspect.signature(verb, eval_str=True)
        added = {name: told for name, told in TLS_HELP.items() if name not in signature.parameters}

        @functools.wraps(verb)
        def reached(*arguments: Any, **given: Any) -> None:
            tls = {name: value for name in added if (value := given.pop(name)) is not None}
            if tls:
                given[target] = with_options(given[target], tls)
            verb(*arguments, **given)

        new = [tls_option(name, *told) for name, told in added.items()]
        reached.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *new])  # type: ignore[attr-defined]
        return reached

    return decorate


def tls_option(name: str, metavar: str, told: str) -> inspect.Parameter:
    """The parameter of a verb."""
    option = typer.Option(f"--{name.replace('_', '-')}", metavar=metavar, help=told, show_default=False)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, option]
    )


def with_options(url: str | None, given: dict[str, str]) -> str:
    """Add options to the query of `url`."""
    from walsvc.targets import option_text

    if url is None or not is_url(url):
        raise typer.BadParameter(f"--{next(iter(given)).replace('_', '-')} goes with a URL")
    return url + ("&" if "?" in url else "?") + "&".join(f"{name}={option_text(text)}" for name, text in given.items())


LogPath = Annotated[
    str,
    typer.Argument(metavar="PATH", help="The log's directory.", show_default=False, callback=directory_only),
]
NewDirectory = Annotated[
    str,
    typer.Argument(
        metavar="PATH",
        help="A directory that does not exist yet, or is empty.",
        show_default=False,
        callback=directory_only,
    ),
]
LogTarget = Annotated[
    str,
    typer.Argument(
        metavar="PATH",
        help="The log's directory, or a URL: unix:///path, wal://host:port, wals://host:port, nats://host/stream, tls://host/stream.",
        show_default=False,
    ),
]
DiskName = Annotated[DiskChoice, typer.Option("--disk", help="How to write; auto takes the best that works here.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
FormatName = Annotated[
    PrintFormat,
    typer.Option("--format", help="raw: payload and newline; json: one object per line; hex: payload in hex."),
]
JsonFormat = Annotated[bool, typer.Option("--json", help="The same as --format json.")]
KeyFile = Annotated[
    str | None,
    typer.Option(
        "--key-file",
        envvar="WALSVC_KEY_FILE",
        metavar="FILE",
        help="The keys of an encrypted log: lines of id and base64, the current key first; mode 0600.",
        show_default=False,
        show_envvar=True,
    ),
]


class LayoutChoice(enum.Enum):
    """Where groups begin in a segment."""

    PAD = "pad"
    PACK = "pack"


class DoubleWriteChoice(enum.Enum):
    """Whether and how each group goes to the double-write file first."""

    OFF = "off"
    BUFFERED = "buffered"
    DIRECT = "direct"


def layout_of(path: str) -> dict[str, Any]:
    """Options with which a log goes on as it is: packed, or with its double-write file. Nothing where there is none."""
    import os
    from contextlib import suppress

    from walsvc.format.double_write import DOUBLE_WRITE_NAME
    from walsvc.format.segment import SEGMENT_HEADER_BYTES, BadSegment, decode_segment_header, parse_name

    with suppress(OSError, BadSegment):  # which opening the log will tell better
        names = os.listdir(path)
        newest = max((name for name in names if parse_name(name, ".wal") is not None), default=None)
        packed = False
        if newest is not None:
            with open(os.path.join(path, newest), "rb") as file:
                header = decode_segment_header(file.read(SEGMENT_HEADER_BYTES))
            packed = header.align < header.block_bytes
        if packed or DOUBLE_WRITE_NAME in names:
            return {"layout": "pack" if packed else "pad", "double_write": "buffered"}
    return {}


def keys_of(key_file: str | None) -> KeyRing | None:
    """Load a key file; None: no file was named."""
    from walsvc.keyring import KeyRing

    if key_file is None:
        return None
    with naming("--key-file", "check the option, or the environment variable WALSVC_KEY_FILE"):
        return KeyRing.from_file(key_file)


@contextmanager
def naming(option: str, hint: str) -> Iterator[None]:
    """Turn the operating system's error about a file into a PathError that names the option."""
    try:
        yield
    except OSError as error:
        from walsvc.errors import PathError

        raise PathError(
            f"{option}: {error.strerror or error}", errno=error.errno, path=error.filename, hint=hint
        ) from None


def keyed(key_file: str | None) -> dict[str, Any]:
    """The option `keys`, where a key file was named: a served log has no such option."""
    return {} if key_file is None else {"keys": keys_of(key_file)}


async def existing(path: str, disk: DiskChoice = DiskChoice.AUTO, key_file: str | None = None) -> dict[str, Any]:
    """Options with which a log that must be there is opened for writing and goes on as it is: packed, with its double-write
    file, under its keys.

    Opening for writing would create a log where there is none; opening for reading first says that there is none. A server
    has its log.
    """
    import walsvc

    if is_url(path):
        return keyed(key_file)
    async with walsvc.open(path, read_only=True, **keyed(key_file)):
        pass
    return {**layout_of(path), **keyed(key_file), "disk": disk.value}


def keys_or_blind(key_file: str | None) -> Keys:
    """Like keys_of, for verbs that can look at an encrypted log from outside."""
    from walsvc.keyring import BLIND

    return keys_of(key_file) or BLIND
