"""Notices: tells a client at once that records are void which it may have been sent ahead. docs/PROTOCOL.md: PURGED and STATE."""

from __future__ import annotations

from collections.abc import Callable

from walsvc.api import Log
from walsvc.log.read.cuts import Hiding
from walsvc.service.server.auth import Grant
from walsvc.service.server.line import Line
from walsvc.service.wire.frames import Purged, StateFrame
from walsvc.service.wire.methods import CONSUME, READ


class Notices:
    """Tells one client of the cuts, deletions, truncations of topics and purges of its log, by whomever, until `end`."""

    def __init__(self, line: Line, log: Log, grant: Grant, tell_streams: Callable[[], None]) -> None:
        """tell_streams: lets the streams that are open tell of a cut."""
        self._log = log
        self._line = line
        self._reads = not grant.rights.isdisjoint((READ, CONSUME))
        self._tell_streams = tell_streams
        cuts = log.writer.segments.cuts
        cuts.listeners.add(self._cut)
        cuts.deletions.add(self._deleted)
        cuts.hidings.add(self._hidden)

    def end(self) -> None:
        """Tell nothing more. Idempotent."""
        cuts = self._log.writer.segments.cuts
        cuts.listeners.discard(self._cut)
        cuts.deletions.discard(self._deleted)
        cuts.hidings.discard(self._hidden)

    def _hidden(self, hiding: Hiding) -> None:
        """Tell that records were purged, or those of a topic truncated."""
        if self._reads:
            lsns = list(hiding.lsns) or None
            self._line.send(Purged(0, hiding.topic, dict(hiding.labels), hiding.before, self._line.state, lsns))

    def _deleted(self, topic: str) -> None:
        """Tell that a topic was deleted."""
        self._hidden(Hiding(topic, self._log.next_lsn))

    def _cut(self) -> None:
        """Tell that the log's end was taken back: the client may hold what is gone of streams that have ended, too."""
        self._tell_streams()
        self._line.send(StateFrame(0, self._line.state))
