"""The errors that reading a log raises."""

from __future__ import annotations

from walsvc.disk.base import Disk
from walsvc.errors import PASSING_ERRNOS, PathError, Truncated, UnsupportedFormat


def read_failed(disk: Disk, error: OSError, lsn: int | None = None) -> PathError:
    """A read error is an error of its own, never the end of the log."""
    hint = "look at the device (dmesg); nothing was changed"
    if isinstance(error, PermissionError):
        hint = "check owner and mode of the file"
    elif error.errno in PASSING_ERRNOS:
        hint = "try again once the shortage is over (ulimit -a, free); nothing was changed"
    return PathError(
        f"reading the log failed: {error.strerror or error}",
        errno=error.errno,
        path=f"{disk.path.rstrip('/')}/{error.filename}" if isinstance(error.filename, str) else disk.path,
        lsn=lsn,
        hint=hint,
    )


def unknown_type(disk: Disk, lsn: int, type: int) -> UnsupportedFormat:
    """The error of a reader at a record of a required type that it does not know."""
    return UnsupportedFormat(
        f"the record is of type {type:#06x}, which is required and not among the reader's types",
        path=disk.path,
        lsn=lsn,
        hint="who does not know it must not pass over it: read on with a program that does, and names it in `types`",
    )


def was_dropped(disk: Disk, lsn: int, first_lsn: int) -> Truncated:
    """The error of a reader whose position `lsn` is below the log's first LSN."""
    return Truncated(
        f"records from LSN {lsn} on were dropped",
        path=disk.path,
        lsn=lsn,
        expected=f"at least LSN {first_lsn}",
        hint="start at first_lsn",
    )
