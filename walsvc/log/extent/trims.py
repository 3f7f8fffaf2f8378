"""Trims: the calls by which a log drops, hides and rewrites what it has, and changes its keys."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from walsvc.format.purge import check_way
from walsvc.keyring import KeyRing
from walsvc.log.commit.core import Core
from walsvc.log.extent.compaction import compact
from walsvc.log.extent.cutting import truncate_after
from walsvc.log.extent.hider import Hider
from walsvc.log.extent.hidings import Hidings
from walsvc.log.extent.keeping import TopicLimiter
from walsvc.log.extent.purging import purge
from walsvc.log.extent.reclaim import Reclaimer
from walsvc.log.extent.rekey import use_keys
from walsvc.log.extent.singles import Singles
from walsvc.log.read.segments import Segments
from walsvc.model import Retention


class Trims:
    """A log, as the programs see it that drop, hide and rewrite records."""

    def __init__(self, core: Core, segments: Segments) -> None:
        self._core = core
        self._reclaimer = Reclaimer(core, segments)
        hidings = Hidings(core, segments)
        self._hider = Hider(core, segments, self._reclaimer, hidings)
        self._singles = Singles(core, segments, hidings)
        self._keeping = TopicLimiter(core, segments, self._hider, self._reclaimer)

    # ---- the ends

    async def truncate_before(self, lsn: int, *, force: bool = False) -> None:
        """Drop all records below `lsn`; whole segments go, the rest is hidden. Durable when it returns.

        A consumer that has not passed them gets Truncated at its next call.

        Raises:
            BadOption: `lsn` is not in first_lsn to next_lsn (below first_lsn there is nothing to do), or somebody holds
                records below it and `force` is not set.
            NoSpace, PathError: a file cannot be removed now (or, where first_lsn has not moved, what is to be dropped cannot be
                looked at). The next truncation tries again.
        """
        await self._reclaimer.truncate_before(lsn, force=force)

    async def truncate_after(self, lsn: int) -> None:
        """Drop all records above `lsn`; the next append gets lsn + 1. Durable when it returns.

        From then on nobody is given what was dropped: a read that is under way ends at the cut, a follower or consumer that
        stood beyond it goes on with what is written in its place.

        Appends that arrive meanwhile wait.

        Raises:
            BadOption: `lsn` is not in first_lsn - 1 to next_lsn - 1.
            NoSpace, PathError: no room for it, and nothing was changed; or a file behind the cut cannot be removed now. The log ends
                with `lsn` then, all the same. Until the file is gone, which is tried again by itself, or by the next opening, calls
                that change the log get that error, too.
        """
        await truncate_after(self._core, lsn)

    async def use_keys(self, keys: KeyRing) -> None:
        """Go on with another current key, or with other older ones, without stopping appends.

        If the current key changes, the next group begins a new segment under it, and the old segment gets only its seal.
        When this returns, that segment is durable. A plain log is encrypted from there on; what it held stays plain.

        Args:
            keys: the new ring. Its older keys must be those of all segments that are still there.

        Raises:
            MissingKey, WrongKey: a segment could not be read any more; nothing was changed. NoSpace: nor here.
            BadOption, Closed, DurabilityLost, WrongLoop.
        """
        await use_keys(self._core, keys)

    # ---- retention

    async def reclaim(self) -> int:
        """Drop the segments that every consumer and every holder has passed, and what limits say; returns how many records.

        Without any consumer or hold nothing is consumed, and nothing is dropped. A topic that nobody consumes holds nothing
        back: give it a consumer or a hold before.
        """
        return await self._reclaimer.reclaim()

    def retention(self, pins_max: int | None = None) -> Retention:
        """The segments that are kept, the pins that need them (the oldest `pins_max`; None: all), and the records dropped since opening."""
        return self._reclaimer.status(pins_max)

    # ---- purging

    async def purge(
        self, key_or_labels: Any = None, *, before: int | None = None, lsns: Iterable[int] | None = None
    ) -> int | None:
        """Hide records, whatever their topic: those below LSN `before` that have a key, or labels, or those with the LSNs in `lsns`.
        Durable when it returns.

        From then on no reading shows them, no consumer gets them; later records are not concerned, so purging a key is also
        its tombstone. They keep their LSNs; `compact` gives their space back. A hold does not protect from it. Records that a key or
        labels hide count as records, those that are named do not.

        Args:
            key_or_labels: text, bytes or an integer: records whose attribute "key" is equal. A mapping: records whose
                attributes have all of these labels, with these values (text, bytes, number, True or False); at least one.
                At most 1,024 bytes as JSON.
            before: 1 to next_lsn; None: next_lsn, that is, everything accepted before the call.
            lsns: instead of a key: LSNs of single records, at most 10,000, all below next_lsn. They are read before they are hidden.

        Returns:
            How many of the records in `lsns` were visible until then; None for a key or labels.

        Raises:
            BadOption: an argument is out of its bounds, or there are 65,536 marks, or ranges of single records, already; what
                `append` raises.
        """
        check_way(key_or_labels, before, lsns, topic=False)
        if lsns is not None:
            return await self._singles.purge(None, lsns)
        await purge(self._core, key_or_labels, before, None)
        return None

    async def compact(self, on_segment: Callable[[int, int, int], None] | None = None) -> int:
        """Rewrite the sealed segments without what was purged; returns the bytes by which the log's files have shrunk.

        LSNs, counts and whatever was not purged stay as they are; the offsets in results of earlier appends no longer hold
        there. One segment after the other, each complete before it takes the old one's place: killed or cancelled at any
        moment, nothing is lost, and another call goes on. Needs room for one segment more. Appends and readers go on
        beside it; truncations and streamed batches wait for the segment at hand.

        Args:
            on_segment: called after each segment with: segments done, segments to do, bytes freed so far.

        Raises:
            BadOption: the log is in a JetStream stream, whose messages cannot be written anew.
            NoSpace: no room for the rewritten segment. Corruption: a segment is damaged and stays as it is. PathError:
            reading or writing failed. And what `append` raises.
        """
        return await compact(self._core, on_segment)

    # ---- closing

    def _stop_trimming(self) -> None:
        """Begin nothing by itself any more."""
        self._reclaimer.stop()
        self._keeping.stop()

    async def _end_trimming(self) -> None:
        """Wait for what is under way, which the closed writer ends."""
        await self._reclaimer.close()
        await self._keeping.close()
