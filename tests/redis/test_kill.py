"""A server that is killed under pipelines of redis-py: every answered entry is there once, under the id that was answered, and none is there
twice. `WALSVC_KILL_CLIENTS=200` is a campaign."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import redis.asyncio
from redis.exceptions import ConnectionError, TimeoutError

import walsvc
from tests.serving import served
from tests.waiting import until
from walsvc.service.fronts.redis.entries import fields_of

CLIENTS = int(os.environ.get("WALSVC_KILL_CLIENTS", "16"))
DEPTH, ROUNDS = 8, 2


def test_every_answered_entry_is_there_once(tmp_path: Path) -> None:
    asyncio.run(rounds(tmp_path))


async def rounds(place: Path) -> None:
    """Clients append in pipelines, every other one as MULTI, until the server is killed; then it starts again."""
    answered: dict[bytes, bytes] = {}
    whole: list[list[bytes]] = []  # what each MULTI has appended, answered or not

    async def client(name: int, round: int) -> None:
        connected = redis.asyncio.Redis(unix_socket_path=str(place / "r"))
        number = 0
        try:
            while True:
                payloads = [b"%d-%d-%d" % (round, name, number + each) for each in range(DEPTH)]
                number += DEPTH
                pipeline = connected.pipeline(transaction=name % 2 == 0)
                for payload in payloads:
                    pipeline.xadd(f"s{name % 4}", {"n": payload})
                if name % 2 == 0:
                    whole.append(payloads)
                answered.update(zip(payloads, await pipeline.execute(), strict=True))
        except (ConnectionError, TimeoutError):
            pass  # the server is dead: what it has not answered may be there or not
        finally:
            await connected.aclose()

    process = await served(place, "--http", "off", "--redis", str(place / "r"))
    for round in range(ROUNDS):
        clients = [asyncio.ensure_future(client(name, round)) for name in range(CLIENTS)]
        enough = (round + 1) * CLIENTS * DEPTH * 3
        await until(
            lambda least=enough, those=clients: len(answered) >= least or all(each.done() for each in those), 0.002
        )
        assert len(answered) >= enough, "the clients have ended before the server was killed"
        process.send_signal(signal.SIGKILL)
        await process.wait()
        await asyncio.gather(*clients)
        process = await served(place, "--http", "off", "--redis", str(place / "r"))
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0
    async with walsvc.open(place / "log") as log:
        there = [(fields_of(record)[1], b"%d-0" % record.lsn) async for record in log.read(types=None)]
    assert len(dict(there)) == len(there), "none is there twice"
    assert answered.items() <= dict(there).items()
    for payloads in whole:
        assert len(dict(there).keys() & set(payloads)) in (0, DEPTH), "all of a MULTI, or nothing"
