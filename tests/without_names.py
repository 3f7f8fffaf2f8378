"""This Linux without the names that macOS lacks. Importing it removes them: `pytest -p tests.without_names`, or first in a program.

Attributes:
    synced: files that were synced by F_FULLFSYNC, which only macOS has.
"""

import fcntl
import mmap
import os
import sys
from typing import Any

MISSING = {
    os: (
        *("O_DIRECT", "RWF_DSYNC", "RWF_SYNC", "fdatasync", "posix_fallocate", "posix_fadvise", "sched_getaffinity"),
        *("POSIX_FADV_DONTNEED", "POSIX_FADV_WILLNEED", "POSIX_FADV_RANDOM", "eventfd", "memfd_create"),
    ),
    mmap: ("MADV_HUGEPAGE",),
}
F_FULLFSYNC = 51

synced: list[int] = []
system_fcntl = fcntl.fcntl


def with_full_sync(file: int, call: int, *rest: Any) -> Any:
    """fcntl(2) of macOS, as far as a log uses it."""
    if call != F_FULLFSYNC:
        return system_fcntl(file, call, *rest)
    synced.append(file)
    return os.fsync(file)


assert not any(name.startswith("walsvc.disk") for name in sys.modules), "a log has looked for the names already"
for module, names in MISSING.items():
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
sys.modules["walsvc.disk._uring"] = None  # type: ignore[assignment]  # not built there
fcntl.F_FULLFSYNC = F_FULLFSYNC  # type: ignore[attr-defined]
fcntl.fcntl = with_full_sync
