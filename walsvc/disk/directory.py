"""One directory by its descriptor, and what a log does with the files in it. Every call here blocks.

Names are resolved relative to the descriptor, so a renamed or replaced path cannot send a write elsewhere. Several
threads may call at once; only `close` must come last.

What is assumed of the kernel (Linux): pwrite, fsync and the like are restarted by the interpreter after EINTR (PEP 475);
O_DIRECT may be switched on for an open file with F_SETFL; fdatasync works on a descriptor that is open read-only.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import suppress

from walsvc.disk import system
from walsvc.disk.dsync import LOCAL, RESERVING, magic_of
from walsvc.disk.handles import Handles
from walsvc.disk.lock import DirectoryLock, release
from walsvc.disk.mapped import cached_pages, read_cached, read_mapped, why_not
from walsvc.disk.memory import address, aligned_buffer, page_aligned, write_all

# zeros go in such pieces: with 1 MiB a commit beside it takes twice as long, for half more speed
CHUNK_BYTES = 256 << 10
# One read call at most; also what each reading thread keeps as its aligned buffer at most. A commit waits for what the device is reading:
# beside four threads that read 4 MiB at a time it took 45 ms where it took 2.5 beside 256 KiB, and no more was read in a second.
READ_BYTES_MAX = 256 << 10
_OPEN = os.O_CLOEXEC | os.O_NOFOLLOW
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
}


class Directory:
    """Files of one directory.

    Attributes:
        path: for messages only.
        direct: writes and reads bypass the page cache (O_DIRECT).
        block_bytes: alignment of offsets and lengths where `direct`.
        device_block_bytes: the smallest that the device takes.
        read_only: nothing is changed here.
        mapped: reads go through memory maps.
        reading: how it reads, in words for a user.
        stopping: set by whoever closes; `allocate` ends early with ECANCELED once it is True.
    """

    def __init__(
        self,
        path: str,
        descriptor: int,
        *,
        lock: DirectoryLock | None,
        direct: bool,
        block_bytes: int,
        mapped: bool = False,
    ) -> None:
        self.path = path
        self.direct = direct
        self.mapped: bool = mapped and not why_not()
        self.reading = "mapped" if self.mapped else "direct" if direct else "through the page cache"
        if mapped and not self.mapped:
            self.reading += f"; not mapped, because of {why_not()}"
        self.block_bytes: int = block_bytes
        self.device_block_bytes: int = block_bytes
        self.read_only = False
        self.stopping = False
        self._descriptor = descriptor
        self._lock = lock
        self._handles = Handles(descriptor)
        self._flags = system.O_DIRECT | _OPEN if direct else _OPEN
        self._local = threading.local()
        self._owner = os.getpid()
        self._knows_links = (
            magic_of(descriptor) in LOCAL
        )  # asked once, off the loop: fstatfs(2) waits for a server, too

    def suit(self, block_bytes: int) -> bool:
        """See Disk.suit."""
        if self.direct and block_bytes % self.block_bytes:
            if block_bytes % self.device_block_bytes:
                return False
            self.block_bytes = block_bytes
        return True

    def _open(self, name: str, flags: int) -> int:
        return os.open(name, flags, 0o644, dir_fd=self._descriptor)

    def list(self) -> dict[str, int]:
        """Regular files and their sizes; one that vanishes meanwhile is left out."""
        return {name: status.st_size for name, status in self._entries() if stat.S_ISREG(status.st_mode)}

    def others(self) -> dict[str, str]:
        """Names of entries that are no regular files, and their kinds."""
        found = ((name, stat.S_IFMT(status.st_mode)) for name, status in self._entries())
        return {name: _KINDS.get(kind, "a device") for name, kind in found if kind != stat.S_IFREG}

    def _entries(self) -> Iterator[tuple[str, os.stat_result]]:
        # its own: two listings at once would share a position
        descriptor = self._open(".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):
                        yield entry.name, entry.stat(follow_symlinks=False)
        finally:
            os.close(descriptor)

    def spoilt(self, file: int) -> bool:
        """See Disk.spoilt. Does not block: these file systems answer fstat(2) from memory; a server would be asked."""
        if not self._knows_links:
            return False
        status = os.fstat(file)
        return status.st_nlink == 0 or status.st_size < self._handles.lengths[file]

    def shared(self, name: str) -> bool:
        """True if a file has another name."""
        return os.stat(name, dir_fd=self._descriptor, follow_symlinks=False).st_nlink > 1

    def reusable(self, name: str, length: int) -> bool:
        """True if a file has no other name and is no shorter than `length`."""
        status = os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
        return stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_size >= length

    def fill_holes(self, name: str, offset: int) -> bool:
        """Allocate the holes of a file from `offset` on; False: there are none."""
        file = self._open(name, os.O_RDWR | _OPEN)
        try:
            status = os.fstat(file)
            if not system.CAN_RESERVE or status.st_blocks * 512 >= status.st_size or offset >= status.st_size:
                return False
            hole = os.lseek(file, offset, os.SEEK_HOLE)
            if hole >= status.st_size:
                return False
            system.reserve(file, hole, status.st_size - hole)
            system.sync(file)
            return True
        finally:
            os.close(file)

    def open_file(self, name: str, *, cached: bool = False) -> int:
        """A descriptor for durable writes, without O_DIRECT where `cached`. It is remembered, so that `close` releases it
        whoever lost it."""
        return self._handles.open(name, os.O_WRONLY | (_OPEN if cached else self._flags))

    def close_file(self, file: int) -> None:
        """Release a descriptor of `open_file`; EBADF for any other number, which is never closed."""
        self._handles.close(file)

    def allocate(self, name: str, length: int, *, reserved: bool = False) -> None:
        """Create `name` with `length` written zeros, durable together with its name; all or nothing.

        Zeros are written and not only reserved, because a write into a reserved (unwritten) extent has to commit file
        system metadata each time. Large writes bear that better than the zeros, which take as long as they do: for these
        the room may be `reserved`.
        """
        file = self._open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OPEN)
        try:
            try:
                self._fill(file, length, reserved=reserved)
                system.sync(file)
                if not self.direct:
                    system.advise(file, 0, length, "DONTNEED")
            finally:
                os.close(file)
            self.sync_directory()
        except BaseException:
            with suppress(OSError):  # what is left is no news; the first error is
                os.unlink(name, dir_fd=self._descriptor)
            raise

    def _fill(self, file: int, length: int, *, reserved: bool) -> None:
        self._check_stopping()
        try:
            system.reserve(file, 0, length)  # finds ENOSPC before anything is written, and keeps extents together
            if reserved and magic_of(file) in RESERVING:
                return
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL) or length == 0:
                raise
        plain = fcntl.fcntl(file, fcntl.F_GETFL)
        aligned = length - length % self.block_bytes if self.direct else 0
        if aligned:
            system.set_direct(file, plain)
        zeros = aligned_buffer(min(length, CHUNK_BYTES))
        offset = 0
        while offset < length:
            self._check_stopping()
            if aligned and offset == aligned:  # a tail below one block cannot go with O_DIRECT
                fcntl.fcntl(file, fcntl.F_SETFL, plain)
            end = aligned if offset < aligned else length
            piece = zeros[: min(end - offset, CHUNK_BYTES)]
            write_all(file, piece, offset)
            offset += len(piece)

    def _check_stopping(self) -> None:
        if self.stopping:
            raise OSError(errno.ECANCELED, "the disk is being closed")

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Up to `length` bytes; shorter only at the end of the file. The file is open only for the time of the call."""
        if self.direct and not self.mapped:
            file = self._open(name, os.O_RDONLY | self._flags)
            try:
                return self._read_direct(file, offset, length)
            finally:
                os.close(file)
        buffer = memoryview(bytearray(length))
        return bytes(buffer[: self.read_into(name, offset, buffer)])

    def read_into(self, name: str, offset: int, view: memoryview) -> int:
        """Like read, into `view`; with O_DIRECT without a copy where offset, length and address are aligned."""
        file = self._open(name, os.O_RDONLY | (_OPEN if self.mapped else self._flags))
        try:
            filled = 0
            if self.mapped and view:
                filled = read_mapped(file, offset, address(view), len(view))  # what is missing tells pread
            if self.mapped or not self.direct:
                return filled + read_cached(file, offset + filled, view[filled:])
            if offset % self.block_bytes or len(view) % self.block_bytes or not page_aligned(view):
                data = self._read_direct(file, offset, len(view))
                view[: len(data)] = data
                return len(data)
            while filled < len(view):
                got = os.preadv(file, [view[filled : filled + READ_BYTES_MAX]], offset + filled)
                filled += got
                if got == 0 or got % self.block_bytes:  # only the end of the file cuts a block
                    break
            return filled
        finally:
            os.close(file)

    def _read_direct(self, file: int, offset: int, length: int) -> bytes:
        """Reads whole blocks around the wanted range through this thread's aligned buffer."""
        start = offset - offset % self.block_bytes
        end = offset + length + -(offset + length) % self.block_bytes
        buffer: memoryview = getattr(self._local, "buffer", memoryview(b""))
        if len(buffer) < min(end - start, READ_BYTES_MAX):
            buffer = self._local.buffer = aligned_buffer(min(end - start, READ_BYTES_MAX))
        pieces: list[bytes] = []
        position = start
        while position < end:
            got = os.preadv(file, [buffer[: end - position]], position)
            pieces.append(bytes(buffer[max(offset - position, 0) : min(got, offset + length - position)]))
            position += got
            if got % self.block_bytes or got == 0:  # only the end of the file cuts a block
                break
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def write(self, name: str, offset: int, data: bytes) -> None:
        """Write into an existing file and fdatasync it. EINVAL where `direct` and not whole blocks."""
        block_bytes = self.block_bytes if self.direct else 1
        if offset % block_bytes or len(data) % block_bytes:
            raise OSError(errno.EINVAL, f"offset {offset} and length {len(data)} must be multiples of {block_bytes}")
        file = self._open(name, os.O_WRONLY | self._flags)
        try:
            view = memoryview(data)
            if self.direct:
                view = aligned_buffer(len(data))
                view[:] = data
            write_all(file, view, offset, block_bytes=block_bytes)
            system.sync_data(file)
        finally:
            os.close(file)

    def sync(self, name: str) -> None:
        """fdatasync by name, then forget the clean pages; see Disk.sync.

        A file system that turned read-only after an error answers EROFS. Whoever only reads may go on: nothing is written there
        any more, so what the device has is what will be there after the next start, and the CRCs judge it. Pages that never
        reached the device are the danger, since they would be shown and then be lost. O_DIRECT does not see them; through the
        page cache they must not be there: they are what is left when the clean ones were dropped.
        """
        file = self._open(name, os.O_RDONLY | _OPEN)
        try:
            try:
                system.sync_data(file)
            except OSError as error:
                if not self.read_only or error.errno != errno.EROFS:
                    raise
                system.advise(file, 0, 0, "DONTNEED")
                if (self.mapped or not self.direct) and cached_pages(file):
                    raise
            system.advise(file, 0, 0, "DONTNEED")
        finally:
            os.close(file)

    def rename(self, old: str, new: str) -> None:
        """rename(2) within the directory."""
        with self._handles.moving(old, new):
            os.rename(old, new, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)

    def remove(self, name: str) -> None:
        """unlink(2)."""
        with self._handles.moving(name, None):
            os.unlink(name, dir_fd=self._descriptor)

    def check_place(self) -> None:
        """See Disk.check_place."""
        if self._lock is not None:
            self._lock.check()
        self._handles.check()

    def sync_directory(self) -> None:
        """fsync the directory."""
        system.sync(self._descriptor)

    def free_bytes(self) -> int:
        """Free to this process: without the blocks reserved for root, unless it is root's statfs that says so."""
        status = os.fstatvfs(self._descriptor)
        return status.f_bavail * status.f_frsize

    def close(self) -> None:
        """Release every descriptor, the lock last. Idempotent. In a forked child only the child's copies go."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        self._handles.close_all()
        release(descriptor)
        if self._lock is not None and self._owner == os.getpid():
            self._lock.release()

    def __del__(self) -> None:
        self.close()  # a call that still runs in a thread holds a reference, so no descriptor goes from under it
