"""The `uring` disk: durable writes by io_uring, completions by the ring's descriptor, which the loop watches.

One ring for the disk's life. What the kernel holds is tracked twice, on purpose: `_flights` says whom to answer, `_pins`
keeps the memory in place until the completion came, also when the disk is dropped or the loop closed meanwhile.

A durable write is one WRITE with RWF_DSYNC ("dsync"), or a WRITE linked to an FSYNC ("fdatasync"). In the second case
two completions come, in any order, and only both together say what happened (`judge`).
"""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable

from walsvc.disk import posix
from walsvc.disk.base import Write
from walsvc.disk.directory import Directory
from walsvc.disk.draining import drain
from walsvc.disk.pool import Pool
from walsvc.disk.posix import PosixDisk, closed, short_write
from walsvc.disk.ring import QUEUE_FULL, SYNC_BIT, KernelRing, Ring
from walsvc.disk.threads import RETRY_SECONDS

FLUSH_AGAIN_SECONDS = 0.001  # the kernel had no memory or room for a submission; ask again after this
FLUSH_ATTEMPTS_MAX = 5_000  # about five seconds of that: then the ring counts as lost


class PieceInFlight:
    """One piece of a write on its way through the ring.

    Attributes:
        write: whom it is for.
        start, length: the piece: bytes of `write.view` from `start`.
        written, synced: results so far; None while outstanding.
        attempts: how often the kernel put it off.
        token: under which it was launched last; 0: it was not yet.
    """

    __slots__ = ("attempts", "length", "start", "synced", "token", "write", "written")

    def __init__(self, write: Write, start: int, length: int) -> None:
        self.write: Write = write
        self.start: int = start
        self.length: int = length
        self.written: int | None = None
        self.synced: int | None = None
        self.attempts: int = 0
        self.token: int = 0


def judge(length: int, written: int, synced: int) -> int:
    """The meaning of a pair of results: 0 durable, a negative errno failed, +EAGAIN not begun: write again.

    | written           | synced      | verdict                                                         |
    |-------------------|-------------|-----------------------------------------------------------------|
    | all bytes         | 0           | durable                                                         |
    | all bytes         | an error    | that error, -ECANCELED and -EINTR too: a sync is never repeated |
    | -EINTR, -EAGAIN   | whatever    | nothing was written: again, as a new write with its own sync    |
    | another error     | whatever    | that error                                                      |
    | fewer bytes       | whatever    | -EIO: why it fell short is not known                            |
    """
    if written == length:
        return synced if synced < 0 else 0
    if written in (-errno.EINTR, -errno.EAGAIN):
        return errno.EAGAIN
    return written if written < 0 else -errno.EIO


