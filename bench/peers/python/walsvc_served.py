"""walsvc behind its Unix socket: a server process with default options, and this process as its client."""

import asyncio
import sys
import tempfile

from common import Load, drive, main

import walsvc


async def peer(load: Load) -> dict[str, object]:
    with tempfile.TemporaryDirectory(prefix="walsvc-") as place:  # a socket's path has at most 107 bytes
        socket = f"{place}/socket"
        command = [sys.executable, "-m", "walsvc.cli", "serve", "--data", f"{load.dir}/log", "--unix", socket]
        quiet = asyncio.subprocess.DEVNULL
        server = await asyncio.create_subprocess_exec(*command, stdout=quiet, stderr=quiet)
        try:
            async with walsvc.open(f"unix://{socket}", open_seconds=30.0) as log:
                return await drive(load, log.append)
        finally:
            server.terminate()
            await server.wait()


main(peer)
