"""Every error of walsvc: one tree under WalError.

A message says what happened; the fields say where (path, segment, lsn, offset) and what was expected against what was
found; the hint says what to do next, as PostgreSQL's DETAIL and HINT do. A class answers one question: whose turn is it?
Caller's mistake (BadPayload, BadOption, RecordTooLarge, WrongLoop, Closed), look again (Conflict), try later (Backpressure, NoSpace,
Locked, InUse, WalTimeout), leave the record to others (LeaseLost), reopen (DurabilityLost), look for the key (MissingKey,
WrongKey), look at the data (Corruption, UnsupportedFormat, Truncated, OutcomeUnknown), the path (PathError), the service's operator
(Denied, ProtocolError), the replica (ReplicaLost).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EAGAIN, EDQUOT, EINTR, EMFILE, ENFILE, ENOMEM, ENOSPC

from walsvc.visible import visible

SPACE_ERRNOS = frozenset({ENOSPC, EDQUOT})  # the device is full, or the user's quota is used up
PASSING_ERRNOS = frozenset({EINTR, EAGAIN, ENOMEM, ENFILE, EMFILE})
"""The system was short of something, or was interrupted, and did nothing: the same call may go through a moment later."""


class WalError(Exception):
    """Base of all walsvc errors.

    Attributes:
        message: what happened, one sentence.
        path: the log's directory or the file, where one is concerned.
        segment: first LSN of the segment concerned (its file is `%016x.wal`).
        lsn: the log sequence number concerned.
        offset: byte offset in the segment's file.
        expected, actual: what should have been there and what was.
        hint: what to do next.
    """

    def __init__(
        self,
        message: str,
        *,
        path: str | os.PathLike[str] | None = None,
        segment: int | None = None,
        lsn: int | None = None,
        offset: int | None = None,
        expected: object = None,
        actual: object = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.path: str | None = None if path is None else os.fspath(path)
        self.segment = segment
        self.lsn = lsn
        self.offset = offset
        self.expected = expected
        self.actual = actual
        self.hint = hint

    @property
    def where(self) -> str:
        """Path, segment, offset and LSN, as far as they are known, in one phrase."""
        parts: list[str] = []
        if self.path is not None:
            parts.append(self.path)
        if self.segment is not None:
            parts.append(f"segment {self.segment:016x}.wal")
        if self.offset is not None:
            parts.append(f"offset {self.offset}")
        if self.lsn is not None:
            parts.append(f"LSN {self.lsn}")
        return ", ".join(parts)

    def __str__(self) -> str:
        text = self.message
        if self.where:
            text += f" [{self.where}]"
        known = [("expected", self.expected), ("found", self.actual)]
        if found := ", ".join(f"{word} {value}" for word, value in known if value is not None):
            text += f" ({found})"
        if self.hint:
            text += f". Hint: {self.hint}"
        return visible(text)


def copy_of(error: WalError) -> WalError:
    """The same error once more, as an object of its own: raising one adds to its traceback, which keeps the callers' frames,
    and what they were given, in memory. So an error that is kept to be told to many is raised as a copy."""
    copy = error.__class__.__new__(error.__class__)
    copy.__dict__.update(error.__dict__)
    copy.args, copy.__cause__ = error.args, error.__cause__
    if isinstance(error, OSError):  # keeps it elsewhere
        copy.errno = error.errno  # type: ignore[attr-defined]
    return copy


class Closed(WalError):
    """The log was closed or sealed; nothing was written."""


def not_given_out(lsn: object, next_lsn: int, path: str) -> BadOption:
    """The error of a call that wants a record which is still to come."""
    return BadOption(f"LSN {lsn!r} was not given out yet", path=path, hint=f"next_lsn is {next_lsn}")


def from_source(path: str) -> BadOption:
    """The error of a call that would wait for the very batch whose source makes it."""
    return BadOption(
        "the source of a streamed batch changes the log, which the batch has until its source has ended",
        path=path,
        hint="append, acknowledge or truncate when append_batch has answered, or begin a task for it (asyncio.create_task) and await "
        "that afterwards",
    )


def closed_log(path: str) -> Closed:
    """The error of whoever uses, or waits for, a log that was closed."""
    return Closed("the log is closed", path=path, hint="open it again")


class Locked(WalError):
    """Another process (or this one) has the log open for writing."""


class DurabilityLost(WalError):
    """A write or a sync failed: what is on stable storage is not known. Terminal until the log is opened again.

    `errno` is the operating system's error number of the first failure. After a failed fsync the kernel may have marked
    the pages clean, so a second fsync would lie (LWN 752063, "PostgreSQL's fsync() surprise"): it is never retried.
    """

    def __init__(self, message: str, *, errno: int = 0, **where: object) -> None:
        super().__init__(message, **where)  # type: ignore[arg-type]
        self.errno = errno


class Fenced(DurabilityLost):
    """Another writer has taken the log over. What was not acknowledged may have been stored before that, or not. Terminal."""


class ReplicaLost(WalError):
    """The replica no longer follows the log: another log has its stream, or it holds what this log does not. Strict appends go
    on; Quorum waits for what cannot come, so it fails."""


class Corruption(WalError):
    """Acknowledged data is damaged or missing. Nothing was changed on disk."""


class InUse(WalError):
    """A consumer of this name is open already; two would take each other's records."""


