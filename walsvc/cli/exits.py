"""Exit codes: one for each class of trouble, so that a script can tell "try later" from "call an operator".

docs/CLI.md prints the same table; tests/cli compares the two.
"""

from __future__ import annotations

import errno

from walsvc import errors

OK = 0
OTHER = 1
USAGE = 2
CORRUPTION = 3
LOCKED = 4
PATH = 5
FORMAT = 6
TRUNCATED = 7
NO_SPACE = 8
UNREACHABLE = 9
DENIED = 10
UNKNOWN = 11
KEY = 12
CONFLICT = 13
INTERRUPTED = 130  # 128 + SIGINT, as shells report it
BROKEN_PIPE = 141  # 128 + SIGPIPE: what a program that dies of SIGPIPE gives, so `set -o pipefail` sees the usual code
TERMINATED = 143  # 128 + SIGTERM

MEANING: dict[int, str] = {
    OK: "done",
    OTHER: "another error: durability lost, record too large, deadline passed",
    USAGE: "usage: unknown option, value out of bounds, malformed input",
    CORRUPTION: "corruption: acknowledged data is damaged or missing",
    LOCKED: "locked: another process has the log open for writing",
    PATH: "path: missing, not a directory, not a log, no permission, read-only",
    FORMAT: "unsupported format: written by a newer version, or by an older one (see migrate)",
    TRUNCATED: "truncated: the records asked for were dropped",
    NO_SPACE: "no space on the device (or quota used up)",
    UNREACHABLE: "unreachable: no server answers, or the connection was lost for too long",
    DENIED: "denied: wrong token, or one without the right",
    UNKNOWN: "outcome unknown: the records may or may not have been appended",
    KEY: "key: the log is encrypted, and the key was not given or is another one",
    CONFLICT: "conflict: the topic, or the log, does not end with the LSN that was expected",
    INTERRUPTED: "interrupted by Ctrl-C",
    BROKEN_PIPE: "the reader of the output went away (SIGPIPE)",
    TERMINATED: "ended by SIGTERM",
}

# First match wins, so subclasses stand before their bases.
BY_CLASS: tuple[tuple[type[BaseException], int], ...] = (
    (errors.BadOption, USAGE),
    (errors.BadPayload, USAGE),
    (errors.Corruption, CORRUPTION),
    (errors.Locked, LOCKED),
    (errors.PathError, PATH),
    (errors.UnsupportedFormat, FORMAT),
    (errors.Truncated, TRUNCATED),
    (errors.NoSpace, NO_SPACE),
    (errors.Conflict, CONFLICT),
    (errors.MissingKey, KEY),
    (errors.WrongKey, KEY),
    (errors.Unreachable, UNREACHABLE),
    (errors.Denied, DENIED),
    (errors.OutcomeUnknown, UNKNOWN),
    (errors.WalError, OTHER),
)

PATH_ERRNOS = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP, errno.ENAMETOOLONG}
)


def code_of(error: BaseException) -> int:
    """The exit code for `error`: by its class for a WalError, by its errno for another OSError, else OTHER."""
    for kind, code in BY_CLASS:
        if isinstance(error, kind):
            return code
    if isinstance(error, OSError):
        if error.errno in PATH_ERRNOS:
            return PATH
        if error.errno in errors.SPACE_ERRNOS:
            return NO_SPACE
    return OTHER


def epilog() -> str:
    """The table for `walsvc --help`; the backspace in front keeps its lines apart."""
    return "\b\nExit codes:\n" + "\n".join(f"{code:5} {meaning}" for code, meaning in sorted(MEANING.items()))
