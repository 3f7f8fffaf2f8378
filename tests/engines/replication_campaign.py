"""A replicated log under fire: what the replica was said to have is in every log that is made of it.

    python -m tests.engines.replication_campaign [--seconds 600] [--seed 1]

A process writes a log with `replicate=` (copied.py), and faults are drawn one after the other. Behind each of them the writer must
get records to the replica again; then a log is made of the replica, and held against all that the writers were told (told.py), and
against the files of a writer that was killed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from tests.engines.campaigning import PATIENCE, Campaign, command_line
from tests.engines.cluster import NODES, Cluster
from tests.engines.relay import Relay
from tests.engines.streams import api
from tests.engines.told import Outcome
from walsvc.engines.replication.restore import restore_replica

OF_WRITERS = ("killed", "disk", "former", "restoring")
OF_SERVERS = ("server", "servers", "refused", "silent", "full")


@contextlib.asynccontextmanager
async def relayed(cluster: Cluster) -> AsyncIterator[list[Relay]]:
    """A relay before each server."""
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Relay(int(each.rpartition(":")[2]))) for each in cluster.servers]


class ReplicationCampaign(Campaign):
    """A log with a replica, whose servers are behind relays."""

    answer = b'["put", 1'

    def __init__(self, cluster: Cluster, relays: Sequence[Relay], faults: Sequence[str], at: Path, seed: int) -> None:
        super().__init__(at, seed)
        self.faults = faults
        self._cluster = cluster
        self._relays = relays
        self._stream = cluster.new_stream()
        servers = ",".join(f"127.0.0.1:{relay.port}" for relay in relays)
        options = f"monitor={','.join(cluster.monitor)}&timeout=5"
        self._far = f"nats://{servers}/{self._stream}?{options}"
        self._near = f"{cluster.url(self._stream)}?{options}"

    def place(self) -> list[str]:
        return ["--replicate", self._far]

    async def restore(self, target: Path) -> None:
        await restore_replica(self._near, str(target))

    async def progress(self, answers: int = 1) -> None:
        await super().progress(20 * answers)

    async def former(self) -> None:
        """The writer is stopped, the replica is promoted and goes on elsewhere, and then the former one is let go on."""
        process, told, path = self.process, self.told, self.path
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        await self.promote()
        assert self.told.base is not None
        process.send_signal(signal.SIGCONT)
        await asyncio.wait_for(process.wait(), PATIENCE)  # it is told that it has lost the replica, and ends
        rows = list(told.rows())
        if process.returncode or rows[-1][1][0] != "lost":
            self.outcome.errors.append(f"the former writer was not told: {rows[-1]}")
        told.compare(self.told.base, self.outcome)  # nothing that it was told afterwards is missing
        shutil.rmtree(path)

    async def restoring(self) -> None:
        """A `walsvc restore` is killed."""
        await self.restore_killed("restore", self._near)

    async def server(self) -> None:
        """SIGKILL of one server of the stream, and a new start."""
        victim = self.chance.randrange(NODES)
        self._cluster.kill(victim)
        await self.progress()  # a majority is left
        self._cluster.launch(victim)
        await asyncio.to_thread(self._cluster.wait_ready)

    async def servers(self) -> None:
        """SIGKILL of all servers at once."""
        for victim in range(NODES):
            self._cluster.kill(victim)
        await asyncio.sleep(self.chance.random() * 2)
        for victim in range(NODES):
            self._cluster.launch(victim)
        await asyncio.to_thread(self._cluster.wait_ready)

    async def refused(self) -> None:
        """The network breaks, and connections are refused for a while."""
        await self._cut(refuse=True)

    async def silent(self) -> None:
        """The network swallows everything for a while."""
        await self._cut(refuse=False)

    async def _cut(self, *, refuse: bool) -> None:
        for relay in self._relays:
            relay.cut(refuse=refuse)
        await asyncio.sleep(self.chance.random() * 3)
        for relay in self._relays:
            relay.mend()

    async def full(self) -> None:
        """The stream takes no more bytes for a while."""
        async with api(self._cluster) as ask:
            info = await ask(f"STREAM.INFO.{self._stream}")
            limited = {**info["config"], "max_bytes": info["state"]["bytes"] + 20000}
            await ask(f"STREAM.UPDATE.{self._stream}", limited)
            await asyncio.sleep(self.chance.random() * 3)
            await ask(f"STREAM.UPDATE.{self._stream}", {**limited, "max_bytes": -1})


async def campaign(cluster: Cluster, faults: Sequence[str], directory: Path, seed: int, seconds: float) -> Outcome:
    """All of it."""
    async with relayed(cluster) as relays:
        one = ReplicationCampaign(cluster, relays, faults, directory, seed)
        await one.run(seconds)
        return one.outcome


async def main(options: argparse.Namespace) -> Outcome:
    """Run it on a cluster of its own."""
    cluster = Cluster(advertise=False)
    try:
        with tempfile.TemporaryDirectory(prefix="walsvc-") as name:
            faults = (*OF_WRITERS, *OF_SERVERS)
            return await campaign(cluster.start(), faults, Path(name), options.seed, options.seconds)
    finally:
        cluster.stop()


if __name__ == "__main__":
    command_line(__doc__ or "", main)
