"""The disk, as a log uses it. One disk object serves one directory and one event loop.

Two kinds of calls, because they have different callers:

* The hot one, `submit`: the commit coordinator's write-and-sync. It never waits, allocates no future and answers by a
  plain callback on the loop. Names are resolved beforehand by `open_file`.
* The cold ones, coroutines: directory work, reading, preparing segments. They never block the loop.

A disk knows bytes, names and offsets. It never knows what a record is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from walsvc.config import WalConfig


class Write:
    """One durable write on its way. The owner keeps `view`'s memory alive and unchanged until `done` was called.

    Attributes:
        file: handle from `Disk.open_file`.
        offset: byte offset in the file; a multiple of the disk's block_bytes where `direct`.
        view: the bytes; length and address aligned likewise (take it from `Disk.buffer`).
        done: called on the loop, as done(write, error), once; and again where an exception came out of it, which may have come before
            its first line. error is None only when every byte was written AND synced; a short write, a cancelled sync and
            everything else is an OSError with the errno.
    """

    __slots__ = ("done", "file", "offset", "tag", "view")

    def __init__(
        self,
        file: int,
        offset: int,
        view: memoryview,
        done: Callable[[Write, OSError | None], None],
        tag: object = None,
    ) -> None:
        self.file: int = file
        self.offset: int = offset
        self.view: memoryview = view
        self.done: Callable[[Write, OSError | None], None] = done
        self.tag: object = tag


class TakenOver(OSError):
    """A write was refused because another writer has taken the place over; nothing of it is stored."""


class Displaced(OSError):
    """The directory, LOCK or a file that is being written is no longer the one that was opened: somebody removed or replaced
    it under the writer, or cut its end off."""


class Disk(Protocol):
    """The contract that threads, uring and sim share (tests/contract/test_disk.py checks every line of it).

    Attributes:
        kind: "threads", "uring" or "sim".
        reason: why this one was chosen, in words for a user.
        path: the directory, for messages.
        direct: whether writes bypass the page cache (O_DIRECT).
        block_bytes: alignment that `submit` and `write` need when `direct` (1 otherwise allowed).
        reading: how it reads, in words for a user.
        rewrites: whether another file can take a segment's place by `rename`, as compaction needs it.
        sync_method: "dsync" (RWF_DSYNC on the write) or "fdatasync" (a sync after it), in words for a user.
    """

    kind: str
    reason: str
    path: str
    direct: bool
    block_bytes: int
    sync_method: str
    reading: str
    rewrites: bool

    # ---- hot: loop thread only, never waits
    def submit(self, write: Write) -> None:
        """Start one write and its sync. Several may be in flight; completions come in any order, always by callback
        from the loop, never from inside submit (a failure to start is reported through `done`, too)."""

    def buffer(self, length: int) -> memoryview:
        """Zeroed memory of `length` bytes, aligned for `submit`."""

    def suit(self, block_bytes: int) -> bool:
        """Take a log whose groups are aligned to so many bytes: from now on `block_bytes` is no more than that. False where
        the device cannot. Before the first submit."""

    def spoilt(self, file: int) -> bool:
        """True if a file of `open_file` is known to have lost its last name, or its end. Asks no device; False where that cannot be
        said at once."""

    # ---- cold: coroutines, never block the loop; they raise OSError with the errno as the kernel gave it
    async def list(self) -> dict[str, int]:
        """Names of the regular files in the directory with their sizes in bytes."""

    async def others(self) -> dict[str, str]:
        """Names of what is in the directory and no regular file, with what it is, in words."""

    async def shared(self, name: str) -> bool:
        """True if the file has another name, here or elsewhere (a hard link): what is written into it is seen there, too."""

    async def reusable(self, name: str, length: int) -> bool:
        """True if the file has no other name, and is as long as it was made: it may be written over."""

    async def fill_holes(self, name: str, offset: int) -> bool:
        """Allocate what is not allocated of a file from `offset` on, as in a sparse copy: a write there needs room then. What
        is read stays the same. False: there was no hole. ENOSPC where there is no room."""

    async def open_file(self, name: str, *, cached: bool = False) -> int:
        """Open an existing file for `submit`; the handle stays valid across `rename`. `cached`: its writes go through the
        page cache although the disk is `direct`."""

    async def close_file(self, file: int) -> None:
        """Release a handle; no write may be in flight on it."""

    async def allocate(self, name: str, length: int, *, reserved: bool = False) -> None:
        """Create `name` (it must not exist) as `length` bytes of written zeros, and sync the file and the directory.
        `reserved`: room that reads as zeros is enough, where the file system keeps such room for certain.
        Stops early, removing the file, with OSError(ECANCELED) when `close` was called meanwhile. On any failure, such as
        ENOSPC, nothing is left behind."""

    async def read(self, name: str, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`; shorter only at the end of the file. Leaves the page cache as it was where
        the file system allows. Opens by name each time, so that a reader never pins a removed file."""

    async def read_into(self, name: str, offset: int, view: memoryview) -> int:
        """Like read, into `view`, which the owner leaves alone until the call has ended, cancelled or not; returns how many
        bytes. Memory from `buffer`, with offset and length aligned as for `submit`, is filled without a copy."""

    async def write(self, name: str, offset: int, data: bytes) -> None:
        """Write `data` durably into an existing file (write, then sync); the cold twin of `submit`. Aligned likewise."""

    async def sync(self, name: str) -> None:
        """fdatasync an existing file (also one that is open read-only), then drop its clean pages from the page cache, so
        that what is read next is what the device has. After a failed sync Linux keeps pages that were never written, marked
        as clean (LWN 752063): without this, a reader would see them, and no later sync would write them."""

    async def rename(self, old: str, new: str) -> None:
        """rename(2): replaces `new` if it exists. Durable only after sync_directory."""

    async def remove(self, name: str) -> None:
        """unlink(2). Durable only after sync_directory."""

    async def sync_directory(self) -> None:
        """fsync the directory: names are durable afterwards."""

    async def free_bytes(self) -> int:
        """Bytes that this process may still allocate on the file system."""

    async def check_place(self) -> None:
        """Raise Displaced unless directory, lock and the files of `open_file` are still those that were opened, under their
        names, and no shorter."""

    async def close(self) -> None:
        """Wait for every submitted write, then release all handles, threads, rings and the directory lock. Idempotent."""


@runtime_checkable
class Storage(Protocol):
    """An object that `walsvc.open` takes in the place of a directory, since it brings a disk of its own."""

    async def disk_for(self, config: WalConfig) -> Disk:
        """The disk of a log that is opened with these options."""
