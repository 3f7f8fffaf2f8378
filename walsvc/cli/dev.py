"""`walsvc serve --dev`: everything on this machine only, in a fresh directory, with the ways in that one may try at once."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from walsvc.cli import output
from walsvc.cli.fresh import fresh_directory

if TYPE_CHECKING:
    from walsvc.service.ops.fields import Main

HOST = "127.0.0.1"
PORTS = {"listen": 7420, "http": 7421, "redis": 7422}


def settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Complete the given settings. Each port is the usual one, or a free one where another process has that."""
    data = os.path.abspath(given.get("data") or fresh_directory("walsvc-", otherwise="give --data DIR, or set TMPDIR"))
    chosen: dict[str, Any] = {"data": data, "unix": os.path.join(data, "walsvc.sock"), "http_api": True}
    for name, port in PORTS.items():
        if name not in given:
            chosen[name] = f"{HOST}:{free(port)}"
    return {**chosen, **given, "data": data}


def free(port: int) -> int:
    """The port, or a free one where it is taken."""
    for wanted in (port, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, wanted))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    return port  # listening says what is wrong


def greet(main: Main, _addresses: tuple[str, ...]) -> None:
    """Print how to append, and open the status page in a browser where there is a screen."""
    page = f"http://{main.http}/"
    ways = [f"echo hello | walsvc append unix://{main.unix} --topic greetings"]
    if main.http != "off":
        ways.insert(0, f"curl -d hello {page}v1/topics/greetings")
    if main.redis != "off":
        ways.append(f"redis-cli -p {main.redis.rpartition(':')[2]} XADD greetings '*' payload hello")
    output.echo(f"A log to try things out, in {main.data}, for this machine only. Ctrl-C ends it; the directory stays.")
    output.echo()
    output.echo("Append, and be answered when the record is on the disk:")
    for way in ways:
        output.echo(f"  {way}")
    output.echo("Read:")
    output.echo(f"  walsvc tail -f unix://{main.unix}")
    if main.http != "off":
        output.echo(f"  curl {page}v1/topics/greetings")
        output.echo(f"Watch: {page}")
    output.flush()
    screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if main.http != "off" and screen and sys.stdout.isatty():
        import webbrowser

        threading.Thread(target=webbrowser.open, args=(page,), daemon=True).start()
