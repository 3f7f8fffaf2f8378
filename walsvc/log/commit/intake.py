"""Intake: the filling group, and the short way into it.

Owns the group that takes records at this moment and how many bytes it may still take. It decides nothing else: once a group it
calls `wake()`, since somebody waits for it, and whatever does not fit, or is not the plain case, goes to `slow(...)`.

Invariants, which hold whenever another line of Python may run, that of a signal handler included:

* `payloads` and `waiters` of the group are equally long; `mend` takes back what an exception left behind in the middle.
* `limit - room` is what the group's records and their index take.
* Where `wanted` is True, a wake-up is on its way or a completion will take the group along.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from itertools import repeat
from typing import Any

from walsvc.config import WalConfig
from walsvc.format.group import GROUP_HEADER_BYTES, LENGTH_BYTES
from walsvc.log.commit.group import Group, Labels
from walsvc.log.commit.lane import Lane, Slow


class Intake(Lane):
    """The filling group of one writer.

    Args:
        config: its options.
        group: to begin with.
        new_ack, accepted: make the answers of appends; see Lane.
        check: raises what makes a call wrong; asked once a group.
        wake: told once a group that somebody waits for it.
        arm: told that Relaxed records must become durable in time.
        slow: takes what is not plain, or does not fit: slow(payload, mode, type, attributes, topic, expected, dedupe).

    Attributes:
        group: it takes records now. The others are those of the Lane.
    """

    def __init__(
        self,
        config: WalConfig,
        group: Group,
        *,
        new_ack: Callable[[], Any],
        accepted: Callable[[int, int, int, int], Any],
        check: Callable[[], None],
        wake: Callable[[], None],
        arm: Callable[[], None],
        slow: Slow,
    ) -> None:
        super().__init__(
            new_ack=new_ack,
            accepted=accepted,
            check=check,
            wake=wake,
            arm=arm,
            slow=slow,
            record_bytes_max=config.max_record_bytes,
            records_max=config.max_group_records,
            length_bytes=LENGTH_BYTES,
        )
        self._tell = wake
        self._arm_timer = arm
        self.start(group, ())

    def mend(self) -> None:
        """Take back what an exception left behind by halves; what is whole stays, and is woken for."""
        payloads, waiters, labels = self.group.payloads, self.group.answers.waiters, self.group.labels
        count = min(len(payloads), len(waiters))
        del payloads[count:], waiters[count:]
        for index in [each for each in labels if each >= count]:
            del labels[index]
        if self.room >= 0:  # else it was shut meanwhile
            self.room = self.limit - sum(map(len, payloads)) - self.cost * count
        if self.wanted:
            self._tell()
        elif payloads and not self.armed:
            self._arm_timer()

    # ---- for the queue

    def add(
        self,
        payloads: Sequence[bytes],
        waiter: Any,
        *,
        need: int,
        cost: int,
        labels: Labels | None,
    ) -> tuple[int, int]:
        """Put records into the group; the caller has seen that they fit, and fails the log if this is cut short.

        Args:
            payloads: of the records.
            waiter: of the only one; None: nobody waits for a single record.
            need: bytes that they take, what dearer labels cost the records before included.
            cost: bytes of index for each record of the group from now on.
            labels: of each one.

        Returns:
            The index of the first one in the group, and its offset in the segment.
        """
        group, index = self.group, len(self.group.payloads)
        offset = group.offset + GROUP_HEADER_BYTES + self.filled_bytes - self.cost * index
        self.room -= need
        self.cost: int = cost
        if labels is not None:
            group.labels.update(zip(range(index, index + len(payloads)), repeat(labels)))
        group.payloads.extend(payloads)
        if waiter is None:
            group.answers.waiters.extend([None] * len(payloads))
        else:
            group.answers.waiters.append(waiter)
        return index, offset

    @property
    def filled_bytes(self) -> int:
        """Bytes of records and index in the group."""
        return self.limit - self.room

    def allow(self, limit: int) -> None:
        """Let the group take `limit` bytes in all; negative: nothing without a closer look."""
        filled = self.limit - self.room
        self.limit, self.room = (limit, limit - filled) if limit >= 0 else (filled - 1, -1)

    def start(self, group: Group, topics: Container[int]) -> None:
        """Fill another group; `allow` must follow.

        Args:
            group: empty.
            topics: numbers of those that its segment's summary has a row for.
        """
        self.group = group
        begin = group.offset + GROUP_HEADER_BYTES
        self.fill(group.payloads, group.answers.waiters, group.labels, topics, group.first_lsn, group.segment.id, begin)
        self.cost = LENGTH_BYTES
        self.wanted: bool = False
        self.limit: int = -1
        self.room: int = -1

    def want(self) -> None:
        """Note that a caller waits for the group, and have it committed."""
        try:
            self.wanted = True
            self._tell()
        except BaseException:  # of a signal handler, perhaps between the two
            self._tell()
            raise

    def want_no_more(self) -> None:
        """Note that no caller waits for the group, which is empty."""
        self.wanted = False

    def shut(self) -> None:
        """Take nothing more: the log has failed, or this is a forked child's copy of it."""
        self.allow(-1)
