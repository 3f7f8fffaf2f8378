"""aiosqlite: journal_mode=WAL and synchronous=FULL, so that a commit is durable.

All tasks share one connection, as aiosqlite's documentation does; a commit then also covers the inserts of other tasks that
came before it, which is faster than a connection per task (SQLite has one writer).
"""

import asyncio
import os

import aiosqlite
from common import Load, drive, main


async def peer(load: Load) -> dict[str, object]:
    async with aiosqlite.connect(os.path.join(load.dir, "log.db")) as db:
        await db.execute("PRAGMA journal_mode=WAL")
        await db.execute("PRAGMA synchronous=FULL")
        await db.execute("CREATE TABLE log (lsn INTEGER PRIMARY KEY, payload BLOB NOT NULL)")
        await db.commit()

        async def append(payload: bytes) -> None:
            await db.execute("INSERT INTO log (payload) VALUES (?)", (payload,))
            await db.commit()

        return await drive(load, Batches(db).append if load.batched else append)


class Batches:
    """The collector over aiosqlite's own coroutines: one executemany and one commit for all that wait."""

    def __init__(self, db: aiosqlite.Connection) -> None:
        self.db = db
        self.waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self.task: asyncio.Task[None] | None = None

    def append(self, payload: bytes) -> asyncio.Future[None]:
        waiter = asyncio.get_running_loop().create_future()
        self.waiting.append((payload, waiter))
        if self.task is None:
            self.task = asyncio.create_task(self.commit_all())
        return waiter

    async def commit_all(self) -> None:
        while self.waiting:
            batch, self.waiting = self.waiting, []
            await self.db.executemany("INSERT INTO log (payload) VALUES (?)", [(payload,) for payload, _ in batch])
            await self.db.commit()
            for _, waiter in batch:
                waiter.set_result(None)
        self.task = None


main(peer)
