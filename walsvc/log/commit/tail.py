"""Tail: the active segment and what begins the next one.

Owns the end of the log on disk: which segment takes groups, under which key, from which spare the next one is made, and where a
streamed batch began, to go back there. Called by Placement for groups, by truncation and rekeying for new segments.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from walsvc.errors import SPACE_ERRNOS, NoSpace, no_space
from walsvc.format.group import GROUP_HEADER_BYTES, TAG_BYTES, align_up
from walsvc.format.segment import SEGMENT_HEADER_BYTES
from walsvc.format.summary import SUMMARY_ROW_BYTES
from walsvc.log.commit.catalog import Catalog
from walsvc.log.commit.counters import Counters
from walsvc.log.commit.framing import Head, next_header
from walsvc.log.commit.group import Beginning, Group
from walsvc.log.commit.patience import FORBIDDEN, SHORTAGES
from walsvc.log.commit.segment import JOIN_BLOCKS, META_BLOCKS, Segment, tail_of
from walsvc.log.commit.spares import SparePipeline
from walsvc.log.read.summaries import Summaries

if TYPE_CHECKING:
    from walsvc.config import WalConfig
    from walsvc.disk.base import Disk
    from walsvc.format.meta import Metadata
    from walsvc.format.summary import Sums
    from walsvc.keyring import KeyRing

# measured: at 256 KiB written zeros and reserved room are even, at 1 MiB the latter is 1.5 times as fast
BULK_GROUP_BYTES = 512 << 10


@dataclass(slots=True, eq=False, repr=False)
class Checkpoint:
    """The tail in front of a streamed batch, to go back to.

    Attributes:
        chain: CRC of the group before the batch.
        last: last_crc and last_at of its segment.
        block: what its segment's last block held.
        sums: of the topics.
    """

    chain: int = 0
    last: tuple[int, int] = (0, 0)
    block: bytes = b""
    sums: Sums | None = None


class Tail:
    """The end of one log. Loop thread only.

    Attributes:
        segment: the active one.
        spares: prepares the next one.
        keys: of the log; None: it is not encrypted.
        new_key: the next record begins a new segment, under another key (walsvc.log.extent.rekey).
        summaries: of the sealed segments.
        clock: nanoseconds; tests have their own.
        before: the tail before the batch that is being streamed.
    """

    def __init__(
        self,
        disk: Disk,
        config: WalConfig,
        segment: Segment,
        spares: SparePipeline,
        *,
        metadata: Metadata,
        catalog: Catalog,
        counters: Counters,
        clock: Callable[[], int] | None = None,
    ) -> None:
        self.segment: Segment = segment
        self.spares = spares
        self.keys = config.keys
        self.new_key: bool = False
        self.summaries: Summaries = Summaries(disk, config.keys)
        self.clock: Callable[[], int] = clock or time.time_ns
        self.before: Checkpoint = Checkpoint()
        self._group_bytes = 0  # of the last groups, about
        self._path = disk.path
        self._config = config
        self._metadata = metadata
        self._catalog = catalog
        self._counters = counters

    # ---- room

    @property
    def sealed(self) -> bool:
        """True if the log was sealed for good: no segment begins any more."""
        return self._metadata.sealed

    def has_room(self, group: Group, need: int, *, rows: int, metadata: bool, less: bool) -> bool:
        """True if an empty group may stand where it is with `need` bytes of records and index, or of metadata, for which room
        is kept, or `less` of that."""
        limit = group.segment.limit_with(rows)
        if metadata:
            limit = group.segment.join_limit if less else group.segment.meta_limit
            limit = group.segment.mark_limit if self.sealed else limit
        fits = group.offset + GROUP_HEADER_BYTES + need <= limit
        return fits and (not self.new_key or metadata)  # metadata may make room, so it still goes under the old key

    def prefix_bytes(self) -> int:
        """Bytes that the next segment's header and snapshot take at most."""
        block_bytes = self.segment.block_bytes
        snapshot = GROUP_HEADER_BYTES + self._metadata.snapshot_bytes_max + TAG_BYTES
        return max(SEGMENT_HEADER_BYTES, block_bytes) + align_up(snapshot, block_bytes)

    def reserve_bytes(self) -> int:
        """Length of a file of the reserve: it holds the metadata, a change of all of it, and some more."""
        block_bytes = self.segment.block_bytes
        change = GROUP_HEADER_BYTES + self._metadata.snapshot_bytes_max + TAG_BYTES
        least = self.prefix_bytes() + align_up(change, block_bytes) + (1 + META_BLOCKS + JOIN_BLOCKS) * block_bytes
        return 1 << (least - 1).bit_length()  # so that it seldom grows

    def no_space(self, lsn: int) -> NoSpace | None:
        """The error for callers, when the last preparation met a shortage."""
        error = self.spares.error
        if error is None or error.errno not in SHORTAGES:
            return None
        ids, what = self._catalog.view.ids, "no room for the next segment"
        if error.errno in FORBIDDEN:
            what = "the file of the next segment cannot be made"
            remedy = "let this process create and remove files in the directory (its owner and mode), and append again"
        elif error.errno not in SPACE_ERRNOS:
            remedy = "append again once the shortage is over (ulimit -a, free)"
        elif len(ids) > 1:
            remedy = (
                f"free space, or truncate_before({ids[1]}) or above, which gives back whole segments, and append again"
            )
        else:
            remedy = "free space and append again (truncate_before gives back whole segments, and there is only one)"
        hint = f"nothing was written and no LSN was used; {remedy}"
        return no_space(error, what, path=self._path, lsn=lsn, hint=hint)

    def prepare_next(self) -> None:
        """Have the next segment prepared as soon as the active one is a quarter full."""
        segment = self.segment
        if segment.end > segment.header.file_bytes // 4 and self.spares.error is None:
            self.spares.prepare(segment.header.ordinal + 1, segment.header.file_bytes, bulk=self.bulk)

    @property
    def bulk(self) -> bool:
        """True if the last groups were so large that reserved room serves the next ones better than zeros."""
        return self._group_bytes >= BULK_GROUP_BYTES

    # ---- segments

    def begin_segment(self, first_lsn: int) -> Group:
        """Make the prepared spare the active segment; returns its first group, which carries header and snapshot.

        A segment without records has the LSN, and so the name, that its successor needs: the new one takes its place,
        with its number and its predecessor. What it held was metadata, and the snapshot carries that on.
        """
        old, spare = self.segment, self.spares.take()
        replaces = old.id == first_lsn
        old.tally = self._metadata.topics.fold()
        header = next_header(
            self._config,
            old,
            spare,
            generation=self._catalog.generation,
            ordinal=old.header.ordinal if replaces else old.header.ordinal + 1,
            first_lsn=first_lsn,
            created_ns=self.clock(),
            previous_end=old.header.previous_end if replaces else old.end,
        )
        head = Head(header, self._metadata, self.keys)
        self.new_key = False
        self.segment = head.segment(spare)
        self._counters.rotated()
        group = Group(self.segment, head.length, first_lsn)
        group.beginning = Beginning(head, old, spare)
        return group

    def use_keys(self, keys: KeyRing) -> None:
        """Read and write with these keys from now on; the active segment goes on under its own."""
        self.keys = self.summaries.keys = keys

    def begin_anew(self) -> None:
        """The next record begins a new segment, under the current key. `Placement.set_room` must follow."""
        self.new_key = True

    def go_on_with(self, segment: Segment) -> None:
        """A truncation has made another segment the active one."""
        self.new_key = False
        self.segment = segment

    # ---- topics

    @property
    def topics(self) -> Container[int]:
        """Numbers of those that the active segment's summary has a row for."""
        return self._metadata.topics.tally

    def names_of(self, numbers: Iterable[int]) -> list[str]:
        """Names of the topics with these numbers, without those that have gone."""
        names = self._metadata.topics.names
        return [names[each] for each in numbers if each in names]

    # ---- batches

    def count(self, group: Group) -> None:
        """Take note of a closed group: how long it is, and the sums by topic."""
        self._group_bytes += (group.body.group_bytes - self._group_bytes) // 4
        if group.batch_lsn == group.first_lsn:  # never so without a batch: LSNs begin with 1
            self.before.sums = self._metadata.topics.mark()
        if group.body.topics is not None:
            self._metadata.topics.count(group.first_lsn, group.body.topics)
            group.segment.summary_bytes = SUMMARY_ROW_BYTES * len(self._metadata.topics.tally)

    def checkpoint(self, group: Group) -> None:
        """Remember where the chain stands, if a batch begins with this group, which is about to be encoded."""
        if group.batch_lsn == group.first_lsn:
            segment = group.segment
            self.before.chain = segment.links.previous_crc
            self.before.last = segment.links.last_crc, segment.links.last_at
            self.before.block = tail_of(group.prefix, segment.block_bytes) if group.prefix else segment.tail

    def rollback(self, segment: Segment, offset: int) -> None:
        """Go back to where the batch began. Files and catalog are as they were by now."""
        if self.before.sums is not None:
            self._metadata.topics.restore(self.before.sums)
        self.summaries.forget()
        self.segment = segment
        segment.index.rewind(offset)
        segment.end, segment.links.previous_crc = offset, self.before.chain
        segment.links.last_crc, segment.links.last_at = self.before.last
        segment.tail = self.before.block

    def sums(self, number: int, batch_lsn: int) -> tuple[int, int]:
        """Records of a topic ever, and the LSN of its last one, without the batch from `batch_lsn` on, if there is one."""
        return self._metadata.topics.sums_of(number, self.before.sums if batch_lsn else None)

    async def newest_before(self, segment: int) -> int | None:
        """The highest timestamp of any record before a segment, as the seal before it says; None where nothing does."""
        ids = self._catalog.view.ids
        place = ids.index(segment)
        if place == 0:
            return None
        seal = await self.summaries.seal(ids[place - 1], segment)
        return None if seal is None else seal.newest
