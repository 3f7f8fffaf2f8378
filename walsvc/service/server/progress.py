"""Progress: a client that has begun a frame or a batch must go on with it, since the server holds what has come until it is complete."""

from __future__ import annotations

from walsvc.service.server.limits import Limits

TIGHT_SECONDS = 2.0  # so long may a client pause while others are not read from because of what is held
TIGHT_BYTES_PER_SECOND = 1 << 20  # and so fast must its frame come then, TIGHT_SECONDS besides
BYTES_PER_SECOND = 1 << 16  # and at any other time, `idle_seconds` besides


class Progress:
    """The clock of one connection. It stands while the server does not read from there.

    Args:
        idle_seconds: see Limits.
    """

    def __init__(self, idle_seconds: float) -> None:
        self._idle_seconds = idle_seconds
        self._incoming = self._gathered = self._expected = 0
        self._began = self._moved = 0.0  # when the frame began, and when something came last
        self._paused_at: float | None = None

    def holds(self, incoming: int, gathered: int, expected: int, now: float) -> None:
        """So many bytes are held of a frame whose length is `expected`, and of a batch."""
        if incoming and (not self._incoming or incoming < self._incoming):
            self._began = now
        if (incoming, gathered) != (self._incoming, self._gathered):
            self._moved = now
        self._incoming, self._gathered, self._expected = incoming, gathered, expected

    def paused(self, now: float) -> None:
        """Nothing is read from now on."""
        self._paused_at = now

    def resumed(self, now: float) -> None:
        """It is read from again."""
        if self._paused_at is not None:
            stood, self._paused_at = now - self._paused_at, None
            self._began += stood
            self._moved += stood

    def fault(self, now: float, tight_since: float | None) -> str | None:
        """Why the connection must end; None: it goes on.

        Args:
            now: the loop's time.
            tight_since: since when others are not read from because of what is held; None: they are.
        """
        reads = self._paused_at is None
        at = now if self._paused_at is None else self._paused_at
        quiet, rest = at - self._moved, max(self._expected - self._incoming, 0)
        if tight_since is not None and (self._incoming or (self._gathered and reads)):
            if quiet > TIGHT_SECONDS:
                return f"nothing came for {quiet:.1f} s of what it has begun, and others wait for that"
            late = at - max(self._began, tight_since) - TIGHT_SECONDS
            if self._incoming and late > self._expected / TIGHT_BYTES_PER_SECOND:
                return f"{rest} bytes of its frame are missing, and others wait for them"
        if self._incoming and quiet > self._idle_seconds:
            return f"nothing came for {quiet:.1f} s of the frame that it has begun"
        if self._incoming and at - self._began - self._idle_seconds > self._expected / BYTES_PER_SECOND:
            return f"{rest} bytes of its frame are missing after {at - self._began:.1f} s"
        return None


class Watch:
    """When a client was heard of last, and whether it goes on with what it has begun.

    Attributes:
        opened_at: when it came, in the loop's time.
        heard: something came since the last look.
        progress: the clock of what it has begun.
        holding: it has begun something.
    """

    def __init__(self, limits: Limits, now: float) -> None:
        self.opened_at: float = now
        self.heard: bool = True
        self.progress: Progress = Progress(limits.idle_seconds)
        self.holding: bool = False
        self._limits = limits
        self._silent_since = now

    def holds(self, incoming: int, gathered: int, expected: int, now: float) -> None:
        """See Progress."""
        self.holding = bool(incoming or gathered)
        self.progress.holds(incoming, gathered, expected, now)

    def fault(self, now: float, tight_since: float | None, *, greeted: bool, reads: bool) -> str | None:
        """Why the connection must end; None: it goes on.

        Args:
            now: the loop's time.
            tight_since: see Progress.fault.
            greeted: its HELLO has come.
            reads: the server reads what it says; if not, it is not expected to say anything.
        """
        limits = self._limits
        if self.heard or not reads:
            self.heard, self._silent_since = False, now
        if not greeted:
            late = now - self.opened_at > limits.handshake_seconds
            return f"no complete HELLO came within {limits.handshake_seconds:g} s" if late else None
        if (fault := self.progress.fault(now, tight_since)) is not None:
            return fault
        silent = now - self._silent_since > limits.idle_seconds
        return f"nothing was heard of the client for {limits.idle_seconds:g} s, not even PING" if silent else None
