"""The objects of an archive in their store: looked at, fetched and checked, and created.

Storage is whatever obstore reaches: S3 and what speaks like it, Google Cloud Storage, Azure, a directory.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Self

from walsvc.engines.manifest import Entry, check_chain, damaged, decode_entry, part_name
from walsvc.errors import BadOption, PathError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

ENTRIES_AT_ONCE = 16


class Objects:
    """What logs have stored at a URL.

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
    def at(cls, url: str, *, log_id: str | None = None, **options: Any) -> Self:
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
        slots = asyncio.Semaphore(ENTRIES_AT_ONCE)

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
