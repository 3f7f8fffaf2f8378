"""The chain of groups in a segment: what the next group must be, and how to take it from a buffer. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from walsvc.errors import Corruption
from walsvc.format.group import (
    GROUP_HEADER_BYTES,
    GROUP_MAGIC,
    TAG_BYTES,
    BadGroup,
    Bytes,
    Flag,
    GroupHeader,
    check_group_body,
    decode_group_header,
)
from walsvc.format.index import IndexRow
from walsvc.format.segment import CRC_FIELD, CRC_OFFSET, ENCRYPTED, REWRITTEN, SegmentHeader


class Need(NamedTuple):
    """The buffer holds only a part: `length` bytes from the group's start are wanted."""

    length: int


class UnfinishedBatch(NamedTuple):
    """An atomic batch over several groups that has begun and not ended: where the log ends if it never does.

    `offset`, `previous_crc`, `generation`, `last_crc` and `last_at` are the chain's before the batch; offset is 0 when the
    batch began in an earlier segment.
    """

    lsn: int
    offset: int
    previous_crc: int
    generation: int
    last_crc: int = 0
    last_at: int = 0


@dataclass(slots=True, eq=False, repr=False)
class Chain:
    """The conditions that the next group of a segment must meet. Start with `Chain.begin`, then `take` group after group.

    `last_crc` and `last_at` tell of the last group with records up to here, in this segment or an earlier one: its header CRC
    as it was first written, and where it stands; 0: not known.
    """

    log_id: int
    segment: int
    align: int
    file_bytes: int
    generation: int
    offset: int
    next_lsn: int
    previous_crc: int
    batch: UnfinishedBatch | None = None
    encrypted: bool = False
    rewritten: bool = False
    last_crc: int = 0
    last_at: int = 0

    @classmethod
    def begin(cls, header: SegmentHeader, header_data: bytes, file_bytes: int) -> Chain:
        """The chain before the first group; `header_data` are the bytes that `header` was decoded from."""
        return cls(
            log_id=header.log_id,
            segment=header.first_lsn,
            align=header.align,
            file_bytes=file_bytes,
            generation=header.generation,
            offset=header.data_start,
            next_lsn=header.first_lsn,
            previous_crc=CRC_FIELD.unpack_from(header_data, CRC_OFFSET)[0],
            encrypted=bool(header.required & ENCRYPTED),
            rewritten=bool(header.optional & REWRITTEN),
            last_crc=header.before,
            last_at=header.before_at,
        )

    def damage(self, path: str, reason: str, hint: str = "") -> Corruption:
        """The error where the next group must be, and is not: at the end of the groups that were taken, in the log at `path`."""
        return Corruption(reason, path=path, segment=self.segment, offset=self.offset, lsn=self.next_lsn, hint=hint)

    def take(self, data: Bytes, base: int) -> GroupHeader | Need:
        """Check the group at `self.offset` and step behind it.

        Args:
            data: bytes of the file from offset `base` on; they may end before the group does.
            base: file offset of data[0]; at most self.offset.

        Returns:
            The group's header (its body lies in `data` and is checked), or Need if `data` is too short.

        Raises:
            BadGroup: no valid group stands here; the chain has not moved.
        """
        header = self.check(data, base)
        if isinstance(header, GroupHeader):
            self.pass_over(header)
        return header

    def check(self, data: Bytes, base: int) -> GroupHeader | Need:
        """Like take, but stays: an encrypted group is to be opened before it is passed over."""
        header = self.peek(data, base)
        if isinstance(header, Need):
            return header
        at = self.offset - base
        if len(data) - at < header.group_bytes:
            return Need(header.group_bytes)
        check_group_body(header, data, at, encrypted=self.encrypted)
        return header

    def peek(self, data: Bytes, base: int) -> GroupHeader | Need:
        """Like take, but looks only at the header, and stays."""
        at = self.offset - base
        if self.offset + GROUP_HEADER_BYTES > self.file_bytes:
            raise BadGroup("the segment is full")
        if len(data) - at < GROUP_HEADER_BYTES:
            return Need(GROUP_HEADER_BYTES)
        header = decode_group_header(data, at)
        self._check_place(header)
        return header

    def pass_over(self, header: GroupHeader) -> None:
        """Step behind a group whose header `peek` has given; its body is the caller's matter."""
        self.batch = self._batch_after(header)
        self.generation = header.generation
        self.offset = header.end
        self.next_lsn = header.next_lsn
        self.previous_crc = header.header_crc
        if header.records:  # of one that was written anew only the group behind it tells
            self.last_crc, self.last_at = 0 if self.rewritten else header.header_crc, header.offset
        elif header.last_crc:
            self.last_crc = header.last_crc

    def skip_to(self, row: IndexRow) -> None:
        """Stand where a row of the segment's index says, without what comes before."""
        self.offset, self.next_lsn = row.offset, row.lsn
        self.generation, self.previous_crc = row.generation, row.previous_crc
        self.last_crc = self.last_at = 0
        self.batch = UnfinishedBatch(row.batch, 0, row.previous_crc, row.generation) if row.batch else None

    def _batch_after(self, header: GroupHeader) -> UnfinishedBatch | None:
        """Rule 7, and the unfinished batch behind this group, if there is one."""
        batch = self.batch
        if not header.flags & Flag.BATCH:
            if batch is not None and header.records:
                raise BadGroup(f"a record stands inside the unfinished batch of LSN {batch.lsn}")
            return batch
        if batch is None:
            here = header.batch_lsn == header.first_lsn
            if not here and not header.batch_lsn < header.first_lsn == self.segment:
                raise BadGroup(
                    f"the group continues a batch of LSN {header.batch_lsn}, of which nothing stands before it"
                )
            before = (self.previous_crc, self.generation, self.last_crc, self.last_at)
            batch = UnfinishedBatch(header.batch_lsn, self.offset if here else 0, *before)
        elif header.batch_lsn != batch.lsn:
            raise BadGroup(f"a batch of LSN {header.batch_lsn} begins inside the unfinished one of LSN {batch.lsn}")
        return None if header.flags & Flag.BATCH_END else batch

    def rewind(self) -> None:
        """Go back to where the unfinished batch begins, which must be in this segment: the log ends there."""
        assert self.batch is not None
        assert self.batch.offset, "the batch began in an earlier segment"
        self.next_lsn, self.offset, self.previous_crc, self.generation, self.last_crc, self.last_at = self.batch
        self.batch = None

    def refuted_by(self, later: GroupHeader) -> bool:
        """True if a later group shows that what is missing here had been on stable storage."""
        return later.durable_lsn >= self.next_lsn or later.durable_end > self.offset

    def _check_place(self, header: GroupHeader) -> None:
        """Rules 2 to 4 of a valid group."""
        if header.log_id != self.log_id:
            raise BadGroup("the group belongs to another log")
        if header.segment != self.segment:
            raise BadGroup(f"the group belongs to segment {header.segment:016x}")
        if header.offset != self.offset:
            raise BadGroup(f"the group belongs at offset {header.offset}")
        if header.generation < self.generation:
            raise BadGroup(f"the group is of generation {header.generation}, left over from before {self.generation}")
        if header.first_lsn != self.next_lsn:
            raise BadGroup(f"the group begins with LSN {header.first_lsn}, expected {self.next_lsn}")
        if header.previous_crc != self.previous_crc:
            raise BadGroup("the group does not follow the one before it")
        minimum = GROUP_HEADER_BYTES + header.body_bytes + (TAG_BYTES if self.encrypted else 0)
        if header.group_bytes < minimum or header.group_bytes % self.align:
            raise BadGroup(f"the group's length {header.group_bytes} is impossible")
        if self.offset + header.group_bytes > self.file_bytes:
            raise BadGroup("the group reaches beyond the end of the file")


