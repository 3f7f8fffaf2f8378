"""The log inside an asyncio server: a journal over TCP that answers a line only after it is on stable storage.

    python embed.py            shows it: a server, 100 clients at once, a restart, and what the log holds
    python embed.py serve DIR  runs it on port 7000; try: printf 'hello\n' | nc -N localhost 7000

Each line that a client sends becomes one record, and the answer is its LSN. All clients share the syncs: while one group
is being written, the lines that arrive form the next one.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile

import walsvc


async def serve_client(wal: walsvc.Log, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Journal every line of one connection, and answer each with its LSN."""
    try:
        async for line in reader:
            result = await wal.append(line.rstrip(b"\n"))  # Strict is the default
            writer.write(b"%d\n" % result.lsn)
            await writer.drain()
    except walsvc.WalError as error:
        writer.write(b"error: not stored: %s\n" % error.message.encode())
    finally:
        writer.close()


async def start(wal: walsvc.Log, port: int) -> asyncio.Server:
    return await asyncio.start_server(lambda r, w: serve_client(wal, r, w), "127.0.0.1", port)


async def send(port: int, line: bytes) -> int:
    """One client with one line; returns the LSN that it was answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(line + b"\n")
    answer = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return int(answer)


async def show() -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with walsvc.open(directory) as wal:
            server = await start(wal, 0)
            port = server.sockets[0].getsockname()[1]
            lsns = await asyncio.gather(*(send(port, b"line %d" % number) for number in range(100)))
            server.close()
            await server.wait_closed()
            print(f"{len(lsns)} lines were answered; syncs: {wal.stats().syncs}; disk: {wal.stats().disk}")
        async with walsvc.open(directory) as wal:
            kept = {record.lsn: record.payload async for record in wal.read()}
        assert all(kept[lsn] == b"line %d" % number for number, lsn in enumerate(lsns))
        print(f"after a restart the log holds {len(kept)} records, each under the LSN that was answered")


async def serve(directory: str) -> None:
    async with walsvc.open(directory) as wal:
        server = await start(wal, 7000)
        print(f"port 7000; the next record is LSN {wal.next_lsn}")
        async with server:
            await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(serve(sys.argv[2]) if sys.argv[1:2] == ["serve"] else show())
    except KeyboardInterrupt:
        pass
