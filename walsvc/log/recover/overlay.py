"""Images from the double-write file, found by reading only, and laid over the log's bytes while recovery looks at
them. Opening for writing then makes it true on disk; opening read-only never writes, and goes on reading through it.

A slot may be stale: of a group that was given up, of a tail that was cut, of a segment that has gone. So the chain of groups
decides, not the slot. An image counts if and only if

1. its segment is there, by log id, first LSN and number, under its name or, where a crash came before the renaming was
   durable, under the spare's,
2. the log's own chain breaks before it has passed the place of the image's group,
3. with the image in place the chain goes on up to exactly that group, whose previous_crc is the one in the slot's header;
   and if the image holds the whole group, through it,
4. the log's own chain has come to no newer generation than the image's group has. In layout pack an image brings the groups with
   it that stood before its own in the block, and so a chain of its own: behind a batch that was given up, say.

previous_crc hangs on all content before it, and the generation rises whenever the log goes back to an earlier place, so no
group but the one that was written there last can fit: see docs/decisions/0008-double-write.md. An image is laid over the
log from its own beginning to the end of its own group and never beyond, so what was written behind it later stays.
"""

from __future__ import annotations

from typing import NamedTuple, cast

from walsvc.disk.base import Disk
from walsvc.errors import Corruption, UnsupportedFormat
from walsvc.format.chain import Chain
from walsvc.format.double_write import (
    DOUBLE_WRITE_NAME,
    SLOT_HEADER_BYTES,
    SLOTS,
    BadSlot,
    SlotHeader,
    check_image,
    decode_slot_header,
)
from walsvc.format.group import BadGroup, align_up
from walsvc.format.segment import segment_name, spare_name
from walsvc.log.read.stream import GroupStream, load_header
from walsvc.model import Finding


class Image(NamedTuple):
    """Bytes that belong at slot.offset of file `name`, where the log is damaged."""

    name: str
    slot: SlotHeader
    data: bytes

    @property
    def finding(self) -> Finding:
        """The report's line."""
        what = "the group" if self.slot.whole else "the block before the group"
        return Finding(
            "restored_from_double_write",
            f"{what} at offset {self.slot.group_offset} is not whole in {self.name}, but in the double-write file",
            segment=self.slot.segment,
            offset=self.slot.offset,
            length=len(self.data),
        )


class Overlay:
    """A disk as it will be when `images` are written; everything but reading is the disk's own."""

    def __init__(self, disk: Disk, images: list[Image]) -> None:
        self.plain = disk
        self.images = images

    def __getattr__(self, name: str) -> object:
        return getattr(self.plain, name)

    async def read(self, name: str, offset: int, length: int) -> bytes:
        """See Disk.read."""
        data = bytearray(await self.plain.read(name, offset, length))
        self._lay(name, offset, memoryview(data))
        return bytes(data)

    async def read_into(self, name: str, offset: int, memory: memoryview) -> int:
        """See Disk.read_into."""
        got = await self.plain.read_into(name, offset, memory)
        self._lay(name, offset, memory[:got])
        return got

    def _lay(self, name: str, offset: int, view: memoryview) -> None:
        for image in self.images:
            low = max(offset, image.slot.offset)
            high = min(offset + len(view), image.slot.end)
            if image.name == name and low < high:
                view[low - offset : high - offset] = image.data[low - image.slot.offset : high - image.slot.offset]


def laid_over(disk: Disk, images: list[Image]) -> Disk:
    """The disk with the images in place; the disk itself where there are none."""
    return cast("Disk", Overlay(disk, images)) if images else disk


async def read_slots(disk: Disk, file_bytes: int) -> list[tuple[SlotHeader, bytes]]:
    """The valid slots and their images, the newest first."""
    await disk.sync(DOUBLE_WRITE_NAME)  # a process that was killed may have left a slot that no device has
    slot_bytes = file_bytes // SLOTS
    found: list[tuple[SlotHeader, bytes]] = []
    for number in range(SLOTS):
        start = number * slot_bytes
        try:
            header = decode_slot_header(await disk.read(DOUBLE_WRITE_NAME, start, SLOT_HEADER_BYTES), slot_bytes)
            image = await disk.read(DOUBLE_WRITE_NAME, start + header.header_bytes, header.image_bytes)
            check_image(header, image)
        except BadSlot:
            continue
        found.append((header, image))
    return sorted(found, reverse=True, key=lambda each: each[0].sequence)


async def find_images(disk: Disk, sizes: dict[str, int]) -> tuple[list[Image], int]:
    """The images to be laid over the log, and the sequence number of the newest slot (0: none). Reads only.

    Raises:
        OSError: from reading; a read error is never taken for a slot that is not valid.
    """
    if DOUBLE_WRITE_NAME not in sizes:
        return [], 0
    slots = await read_slots(disk, sizes[DOUBLE_WRITE_NAME])
    images: list[Image] = []
    waiting = [Image("", slot, data[: slot.end - slot.offset]) for slot, data in slots]
    while waiting:  # the newest first; one that hangs on an older one has its turn again when that is in place
        fit = None
        for each in waiting:
            for name in (segment_name(each.slot.segment), spare_name(each.slot.ordinal)):
                image = each._replace(name=name)
                if fit is None and name in sizes and await fits(disk, images, image, sizes[name]):
                    fit = image
            if fit is not None:
                images.append(fit)
                waiting.remove(each)
                break
        if fit is None:
            break
    return images, max((slot.sequence for slot, _ in slots), default=0)


async def fits(disk: Disk, images: list[Image], image: Image, file_bytes: int) -> bool:
    """True if the image repairs its file: rules 1 to 4."""
    slot = image.slot
    before = laid_over(disk, images)
    if await before.read(image.name, slot.offset, len(image.data)) == image.data:
        return False
    own = await stream_before(before, image, file_bytes)
    if own is None or not await breaks(own, slot.group_offset):
        return False
    if slot.generation < own.chain.generation:
        return False
    with_image = await stream_before(laid_over(disk, [*images, image]), image, file_bytes)
    if with_image is None or await breaks(with_image, slot.group_offset - 1):
        return False
    chain = with_image.chain
    if (chain.offset, chain.previous_crc) != (slot.group_offset, slot.previous_crc):
        return False
    return not slot.whole or not await breaks(with_image, slot.group_offset)


async def stream_before(disk: Disk, image: Image, file_bytes: int) -> GroupStream | None:
    """The segment's groups from its first on, none of them decrypted; None where it is not the slot's segment."""
    slot = image.slot
    try:
        header, data = await load_header(disk, image.name, None)
    except (Corruption, UnsupportedFormat):
        return None
    if (header.log_id, header.first_lsn, header.ordinal) != (slot.log_id, slot.segment, slot.ordinal):
        return None
    return GroupStream(disk, image.name, Chain.begin(header, data, file_bytes))


async def breaks(stream: GroupStream, place: int) -> bool:
    """Walk until the chain has passed file offset `place`; True where it ends before that, at no newer format."""
    while stream.chain.offset <= place:
        try:
            await stream.next()
        except BadGroup as error:
            return not error.newer
    return False


async def write_images(disk: Disk, images: list[Image]) -> None:
    """Make on disk what was laid over it. Cut by a crash it is done again: the slots stay as they are meanwhile."""
    block_bytes = disk.block_bytes if disk.direct else 1
    for image in images:
        slot = image.slot
        rest = align_up(slot.end, block_bytes) - slot.end
        behind = await disk.read(image.name, slot.end, rest)
        await disk.write(image.name, slot.offset, image.data + behind)
