"""The state of the process, told to systemd: sd_notify(3), "Notes: standalone implementations". A datagram to $NOTIFY_SOCKET."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from walsvc.visible import visible


class Notifier:
    """Says READY, STOPPING, STATUS and WATCHDOG to the service manager; does nothing where there is none."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address  # "@": an abstract socket
        self._interval = 0.0
        if environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
            usec = environment.get("WATCHDOG_USEC", "")
            self._interval = int(usec) / 2e6 if usec.isdigit() else 0.0

    @property
    def watchdog_seconds(self) -> float:
        """Seconds between two WATCHDOG=1: half of what the manager waits; 0: it does not wait."""
        return self._interval if self._address else 0.0

    def say(self, *lines: str) -> bool:
        """Send assignments such as "READY=1"; False where no manager took them, which is no error."""
        if not self._address:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as out:
                out.connect(self._address)
                out.sendall("\n".join(map(visible, lines)).encode())
        except OSError:
            return False
        return True
