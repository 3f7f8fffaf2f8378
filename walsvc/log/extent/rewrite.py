"""Writing a sealed segment anew, with other content under the same LSNs: what compaction and migration share.

The new file gets a name of its own, is written and synced completely, and is read back; only then does the caller rename it
over the segment. Killed anywhere, the directory holds the old segment or the new one. A file that was begun and never
renamed is worth nothing and removed by the next opening; older versions of walsvc do not know its name and leave it alone.

Two passes over the old segment, so that memory is bounded by its largest group: one for the lengths, one for the bytes.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import NamedTuple

from walsvc.config import MIB
from walsvc.disk.base import Disk
from walsvc.errors import Corruption, taking_space
from walsvc.format.cipher import SegmentCipher, begin_cipher
from walsvc.format.content import PLACES, Content, encoded_bytes, encoded_index
from walsvc.format.group import DURABLE_UNIT, TAG_BYTES, BadGroup, Columns, Flag, align_up, encode_group
from walsvc.format.index import SegmentIndex
from walsvc.format.meta import decode_map, encode_map
from walsvc.format.segment import (
    CRC_FIELD,
    CRC_OFFSET,
    RECYCLED,
    REWRITTEN,
    SegmentHeader,
    encode_segment_header,
    parse_name,
)
from walsvc.keyring import KeyRing
from walsvc.log.read.stream import GroupStream, RawGroup, open_stream, unsupported
from walsvc.log.recover.foreign import REWRITE_SUFFIX

WRITE_BYTES = 1 * MIB  # written and synced at a time: a commit beside it does not wait for long
SEALED_ALIGN = 64  # no group is written behind those of a rewritten sealed segment, so none needs a block of its own
BLOCK_BYTES = 4096


Change = Callable[[RawGroup], Content]
StreamMaker = Callable[[], Awaitable[GroupStream]]


class Rewriting(NamedTuple):
    """A segment to be written anew.

    Attributes:
        disk: where.
        header: the old segment's, in the present version's fields.
        source: gives a stream at the first group of the old segment, each time it is called.
        change: the new content of a group.
        keys: to encrypt with and to read back; None: not encrypted.
        until: LSN that the groups must reach at least, or acknowledged data is missing: of the next segment, if there is one.
        sealed: end it with a seal that names the next segment, also where the old one's seal is damaged.
        align: of groups in the new segment.
        file_bytes_min: of the new file.
    """

    disk: Disk
    header: SegmentHeader
    source: StreamMaker
    change: Change
    keys: KeyRing | None
    until: int
    sealed: bool = False
    align: int = SEALED_ALIGN
    file_bytes_min: int = 0

    @property
    def name(self) -> str:
        """The new file's name for the time being."""
        return rewrite_name(self.header.first_lsn)


class RewritePlan(NamedTuple):
    """Result of the first pass: where the groups of the new segment end, where its seal stands (0: it has none), and the
    flags of the last group."""

    end: int
    seal_at: int
    last_flags: int


class Rewritten(NamedTuple):
    """The new file: its length, and the flags of its last group."""

    file_bytes: int
    last_flags: int


def rewrite_name(first_lsn: int) -> str:
    """Name of the file that is to replace a segment."""
    return f"{first_lsn:016x}{REWRITE_SUFFIX}"


async def drop_unfinished(disk: Disk) -> list[str]:
    """Remove what an interrupted rewriting has left; returns the names."""
    names = [name for name in await disk.list() if parse_name(name, REWRITE_SUFFIX) is not None]
    for name in names:
        await disk.remove(name)
    return names


async def rewrite(job: Rewriting) -> Rewritten:
    """Write the new file under its own name, durable and checked. The caller renames it.

    Raises:
        Corruption: the old segment is damaged, or the new one did not read back as it was written.
        NoSpace: no room for the new file. Whatever is raised, nothing of the new file is left.
    """
    disk = job.disk
    layout = await lay_out(job)
    length = max(align_up(layout.end, block_bytes_of(job)), job.file_bytes_min)
    header = job.header._replace(
        file_bytes=length,
        align=job.align,
        required=0,
        optional=(job.header.optional & ~RECYCLED) | REWRITTEN,
        cipher=0,
        key_id=b"",
        salt=bytes(32),
        key_check=bytes(16),
    )
    cipher = None
    if job.keys is not None:
        header, cipher = begin_cipher(job.keys, header)
    header = header._replace(seal_at=layout.seal_at)
    if job.name in await disk.list():
        await disk.remove(job.name)
    with taking_space(
        "no room to rewrite a segment",
        path=disk.path,
        segment=header.first_lsn,
        expected=f"{length} bytes free",
        hint="free some space and try again; nothing was changed",
    ):
        await disk.allocate(job.name, length)
    try:
        last_crc = await write_groups(job._replace(header=header), cipher, job.header.file_bytes)
        await read_back(job._replace(header=header), layout.end, length, last_crc)
    except Exception:
        with suppress(OSError):  # then the next opening removes it
            await disk.remove(job.name)
        raise
    return Rewritten(length, layout.last_flags)


