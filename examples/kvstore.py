"""A write-ahead key-value store: every change goes to the log first, and opening replays the log.

    python kvstore.py          shows it: 1,000 changes at once, a restart, a compaction, another restart

What makes it correct, and not only short:
* A change is applied when its record is durable, in LSN order, by a callback on the append's future. So a reader never sees
  a value that a power cut could take back, and a caller that was cancelled leaves memory and log in agreement.
* Every value carries the LSN of the change that made it, and a change applies only over an older one. So a compaction,
  which copies old values to the end of the log while changes are in flight, cannot bring an old value back.
"""

from __future__ import annotations

import asyncio
import functools
import tempfile
from typing import NamedTuple

import msgpack

import walsvc


class Value(NamedTuple):
    """What a key holds since LSN `lsn`; None: it was deleted."""

    lsn: int
    data: bytes | None


class KeyValueStore:
    """A dictionary of str to bytes that survives. Open with `await KeyValueStore.open(path)`; one process at a time."""

    def __init__(self, wal: walsvc.Log) -> None:
        self._wal = wal
        self._values: dict[str, Value] = {}
        self._applied_lsn = 0
        self._compacting = asyncio.Lock()

    @classmethod
    async def open(cls, path: str) -> KeyValueStore:
        store = cls(await walsvc.open(path))
        async for record in store._wal.read():
            key, data, lsn = msgpack.unpackb(record.payload)
            store._apply(key, Value(lsn or record.lsn, data))
            store._applied_lsn = record.lsn
        return store

    async def close(self) -> None:
        await self._wal.close()

    def get(self, key: str) -> bytes | None:
        """The value on stable storage."""
        value = self._values.get(key)
        return value.data if value else None

    def __len__(self) -> int:
        return sum(value.data is not None for value in self._values.values())

    async def set(self, key: str, data: bytes | None) -> int:
        """Change a key (None deletes it) and wait until the change is durable; returns its LSN."""
        future = self._wal.append(msgpack.packb((key, data, 0)), mode=walsvc.Strict)
        future.add_done_callback(functools.partial(self._appended, key, data))
        return (await asyncio.shield(future)).lsn  # shielded: the callback has to run even if the caller gives up

    async def compact(self) -> int:
        """Copy the living values to the end of the log and drop what is before; returns the log's first LSN.

        Changes in flight are at `cut` or above, so they stay; the copies keep their old LSNs, so they do not win."""
        async with self._compacting:
            cut = self._applied_lsn + 1
            living = {key: value for key, value in self._values.items() if value.data is not None}
            copies = [msgpack.packb((key, value.data, value.lsn)) for key, value in living.items()]
            if copies:
                results = await self._wal.append_batch(copies)
                # Futures resolve in LSN order: by now every change below the copies was applied.
                self._applied_lsn = max(self._applied_lsn, results[-1].lsn)
            await self._wal.truncate_before(cut)
            return self._wal.first_lsn

    def _appended(self, key: str, data: bytes | None, future: asyncio.Future[walsvc.AppendResult]) -> None:
        if not future.cancelled() and future.exception() is None:
            lsn = future.result().lsn
            self._apply(key, Value(lsn, data))
            self._applied_lsn = max(self._applied_lsn, lsn)

    def _apply(self, key: str, value: Value) -> None:
        if key not in self._values or self._values[key].lsn < value.lsn:
            self._values[key] = value


async def show(path: str) -> None:
    store = await KeyValueStore.open(path)
    await asyncio.gather(*(store.set(f"key {number % 100}", b"%d" % number) for number in range(1000)))
    await store.set("key 7", None)
    print(f"1,000 changes of 100 keys; {len(store)} keys after a deletion")
    await store.close()

    store = await KeyValueStore.open(path)
    assert (store.get("key 99"), store.get("key 7"), len(store)) == (b"999", None, 99)
    print(f"restarted: {len(store)} keys again, key 99 = {store.get('key 99')!r}")
    *_, first_lsn = await asyncio.gather(store.set("key 1", b"new"), store.set("key 2", None), store.compact())
    print(f"compacted while two changes were in flight: the log begins at LSN {first_lsn}")
    print(f"compacted again: the log begins at LSN {await store.compact()}")
    await store.close()

    store = await KeyValueStore.open(path)
    assert (store.get("key 99"), store.get("key 1"), store.get("key 2"), len(store)) == (b"999", b"new", None, 98)
    print(f"restarted: {len(store)} keys, key 1 = {store.get('key 1')!r}, key 2 = {store.get('key 2')!r}")
    await store.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(show(directory))
