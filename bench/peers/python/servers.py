"""For the peers that are servers: started on a free port of loopback, stopped afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import AsyncIterator


def free_port() -> int:
    """A port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def binary(name: str) -> str:
    """The server's program on PATH."""
    found = shutil.which(name)
    if found is None:
        raise FileNotFoundError(2, "not on PATH", name)
    return found


def absolute(path: str) -> str:
    """For a server's own configuration."""
    return os.path.abspath(path)


@contextlib.asynccontextmanager
async def serving(command: list[str], port: int, seconds: float = 10.0) -> AsyncIterator[None]:
    """Run a server as long as the block; it is entered as soon as `port` takes connections, TimeoutError if it never does."""
    quiet = asyncio.subprocess.DEVNULL
    server = await asyncio.create_subprocess_exec(*command, stdout=quiet, stderr=quiet)
    try:
        async with asyncio.timeout(seconds):
            while not await listens(port):  # noqa: ASYNC110 - nothing tells when another process begins to listen
                await asyncio.sleep(0.02)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            server.terminate()
        try:
            await asyncio.wait_for(server.wait(), seconds)
        except TimeoutError:
            server.kill()


async def listens(port: int) -> bool:
    """Whether somebody takes connections there."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionError:
        return False
    writer.close()
    return True
