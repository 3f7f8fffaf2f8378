"""What the contract suites run on: one table from a name to what opens such a log again and again.

An opener is called with options of the log (WalConfig's) and gives an asynchronous context manager of the open log. All
openings of one opener are openings of the same log.
"""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import walsvc
from tests.disks import URING
from tests.engines.cluster import WHY_NO_SERVER, shared_cluster
from tests.service.certificates import certificates
from walsvc import KeyRing, WalConfig
from walsvc.api import Log
from walsvc.disk.sim import SimDevice, SimDisk
from walsvc.opening import open_on
from walsvc.service.server.listeners import tls_context
from walsvc.service.server.server import serve

Opener = Callable[..., AbstractAsyncContextManager[Any]]


def on_simulated_disk(**usual: Any) -> Callable[[Path], Opener]:
    """The embedded log on one simulated device, with `usual` options."""

    def make(_directory: Path) -> Opener:
        device = SimDevice(7)

        @asynccontextmanager
        async def opener(**options: Any) -> AsyncIterator[Log]:
            config = WalConfig.of(None, {"segment_bytes": 65536, **usual, **options})
            async with await open_on(SimDisk(device), config) as log:
                yield log

        return opener

    return make


def on_disk(disk: str, **usual: Any) -> Callable[[Path], Opener]:
    """The embedded log in a directory, by the disk backend called `disk`, with `usual` options."""

    def make(directory: Path) -> Opener:
        @asynccontextmanager
        async def opener(**options: Any) -> AsyncIterator[Log]:
            whole = {"segment_bytes": 65536, **usual, **options}
            async with walsvc.open(directory / "log", disk=disk, **whole) as log:
                yield log

        return opener

    return make


def served(way: str) -> Callable[[Path], Opener]:
    """A log behind a server in the same process, reached by `way`: "unix", "tcp" or "tls". Each opening starts the server on
    the log, and ends it; the log itself is in a directory, but for "tls" on a simulated device."""

    def make(directory: Path) -> Opener:
        device = SimDevice(7)

        async def on_device(config: WalConfig) -> Log:
            log: Log = await open_on(SimDisk(device), config)
            return log

        @asynccontextmanager
        async def opener(read_only: bool = False, **options: Any) -> AsyncIterator[Any]:
            with tempfile.TemporaryDirectory(prefix="walsvc-") as place:  # a socket's path has at most 107 bytes
                config = WalConfig.of(None, {"segment_bytes": 65536, **options})
                where: dict[str, Any] = (
                    {"unix": f"{place}/socket"} if way == "unix" else {"host": "127.0.0.1", "port": 0}
                )
                client: dict[str, Any] = {"read_only": read_only}
                if way == "tls":
                    files = certificates()
                    where["tls"] = tls_context(files.server_cert, files.server_key)
                    client["ca"] = files.ca
                disk = on_device if way == "tls" else None
                async with (
                    serve(directory / "log", config=config, opener=disk, **where) as server,
                    walsvc.open(server.addresses[0], **client) as log,
                ):
                    BEHIND[id(log)] = server.logs[""]
                    yield log

        return opener

    return make


def in_jetstream(_directory: Path) -> Opener:
    """A log in a stream of the NATS cluster that this test process shares."""
    cluster = shared_cluster()
    url = cluster.url(cluster.new_stream())

    @asynccontextmanager
    async def opener(**options: Any) -> AsyncIterator[Log]:
        async with walsvc.open(url, monitor=cluster.monitor, **{"segment_bytes": 65536, **options}) as log:
            yield log

    return opener


BEHIND: dict[int, Log] = {}  # by the id of what an opener gave: the log in a directory that it stands for


def behind(log: Any) -> Log:
    """The embedded log behind `log`: itself, or the server's."""
    if isinstance(log, Log):
        return log
    if id(log) not in BEHIND:
        pytest.skip("its records are in no file of walsvc's")
    return BEHIND[id(log)]


KEYS = KeyRing(current=("new", bytes(range(32))), older=[("old", bytes(32))])
PACK = {"layout": "pack", "double_write": "buffered"}
# name -> what makes an opener from a directory of the test's own
EMBEDDED: dict[str, Callable[[Path], Opener]] = {
    "threads": on_disk("threads"),
    "uring": on_disk("uring"),
    "sim": on_simulated_disk(),
    "sim-encrypted": on_simulated_disk(keys=KEYS),
    "sim-pack": on_simulated_disk(**PACK),
    "threads-pack": on_disk("threads", **PACK),
}
ELSEWHERE: dict[str, Callable[[Path], Opener]] = {
    "unix": served("unix"),
    "tcp": served("tcp"),
    "tls": served("tls"),
    "nats": in_jetstream,
}
OPENERS = {**EMBEDDED, **ELSEWHERE}
# Only another way to what "unix" reaches, or other bytes in the files: a test runs on one of each pair, by its name, and the
# suite of topics, which has nothing to find there, on none. To that a disk and the encryption are far below as well.
OUTER = (("tcp", "tls"), ("sim-pack", "threads-pack"))
BELOW_TOPICS = (("sim", "sim-encrypted"), ("threads", "uring"))
MARKS = {
    "uring": URING.marks,
    "nats": (pytest.mark.skipif(bool(WHY_NO_SERVER), reason=WHY_NO_SERVER or "it is there"),),
}


def parametrize(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for `open_log` on every log; one marked `embedded(reason)` on the embedded ones only."""
    if "open_log" in metafunc.fixturenames:
        embedded = metafunc.definition.get_closest_marker("embedded")
        inner = "topics" in metafunc.definition.path.parts
        turn = zlib.crc32(metafunc.definition.name.encode()) // 2 % 2
        without = {name for pair in OUTER for name in pair if inner or name != pair[turn]}
        without |= {pair[turn] for pair in BELOW_TOPICS if inner}
        chosen = [name for name in (EMBEDDED if embedded else OPENERS) if name not in without]
        names = [pytest.param(name, marks=MARKS.get(name, ())) for name in chosen]
        metafunc.parametrize("open_log", names, indirect=True)


def opener_on(name: str, directory: Path) -> Opener:
    """An opener of the log called `name` in the table."""
    return OPENERS[name](directory)
