"""A disk whose files are kept in a JetStream stream: what the log writes becomes messages, and messages become its files.

Everything above a disk (group commit, LSNs, batches, topics, consumers, retention, recovery) is therefore the embedded
log's own code. What a file system does differently is settled here:

* A durable write is a message that a majority of the stream's servers has acknowledged. It is there as a whole or not at
  all, in the order in which the log wrote, so nothing is ever torn.
* A segment's file appears under its own name with its first write, which holds its header. Prepared files are names only.
* Removing a file is a message; what no file needs any more at the stream's head is purged. What was cut off at the end
  stays where it is, and is hidden: a stream cannot be cut there.
* Taking the stream over, instead of locking it: see Publisher.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from walsvc.config import KIB, WalConfig
from walsvc.disk.base import Write
from walsvc.engines.jetstream.message import (
    Kind,
    Message,
    directory_messages,
    segment_of,
    span_of,
)
from walsvc.engines.jetstream.publish import Publisher
from walsvc.engines.jetstream.segment_table import SegmentFile, SegmentTable, piece_of
from walsvc.engines.jetstream.stream import ENVELOPE_BYTES, Stream
from walsvc.engines.jetstream.stream_files import StreamFiles
from walsvc.errors import WalError
from walsvc.format.segment import parse_name, segment_name

logger: logging.Logger = logging.getLogger("walsvc.jetstream")
BLOCK_BYTES = 512  # padding is not sent, so this only keeps the format's smallest alignment
GROUP_BYTES_MAX = 256 * KIB  # three nodes on loopback took 2 ms for such a message, 25 ms for one of 1 MiB
GROUP_ROOM_BYTES = 16 * KIB  # what a segment's header, a snapshot and an index add to a group's records, mostly


@dataclass(slots=True)
class WritePlace:
    """The target of writes: a segment's file, or a prepared one until its first write says which segment it is."""

    segment: int | None
    file_bytes: int


