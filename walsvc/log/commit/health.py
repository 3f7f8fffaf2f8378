"""Health: whether a writer still takes records, why not, and who must hear of it.

Every part of a writer asks it, and nobody else keeps such a state. What holds in which state:

| state    | appends are taken | what waits gets its turn | reading | what ends it           |
|----------|-------------------|--------------------------|---------|------------------------|
| open     | yes               | yes                      | yes     | seal, drain, fail      |
| draining | no                | yes                      | yes     | end_draining, fail     |
| closed   | no                | no                       | yes     | close (the call), fail |
| closing  | no                | as before                | no      | release                |
| released | no                | no                       | no      | -                      |
| failed   | no                | no                       | yes     | close                  |

`seal` leads from open to closed at once. A failure is terminal, and the first one counts. Listeners hear of it in the order
in which they were added: first the way in is shut, then groups and waits are told, and last the queue looks again.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Callable
from typing import Any

from walsvc.config import one_of
from walsvc.disk.base import Displaced, TakenOver
from walsvc.errors import Closed, DurabilityLost, Fenced, WalError, WrongLoop, closed_log, copy_of, from_source
from walsvc.log.commit.whole import Whole
from walsvc.model import Mode, Quorum, Relaxed, Strict
from walsvc.tasks import insistent

logger: logging.Logger = logging.getLogger("walsvc.log")
UNKNOWN_HINT = "what was not acknowledged may or may not be on disk; close this log and open it again to find out"
DISPLACED_HINT = (
    "keep others from removing, replacing or cutting files of a log that is open. What was acknowledged since the last flush or "
    "the last change of segments may be gone; close this log and open it again to see what is there"
)
TAKEN_OVER_HINT = "leave the log to the other writer; opening it again takes it back"
Place = tuple[int, int, int]  # segment, offset in it, LSN
get_running_loop: Callable[[], asyncio.AbstractEventLoop | None] = asyncio._get_running_loop  # noqa: SLF001 - asyncio exports it; None instead of an error where no loop runs


class Health:
    """The state of one writer. Loop thread only.

    Args:
        path: of the log, for messages.
        loop: see below.
        end: function that gives the place where the log ends, for messages.

    Attributes:
        loop: that the log belongs to.
        failure: the terminal failure; None: there is none.
        closed: why no call appends any more; None: appending is possible.
        draining: what was called before `closed` is still accepted.
        closing: `close` was called: nothing is read any more.
        released: files and lock were let go.
        told: how many callers have heard of the failure.
        drawing: the tasks that draw the asynchronous sources of streamed batches.
    """

    def __init__(self, path: str, loop: asyncio.AbstractEventLoop, end: Callable[[], Place]) -> None:
        self.loop = loop
        self.failure: DurabilityLost | None = None
        self.closed: Closed | None = None
        self.draining: bool = False
        self.closing: bool = False
        self.released: bool = False
        self.told: int = 0
        self.drawing: set[asyncio.Task[Any]] = set()
        self._path = path
        self._end = end
        self._process = os.getpid()
        self._listeners: list[Callable[[], None]] = []

    # ---- failing

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener()` when the log fails, after those that were added before; twice where the first time was cut short."""
        self._listeners.append(listener)

    def fail(self, what: str, error: OSError, place: Place | None = None) -> None:
        """Fail for good, and tell all listeners. The first failure counts, later ones are its echo.

        Args:
            what: was being done.
            error: of the operating system.
            place: where; None: at the end of the log.
        """
        if self.failure is not None:
            return
        segment, offset, lsn = place or self._end()
        kind, hint = DurabilityLost, UNKNOWN_HINT
        if isinstance(error, TakenOver):
            kind, hint = Fenced, TAKEN_OVER_HINT
        elif isinstance(error, Displaced):
            hint = DISPLACED_HINT
        failure = kind(
            f"{what}: {error.strerror or error}",
            errno=error.errno or errno.EIO,
            path=self._path,
            segment=segment,
            offset=offset,
            lsn=lsn,
            hint=hint,
        )
        failure.__cause__ = error
        self._fail(failure)

    @insistent
    def _fail(self, failure: DurabilityLost) -> None:
        self.failure = failure
        for listener in self._listeners:
            listener()
        logger.error("%s: %s", type(failure).__name__, failure)

    def broken(self, what: str, error: BaseException) -> None:
        """Fail the log: a step was cut short, so memory and disk may disagree."""
        if self.loop.is_closed():
            return  # it is being collected: nobody is left to be told
        number = errno.EIO
        if isinstance(error, OSError) and error.errno:
            number = error.errno
        elif isinstance(error, MemoryError):
            number = errno.ENOMEM
        elif not isinstance(error, Exception):  # a cancellation, or the exception of a signal handler
            number = errno.ECANCELED
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        cause = OSError(number, os.strerror(number))
        cause.__cause__ = error
        self.fail(f"{what} ({text})", cause)

    def whole(self, what: str) -> Whole:
        """Guard some lines: `with health.whole("doing it"):`; see walsvc.log.commit.whole."""
        return Whole(self, what)

    def failure_told(self) -> WalError:
        """The terminal failure as a new exception."""
        assert self.failure is not None, "asked only after a failure"
        return copy_of(self.failure)

    def note_told(self, callers: int) -> None:
        """Take note that so many callers have heard of the failure; negative: that so many have not."""
        self.told += callers

    def raise_failure(self) -> None:
        """Raise the terminal failure if there is one."""
        if self.failure is not None:
            raise self.failure_told()

    def terminal(self) -> WalError | None:
        """The error that every call gets from now on, if there is one."""
        if self.failure is not None:
            self.told += 1
            return self.failure_told()
        return None if self.closed is None else copy_of(self.closed)

    @property
    def over(self) -> bool:
        """True once no queued call gets its turn: the log failed, or it is closed and not draining."""
        return self.failure is not None or (self.closed is not None and not self.draining)

    def ended(self) -> WalError | None:
        """The error for a queued call, once it is over."""
        return self.terminal() if self.over else None

    # ---- ending

    def seal(self) -> None:
        """Take no more appends, ever, those included that wait behind the seal when the log is closed; reading goes on."""
        self.draining = False
        self.closed = Closed("the log is sealed", path=self._path, hint="a sealed log can only be read")

    def drain(self) -> bool:
        """Refuse what is called from now on; what was called before is still accepted. False: it was closed already."""
        if self.closed is not None:
            return False
        self.closed = closed_log(self._path)
        self.draining = True
        return True

    def end_draining(self) -> None:
        """No queued call gets its turn any more."""
        self.draining = False

    def begin_closing(self) -> None:
        """`close` was called: nothing is read any more."""
        self.closing = True

    def release(self) -> None:
        """Files and lock are being let go."""
        self.released = True

    # ---- what makes a call wrong

    def check_call(self, mode: Mode = Strict) -> None:
        """Raise what makes any call that waits for its change wrong or vain: as check_append, and from a batch's own source."""
        self.check_append(mode)
        self.check_source()

    def check_append(self, mode: Mode = Strict) -> None:
        """Raise what makes an append wrong or vain, the answer of which may be awaited later: other loop, closed, failed, unknown mode."""
        self.check_loop()
        if mode is not Strict and mode is not Relaxed:
            one_of("mode", mode, (Strict, Relaxed, Quorum))
        if self.failure is not None or self.closed is not None:
            error = self.terminal()
            assert error is not None
            raise error

    @property
    def in_source(self) -> bool:
        """True in the source of a streamed batch of this log."""
        return bool(self.drawing) and asyncio.current_task() in self.drawing

    def check_source(self) -> None:
        """Raise BadOption for a call that the source of a streamed batch makes: it would wait for the end of that batch, which waits
        for its source."""
        if self.in_source:
            raise from_source(self._path)

    def check_running(self) -> None:
        """Raise if a call that does not append cannot succeed: other loop, closed, failed. What a sealed log holds stays
        durable."""
        self.check_open()
        if self.failure is not None and (error := self.terminal()) is not None:
            raise error

    def check_open(self) -> None:
        """Raise if nothing can be read: other loop, closed. A sealed log can be read."""
        self.check_loop()
        if self.closing:
            raise closed_log(self._path)

    def check_loop(self) -> None:
        """Raise WrongLoop anywhere but in the log's own loop; in a forked child no loop runs."""
        if get_running_loop() is not self.loop:
            whom = "a forked child" if os.getpid() != self._process else "another event loop or thread"
            raise WrongLoop(
                f"the log was used from {whom}",
                path=self._path,
                hint="use it in the loop that opened it (from other threads: asyncio.run_coroutine_threadsafe, or walsvc.blocking), or "
                "open the log again there after closing it here",
            )