class UringDisk(PosixDisk):
    """A disk whose hot half is io_uring. See walsvc.disk.base.Disk for the contract.

    Must be made on the loop's thread: the ring takes submissions from the thread that made it alone. Raises OSError
    (EPERM, ENOSYS, ENOMEM, ...) where the kernel gives no ring.
    """

    kind = "uring"

    def __init__(
        self,
        directory: Directory,
        *,
        loop: asyncio.AbstractEventLoop,
        dsync: bool,
        reason: str,
        executor: Pool | None = None,
        make_ring: Callable[[], Ring] = KernelRing,
    ) -> None:
        ring = make_ring()
        super().__init__(directory, loop=loop, dsync=dsync, reason=reason, executor=executor)
        self._ring = ring
        self._linked = not dsync
        self._slots_each = 2 if self._linked else 1
        self._flights_max = ring.slots // self._slots_each
        self._flights: dict[int, PieceInFlight] = {}
        self._pins: dict[int, object] = {}
        self._waiting: deque[PieceInFlight] = deque()  # no room in the ring yet
        self._reaped: deque[tuple[int, int]] = deque()  # completions that are not taken yet
        self._token = 0
        self._flush_attempts = 0  # since the kernel last took everything
        self._flush_timer: asyncio.TimerHandle | None = None
        self._lost: OSError | None = None
        self._stopped = False  # the ring was given back
        self._watch = CompletionWatch(self)
        watched = (weakref.ref(loop), threading.get_ident())
        self._drain = weakref.finalize(self, drain, os.getpid(), ring, self._pins, self._slots_each, watched)
        loop.add_reader(ring.event, self._watch)

    def submit(self, write: Write) -> None:
        if self._closing is not None or self._lost is not None:
            self._refuse(write, self._lost or closed())
            return
        try:
            self._in_flight.add(write)
            self._watch.busy = self
            flight = PieceInFlight(write, 0, min(len(write.view), posix.WRITE_BYTES_MAX))
            if self._waiting or len(self._flights) >= self._flights_max:
                self._waiting.append(flight)
            else:
                self._launch(flight)
        except BaseException:  # of a signal handler
            under_way = any(write is each.write for each in (*self._flights.values(), *self._waiting))
            if not under_way and all(write is not each for each, _ in self._answers):
                # it was never begun; its submitter takes the exception for an error
                self._in_flight.discard(write)
            raise

    def _wait_no_more(self, flight: PieceInFlight) -> None:
        if self._waiting and self._waiting[0] is flight:
            del self._waiting[0]

    def _launch(self, flight: PieceInFlight) -> bool:
        """Hand a flight to the kernel. False: the ring is full, and it waits in front of all others."""
        write, start, length = flight.write, flight.start, flight.length
        view = write.view if length == len(write.view) else write.view[start : start + length]
        self._token = token = self._token + 1
        flight.written = None
        flight.synced = None if self._linked else 0
        try:
            # In no local name: the frame of an exception may end in a cycle, and CPython's collector frees a memoryview in one
            # though something that is pinned there still exports it.
            self._pins[token] = self._ring.pin(view)
            flight.token = token
            self._flights[token] = flight  # before the call: cut short when it returns, the kernel has the write
            result = self._ring.write(write.file, self._pins[token], length, write.offset + start, token, self._linked)
        except (BufferError, ValueError, TypeError, OverflowError, MemoryError) as error:  # nothing was queued
            self._forget(token)
            number = errno.ENOMEM if isinstance(error, MemoryError) else errno.EINVAL
            self._answer_later(write, OSError(number, f"{os.strerror(number)}: {error}"))
            return True
        except BaseException:  # of a signal handler, which runs when a call has returned
            if token in self._flights:
                self._loop.call_soon(self._flush_again)  # the kernel may have asked for that
            else:
                self._forget(token)
                self._wait_no_more(flight)
                self._answer_later(write, OSError(errno.ECANCELED, os.strerror(errno.ECANCELED)))
            raise
        if result == QUEUE_FULL:
            self._forget(token)
            self._wait_no_more(flight)
            self._waiting.appendleft(flight)
        if result != 0:
            self._flush_outcome(result)
        return result != QUEUE_FULL

    def _forget(self, token: int) -> None:
        """Nothing was queued."""
        self._flights.pop(token, None)
        self._pins.pop(token, None)

    def _flush_outcome(self, result: int) -> None:
        """After `write` or `flush`: all taken, ask again later, or lost."""
        if result == 0:
            self._flush_attempts = 0
        elif result in (QUEUE_FULL, -errno.EAGAIN, -errno.EBUSY) and self._flush_attempts < FLUSH_ATTEMPTS_MAX:
            if self._flush_timer is None:
                self._flush_attempts += 1
                self._flush_timer = self._loop.call_later(FLUSH_AGAIN_SECONDS, self._flush_again)
        elif self._lost is None:
            self._lose(abs(result) if result < 0 else errno.EAGAIN)

    def _flush_again(self) -> None:
        self._flush_timer = None
        if self._lost is None and not self._stopped:
            result = self._ring.flush()
            self._flush_outcome(result)
            if result == 0:
                self._launch_waiting()

    def _lose(self, number: int) -> None:
        """The ring takes nothing any more. What the kernel has will still answer; the rest fails now, and is never
        submitted: the slots left in the queue are the newest ones."""
        why = "the kernel took a write without its sync" if number == errno.ENOLINK else os.strerror(number)
        self._lost = OSError(number, f"io_uring takes no submissions any more: {why}")
        left = self._ring.unsubmitted()
        for token in reversed(list(self._flights)):
            if left < self._slots_each:
                break
            left -= self._slots_each
            self._answer_later(self._flights.pop(token).write, self._lost)  # its pin stays: `drain` counts on it
        if left and self._flights:  # the write was taken, its sync was not: it ends with the write's completion
            last = next(reversed(self._flights))
            self._take(last * 2 + SYNC_BIT, -errno.ECANCELED)
            self._loop.call_soon(self._answer_all)
        while self._waiting:
            self._answer_later(self._waiting.popleft().write, self._lost)

    def hear(self) -> None:
        """For its Watch: completions are at hand."""
        try:
            if not self._stopped:
                self._reaped += self._ring.reap()
            while self._reaped:
                self._take(*self._reaped[0])
                del self._reaped[0]
            if self._waiting:
                self._launch_waiting()
        except BaseException:  # a completion comes only once: go on with those that are left
            self._loop.call_soon(self.hear)
            raise
        finally:
            self._answer_all()

    def _launch_waiting(self) -> None:
        while (
            self._waiting
            and self._lost is None
            and self._flush_timer is None
            and len(self._flights) < self._flights_max
        ):
            flight = self._waiting[0]
            if flight.token in self._flights or self._launch(flight):  # the former where launching it was cut short
                self._wait_no_more(flight)

    def _take(self, token: int, result: int) -> None:
        """One completion. A flight is over when its last one came; its memory is free once the write's came."""
        number = token >> 1
        flight = self._flights.get(number)
        if flight is None:
            return  # it was taken before, and that was cut short
        if token & SYNC_BIT:
            flight.synced = result
        else:
            flight.written = result
            self._pins.pop(number, None)
        written, synced = flight.written, flight.synced
        if written is None or synced is None:
            return
        verdict = judge(flight.length, written, synced)
        if verdict == 0 and flight.start + flight.length == len(flight.write.view):
            answers = self._answers
            answers += ((flight.write, None),)  # no call between this and the next line, so no handler runs there
            del self._flights[number]
        else:
            del self._flights[number]
            self._take_unusual(flight, verdict, written)

    def _take_unusual(self, flight: PieceInFlight, verdict: int, written: int) -> None:
        write = flight.write
        if verdict == 0:  # a piece of a very long write: on with the next
            start = flight.start + flight.length
            self._waiting.append(PieceInFlight(write, start, min(len(write.view) - start, posix.WRITE_BYTES_MAX)))
        elif verdict == errno.EAGAIN and flight.attempts < len(RETRY_SECONDS) and self._lost is None:
            pause = RETRY_SECONDS[flight.attempts]
            flight.attempts += 1
            self._loop.call_later(pause, self._launch_again, flight)
        elif verdict == -errno.EIO and 0 <= written < flight.length:
            self._answers.append((write, short_write(flight.length, written, write.offset + flight.start)))
        else:
            number = abs(written if verdict > 0 else verdict)
            self._answers.append((write, OSError(number, os.strerror(number))))

    def _launch_again(self, flight: PieceInFlight) -> None:
        if self._lost is not None:
            self._answer_later(flight.write, self._lost)
            return
        self._waiting.append(flight)
        self._launch_waiting()

    def _at_rest(self) -> None:
        self._watch.busy = None
        super()._at_rest()

    def _stop(self) -> None:
        if self._flush_timer is not None:
            self._flush_timer.cancel()
        self._stopped = True
        self._drain()


class CompletionWatch:
    """Hears from the loop that completions are at hand. The loop holds this and not the disk, so that a disk that its owner drops
    can be collected; `busy` is the disk while a write is on its way, so that it is answered first."""

    __slots__ = ("busy", "disk")

    def __init__(self, disk: UringDisk) -> None:
        self.disk: weakref.ref[UringDisk] = weakref.ref(disk)
        self.busy: UringDisk | None = None

    def __call__(self) -> None:
        if (disk := self.disk()) is not None:
            disk.hear()
