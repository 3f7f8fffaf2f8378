"""How many file descriptors clients may take: the log needs some of its own, and without them it would end."""

from __future__ import annotations

import resource

KEPT = (
    192  # of the process: the HTTP side's connections, listeners, the event loop, an archive's and a replica's sockets
)
KEPT_OF_A_LOG = 16  # directory, lock, active segment, the one being sealed, spares, the double-write file, readers


def wanted(connections: int, logs: int) -> int:
    """How many a server with these limits may need. A connection that was told to go holds its own for a moment."""
    return 2 * connections + KEPT + KEPT_OF_A_LOG * logs


def raise_limit(count: int) -> int:
    """Raise the soft limit of this process to `count`, or as far as the hard one allows; returns the soft limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return count
    higher = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if higher > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (higher, hard))
        soft = higher
    return soft


def for_clients(logs: int) -> int:
    """How many clients may take while so many logs are open: all but what is kept, but at least half of all."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 1 << 30
    return max(soft - KEPT - KEPT_OF_A_LOG * logs, soft // 2)
