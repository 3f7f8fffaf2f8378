"""Placement: where the filling group stands, and how much it may take.

Owns the account of room: the pending bytes, and the reasons for which nothing is taken without a closer look. Room for a group,
for the metadata that may come, and for the segment's seal is guaranteed before a record gets its LSN: in the active segment, or
at the head of a prepared one. Called by Pipeline and Queue; nothing here awaits.
"""

from __future__ import annotations

from walsvc.config import WalConfig
from walsvc.format.group import GROUP_HEADER_BYTES, TAG_BYTES, align_up
from walsvc.format.index import index_bytes_max
from walsvc.log.commit.counters import Counters
from walsvc.log.commit.group import Group
from walsvc.log.commit.health import Health
from walsvc.log.commit.intake import Intake
from walsvc.log.commit.rotation import Rotation
from walsvc.log.commit.segment import JOIN_BLOCKS, META_BLOCKS
from walsvc.log.commit.tail import Tail
from walsvc.log.commit.waits import Waits
from walsvc.log.commit.whole import whole


class Placement:
    """Gives the filling group its place, and closes it. Loop thread only.

    Attributes:
        intake: has the filling group.
        batch_lsn: of the batch that is being streamed: nothing else gets an LSN meanwhile; 0: none is.
        pending_bytes: of groups that are closed and not durable.
    """

    def __init__(
        self,
        config: WalConfig,
        intake: Intake,
        *,
        tail: Tail,
        rotation: Rotation,
        health: Health,
        waits: Waits,
        counters: Counters,
    ) -> None:
        self.intake = intake
        self.batch_lsn: int = 0
        self.pending_bytes: int = 0
        self._held = False
        self._scarce = False  # the pending bytes are the least limit: when they fall there is more room
        self._config = config
        self._tail = tail
        self._rotation = rotation
        self._health = health
        self._waits = waits
        self._counters = counters

    # ---- looking

    @property
    def group(self) -> Group:
        """The filling group."""
        return self.intake.group

    @property
    def next_lsn(self) -> int:
        """The LSN that the next accepted record gets."""
        return self.batch_lsn or self.intake.group.next_lsn

    @property
    def unwritten_bytes(self) -> int:
        """Bytes of records that are accepted and not durable."""
        return self.pending_bytes + self.intake.filled_bytes

    # ---- room

    def hold(self, held: bool) -> None:
        """New records must queue behind others, or need not any more."""
        if held != self._held or self._scarce:
            self._held = held
            self.set_room()

    def set_room(self) -> None:
        """Tell the intake how many bytes it may take without a closer look: the least of all limits."""
        group = self.intake.group
        limit = group.segment.limit - group.offset - GROUP_HEADER_BYTES - group.metadata.reserved
        limit = min(limit, self._config.max_group_bytes)
        pending = self._config.max_pending_bytes - self.pending_bytes
        self._scarce = pending < limit
        if self._scarce:
            limit = pending
        if self._held or self._tail.new_key or self._health.failure is not None or self._health.closed is not None:
            limit = -1
        self.intake.allow(limit)

    def written(self, group: Group) -> None:
        """A group is durable: its bytes are no longer pending. `hold` must follow."""
        self.pending_bytes -= group.body.payload_bytes

    def start(self, group: Group) -> None:
        """Fill another group."""
        self.intake.start(group, self._tail.topics)
        self.set_room()

    # ---- batches

    def begin_batch(self, lsn: int) -> None:
        """A batch over several groups begins with record `lsn`."""
        self.batch_lsn = lsn

    def end_batch(self) -> None:
        """The batch is complete, or given up."""
        self.batch_lsn = 0

    # ---- placing

    @whole("placing a group")
    def place(
        self,
        need: int,
        *,
        rows: int = 0,
        metadata: bool = False,
        joining: bool = False,
        mark: bool = False,
        prepare: bool = True,
    ) -> bool:
        """Make the filling group, which is empty, fit for `need` bytes of records and index, or of `metadata`.

        Begins a new segment where the active one is full. Metadata may use the room that is kept for it; less of it where it
        is `joining`, which more may follow, or a mere `mark`, which gets nothing of the reserve either.

        Returns:
            False: no room is guaranteed yet; a spare is being prepared (with `prepare`), and the queue will be called. Nothing comes in a log
                that was sealed for good.
        """
        group = self.intake.group
        assert group.empty, "only an empty group can be placed anew"
        less, metadata = joining or mark, metadata or joining or mark
        if self._tail.has_room(group, need, rows=rows, metadata=metadata, less=less):
            return True
        if self._rotation.busy or self._tail.sealed:
            return False
        segment, spares = group.segment, self._tail.spares
        wanted = self._tail.prefix_bytes() + align_up(GROUP_HEADER_BYTES + need + TAG_BYTES, segment.block_bytes)
        if metadata:
            wanted += META_BLOCKS * segment.block_bytes  # as in Segment.join_limit
        else:
            wanted += (3 + META_BLOCKS + JOIN_BLOCKS) * segment.block_bytes  # as in Segment.limit, with a summary
            wanted += index_bytes_max(wanted)
        last_resort = metadata and not mark
        if spares.fitting(wanted, metadata=last_resort) is not None:
            self.begin_segment()
            return True
        if prepare:
            spares.prepare(
                segment.header.ordinal + 1,
                segment.header.file_bytes,
                wanted,
                metadata=last_resort,
                bulk=self._tail.bulk,
            )
        return False

    @whole("beginning a segment")
    def begin_segment(self) -> None:
        """Place the filling group, which is empty, at the head of the prepared spare."""
        group = self._tail.begin_segment(self.intake.group.first_lsn)
        self._rotation.begun()
        self.start(group)

    def cut(self) -> Group:
        """Close the filling group and open the next one behind it. The caller keeps the group before it calls."""
        group = self.intake.group
        group.close()
        self._tail.count(group)
        if group.body.topics is not None and self._waits.wants_topics:
            self._waits.wake_topics_of(self._tail.names_of(set(group.body.topics)))
        group.segment.end += group.body.group_bytes
        self.pending_bytes += group.body.payload_bytes
        self._counters.closed(group.body.payload_bytes)
        self.start(Group(group.segment, group.segment.end, group.next_lsn))
        if not self._rotation.busy:
            self._tail.prepare_next()
        return group