class JetStreamDisk:
    """Implements walsvc.disk.base.Disk. `publisher` None: for reading only; then `follows`: what others write meanwhile is
    seen."""

    kind = "jetstream"
    reading = "from the stream"
    direct = False
    rewrites = False  # a segment's messages stay what they are
    block_bytes = BLOCK_BYTES

    def __init__(
        self,
        stream: Stream,
        directory: SegmentTable,
        publisher: Publisher | None,
        *,
        words: str,
        last: int,
        first: int,
        follows: bool = True,
    ) -> None:
        self.path: str = stream.path
        self.reason: str = (
            f"stream {stream.name}, epoch {publisher.epoch}" if publisher else f"stream {stream.name}, reading"
        )
        self.sync_method = words
        self._stream = stream
        self._files = StreamFiles(stream, directory, last, follows=follows and publisher is None, busy=self._busy)
        self._publisher = publisher
        self._body_bytes = stream.client.max_payload - ENVELOPE_BYTES
        self._handles: dict[int, WritePlace] = {}
        self._next_handle = 1
        self._spares: dict[str, WritePlace] = {}
        self._loop = asyncio.get_running_loop()
        self._purged = first  # the stream's first message
        self._closed = False

    def fit(self, config: WalConfig) -> WalConfig:
        """The options with groups small enough for one message each, and no more padding than the format needs."""
        room = max(self._body_bytes - GROUP_ROOM_BYTES, 4 * KIB)
        group_bytes = min(config.max_group_bytes, room, GROUP_BYTES_MAX)
        return replace(config, max_group_bytes=group_bytes, block_bytes=config.block_bytes or BLOCK_BYTES)

    # ---- writing

    def submit(self, write: Write) -> None:
        """Publish one write. Its outcome comes through `write.done`."""
        place = self._handles[write.file]
        self._put(place, write.offset, bytes(write.view), partial(write.done, write))

    def buffer(self, length: int) -> memoryview:
        """Zeroed memory."""
        return memoryview(bytearray(length))

    def suit(self, block_bytes: int) -> bool:
        """See Disk.suit: messages need no alignment."""
        return True

    async def write(self, name: str, offset: int, data: bytes) -> None:
        """Publish a write and wait until it is stored."""
        place = self._place(name)
        await self._durably(lambda done: self._put(place, offset, data, done))

    async def _durably(self, put: Callable[[Callable[[OSError | None], None]], None]) -> None:
        future: asyncio.Future[None] = self._loop.create_future()

        def done(error: OSError | None) -> None:
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

        put(done)
        await asyncio.shield(future)

    def _put(self, place: WritePlace, offset: int, data: bytes, done: Callable[[OSError | None], None]) -> None:
        """Send a write in as many messages as it needs. Its place in the directory is known at once, so that a directory
        message behind it counts it; its bytes can be read once they are stored."""
        publisher = self._writing()
        if offset == 0 and (header := segment_of(data)) is not None:
            place.segment = header.first_lsn
        assert place.segment is not None, "a prepared file's first write is a segment's header"
        length, stored = len(data), data.rstrip(b"\0")
        starts = range(0, max(len(stored), 1), self._body_bytes)
        span, first = span_of(data), publisher.next_sequence
        self._files.directory.write(place.segment, offset, first, first + len(starts) - 1, stored)
        file = self._files.directory.files[place.segment]
        for part, start in enumerate(starts):
            last = part == len(starts) - 1
            body = stored[start : start + self._body_bytes]
            message = Message(
                kind=Kind.WRITE,
                stream_id=0,
                sequence=publisher.next_sequence,
                epoch=0,
                base=0,
                segment=place.segment,
                offset=offset + start,
                first_lsn=span.first_lsn,
                records=span.records,
                part=part,
                parts=len(starts),
                length=length - start if last else len(body),
                previous_crc=0,
                body=body,
            )
            publisher.put(message, self._stored(file, message, done if last else None))

    def _stored(
        self, file: SegmentFile, message: Message, done: Callable[[OSError | None], None] | None
    ) -> Callable[[OSError | None], None]:
        def acknowledged(error: OSError | None) -> None:
            if error is None:
                self._files.cache.put(message.sequence, message.body)
                if file.index is not None:
                    file.index.add(piece_of(message))
            if done is not None:
                done(error)

        return acknowledged

    def publish_directory(self) -> None:
        """Publish which segments there are, for the next opening. No caller waits for it: without it opening reads a little more."""
        for message in directory_messages(self._files.directory.rows(), self._body_bytes):
            self._writing().put(message, lambda _: None)

    def _writing(self) -> Publisher:
        if self._publisher is None:
            raise OSError(errno.EROFS, "the stream was opened for reading")
        return self._publisher

    # ---- names

    async def list(self) -> dict[str, int]:
        """Names and lengths of the files."""
        await self._files.refresh()
        files = {segment_name(each.first_lsn): each.file_bytes for each in self._files.directory.files.values()}
        return files | {name: place.file_bytes for name, place in self._spares.items()}

    async def open_file(self, name: str, *, cached: bool = False) -> int:
        """A handle for `submit`."""
        handle, self._next_handle = self._next_handle, self._next_handle + 1
        place = self._handles[handle] = self._place(name)
        if self._publisher is not None and place.segment is not None:  # what is on its way could not be gone through
            await self._files.index(self._files.file(name))
        return handle

    async def close_file(self, file: int) -> None:
        """Forget a handle."""
        del self._handles[file]
        self._files.release()

    def _busy(self, file: SegmentFile) -> bool:
        """A segment may be written to, or what was written to it may be on its way."""
        stored = file.last_sequence if self._publisher is None else self._publisher.stored.sequence
        return file.last_sequence > stored or any(place.segment == file.first_lsn for place in self._handles.values())

    async def allocate(self, name: str, length: int, *, reserved: bool = False) -> None:
        """A prepared file is a name. OSError(ENOSPC) where a stream with a limit has no room for what it will hold."""
        if await self.free_bytes() < length:
            raise OSError(errno.ENOSPC, "the stream's max_bytes leaves no room", name)
        if self._closed:
            raise OSError(errno.ECANCELED, "the log is being closed", name)
        self._spares[name] = WritePlace(None, length)

    async def rename(self, old: str, new: str) -> None:
        """Name a segment's file (its first write has named it in the stream already), or make one a prepared one."""
        if parse_name(new, ".wal") is not None:
            self._spares.pop(old, None)
            self._files.file(new)
            self.publish_directory()
            return
        place = self._spares.pop(old, None)
        if place is None:
            place = WritePlace(None, self._files.file(old).file_bytes)
            await self.remove(old)
        self._spares[new] = place

    async def remove(self, name: str) -> None:
        """Remove a file; a segment's durably."""
        if self._spares.pop(name, None) is not None:
            return
        segment = self._files.file(name).first_lsn
        publisher = self._writing()
        message = Message(Kind.REMOVE, 0, 0, 0, 0, segment, 0, 0, 0, 0, 1, 0, 0, b"")
        del self._files.directory.files[segment]
        await self._durably(lambda done: publisher.put(message, done))

    async def sync_directory(self) -> None:
        """Names are durable already; here the stream is purged of what no file needs any more."""
        first = self._files.directory.first_sequence
        if self._publisher is None or first is None:
            return
        first = min(first, self._publisher.stored.base)  # an opening now begins there
        if first <= self._purged or not await self._publisher.flushed() or self._closed:
            return  # what only a message on its way says is not needed, an opening still needs
        try:
            await self._stream.purge_before(first)
            self._purged = max(self._purged, first)
        except WalError as error:
            logger.warning("%s: nothing was purged, and will be with the next segment: %s", self.path, error)

    async def sync(self, name: str) -> None:
        """Whatever can be read of a stream is stored by a majority."""

    async def others(self) -> dict[str, str]:
        """See Disk.others: a stream has nothing but files."""
        return {}

    async def shared(self, name: str) -> bool:
        """A message has one place."""
        return False

    async def reusable(self, name: str, length: int) -> bool:
        """Only this writer has its files."""
        return True

    async def fill_holes(self, name: str, offset: int) -> bool:
        """Room is taken by each message."""
        return False

    def spoilt(self, file: int) -> bool:
        """False: only this writer gives names and takes them."""
        return False

    async def check_place(self) -> None:
        """A stream has its name for ever; another writer is noticed by every publish."""

    async def free_bytes(self) -> int:
        """Bytes that the stream's limit leaves. Where no server answers, any number: publishing will tell."""
        try:
            info = await self._stream.info()
        except WalError as error:
            if not self._closed:
                logger.warning("%s: how much room is left is not known: %s", self.path, error)
            info = None
        limit = -1 if info is None else info["config"]["max_bytes"]
        return 1 << 62 if info is None or limit < 0 else max(limit - info["state"]["bytes"], 0)

    def _place(self, name: str) -> WritePlace:
        if name in self._spares:
            return self._spares[name]
        file = self._files.file(name)
        return WritePlace(file.first_lsn, file.file_bytes)

    # ---- reading

    async def read(self, name: str, offset: int, length: int) -> bytes:
        """Bytes of a file; zeros where nothing was written. Ends before a place that is missing or damaged in the stream,
        and raises Corruption for it when it stands at `offset`."""
        if name in self._spares:
            return bytes(max(min(length, self._spares[name].file_bytes - offset), 0))
        return await self._files.read(name, offset, length)

    async def read_into(self, name: str, offset: int, view: memoryview) -> int:
        """Like read, into `view`; returns how many bytes."""
        data = await self.read(name, offset, len(view))
        view[: len(data)] = data
        return len(data)

    # ---- ending

    async def close(self) -> None:
        """Wait for the messages on their way, then disconnect. Idempotent."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._publisher is not None:
                await self._publisher.stop()
        finally:
            await self._stream.close()
