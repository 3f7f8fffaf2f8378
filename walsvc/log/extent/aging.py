"""The age of segments by two clocks: the wall clock, whose times stand in the segments, and this process's monotonic clock.

Either may mislead. The wall clock is set ahead and back; the monotonic one knows nothing of what was before this opening, and
stands still while the machine sleeps. So a segment is as old as the younger of both ages: what is seconds old does not go
because a clock was set ahead. A time that lies in the future says nothing; then a later segment with a time that can be true
counts, for the segment was complete before that one began, or else the monotonic clock alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

DISAGREEMENT_SECONDS = 10.0  # that the clocks may drift apart: less is no step but a correction


class Ages:
    """Ages of the segments of one log since it was opened.

    Args:
        wall: nanoseconds of the Unix epoch.
        monotonic: seconds.
        created: gives the time at which a segment begins, as its header says.
    """

    def __init__(
        self, wall: Callable[[], int], monotonic: Callable[[], float], created: Callable[[int], Awaitable[int]]
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._created = created
        self._opened_ns = wall()
        self._opened = monotonic()
        # when this process saw a segment first; None: it was there at opening
        self._begun: dict[int, float | None] = {}
        self._told = 0.0  # disagreement, in seconds, that was told last

    def note(self, ids: Sequence[int]) -> None:
        """These are the log's segments. Call it when one has begun."""
        now = self._monotonic() if self._begun else None
        self._begun = {each: self._begun.get(each, now) for each in ids}

    async def seconds(self, following: int, later: Sequence[int]) -> float:
        """Age of the newest record in front of segment `following`, at most; `later`: the segments behind that one."""
        wall, passed = self._wall(), self._monotonic() - self._opened
        ended = await self._ended(wall, following, later)
        begun = self._begun.get(following)
        if begun is not None:
            by_process = self._monotonic() - begun
        elif ended is None:
            by_process = passed
        else:
            by_process = passed + max(self._opened_ns - ended, 0) / 1e9
        return by_process if ended is None else min(by_process, (wall - ended) / 1e9)

    async def _ended(self, wall: int, following: int, later: Sequence[int]) -> int | None:
        for each in (following, *later):
            created = await self._created(each)
            if created <= wall:
                return created
        return None

    @property
    def ahead_seconds(self) -> float:
        """Seconds by which the wall clock has gone ahead of the monotonic one since the log was opened."""
        return (self._wall() - self._opened_ns) / 1e9 - (self._monotonic() - self._opened)

    def disagreement(self) -> str | None:
        """Say in words how the clocks disagree."""
        ahead = self.ahead_seconds
        if abs(ahead) < DISAGREEMENT_SECONDS:
            return None
        way = "ahead of" if ahead > 0 else "behind"
        return (
            f"the wall clock has moved {abs(ahead):.0f} s {way} the monotonic clock since the log was opened; retain_seconds counts "
            "by the one that makes records younger"
        )

    def news(self) -> str | None:
        """Like disagreement, but each once."""
        ahead = self.ahead_seconds
        if abs(ahead - self._told) < DISAGREEMENT_SECONDS:
            return None
        self._told = ahead
        return self.disagreement() or "the wall clock and the monotonic clock agree again"
