"""Sealed segments in object storage: a second place for what the log must not lose, and the way back to any moment of it.

Storage is whatever obstore reaches: S3 and what speaks like it, Google Cloud Storage, Azure, a directory. A sealed segment
never changes, so it is stored once, in pieces named by their content, and then entered into the manifest (manifest.py). The
bytes go as they are on disk: an encrypted segment stays encrypted, and nothing here needs a key.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from walsvc.config import MIB
from walsvc.engines.manifest import (
    Entry,
    check_chain,
    damaged,
    decode_entry,
    encode_entry,
    history,
    last_run,
    part_name,
)
from walsvc.engines.sealed import Sealed, sealed_segments
from walsvc.errors import BadOption, PathError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

    from walsvc.api import Log
    from walsvc.log.readonly import ReadOnlyLog

PART_BYTES = 8 * MIB  # what an interrupted upload repeats at most
PARTS_AT_ONCE = 4  # 32 MiB of memory at most
HOLD = "archive"  # name of the hold that keeps what is not archived yet

OnProgress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all."""


class Archive:
    """The archive of logs at a URL.

    Attributes:
        url: of the store, with the prefix below which everything lies.
        log_id: of the log, 16 hex digits; None until it is known.
    """

    def __init__(self, store: ObjectStore, url: str, log_id: str | None = None) -> None:
        self._store = store
        self.url = url
        self.log_id = log_id
        self._entries: list[Entry] | None = None

    @classmethod
    def at(cls, url: str, *, log_id: str | None = None, **options: Any) -> Archive:
        """The archive at `url`.

        Args:
            url: "s3://bucket/prefix", "gs://...", "az://...", or "file:///directory". Credentials and endpoint come from the
                environment, as the store's own tools take them (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ...).
            log_id: which log, where the archive holds several.
            **options: passed to obstore.store.from_url.

        Raises:
            BadOption: obstore is not installed, or it does not know the URL.
        """
        try:
            from obstore.exceptions import BaseError
            from obstore.store import from_url
        except ImportError:
            raise BadOption("archives need obstore", hint="pip install 'walsvc[archive]'") from None
        try:
            if url.startswith("file:"):
                options = {"automatic_cleanup": False, "mkdir": True, **options}
            return cls(from_url(url, **options), url, log_id)
        except (BaseError, ValueError, TypeError) as error:
            raise BadOption(
                f"{url!r} is no archive: {error}", hint="for example s3://bucket/prefix or file:///directory"
            ) from None

    # ---- looking

    async def logs(self) -> list[str]:
        """Ids of the logs in the archive."""
        import obstore

        async with self._reaching():
            found = await obstore.list_with_delimiter_async(self._store)
        return sorted(str(prefix).rstrip("/").rpartition("/")[2] for prefix in found["common_prefixes"])

    async def entries(self) -> list[Entry]:
        """All entries of the log's manifest, checked one by one and as a chain; empty where nothing was archived yet.

        Raises:
            BadOption: the archive holds several logs, and none was chosen. Corruption: an entry is missing or damaged.
            PathError: the store cannot be reached.
        """
        import obstore

        if self.log_id is None:
            ids = await self.logs()
            if len(ids) > 1:
                raise BadOption(f"{self.url} holds {len(ids)} logs", hint="choose one by its id: " + ", ".join(ids))
            if not ids:
                return []
            self.log_id = ids[0]
        names: list[str] = []
        async with self._reaching():
            async for batch in obstore.list(self._store, f"{self.log_id}/manifest/"):
                names += [str(each["path"]) for each in batch]
        slots = asyncio.Semaphore(PARTS_AT_ONCE * 4)

        async def load(name: str) -> Entry:
            async with slots:
                return decode_entry(await self.fetch(name), name)

        entries = list(await asyncio.gather(*map(load, sorted(names))))
        check_chain(entries)
        self._entries = entries
        return entries

    @property
    def known(self) -> list[Entry]:
        """The entries as they were loaded or entered last."""
        return list(self._entries or ())

    async def fetch(self, name: str) -> bytes:
        """An object's bytes. Raises Corruption where it is missing."""
        import obstore

        async with self._reaching(name):
            return bytes(await (await obstore.get_async(self._store, name)).bytes_async())

    async def part(self, log_id: str, length: int, digest: str) -> bytes:
        """A piece of a segment, checked. Raises Corruption where it is missing or not what was stored."""
        name = part_name(log_id, digest)
        data = await self.fetch(name)
        if len(data) != length or sha256(data).hexdigest() != digest:
            raise damaged(name, f"{len(data)} bytes that are not those that were stored")
        return data

    # ---- storing

    async def push(self, log: Log | ReadOnlyLog, on_progress: OnProgress | None = None) -> list[Entry]:
        """Store every sealed segment that is not stored yet; returns the new entries.

        Where `log` is open for writing, a hold named "archive" keeps from now on what is not archived. An upload that was
        cut off goes on where it stopped. The active segment is stored once it is sealed.

        Raises:
            Corruption: a segment is damaged (nothing of it is entered), or the archive is. PathError: the store.
        """
        segments = await sealed_segments(log)
        if not segments:
            return []
        self.log_id = f"{segments[0].header.log_id:016x}"
        entries = self._entries if self._entries is not None else await self.entries()
        last = last_run(history(entries))
        kept = {(piece.entry.first_lsn, piece.entry.generation): piece.until for piece in last}
        wanted = [each for each in segments if kept.get((each.first_lsn, each.header.generation), 0) < each.next_lsn]
        await self._hold(log, wanted[0].first_lsn if wanted else segments[-1].next_lsn)
        total, done = sum(each.header.file_bytes for each in wanted), 0
        added: list[Entry] = []
        for segment in wanted:
            parts = await self._store_parts(segment)
            added.append(await self._enter(segment, parts))
            await self._hold(log, segment.next_lsn)
            done += segment.header.file_bytes
            if on_progress is not None:
                on_progress(done, total)
        return added

    async def _hold(self, log: Log | ReadOnlyLog, lsn: int) -> None:
        from walsvc.api import Log

        if isinstance(log, Log) and log.holds().get(HOLD) != lsn and log.first_lsn <= lsn <= log.next_lsn:
            await log.hold(HOLD, lsn)

    async def _store_parts(self, segment: Sealed) -> list[tuple[int, str]]:
        """Store a segment's pieces, a few at a time; returns their lengths and hashes in order."""
        slots = asyncio.Semaphore(PARTS_AT_ONCE)
        digests: list[tuple[int, str]] = []
        tasks: set[asyncio.Task[None]] = set()

        async def store(data: bytes, digest: str) -> None:
            try:
                await self._create(part_name(str(self.log_id), digest), data)
            finally:
                slots.release()

        try:
            async for data in segment.pieces(PART_BYTES):
                await slots.acquire()
                digest = (await asyncio.to_thread(sha256, data)).hexdigest()
                digests.append((len(data), digest))
                task = asyncio.create_task(store(data, digest))
                tasks.add(task)
                for ended in [each for each in tasks if each.done()]:
                    tasks.discard(ended)
                    ended.result()
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return digests

    async def _enter(self, segment: Sealed, parts: list[tuple[int, str]]) -> Entry:
        entries = self._entries = self._entries if self._entries is not None else []
        entry, data = encode_entry(
            Entry(
                sequence=len(entries) + 1,
                log_id=str(self.log_id),
                first_lsn=segment.first_lsn,
                next_lsn=segment.next_lsn,
                ordinal=segment.header.ordinal,
                generation=segment.header.generation,
                bytes=segment.used_bytes,
                file_bytes=segment.header.file_bytes,
                first_ns=segment.first_ns,
                last_ns=segment.last_ns,
                parts=tuple(parts),
                previous=entries[-1].check if entries else "",
            )
        )
        if not await self._create(entry.name, data) and await self.fetch(entry.name) != data:
            self._entries = None
            raise PathError(
                "somebody else archives the same log at the same time",
                path=f"{self.url}/{entry.name}",
                lsn=segment.first_lsn,
                hint="let one process archive a log; nothing was overwritten, run it again",
            )
        entries.append(entry)
        return entry

    async def _create(self, name: str, data: bytes) -> bool:
        """Store an object unless it is there; returns whether it was not. One that is there must have the right length."""
        import obstore
        from obstore.exceptions import AlreadyExistsError

        async with self._reaching(name):
            try:
                await obstore.put_async(self._store, name, data, mode="create", use_multipart=False)
                return True
            except AlreadyExistsError:
                found = await obstore.head_async(self._store, name)
        if found["size"] != len(data):
            raise damaged(name, f"it has {found['size']} bytes instead of {len(data)}")
        return False

    @asynccontextmanager
    async def _reaching(self, name: str | None = None) -> AsyncIterator[None]:
        """What the store says, in our words."""
        from obstore.exceptions import BaseError, NotFoundError

        path = self.url if name is None else f"{self.url.rstrip('/')}/{name}"
        try:
            yield
        except (NotFoundError, FileNotFoundError):
            raise damaged(path, "it is missing") from None
        except (BaseError, OSError) as error:
            reason = str(error).strip().splitlines()
            raise PathError(
                f"the archive cannot be reached: {reason[0] if reason else type(error).__name__}",
                path=path,
                hint="look at the store, its credentials and the endpoint (AWS_ENDPOINT_URL); pushing again goes on from here",
            ) from error
