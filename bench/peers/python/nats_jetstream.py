"""NATS JetStream with sync_interval: always, on loopback; a file-backed stream, every publish awaited to its ack.

nats-py sends publishes of many tasks over one connection without waiting for each other's acks.
"""

import json

import nats
from common import Load, drive, main
from nats.js.api import StorageType
from servers import absolute, binary, free_port, serving


def configure(place: str, port: int) -> str:
    """Write the server's configuration; its path."""
    path = f"{place}/nats.conf"
    with open(path, "w", encoding="utf-8") as file:
        file.write(f'listen: "127.0.0.1:{port}"\n')
        file.write(f"jetstream {{ store_dir: {json.dumps(place + '/js')}, sync_interval: always }}\n")
    return path


async def peer(load: Load) -> dict[str, object]:
    port = free_port()
    async with serving([binary("nats-server"), "-c", configure(absolute(load.dir), port)], port):
        client = await nats.connect(f"nats://127.0.0.1:{port}", pending_size=64 << 20)
        stream = client.jetstream(timeout=30, publish_async_max_pending=max(4000, load.tasks))
        await stream.add_stream(name="log", subjects=["log"], storage=StorageType.FILE)

        async def append(payload: bytes) -> None:
            await stream.publish("log", payload)

        answer = await drive(load, append)
        await client.close()
        return answer


main(peer)
