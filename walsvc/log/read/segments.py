"""Segments: the one thing that readers, topics and engines see of an open log beside its records.

There are two: LiveSegments, of a log that this process appends to (walsvc.log.read.live), and WatchedSegments, of one that
another process may write (walsvc.log.recover.watched). What it says may change between two calls.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from walsvc.disk.base import Disk
from walsvc.format.index import SegmentIndex
from walsvc.format.meta import Metadata
from walsvc.format.purge import Marks
from walsvc.format.topics import Topics
from walsvc.keyring import Keys
from walsvc.log.read.cuts import Cuts
from walsvc.log.read.summaries import Summaries


class Segments(ABC):
    """The segments of a log, where they end, and what the log remembers.

    Attributes:
        disk: it holds the files.
    """

    disk: Disk

    # ---- what the log remembers

    @property
    @abstractmethod
    def metadata(self) -> Metadata:
        """The log's metadata. Only the writer's parts change it."""

    @property
    def first_lsn(self) -> int:
        """LSN of the first visible record; next_lsn when there is none."""
        return self.metadata.truncated

    @property
    def sealed(self) -> bool:
        """True if the log was sealed for good: it takes nothing more, no hold either."""
        return self.metadata.sealed

    @property
    def topics(self) -> Topics:
        """The log's topics. Only the writer's parts change them."""
        return self.metadata.topics

    def topic_number(self, name: str) -> int | None:
        """Number of a topic; None: there is none of that name."""
        return self.metadata.topics.get(name)

    @property
    def marks(self) -> Marks:
        """Which records are hidden."""
        return self.metadata.marks

    def first_of(self, number: int) -> int:
        """LSN below which the records of a topic (0: all) were dropped, by a truncation of the log or of the topic."""
        return max(self.first_lsn, self.metadata.floor_of(number))

    # ---- where it ends

    @property
    @abstractmethod
    def next_lsn(self) -> int:
        """LSN behind the last record."""

    @property
    @abstractmethod
    def durable_lsn(self) -> int:
        """Every record up to this LSN is on stable storage."""

    @property
    @abstractmethod
    def epoch(self) -> int:
        """Changes when what was read ahead may have become void."""

    @property
    @abstractmethod
    def cuts(self) -> Cuts:
        """The cuts of the log's end; each of them changes the epoch, too."""

    @property
    @abstractmethod
    def generation(self) -> int:
        """The highest of any segment."""

    # ---- the files

    @abstractmethod
    def ids(self) -> list[int]:
        """First LSNs of all segments, ascending."""

    @abstractmethod
    def file(self, first_lsn: int) -> tuple[str, int]:
        """Name and length of a segment's file."""

    @abstractmethod
    def index_of(self, segment: int) -> SegmentIndex | None:
        """The index of the newest segment; None for any other: its seal has it."""

    @property
    @abstractmethod
    def summaries(self) -> Summaries:
        """The seals of segments."""

    @property
    @abstractmethod
    def keys(self) -> Keys:
        """The keys in use; None: the log is not encrypted."""

    @property
    @abstractmethod
    def released(self) -> bool:
        """True if the log is closed, and its files cannot be read any more."""

    # ---- waiting

    @abstractmethod
    def check_open(self) -> None:
        """Raise what makes reading impossible: Closed, WrongLoop."""

    @abstractmethod
    async def look_again(self) -> bool:
        """Find out why a file was not where it should be, or not as it should be. True: that may be different now."""

    @abstractmethod
    async def reach(self, stop: int | None = None) -> int:
        """Make everything below `stop` (None: all that was accepted, or that the writer has added) readable; returns the LSN
        behind it. Closed, WrongLoop."""

    @abstractmethod
    async def more(self, topic: str | None) -> bool:
        """Wait until there may be more durable records, of a topic or of any, than up to durable_lsn as it is at the call.
        False: none ever comes. Closed, DurabilityLost."""

    @abstractmethod
    def follower_reads(self, change: int) -> None:
        """Note that a follower begins to read (1), or has read (-1)."""

    @abstractmethod
    async def topic_sums(self, number: int) -> tuple[int, int]:
        """Records of a topic ever, and the LSN of its last one (0: none), as far as they are visible."""
