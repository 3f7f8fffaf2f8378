"""Arguments and options that several verbs share."""

from __future__ import annotations

import enum
from typing import Annotated

import typer


class Disk(enum.Enum):
    """Disk backends that a user can ask for."""

    AUTO = "auto"
    URING = "uring"
    THREADS = "threads"


class Loop(enum.Enum):
    """Event loops that a user can ask for."""

    AUTO = "auto"
    ASYNCIO = "asyncio"
    UVLOOP = "uvloop"


class Format(enum.Enum):
    """How cat and tail print a record."""

    RAW = "raw"
    JSON = "json"
    HEX = "hex"


def is_url(target: str) -> bool:
    """Whether a log is named by a URL, as `walsvc.open` understands it."""
    scheme, mark, _ = target.partition("://")
    return bool(mark) and scheme.isascii() and scheme[:1].islower() and not set(scheme) - set(SCHEME_LETTERS)


def directory_only(target: str) -> str:
    """For verbs that look at a log's files: a URL ends the command with one line that says so."""
    if is_url(target):
        from walsvc.cli import runner
        from walsvc.errors import BadOption

        error = BadOption(
            "this needs the files of the log, and a URL gives only its records",
            path=target.partition("?")[0],
            hint="run it on the machine that serves the log, with the log's directory",
        )
        raise typer.Exit(runner.report(error))
    return target


SCHEME_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789+.-"
LogPath = Annotated[
    str,
    typer.Argument(metavar="PATH", help="The log's directory.", show_default=False, callback=directory_only),
]
LogTarget = Annotated[
    str,
    typer.Argument(
        metavar="PATH",
        help="The log's directory, or where it is served: unix:///path, wal://host:port, wals://host:port.",
        show_default=False,
    ),
]
DiskName = Annotated[Disk, typer.Option("--disk", help="How to write; auto takes the best that works here.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
FormatName = Annotated[
    Format, typer.Option("--format", help="raw: payload and newline; json: one object per line; hex: payload in hex.")
]
