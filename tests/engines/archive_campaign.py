"""An archived log under fire: what the log held as archived is in every log that is restored.

    python -m tests.engines.archive_campaign [--seconds 600] [--seed 1]

A process writes a log and archives it (copied.py), and faults are drawn one after the other. Behind each of them more must be archived;
then `verify` has to find nothing, and a log is restored and held against all that the writers were told (told.py), and against the
files of a writer that was killed. The directory is a file system of its own that fills up, which needs root.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.engines.campaigning import Campaign, command_line
from tests.engines.relay import Relay
from tests.engines.s3 import BUCKET, OwnS3Server, started_s3
from tests.engines.told import Outcome, compare_with_whole, copy_in
from walsvc.engines.archive import Archive
from walsvc.engines.archive.restore import restore, verify

OF_WRITERS = ("killed", "disk", "pushing", "restoring", "moment")
OF_A_SERVER = ("server", "refused", "silent")
OF_A_DIRECTORY = ("full",)
ROOM = "512m"  # of the directory: memory that is used as it fills


class ArchiveCampaign(Campaign):
    """A log with an archive at a URL.

    Attributes:
        relay: before the store, where that is a server.
        server_process: that server.
        mount: the file system of the store, where that is a directory that can be filled.

    Args:
        url: of the archive.
        far, near: how the writer reaches the store, and how the campaign does: options of Archive.at.
    """

    answer = b'["kept", 1'

    def __init__(
        self, url: str, faults: Sequence[str], at: Path, seed: int, *, far: dict[str, Any], near: dict[str, Any]
    ) -> None:
        super().__init__(at, seed)
        self.faults = faults
        self.relay: Relay | None = None
        self.server_process: OwnS3Server | None = None
        self.mount: Path | None = None
        self._url = url
        self._far = far
        self._near = near

    def place(self) -> list[str]:
        return ["--archive", self._url, "--store", json.dumps(self._far)]

    def _archive(self) -> Archive:
        return Archive.at(self._url, **self._near)

    async def restore(self, target: Path) -> None:
        await restore(self._archive(), str(target))

    async def look(self) -> None:
        await super().look()
        wrong = [each for each in await verify(self._archive()) if each.fatal]
        self.outcome.errors += [str(each) for each in wrong]

    async def pushing(self) -> None:
        """A `walsvc archive push` beside the writer, which archives as well, is killed, and done again."""
        for attempt in range(2):
            process = await self._command("push", str(self.path), self._url)
            if attempt == 0:
                await self.progress(self.chance.randint(1, 3))
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            said, _ = await process.communicate()
            if attempt and process.returncode and b"at the same time" not in said:
                self.outcome.errors.append(said.decode()[-2000:])

    def _environment(self) -> dict[str, str]:
        """For the command line."""
        return {**os.environ, **({} if self.server_process is None else self.server_process.environment)}

    async def _command(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "walsvc.cli", "archive", *arguments),
            env=self._environment(),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )

    async def restoring(self) -> None:
        """A `walsvc archive restore` is killed."""
        await self.restore_killed("archive", "restore", self._url, environment=self._environment())

    async def moment(self) -> None:
        """A log is restored as it was at an LSN."""
        target, whole = await self.copy()
        shutil.rmtree(target)
        lsn = self.chance.randrange(whole.first, whole.next)
        await restore(self._archive(), str(target), lsn=lsn)
        found = await copy_in(target)
        self.outcome.lost += found.next <= lsn
        compare_with_whole(found, whole, self.outcome)
        shutil.rmtree(target)

    async def server(self) -> None:
        """SIGKILL of the store, and a new start."""
        assert self.server_process is not None
        self.server_process.kill()
        await asyncio.sleep(self.chance.random())
        self.server_process.launch()
        assert await asyncio.to_thread(self.server_process.wait)

    async def refused(self) -> None:
        """The network breaks, and connections are refused for a while."""
        await self._cut(refuse=True)

    async def silent(self) -> None:
        """The network swallows everything for a while."""
        await self._cut(refuse=False)

    async def _cut(self, *, refuse: bool) -> None:
        assert self.relay is not None
        self.relay.cut(refuse=refuse)
        await asyncio.sleep(self.chance.random() * 3)
        self.relay.mend()

    async def full(self) -> None:
        """The directory's file system is full for a while."""
        assert self.mount is not None
        used = shutil.disk_usage(self.mount).used // 1024
        for size in (f"{used + 200}k", ROOM):
            subprocess.run(["mount", "-o", f"remount,size={size}", self.mount], check=True)
            await asyncio.sleep(self.chance.random() * 3)


async def in_s3(faults: Sequence[str], directory: Path, seed: int, seconds: float) -> Outcome:
    """The archive is in an S3 server behind a relay."""
    server = await asyncio.to_thread(started_s3)
    try:
        async with Relay(int(server.endpoint.rpartition(":")[2])) as relay:
            far = {**server.options, "endpoint": f"http://127.0.0.1:{relay.port}"}
            one = ArchiveCampaign(f"s3://{BUCKET}/log", faults, directory, seed, far=far, near=server.options)
            one.relay, one.server_process = relay, server
            await one.run(seconds)
            return one.outcome
    finally:
        server.stop()


async def in_a_directory(faults: Sequence[str], directory: Path, seed: int, seconds: float) -> Outcome:
    """The archive is in a directory; where it is to be filled, on a file system of its own."""
    store = directory / "store"
    store.mkdir()
    one = ArchiveCampaign(f"file://{store}/log", faults, directory, seed, far={}, near={})
    if "full" in faults:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", store], check=True)
        one.mount = store
    try:
        await one.run(seconds)
        return one.outcome
    finally:
        if one.mount is not None:
            subprocess.run(["umount", "-l", store], check=True)


async def main(options: argparse.Namespace) -> Outcome:
    """Half of the time in each store."""
    with tempfile.TemporaryDirectory(prefix="walsvc-") as name:
        for store in ("s3", "directory"):
            (Path(name) / store).mkdir()
        half = options.seconds / 2
        first = await in_s3((*OF_WRITERS, *OF_A_SERVER), Path(name) / "s3", options.seed, half)
        second = await in_a_directory((*OF_WRITERS, *OF_A_DIRECTORY), Path(name) / "directory", options.seed, half)
        return first + second


if __name__ == "__main__":
    command_line(__doc__ or "", main)
