"""`walsvc version` and `walsvc --version`."""

from __future__ import annotations

import sys

from walsvc.cli import options, output


def number() -> str:
    """The version of walsvc."""
    import walsvc

    return walsvc.__version__


def version(as_json: options.AsJson = False) -> None:
    """Print the version.

    With --json also Python's and those of the libraries that matter.
    """
    if not as_json:
        output.echo(f"walsvc {number()}")
        return
    output.emit_json(
        {
            "walsvc": number(),
            "python": sys.version.split()[0],
            **{name: library(name) for name in ("uvloop", "crc32c", "msgpack", "aiofiles", "cffi")},
        }
    )


def library(name: str) -> str | None:
    """The installed version of distribution `name`, or None."""
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
