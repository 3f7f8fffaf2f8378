"""Ports for servers of tests that must know theirs before they start, or keep it when they start again."""

from __future__ import annotations

import random
import socket
from pathlib import Path

ATTEMPTS = 1000
LOWEST = 10_000


def free_port() -> int:
    """A port that nobody listens on. It is below those that the system gives to connections: one of them, which any process
    may have at any moment, would be taken when a server starts again."""
    below = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    chance = random.SystemRandom()
    for _ in range(ATTEMPTS):
        port = chance.randrange(LOWEST, below) if below > LOWEST else 0
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
            return found
    raise AssertionError("no port is free")
