"""The objects of an archive in their store: looked at, fetched and checked, and created.

Storage is whatever obstore reaches: S3 and what speaks like it, Google Cloud Storage, Azure, a directory.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from walsvc.disk.paths import hint_for, make_durably, sync_directory
from walsvc.disk.pool import in_thread
from walsvc.disk.system import sync
from walsvc.engines.archive.address import EXAMPLE, checked_address, local_directory, nothing_archived
from walsvc.engines.archive.manifest import Manifest, ManifestEntry, chain_of, damaged, decode_entry, part_name
from walsvc.errors import SPACE_ERRNOS, BadOption, Corruption, NoSpace, PathError, WalError
from walsvc.targets import shown

if TYPE_CHECKING:
    from obstore.store import ObjectStore

ENTRIES_AT_ONCE = 16
OF_A_PLACE = (errno.EACCES, errno.EPERM, errno.EROFS)  # say the same of an archive's directory as of a log's
LOG_ID = re.compile("[0-9a-f]{1,16}")
FOLDER = re.compile("[0-9a-f]{16}")
OS_ERROR = re.compile(r"\(os error (\d+)\)")  # how Rust says which error the operating system gave
PANICS = ("PanicException", "RustPanic")  # of obstore's Rust: the first is no Exception, and neither can be imported
UNENCRYPTED = "builder error"  # how reqwest says that it was to go without TLS, which is not allowed
CREDENTIALS = (
    "credentials come from the environment, both parts of them: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, say"
)


class Objects:
    """The objects that logs have stored at a URL.

    Attributes:
        url: of the store, with the prefix below which everything lies.
        log_id: of the log, 16 hex digits; None until it is known.
        known: the entries as they were loaded or entered last.
    """

    def __init__(self, store: ObjectStore, url: str, log_id: str | None = None) -> None:
        self._store = store
        self.url = url
        self.log_id = log_id
        self.known: list[ManifestEntry] = []
        self._whole = False  # known is the whole manifest, and sound

    @classmethod
    def at(
        cls, url: str | bytes | os.PathLike[Any], *, log_id: str | None = None, make: bool = True, **options: Any
    ) -> Self:
        """The archive at `url`.

        Args:
            url: "s3://bucket/prefix", "gs://...", "az://...", "file:///directory" or a directory's path. Credentials, endpoint
                and authorities to trust come from the environment, as the store's own tools take them (AWS_ACCESS_KEY_ID,
                AWS_ENDPOINT_URL, SSL_CERT_FILE, ...).
            log_id: which log, where the archive holds several.
            make: make the directory of a file: URL where there is none; who only reads does not.
            **options: passed to obstore.store.from_url.

        Raises:
            BadOption: obstore is not installed, it does not know the URL, or there is no such directory. PathError: it is a file.
        """
        address = checked_address(url)
        from obstore.exceptions import BaseError
        from obstore.store import from_url

        if log_id is not None and not (isinstance(log_id, str) and LOG_ID.fullmatch(log_id)):
            raise BadOption(f"{log_id!r} is no id of a log", hint="16 hex digits, as `walsvc archive ls` lists them")
        if address.startswith("file:"):
            directory = local_directory(address)
            if not make and not os.path.exists(directory):
                raise nothing_archived(address)
            options = {"automatic_cleanup": False, "mkdir": True, **options}
        try:
            return cls(from_url(address, **options), address, log_id)
        except OSError as error:
            raise of_the_store(error, address) from None
        except (BaseError, ValueError, TypeError) as error:
            hint = CREDENTIALS if "Missing" in str(error) else EXAMPLE
            raise BadOption(f"{shown(address)!r} is no archive: {first_line(error)}", hint=hint) from None

    def refuse_inside(self, log: str) -> None:
        """PathError where the archive is a directory in the directory of the log `log`: what takes one takes both."""
        if not self.url.startswith("file:"):
            return
        directory = local_directory(self.url)
        if Path(os.path.realpath(directory)).is_relative_to(os.path.realpath(log)):
            raise PathError(
                "the archive is inside the log itself",
                path=directory,
                hint="choose another directory, on another device",
            )

    async def logs(self) -> list[str]:
        """Ids of the logs in the archive. Other folders below its prefix, such as lost+found, are not the archive's."""
        import obstore

        async with self._reaching():
            found = await obstore.list_with_delimiter_async(self._store)
            names = [str(prefix).rstrip("/").rpartition("/")[2] for prefix in found["common_prefixes"]]
            ids = sorted(name for name in names if FOLDER.fullmatch(name))
            inside = [await obstore.list_with_delimiter_async(self._store, name) for name in ids]
        kinds = [{str(each).rstrip("/").rpartition("/")[2] for each in found["common_prefixes"]} for found in inside]
        return [name for name, kind in zip(ids, kinds, strict=True) if kind & {"manifest", "parts"}]

    async def entries(self) -> list[ManifestEntry]:
        """All entries of the log's manifest, checked one by one and as a chain; empty where nothing was archived yet.

        Raises:
            BadOption: the archive holds several logs, and none was chosen. Corruption: an entry is missing or damaged.
            PathError: the store cannot be reached.
        """
        manifest = await self.manifest()
        if manifest.wrong:
            raise manifest.wrong[0]
        self._whole = True
        return manifest.entries

    async def manifest(self) -> Manifest:
        """The log's manifest as far as it can be read. Raises what `entries` does, but Corruption."""
        slots = asyncio.Semaphore(ENTRIES_AT_ONCE)

        async def load(name: str) -> ManifestEntry | Corruption:
            async with slots:
                try:
                    return decode_entry(await self.fetch(name), name)
                except Corruption as error:
                    return error

        self._whole = False
        manifest = chain_of(list(await asyncio.gather(*map(load, await self._names("manifest")))))
        self.known = manifest.entries
        return manifest

    async def digests(self) -> set[str]:
        """The pieces that are stored, by their SHA-256."""
        return {name.rpartition("/")[2] for name in await self._names("parts")}

    async def _names(self, kind: str) -> list[str]:
        """Names of the log's objects of a kind, in order."""
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
            async for batch in obstore.list(self._store, f"{self.log_id}/{kind}/"):
                names += [str(each["path"]) for each in batch]
        return sorted(names)

    async def absent(self) -> BadOption:
        """The error where nothing of the log is archived."""
        ids = await self.logs()
        if not ids:
            return nothing_archived(self.url)
        return BadOption(f"log {self.log_id} is not archived there", path=self.url, hint="these are: " + ", ".join(ids))

    async def fetch(self, name: str) -> bytes:
        """Fetch an object's bytes. Raises Corruption where it is missing."""
        import obstore

        async with self._reaching(name):
            return bytes(await (await obstore.get_async(self._store, name)).bytes_async())

    async def part(self, log_id: str, length: int, digest: str) -> bytes:
        """Fetch a piece of a segment and check it. Raises Corruption where it is missing or not what was stored."""
        name = part_name(log_id, digest)
        data = await self.fetch(name)
        if len(data) != length or sha256(data).hexdigest() != digest:
            raise damaged(name, f"{len(data)} bytes that are not those that were stored")
        return data

    async def _create(self, name: str, data: bytes) -> bool:
        """Store an object, durably, unless it is there; returns whether it was not. One that is there must have the right length."""
        import obstore
        from obstore.exceptions import AlreadyExistsError

        async with self._reaching(name):
            try:
                if self.url.startswith("file:"):
                    await in_thread(create_durably, os.path.join(local_directory(self.url), name), data)
                else:
                    await obstore.put_async(self._store, name, data, mode="create", use_multipart=False)
                return True
            except (AlreadyExistsError, FileExistsError):
                found = await obstore.head_async(self._store, name)
        if found["size"] != len(data):
            raise damaged(name, f"it has {found['size']} bytes instead of {len(data)}")
        return False

    @asynccontextmanager
    async def _reaching(self, name: str | None = None) -> AsyncIterator[None]:
        """Turn the errors of the store into ours."""
        from obstore.exceptions import BaseError, NotFoundError

        path = self.url if name is None else f"{self.url.rstrip('/')}/{name}"
        try:
            yield
        except (NotFoundError, FileNotFoundError):
            raise damaged(path, "it is missing") from None
        except (BaseError, OSError) as error:
            raise of_the_store(error, path) from error
        except BaseException as error:
            if type(error).__name__ not in PANICS:
                raise
            raise PathError(
                f"the client of the store has broken down: {first_line(error)}",
                path=path,
                hint="is the endpoint (AWS_ENDPOINT_URL) a URL with a scheme and a host, such as https://host:9000?",
            ) from error


