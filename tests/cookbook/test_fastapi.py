"""The gateway of examples/fastapi_gateway.py under SIGKILL: every answered event is stored, once, by one worker and by several."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp

import walsvc
from tests.forked import ROOT
from tests.installed import needs
from tests.service.simulated import serving

needs("fastapi")
needs("uvicorn")
CLIENTS = 8


@contextlib.asynccontextmanager
async def gateway(target: str, socket: Path, workers: int) -> AsyncIterator[Process]:
    """The gateway, ready, as a process group that is killed in the end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "uvicorn", "fastapi_gateway:app", "--uds", str(socket), "--workers", str(workers)),
        cwd=ROOT / "examples",
        env={**os.environ, "PYTHONPATH": str(ROOT), "WALSVC_TARGET": target},
        stdout=PIPE,
        stderr=STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None
    ready, listening = 0, False
    while ready < workers or not listening:  # a single worker listens only after its start-up
        line = await process.stdout.readline()
        assert line, "the gateway has ended"
        ready += b"Application startup complete" in line
        listening = listening or b"Uvicorn running on" in line
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def client(socket: Path, name: str, answered: dict[str, int], enough: asyncio.Event) -> None:
    """Post events until the gateway is gone; a request without an answer is not repeated."""
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket))) as session:
        for number in range(10_000):
            key = f"{name}-{number}"
            async with session.post("http://gateway/events", data=key, headers={"Idempotency-Key": key}) as answer:
                assert answer.status == 201
                answered[key] = (await answer.json())["lsn"]
                if len(answered) % 100 == 0:
                    enough.set()


async def posted_until_killed(target: str, socket: Path, *, workers: int, lives: int) -> dict[str, int]:
    answered: dict[str, int] = {}
    for life in range(lives):
        enough = asyncio.Event()
        async with gateway(target, socket, workers):
            clients = [
                asyncio.create_task(client(socket, f"{life}-{each}", answered, enough)) for each in range(CLIENTS)
            ]
            waiting = asyncio.create_task(enough.wait())
            await asyncio.wait([waiting, *clients], return_when=asyncio.FIRST_COMPLETED)
            assert waiting.done(), "a client has ended before the gateway was killed"
        for ended in await asyncio.gather(*clients, return_exceptions=True):
            assert isinstance(ended, aiohttp.ClientError), ended
    return answered


async def test_one_worker_on_a_directory(tmp_path: Path) -> None:
    answered = await posted_until_killed(str(tmp_path / "log"), tmp_path / "socket", workers=1, lives=2)
    async with walsvc.open(tmp_path / "log") as log:
        stored = {record.payload.decode(): record.lsn async for record in log.read()}
        assert log.next_lsn - 1 == len(stored)
    assert answered.items() <= stored.items()
    assert len(answered) >= 200


async def test_several_workers_on_a_served_log(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        answered = await posted_until_killed(server.addresses[0], tmp_path / "socket", workers=2, lives=1)
        async with walsvc.open(server.addresses[0], read_only=True) as log:
            stored = Counter([record.payload.decode() async for record in log.read()])
    assert {*answered} <= {*stored}
    assert {*stored.values()} == {1}