def block_bytes_of(job: Rewriting) -> int:
    """The new file is written in multiples of this, from a multiple on."""
    return max(BLOCK_BYTES, job.disk.block_bytes, job.header.block_bytes)


async def contents(job: Rewriting) -> AsyncIterator[Content]:
    """Contents of the new segment's groups, in order; each is to be used before the next one is asked for."""
    stream, last = await job.source(), None
    last_crc = stream.chain.last_crc
    while (raw := await next_group(stream, job.until)) is not None:
        content = job.change(raw)
        last = content.header._replace(last_crc=raw.header.last_crc or last_crc)
        last_crc = stream.chain.last_crc
        yield content._replace(header=last)
    if job.sealed and last is not None and not last.flags & Flag.SEAL:
        seal = last._replace(
            flags=Flag.SEAL, first_lsn=stream.chain.next_lsn, batch_lsn=0, records=0, last_crc=last_crc
        )
        yield Content(seal, [], Columns(array("I"), None, None, None, None), encode_map({"successor": job.until}))


def with_places(content: Content, index: SegmentIndex) -> Content:
    """The content of a group; a seal tells where the groups before it stand now."""
    if not content.header.flags & Flag.SEAL or not index:
        return content
    return content._replace(meta=encode_map({**decode_map(content.meta), PLACES: index.encode()}))


async def lay_out(job: Rewriting) -> RewritePlan:
    """The first pass: lengths only."""
    tag_bytes = TAG_BYTES if job.keys is not None else 0
    end, seal_at, flags = job.header.data_start, 0, 0
    index = SegmentIndex(job.header.file_bytes)
    async for plain in contents(job):
        content = with_places(plain, index)
        flags = content.header.flags
        if flags & Flag.SEAL:
            seal_at = end
        index.note(content.header._replace(offset=end))
        end += encoded_bytes(content, job.align, tag_bytes)
    return RewritePlan(end, seal_at, flags)


async def write_groups(job: Rewriting, cipher: SegmentCipher | None, spacing_of: int) -> int:
    """The second pass: header and groups, in pieces of whole blocks. Returns the last group's header CRC.

    `spacing_of` is the file length by which the first pass has spaced the rows of the index.
    """
    block = block_bytes_of(job)
    head = encode_segment_header(job.header)
    pending = bytearray(head.ljust(job.header.data_start, b"\0"))
    written, offset = 0, job.header.data_start
    previous_crc: int = CRC_FIELD.unpack_from(head, CRC_OFFSET)[0]
    encode = encode_group if cipher is None else cipher.seal_group
    index = SegmentIndex(spacing_of)
    async for plain in contents(job):
        content = with_places(plain, index)
        rest = encoded_index(content.columns) + content.meta
        size = encoded_bytes(content, job.align, 0 if cipher is None else TAG_BYTES)
        header = content.header._replace(
            offset=offset,
            payload_bytes=sum(map(len, content.records)),
            index_bytes=len(rest) - len(content.meta),
            meta_bytes=len(content.meta),
            group_bytes=size,
            previous_crc=previous_crc,
            nonce=bytes(12),
            durable_units=offset // DURABLE_UNIT,  # the file has its name only when all of it is on stable storage
        )
        index.note(header)
        group = bytearray(size)
        previous_crc = encode(memoryview(group), header, content.records, rest)
        pending += group
        offset += size
        if len(pending) >= WRITE_BYTES:
            whole = len(pending) - len(pending) % block
            await job.disk.write(job.name, written, bytes(pending[:whole]))
            del pending[:whole]
            written += whole
    await job.disk.write(job.name, written, bytes(pending.ljust(align_up(len(pending), block), b"\0")))
    return previous_crc


async def read_back(job: Rewriting, end: int, length: int, last_crc: int) -> None:
    """Check the new file as it is on the device. The chain's last CRC covers all that was written."""
    await job.disk.sync(job.name)
    header, stream = await open_stream(job.disk, job.name, job.header.first_lsn, length, job.keys)
    while stream.chain.offset < end and await next_group(stream, job.until) is not None:
        pass
    if header != job.header or stream.chain.offset != end or stream.chain.previous_crc != last_crc:
        raise Corruption(
            "a rewritten segment does not read back as it was written",
            path=job.disk.path,
            segment=job.header.first_lsn,
            offset=stream.chain.offset,
            hint="the device is not to be trusted; the old segment is untouched",
        )


async def next_group(stream: GroupStream, until: int) -> RawGroup | None:
    """The next group; None at the segment's end. Raises Corruption where the groups end before LSN `until`."""
    if stream.chain.offset >= stream.chain.file_bytes:
        error = BadGroup("the segment is full")
    else:
        try:
            await asyncio.sleep(0)  # a piece that is in memory holds many groups: others have their turn between them
            return await stream.next()
        except BadGroup as bad:
            error = bad
    chain = stream.chain
    if error.newer:
        raise unsupported(stream, error)
    if chain.next_lsn < until:
        hint = "acknowledged data is damaged, so the segment stays as it is; see `walsvc verify`"
        raise chain.damage(stream.disk.path, error.reason, hint)
    return None
