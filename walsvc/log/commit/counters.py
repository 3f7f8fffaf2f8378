"""Counters: what a writer has done since it was opened. One formula for each number, whoever shows it."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from walsvc.model import GROUP_RECORDS_BOUNDS, SYNC_US_BOUNDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from walsvc.log.commit.double_write import DoubleWrite


@dataclass(slots=True, eq=False, repr=False)
class Counters:
    """Numbers of one writer. Those that write count; everybody may read.

    Attributes:
        lsn_at_open: next_lsn when the log was opened.
        double_write: counts its own syncs.
        payload_bytes: of the groups that are closed.
        groups, rotations: submitted, begun.
        written_bytes, log_bytes: to the device, and of them new ones.
        observer: called as observer(first_lsn, records, bytes, seconds) for each group that the disk has answered; it must not
            raise. None: nobody looks.
    """

    lsn_at_open: int
    double_write: DoubleWrite | None = None
    payload_bytes: int = 0
    groups: int = 0
    rotations: int = 0
    written_bytes: int = 0
    log_bytes: int = 0
    group_records_last: int = 0
    group_records_max: int = 0
    group_records_total: int = 0
    group_records_counts: list[int] = field(default_factory=lambda: [0] * (len(GROUP_RECORDS_BOUNDS) + 1))
    sync_us_last: int = 0
    sync_us_total: int = 0
    sync_us_counts: list[int] = field(default_factory=lambda: [0] * (len(SYNC_US_BOUNDS) + 1))
    observer: Callable[[int, int, int, float], None] | None = None

    @property
    def syncs(self) -> int:
        """Syncs of groups, of the seals of segments, and of the double-write file."""
        return self.groups + self.rotations + (0 if self.double_write is None else self.double_write.syncs)

    @property
    def uncovered(self) -> int:
        """Groups with records that did not fit the double-write file."""
        return 0 if self.double_write is None else self.double_write.uncovered

    def closed(self, payload_bytes: int) -> None:
        """A group takes no more records."""
        self.payload_bytes += payload_bytes

    def rotated(self) -> None:
        """A segment begins."""
        self.rotations += 1

    def submitted(self, records: int, written_bytes: int, log_bytes: int) -> None:
        """A group goes to the disk."""
        self.groups += 1
        self.written_bytes += written_bytes
        self.log_bytes += log_bytes
        self.group_records_last = records
        self.group_records_max = max(self.group_records_max, records)

    def answered(self, records: int, sync_us: int) -> None:
        """The disk has answered for a group."""
        self.sync_us_last = sync_us
        self.sync_us_total += sync_us
        self.sync_us_counts[bisect_left(SYNC_US_BOUNDS, sync_us)] += 1
        self.group_records_counts[bisect_left(GROUP_RECORDS_BOUNDS, records)] += 1
        self.group_records_total += records
