"""A segment that was read to the end of its valid groups, and what is known of it then. Reads only."""

from __future__ import annotations

from dataclasses import dataclass, field

from walsvc.errors import Corruption
from walsvc.format.chain import Chain, UnfinishedBatch
from walsvc.format.group import BadGroup, Flag, GroupHeader
from walsvc.format.index import SegmentIndex
from walsvc.format.meta import Metadata
from walsvc.format.segment import SegmentHeader
from walsvc.log.read.stream import GroupStream, unsupported
from walsvc.log.recover.absorb import absorb


@dataclass(slots=True, eq=False, repr=False)
class Examined:
    """A segment read to its end."""

    name: str
    header: SegmentHeader
    stream: GroupStream
    groups: int = 0
    last_flags: int = 0
    durable_lsn: int = 0  # the highest that any of its groups says
    metadata: Metadata = field(default_factory=Metadata)
    before_batch: tuple[Metadata, int] | None = None  # metadata and last flags before the batch that is unfinished
    seal: GroupHeader | None = None  # that ends it
    end_reason: str = ""
    index: SegmentIndex = field(init=False)

    def __post_init__(self) -> None:
        self.index = SegmentIndex(self.header.file_bytes)

    @property
    def chain(self) -> Chain:
        """Offset behind its last group."""
        return self.stream.chain

    async def read_on(self, *, up_to_forgery: bool = False) -> None:
        """Take the valid groups that stand where it ended. Raises as `examine` does."""
        while True:
            try:
                raw = await self.stream.next()
                if raw.header.flags & Flag.BATCH and raw.header.batch_lsn == raw.header.first_lsn:
                    self.before_batch = (self.metadata.copy(), self.last_flags)
                if self.stream.readable:
                    absorb(self.metadata, raw)
            except BadGroup as error:
                if error.newer:
                    raise unsupported(self.stream, error) from None
                self.end_reason = error.reason
                return
            except Corruption as error:
                if not up_to_forgery:
                    raise
                self.end_reason = error.message
                return
            self.index.note(raw.header)
            self.groups += 1
            self.last_flags = raw.header.flags
            self.seal = raw.header if raw.header.flags & Flag.SEAL else None
            self.durable_lsn = max(self.durable_lsn, raw.header.durable_lsn)

    def rewind(self) -> None:
        """Make the log end where the unfinished batch begins, which must be in this segment."""
        assert self.before_batch is not None
        self.stream.chain.rewind()
        self.stream.forget()
        self.index.rewind(self.chain.offset)
        self.metadata, self.last_flags = self.before_batch
        self.end_reason = "a batch begins here that was never finished"

    def unseal(self) -> None:
        """Make the log end before the seal, as it was a moment ago: segments that come later need not be read then."""
        assert self.seal is not None
        self.chain.offset, self.chain.previous_crc = self.seal.offset, self.seal.previous_crc
        self.stream.forget()
        self.index.rewind(self.chain.offset)
        self.metadata.successor, self.last_flags, self.seal = None, 0, None

    def unfinished_batch(self, before: UnfinishedBatch | None) -> UnfinishedBatch | None:
        """The batch that is unfinished at this segment's end, when `before` was at its beginning."""
        if self.chain.batch is not None or self.chain.next_lsn > self.header.first_lsn:
            return self.chain.batch
        return before  # no record stands here that could have ended it

    @property
    def proves_predecessor(self) -> bool:
        """One of its groups says that everything before the segment is durable."""
        return self.durable_lsn >= self.header.first_lsn - 1
