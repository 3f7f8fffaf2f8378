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


LogPath = Annotated[str, typer.Argument(metavar="PATH", help="The log's directory.", show_default=False)]
DiskName = Annotated[Disk, typer.Option("--disk", help="How to write; auto takes the best that works here.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
FormatName = Annotated[
    Format, typer.Option("--format", help="raw: payload and newline; json: one object per line; hex: payload in hex.")
]
