"""Redis streams with appendonly yes and appendfsync always, on loopback, through redis-py's asyncio client.

Redis syncs once for all commands of one turn of its loop, so what waits is sent as one pipeline on a connection, and
two connections take turns: the fastest of the ways tried (a connection for each task is several times slower in redis-py).
"""

import asyncio

import redis.asyncio as redis
from common import Load, drive, main
from servers import absolute, binary, free_port, serving

CONNECTIONS = 2


async def peer(load: Load) -> dict[str, object]:
    port = free_port()
    command = [binary("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--dir", absolute(load.dir)]
    command += ["--save", "", "--appendonly", "yes", "--appendfsync", "always", "--daemonize", "no"]
    async with serving(command, port):
        pool = redis.BlockingConnectionPool(host="127.0.0.1", port=port, max_connections=CONNECTIONS)
        client = redis.Redis(connection_pool=pool)
        answer = await drive(load, Pipelines(client).append)
        await client.aclose()
        return answer


class Pipelines:
    """Sends what waits as one pipeline, up to CONNECTIONS of them at once."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self.senders: set[asyncio.Task[None]] = set()

    def append(self, payload: bytes) -> asyncio.Future[None]:
        waiter = asyncio.get_running_loop().create_future()
        self.waiting.append((payload, waiter))
        if len(self.senders) < CONNECTIONS:
            sender = asyncio.create_task(self.send_all())
            self.senders.add(sender)
            sender.add_done_callback(self.senders.discard)
        return waiter

    async def send_all(self) -> None:
        while self.waiting:
            batch, self.waiting = self.waiting, []
            pipeline = self.client.pipeline(transaction=False)
            for payload, _ in batch:
                pipeline.xadd("log", {"p": payload})
            await pipeline.execute()
            for _, waiter in batch:
                waiter.set_result(None)


main(peer)