def of_the_store(error: BaseException, path: str) -> WalError:
    """The typed error for what the store's client says: by the number where the operating system has said no."""
    found = OS_ERROR.search(str(error))
    number = (error.errno or 0) if isinstance(error, OSError) else 0
    number = number or (int(found[1]) if found else 0)
    if number in SPACE_ERRNOS:
        hint = "free some space there; pushing again goes on from here"
        return NoSpace(f"the archive is full: {first_line(error)}", errno=number, path=path, hint=hint)
    if number and path.startswith("file:"):
        hint = (number in OF_A_PLACE and hint_for(number)) or "look at the directory; pushing again goes on from here"
        return PathError(f"the archive cannot be used: {first_line(error)}", errno=number, path=path, hint=hint)
    hint = "look at the store, its credentials and the endpoint (AWS_ENDPOINT_URL); pushing again goes on from here"
    if UNENCRYPTED in str(error):
        hint = "an endpoint that begins with http:// also needs AWS_ALLOW_HTTP=true in the environment; or give it as https://"
    return PathError(f"the archive cannot be reached: {first_line(error)}", path=path, hint=hint)


def create_durably(path: str, data: bytes) -> None:
    """Create a file in the directory of an archive, durable with its name when it has it. Blocks.

    Not by the store's client, which syncs nothing: the log drops what is archived. A name that ends in # and a number is no
    object for that client, so what a killed process has left is none. Raises FileExistsError where there is one, whose name is durable
    then, and OSError.
    """
    directory, unfinished = os.path.dirname(path), f"{path}#{os.getpid()}"
    make_durably(directory)
    if not os.path.lexists(path):
        try:
            with open(unfinished, "wb") as file:
                file.write(data)
                file.flush()
                sync(file.fileno())
            os.link(unfinished, path)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(unfinished)
        sync_directory(directory)
        return
    sync_directory(directory)  # its maker may have been killed before that
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)


def first_line(error: BaseException) -> str:
    """Text of an error, without the debug dump that obstore adds in further lines."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
