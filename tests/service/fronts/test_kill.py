"""A server that is killed under clients of its HTTP front: every answered record is there once, and a repeat by key makes no second one.

`WALSVC_KILL_CLIENTS=200 pytest tests/service/fronts/test_kill.py tests/redis/test_kill.py` is a campaign.
"""

from __future__ import annotations

import asyncio
import os
import signal

import aiohttp

import walsvc
from tests.ports import free_port
from tests.serving import served
from tests.waiting import until

CLIENTS, ROUNDS = int(os.environ.get("WALSVC_KILL_CLIENTS", "16")), 2


def test_every_answered_record_is_there_once(tmp_path):
    asyncio.run(rounds(tmp_path))


async def rounds(tmp_path):
    """Clients append, the server is killed and started again, and they go on."""
    port, answered = free_port(), {}
    process = await served(tmp_path, "--http", f"127.0.0.1:{port}", "--http-api")

    async def client(session: aiohttp.ClientSession, name: int) -> None:
        number = 0
        while len(answered) < (round_ + 1) * CLIENTS * 3 or number == 0:
            key = f"{round_}-{name}-{number}"
            try:
                async with session.post(url, data=key.encode(), headers={"Idempotency-Key": key}) as answer:
                    document = await answer.json()
                    assert answer.status in (200, 201), document
                    answered[key] = document["lsn"]
                    number += 1
            except (aiohttp.ClientError, ConnectionError):
                await asyncio.sleep(0.02)

    url = f"http://127.0.0.1:{port}/v1/topics/t"
    for round_ in range(ROUNDS):
        async with aiohttp.ClientSession() as session:
            clients = [asyncio.ensure_future(client(session, name)) for name in range(CLIENTS)]
            enough = (round_ * 3 + 1) * CLIENTS
            await until(
                lambda least=enough, those=clients: len(answered) >= least or all(each.done() for each in those), 0.002
            )
            process.send_signal(signal.SIGKILL)
            await process.wait()
            process = await served(tmp_path, "--http", f"127.0.0.1:{port}", "--http-api")
            await asyncio.gather(*clients)
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0
    async with walsvc.open(tmp_path / "log") as log:
        there = [(record.payload.decode(), record.lsn) async for record in log.read()]
    assert len(dict(there)) == len(there), "none is there twice"
    assert answered.items() <= dict(there).items()