def later_evidence(chain: Chain, data: bytes, base: int) -> GroupHeader | None:
    """The group header in `data` that shows most: that the place where `chain` ended had been durable, and what else.

    Such a header is of this log, segment and place, and was submitted when durable_lsn had reached the LSN that is
    missing or damaged, or durable_end had passed the place. What earlier runs left beyond a torn tail cannot be such
    evidence: whatever they had submitted there, their durable_lsn and durable_end were below the LSN and the place at which
    they were cut, and the log has not gone back behind a durable group since. (A batch counts as durable from its end on.)
    """
    strongest: GroupHeader | None = None
    at = data.find(GROUP_MAGIC)
    while at >= 0:
        offset = base + at
        if offset % chain.align == 0 and offset > chain.offset and len(data) - at >= GROUP_HEADER_BYTES:
            try:
                header = decode_group_header(data, at)
            except BadGroup:
                header = None
            if (
                header is not None
                and header.log_id == chain.log_id
                and header.segment == chain.segment
                and header.offset == offset
                and chain.refuted_by(header)
                and (strongest is None or strength(header) > strength(strongest))
            ):
                strongest = header
        at = data.find(GROUP_MAGIC, at + 1)
    return strongest


def strength(evidence: GroupHeader) -> tuple[int, int]:
    """The LSN and the offset up to which a group proves the log durable."""
    return evidence.durable_lsn, evidence.durable_units
