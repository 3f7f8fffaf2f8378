"""A segment as its writer sees it: where its next group goes, and how far records, metadata and the seal may reach."""

from __future__ import annotations

from dataclasses import dataclass, field

from walsvc.config import MIB, WalConfig
from walsvc.format.cipher import SegmentCipher
from walsvc.format.group import TAG_BYTES, align_up
from walsvc.format.index import SegmentIndex, index_bytes_max
from walsvc.format.segment import METADATA_ONLY, SegmentHeader
from walsvc.format.summary import Tally

FIRST_SEGMENT_BYTES = 1 * MIB  # a young log begins with small segments, so that a few records do not occupy 64 MiB
META_BLOCKS = 2  # kept free at a segment's end for metadata when no record fits any more
JOIN_BLOCKS = 1  # more of them, for what joins a group: an acknowledgement may be what makes room on a full device
SEAL_BYTES = 256  # of a seal without summary and index, at most
PACK_ALIGN = 64  # of groups in layout pack: half a group header, a cache line


class Links:
    """The CRCs and the place by which the next group of a segment names those before it, as in walsvc.format.chain.

    Attributes:
        previous_crc: of the group before, or of the segment header.
        last_crc: of the last group with records that was submitted, in this segment or an earlier one; `last_at`: its place.
    """

    __slots__ = ("last_at", "last_crc", "previous_crc")

    def __init__(self, previous_crc: int = 0, last_crc: int = 0, last_at: int = 0) -> None:
        self.previous_crc: int = previous_crc
        self.last_crc: int = last_crc
        self.last_at: int = last_at


@dataclass(slots=True, eq=False, repr=False)
class Segment:
    """A segment that is being written.

    Attributes:
        header: of the segment, as it was first written.
        end: offset of the next group.
        file, name: the open file.
        cipher: None: the segment is not encrypted.
        links: what the next group names of those before it.
        tail: content of its last block, where groups begin inside a block.
        durable_end: everything before it is on stable storage, and it holds nothing of an unfinished batch.
        replaced: another file has taken its name.
        tally: its records by topic, once it is complete.
        summary_bytes, index_bytes: parts of the seal; the second one is its highest.
        tag_bytes: that encryption adds to each group.
        index: of the groups that were submitted.
    """

    header: SegmentHeader
    end: int
    cipher: SegmentCipher | None = None
    links: Links = field(default_factory=Links)
    file: int = -1
    name: str = ""
    tail: bytes = b""
    durable_end: int = 0
    replaced: bool = False
    tally: dict[int, Tally] | None = None
    summary_bytes: int = 0
    index: SegmentIndex = field(init=False)
    index_bytes: int = field(init=False)
    tag_bytes: int = field(init=False)
    _limit: tuple[int, int] = (-1, 0)  # bytes of the summary, and the limit of records with it

    def __post_init__(self) -> None:
        file_bytes = self.header.file_bytes
        self.index, self.index_bytes = SegmentIndex(file_bytes), index_bytes_max(file_bytes)
        self.tag_bytes = 0 if self.cipher is None else TAG_BYTES
        self.name = self.name or self.header.file_name

    @property
    def id(self) -> int:
        """LSN of its first record."""
        return self.header.first_lsn

    @property
    def block_bytes(self) -> int:
        """Groups begin at multiples of it: the device's block, or more."""
        return self.header.block_bytes

    @property
    def metadata_only(self) -> bool:
        """True for a segment of the reserve (reserve.py): no record begins in it, and it is never sealed."""
        return bool(self.header.optional & METADATA_ONLY)

    @property
    def packed(self) -> bool:
        """Groups begin inside a block, so its bytes are written again: never without the double-write file."""
        return self.header.align < self.header.block_bytes

    @property
    def _whole_bytes(self) -> int:
        """The file up to its last whole block."""
        return self.header.file_bytes - self.header.file_bytes % self.header.block_bytes

    def pack(self, view: memoryview, begin: int, end: int) -> None:
        """Finish the whole blocks in `view`, where what is new lies in [begin, end): the last block's old bytes go in front
        of it, zeros behind it, and the last block is remembered for the next time."""
        assert begin in {0, len(self.tail)}, "a group begins where the one before it ended"
        view[:begin] = self.tail[:begin]
        view[end:] = bytes(len(view) - end)
        self.tail = bytes(view[end - end % self.block_bytes : end])

    @property
    def _seal_bytes(self) -> int:
        return SEAL_BYTES + self.tag_bytes + self.summary_bytes + self.index_bytes

    @property
    def limit(self) -> int:
        """Records end here at the latest: room is kept for the seal and some metadata, so that on a full device a log
        can still be truncated and closed in order."""
        return self.limit_with(0)

    def limit_with(self, summary_bytes: int) -> int:
        """The limit of records once the summary has grown by `summary_bytes`."""
        if self.header.optional & METADATA_ONLY:
            return 0
        summary_bytes += self.summary_bytes
        if summary_bytes != self._limit[0]:  # asked several times for each group, and mostly the same
            seal = align_up(self._seal_bytes - self.summary_bytes + summary_bytes, self.block_bytes)
            kept = seal + (META_BLOCKS + JOIN_BLOCKS) * self.block_bytes + self.tag_bytes
            self._limit = summary_bytes, self._whole_bytes - kept
        return self._limit[1]

    @property
    def join_limit(self) -> int:
        """Metadata of a group of its own, such as acknowledgements, ends here at the latest."""
        return self.meta_limit - META_BLOCKS * self.block_bytes

    @property
    def meta_limit(self) -> int:
        """Metadata that makes room or ends the log ends here at the latest; the seal always finds room."""
        if self.metadata_only:
            return self.mark_limit
        return self.mark_limit - align_up(self._seal_bytes, self.block_bytes)

    @property
    def mark_limit(self) -> int:
        """In a log that was sealed for good no seal of this segment comes, and the mark of its end may have that room."""
        return self._whole_bytes - self.tag_bytes


def next_align(config: WalConfig, block_bytes: int) -> int:
    """Alignment of groups in the next segment: an option that an existing log takes up with a new segment."""
    return PACK_ALIGN if config.layout == "pack" else block_bytes


def tail_of(prefix: bytes, block_bytes: int) -> bytes:
    """The last block's content in a segment of which only the prefix has been written."""
    return prefix[len(prefix) - len(prefix) % block_bytes :]


def whole_blocks(data: bytes, block_bytes: int) -> bytes:
    """`data` up to the end of its last block."""
    return data.ljust(align_up(len(data), block_bytes), b"\0")


def first_segment_bytes(segment_bytes: int) -> int:
    """Size of a new log's first segment."""
    return min(FIRST_SEGMENT_BYTES, segment_bytes)