class Conflict(WalError):
    """The topic, or the log, does not end with the LSN that the append expected: another writer was faster. Nothing was written.

    `expected` is the caller's LSN, `actual` the one that it ends with; 0: it has no visible record.
    """


class LeaseLost(WalError):
    """A delivery of a shared consumer ran out, and its record is another worker's, done, or gone; nothing was changed."""


class Truncated(WalError):
    """The records asked for were dropped by truncation or retention."""


class UnsupportedFormat(WalError):
    """The log was written by a newer version of walsvc, or uses a feature that this version does not have."""


class MissingKey(WalError):
    """The log is encrypted, and the key of that id was not given. Nothing was changed on disk, and nothing is damaged."""


class WrongKey(WalError):
    """Another key was given under an id than the one that the log was encrypted with. Nothing was changed on disk."""


class Backpressure(WalError):
    """append_nowait found no room: the pending bytes are at their cap, or the next segment is not ready. Retry later."""


class NoSpace(WalError):
    """No room on the device for the next segment, or its file cannot be made now, as `errno` says. No LSN was given out; append again
    once that is over."""

    def __init__(self, message: str, *, errno: int = 0, **where: object) -> None:
        super().__init__(message, **where)  # type: ignore[arg-type]
        self.errno = errno


def no_space(error: OSError, text: str, **where: object) -> NoSpace:
    """The NoSpace for an OSError: `text`, then what the operating system says. `where` as in WalError."""
    return NoSpace(f"{text}: {error.strerror or error}", errno=error.errno or 0, **where)


@contextmanager
def taking_space(text: str, **where: object) -> Iterator[None]:
    """Make a full device a NoSpace; see no_space. Any other OSError is raised as it is."""
    try:
        yield
    except OSError as error:
        if error.errno not in SPACE_ERRNOS:
            raise
        raise no_space(error, text, **where) from error


class RecordTooLarge(WalError):
    """The payload, or the batch, is over the configured limit; nothing was written."""


class WalTimeout(WalError, TimeoutError):
    """A deadline passed before the work was done."""


class Denied(WalError):
    """The service does not let this caller do that: wrong token, missing right, or a namespace that is not the token's."""


class ProtocolError(WalError):
    """The other side of a connection said something that the service protocol does not know, or over its limits."""


class Unreachable(WalError, OSError):
    """The service cannot be reached, or the connection was lost and not regained in time. Nothing was written by this call."""

    def __init__(self, message: str, *, errno: int | None = None, **where: object) -> None:
        WalError.__init__(self, message, **where)  # type: ignore[arg-type]
        self.errno = errno

    def __str__(self) -> str:
        return WalError.__str__(self)


class OutcomeUnknown(WalError):
    """The records may have been appended, or not: it cannot be told any more. Read the end of the log to find out."""


class WrongLoop(WalError):
    """The log was used from another event loop, thread or process than the one that opened it."""


class PathError(WalError, OSError):
    """The path cannot hold a log, or there is none: missing, not a directory, no permission, read-only."""

    def __init__(self, message: str, *, errno: int | None = None, **where: object) -> None:
        WalError.__init__(self, message, **where)  # type: ignore[arg-type]
        self.errno = errno

    def __str__(self) -> str:
        return WalError.__str__(self)


class BadPayload(WalError, TypeError):
    """The payload is not a bytes-like object."""


class BadOption(WalError, ValueError):
    """An option is unknown, out of its bounds, or contradicts another; or an argument is out of range."""


def read_failed(path: str, error: OSError, lsn: int | None = None) -> PathError:
    """A read error is an error of its own, never the end of the log."""
    hint = "look at the device (dmesg); nothing was changed"
    if isinstance(error, PermissionError):
        hint = "check owner and mode of the file"
    elif error.errno in PASSING_ERRNOS:
        hint = "try again once the shortage is over (ulimit -a, free); nothing was changed"
    return PathError(
        f"reading the log failed: {error.strerror or error}",
        errno=error.errno,
        path=f"{path.rstrip('/')}/{error.filename}" if isinstance(error.filename, str) else path,
        lsn=lsn,
        hint=hint,
    )


def unknown_type(path: str, lsn: int, type: int) -> UnsupportedFormat:
    """The error of a reader at a record of a required type that it does not know."""
    return UnsupportedFormat(
        f"the record is of type {type:#06x}, which is required and not among the reader's types",
        path=path,
        lsn=lsn,
        hint="who does not know it must not pass over it: read on with a program that does, and names it in `types`",
    )


def was_dropped(path: str, lsn: int, first_lsn: int) -> Truncated:
    """The error of a reader whose position `lsn` is below the log's first LSN."""
    return Truncated(
        f"records from LSN {lsn} on were dropped",
        path=path,
        lsn=lsn,
        expected=f"at least LSN {first_lsn}",
        hint="start at first_lsn",
    )
