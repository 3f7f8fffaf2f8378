"""Bytes that frame a segment: header and snapshot at its head, the seal at its end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from walsvc.config import WalConfig
from walsvc.disk.base import Disk
from walsvc.format.cipher import SegmentCipher, begin_cipher
from walsvc.format.group import Flag
from walsvc.format.meta import Metadata, encode_map
from walsvc.format.segment import METADATA_ONLY, RECYCLED, SegmentHeader, encode_segment_header
from walsvc.format.summary import Tally, encode_summary
from walsvc.keyring import KeyRing
from walsvc.log.commit.group import Group
from walsvc.log.commit.patience import patiently, write_patiently
from walsvc.log.commit.segment import Links, Segment, next_align, tail_of, whole_blocks
from walsvc.log.commit.spare import Spare


class Prefix(NamedTuple):
    """The encoded beginning of a segment.

    Attributes:
        data: header block and snapshot group.
        previous_crc: for the next group's chain.
        cipher: of all groups in the segment; None: it is not encrypted.
    """

    data: bytes
    previous_crc: int
    cipher: SegmentCipher | None


class Head:
    """A segment's beginning, of known content and length. Its header names the last group with records before it, which
    may still be on its way to be written: so the head is encoded when that group has been.

    Attributes:
        cipher: as in Prefix.
        length: bytes of header block and snapshot group.
    """

    def __init__(self, header: SegmentHeader, metadata: Metadata, keys: KeyRing | None = None) -> None:
        """The head is encrypted with the current one of `keys` if there are any."""
        self.cipher: SegmentCipher | None = None
        if keys is not None:
            header, self.cipher = begin_cipher(keys, header)
        self._header = header
        segment = Segment(header, header.data_start, self.cipher)
        self._snapshot = group = Group(segment, header.data_start, header.first_lsn)
        group.flags, group.metadata.encoded = Flag.SNAPSHOT, metadata.snapshot()
        group.close()
        self.length: int = header.data_start + group.body.group_bytes

    def segment(self, spare: Spare) -> Segment:
        """The segment, in a spare's file; its first group comes behind the head."""
        return Segment(self._header, self.length, self.cipher, file=spare.file, name=spare.name)

    def encode(self, before: int, before_at: int, durable_lsn: int) -> Prefix:
        """The bytes; `before` and `before_at` as in the segment header."""
        header, group = self._header._replace(before=before, before_at=before_at), self._snapshot
        encoded = encode_segment_header(header)
        segment = group.segment
        segment.links = Links(int.from_bytes(encoded[-4:], "little"), before)
        group.prefix = encoded.ljust(header.data_start, b"\0")
        data = bytearray(self.length)
        group.encode(
            memoryview(data), generation=header.generation, durable_lsn=durable_lsn, timestamp_ns=header.created_ns
        )
        return Prefix(bytes(data), segment.links.previous_crc, self.cipher)


def next_header(config: WalConfig, newest: Segment, spare: Spare, **own: Any) -> SegmentHeader:
    """The header of a segment that is made of a spare.

    Args:
        config: of the log.
        newest: of its segments.
        spare: the file.
        own: what the header alone has: first_lsn, ordinal, generation, created_ns, previous_end and the group before it.
    """
    return SegmentHeader(
        block_bytes=newest.block_bytes,
        file_bytes=spare.file_bytes,
        log_id=newest.header.log_id,
        align=next_align(config, newest.block_bytes),
        optional=RECYCLED * spare.recycled | METADATA_ONLY * spare.metadata_only,
        **own,
    )


def segment_prefix(
    header: SegmentHeader, metadata: Metadata, *, durable_lsn: int, keys: KeyRing | None = None
) -> Prefix:
    """The beginning of a new segment when the group that its header names is known."""
    return Head(header, metadata, keys).encode(header.before, header.before_at, durable_lsn)


async def install_segment(
    disk: Disk,
    name: str,
    header: SegmentHeader,
    prefix: Prefix,
    file: int | None = None,
    *,
    rename: Callable[[str, str], Awaitable[None]] | None = None,
) -> Segment:
    """Write a new segment's beginning into the file `name`, then give that the segment's name; both are durable on return.

    Args:
        disk: of the log.
        name: of a prepared file.
        header: of the segment.
        prefix: its encoding, with the snapshot.
        file: number of the file, where it is open; None: it is opened.
        rename: gives the file its name; None: the disk's, patiently.
    """
    data, block_bytes = prefix.data, header.block_bytes
    await write_patiently(disk, name, 0, whole_blocks(data, block_bytes))
    if rename is None:
        await patiently(disk.rename, name, header.file_name)
    else:
        await rename(name, header.file_name)
    await disk.sync_directory()
    return Segment(
        header,
        len(data),
        prefix.cipher,
        Links(prefix.previous_crc, header.before, header.before_at),
        file=await patiently(disk.open_file, header.file_name) if file is None else file,
        tail=tail_of(data, block_bytes),
        durable_end=len(data),
    )


def seal_bytes(
    old: Segment,
    successor: int,
    *,
    tally: dict[int, Tally] | None,
    newest: int | None,
    generation: int,
    durable_lsn: int,
    timestamp_ns: int,
) -> bytes:
    """The group that ends segment `old` at old.end and names the segment after it, which must be durable.

    What readers find their way by (index, topics, times) is left out where it finds no room: they look through the segment.

    Args:
        old: the segment.
        successor: first LSN of the next one.
        tally: its records by topic; None where that is not known, or no longer true.
        newest: the highest timestamp of all records of the log before `successor`, or higher; None where it is not known.
        generation, timestamp_ns: for the header.
        durable_lsn: successor - 1, or less when a batch goes on from this segment into the next.
    """
    bare: dict[str, Any] = {"successor": successor}
    change = dict(bare)
    if newest is not None:
        change["newest"] = newest
    if len(old.index):
        change["index"] = old.index.encode()
    if tally is not None:
        change["summary"] = encode_summary(tally)
    for content in (change, bare):
        group = Group(old, old.end, successor)
        group.flags, group.metadata.encoded = Flag.SEAL, encode_map(content)
        group.close()
        if old.end + group.body.group_bytes <= old.header.file_bytes:
            break
    data = bytearray(group.body.group_bytes)
    group.encode(memoryview(data), generation=generation, durable_lsn=durable_lsn, timestamp_ns=timestamp_ns)
    return bytes(data)
