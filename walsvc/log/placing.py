"""Placing groups: where the next one begins, in the active segment or at the head of a prepared one.

Room for a group, for the metadata that may come, and for the segment's seal is guaranteed before a record gets its LSN.
"""

from __future__ import annotations

import asyncio
from array import array
from typing import Any

from walsvc.errors import NoSpace
from walsvc.format.group import GROUP_HEADER_BYTES, TAG_BYTES, align_up
from walsvc.format.index import index_bytes_max
from walsvc.format.meta import encode_map
from walsvc.format.segment import METADATA_ONLY, RECYCLED, SEGMENT_HEADER_BYTES, SegmentHeader
from walsvc.format.summary import SUMMARY_ROW_BYTES
from walsvc.log.filling import Filling
from walsvc.log.framing import Head
from walsvc.log.group import Group
from walsvc.log.segments import JOIN_BLOCKS, META_BLOCKS, SHORTAGES, Segment, next_align, no_space


class Placing(Filling):
    """Gives the filling group its place, and closes it."""

    def _place(
        self, need: int, *, rows: int = 0, metadata: bool = False, joining: bool = False, mark: bool = False
    ) -> bool:
        """Make the filling group, which is empty, fit for `need` bytes of records and index, or of `metadata`.

        Metadata may use the room that is kept for it; less of it where it is `joining`, which more may follow, or a mere
        `mark`, which gets nothing of the reserve either. Begins a new segment where the active one is full. False: no room is
        guaranteed yet; a spare is being prepared and `_spare_ready` will be called.
        """
        group, total = self._filling, GROUP_HEADER_BYTES + need
        assert group.empty, "only an empty group can be placed anew"
        less, metadata = joining or mark, metadata or joining or mark
        limit = group.segment.limit_with(rows)
        if metadata:
            limit = group.segment.join_limit if less else group.segment.meta_limit
        if group.offset + total <= limit and (not self._new_key or metadata):
            return True  # what makes room on a full device, or ends the log, still goes under the old key
        block_bytes = group.segment.block_bytes
        wanted = self._prefix_bytes() + align_up(total + TAG_BYTES, block_bytes)
        if metadata:
            wanted += META_BLOCKS * block_bytes  # as in Segment.join_limit
        else:
            wanted += (3 + META_BLOCKS + JOIN_BLOCKS) * block_bytes  # as in Segment.limit, with a summary
            wanted += index_bytes_max(wanted)
        if self._rotation is None and not self._first_pending:
            last_resort = metadata and not mark
            if self._spares.fitting(wanted, metadata=last_resort) is not None:
                self._begin_segment()
                return True
            self._spares.prepare(group.segment.ordinal + 1, group.segment.file_bytes, wanted, metadata=last_resort)
        return False

    def _prefix_bytes(self) -> int:
        block_bytes = self._segment.block_bytes
        snapshot = GROUP_HEADER_BYTES + self._metadata.snapshot_bytes_max + TAG_BYTES
        return max(SEGMENT_HEADER_BYTES, block_bytes) + align_up(snapshot, block_bytes)

    def _reserve_bytes(self) -> int:
        block_bytes = self._segment.block_bytes
        change = GROUP_HEADER_BYTES + self._metadata.snapshot_bytes_max + TAG_BYTES
        least = self._prefix_bytes() + align_up(change, block_bytes) + (1 + META_BLOCKS + JOIN_BLOCKS) * block_bytes
        return 1 << (least - 1).bit_length()  # so that it seldom grows

    def _begin_segment(self) -> None:
        """Place the filling group at the head of the prepared spare.

        A segment without records has the LSN, and so the name, that its successor needs: the new one takes its place,
        with its number and its predecessor. What it held was metadata, and the snapshot carries that on.
        """
        old, spare = self._segment, self._spares.take()
        first_lsn = self._filling.first_lsn
        replaces = old.id == first_lsn
        ordinal = old.ordinal if replaces else old.ordinal + 1
        previous_end = old.previous_end if replaces else old.end
        old.tally = self._metadata.fold()
        align = next_align(self._config, old.block_bytes)
        head = Head(
            SegmentHeader(
                block_bytes=old.block_bytes,
                file_bytes=spare.file_bytes,
                log_id=old.log_id,
                generation=self.catalog.generation,
                ordinal=ordinal,
                first_lsn=first_lsn,
                created_ns=self._clock(),
                previous_end=previous_end,
                align=align,
                optional=RECYCLED * spare.recycled | METADATA_ONLY * spare.metadata_only,
            ),
            self._metadata,
            self._keys,
        )
        self._new_key = False
        self._segment = Segment(
            id=first_lsn,
            file=spare.file,
            file_bytes=spare.file_bytes,
            align=align,
            block_bytes=old.block_bytes,
            log_id=old.log_id,
            ordinal=ordinal,
            end=head.length,
            previous_crc=0,  # known with the head
            name=spare.name,
            previous_end=previous_end,
            cipher=head.cipher,
            metadata_only=spare.metadata_only,
        )
        self.counters.rotations += 1
        self._first_pending = True
        group = Group(self._segment, head.length, first_lsn)
        group.head, group.attached = head, (old, spare)
        self._start_filling(group)

    def _cut_off(self) -> None:
        """Close the filling group because something must go behind it. Raises the terminal failure, also that of doing this:
        nothing must be put into the groups of a log that has failed, because nobody would be told of it."""
        try:
            self._cut()
        except BaseException as error:
            self.health.broken("a group cannot be closed", error)
            if isinstance(error, Exception):
                raise self.health.again() from error
            raise
        self._pump()
        self.health.raise_failure()

    def _cut(self) -> None:
        """Close the filling group and open the next one behind it."""
        group = self._filling
        group.close()
        if group.batch_lsn == group.first_lsn:  # never so without a batch: LSNs begin with 1
            self._batch_mark = self._metadata.mark()
        if group.topics is not None:
            self._count_topics(group, group.topics)
        group.segment.end += group.group_bytes
        self._pending_bytes += group.payload_bytes
        self.counters.payload_bytes += group.payload_bytes
        self._ready.append(group)
        self._start_filling(Group(group.segment, group.segment.end, group.next_lsn))
        settled = self._rotation is None and not self._first_pending
        if group.segment.end > group.segment.file_bytes // 4 and settled and self._spares.error is None:
            self._spares.prepare(group.segment.ordinal + 1, group.segment.file_bytes)

    def _count_topics(self, group: Group, topics: array[int]) -> None:
        """Add a closed group to the sums by topic, and tell who waits for records of its topics."""
        self._metadata.count(group.first_lsn, topics)
        group.segment.summary_bytes = SUMMARY_ROW_BYTES * len(self._metadata.tally)
        if self.waits.wants_topics:
            for number in set(topics):
                self.waits.wake_topic(self._metadata.names[number] or "")

    def _cut_meta(self, change: dict[str, Any], flags: int = 0, *, mark: bool = False) -> asyncio.Future[int] | None:
        """Append a group of metadata only, or a `mark` without any; its future gets its end offset. None: no room yet."""
        if self._batch_lsn:
            return None  # it would go with the batch if that is given up
        if not self._filling.empty:
            self._cut_off()
        meta = encode_map(change) if change else b""
        if not self._place(len(meta), metadata=True, mark=mark):
            return None
        self._filling.meta = meta
        self._filling.flags |= flags | self._open_due
        self._open_due = 0
        self._metadata.apply(change)
        future: asyncio.Future[int] = self._create_future()
        self._filling.barriers.append((future, self._filling.offset))
        self._cut()
        self._pump()
        return future

    def _spare_ready(self) -> None:
        """The pipeline ended a preparation. A full device is the callers' matter; any other error is terminal."""
        error = self._spares.error
        if self.health.released:
            return
        if error is not None and error.errno not in SHORTAGES:
            self.health.fail("preparing the next segment failed", error, (self._segment.id, 0, self.next_lsn))
        self._room_freed()

    def _no_space(self) -> NoSpace | None:
        """The error for callers, when the last preparation found the device full."""
        error = self._spares.error
        if error is None or error.errno not in SHORTAGES:
            return None
        return no_space(error, self._disk.path, self.next_lsn)
