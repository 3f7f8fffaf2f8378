"""Fresh directories, for logs that a command makes only to try something out."""

from __future__ import annotations

import os
import tempfile

from walsvc.disk.paths import hint_for
from walsvc.errors import SPACE_ERRNOS, PathError, no_space


def fresh_directory(prefix: str, below: str | None = None, *, otherwise: str) -> str:
    """Make a directory; returns its path.

    Args:
        prefix: of its name.
        below: where; None: where the system has temporary files, TMPDIR first.
        otherwise: what the caller can do where that is impossible.

    Raises:
        NoSpace, PathError.
    """
    try:
        return tempfile.mkdtemp(prefix=prefix, dir=below)
    except OSError as error:
        place = below or os.environ.get("TMPDIR") or "/tmp"
        number = error.errno or 0
        if number in SPACE_ERRNOS:
            hint = f"free some space, or {otherwise}"
            raise no_space(error, "no directory can be made for a log", path=place, hint=hint) from error
        reason = os.strerror(number) if number else str(error)
        hint = otherwise if below is None else hint_for(number) or otherwise
        raise PathError(f"no directory can be made for a log: {reason}", path=place, errno=number, hint=hint) from error
