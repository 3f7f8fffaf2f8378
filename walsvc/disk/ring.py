"""The io_uring binding as the disk sees it: a small interface, and the real one over the extension.

Tests put a fake ring behind the same interface, which is why no judgement about results is made below it.
"""

from __future__ import annotations

import errno
import os
from functools import partial
from importlib import import_module
from typing import Any, Protocol

from walsvc.errors import BadOption

try:
    _uring: Any = import_module("walsvc.disk._uring")
except ImportError:  # built without a compiler or without liburing.h
    _uring = None

ENTRIES = 256  # submission queue slots; the completion queue has twice as many, so it cannot overflow
REAP_MAX = 64  # completions taken per call into C

QUEUE_FULL = 1  # answer of `Ring.write` when it queued nothing
SYNC_BIT = 1  # bit 0 of a completion's token: this is the linked sync and not the write


class Ring(Protocol):
    """One submission and completion queue pair of io_uring.

    Attributes:
        event: descriptor that is readable when completions wait.
        slots: submissions that may be on their way at once; a linked write takes two.
    """

    event: int
    slots: int

    def pin(self, view: memoryview) -> object:
        """The object that `write` takes for the bytes: it keeps their memory in place as long as it lives."""

    def write(self, file: int, pinned: object, length: int, offset: int, token: int, linked: bool) -> int:  # noqa: PLR0917 - hot
        """Queue a durable write and submit. 0: the kernel has it. QUEUE_FULL: nothing was queued. -EAGAIN, -EBUSY: queued,
        `flush` must be called again. Any other negative errno: queued, and the ring takes nothing any more; -ENOLINK is such a one:
        the kernel took the write and not the sync that is linked to it."""

    def flush(self) -> int:
        """Submit what is queued; answers like `write`."""

    def unsubmitted(self) -> int:
        """Slots that are queued and that the kernel has not taken."""

    def reap(self) -> list[tuple[int, int]]:
        """Completions at hand, some of them where there are many: (token * 2 + SYNC_BIT for a linked sync, bytes written or negative errno)."""

    def wait(self) -> None:
        """Block until a completion is at hand. Not for the loop."""

    def close(self) -> None:
        """Give the ring back. The caller has seen to it that nothing is on its way."""


class KernelRing:
    """A Ring of the kernel. OSError with the errno of io_uring_setup where there is none to be had."""

    def __init__(self, entries: int = ENTRIES) -> None:
        if _uring is None:
            raise OSError(errno.ENOENT, "the extension walsvc.disk._uring was not built")
        ffi, lib = _uring.ffi, _uring.lib
        error = ffi.new("int *")
        ring = lib.walsvc_ring_open(entries, error)
        if ring == ffi.NULL:
            raise OSError(error[0], os.strerror(error[0]))
        self.event: int = lib.walsvc_ring_event(ring)
        self.slots = entries
        self._ring: Any = ring
        self._tokens: Any = ffi.new("uint64_t[]", REAP_MAX)
        self._results: Any = ffi.new("int32_t[]", REAP_MAX)
        self._raw: Any = ffi.buffer(self._tokens)
        self._lib: Any = lib
        self.write: Any = partial(lib.walsvc_ring_write, ring)
        self._reap: Any = lib.walsvc_ring_reap
        self._unpack: Any = ffi.unpack
        self.pin: Any = ffi.from_buffer

    def flush(self) -> int:
        result: int = self._lib.walsvc_ring_flush(self._ring)
        return result

    def unsubmitted(self) -> int:
        result: int = self._lib.walsvc_ring_unsubmitted(self._ring)
        return result

    def reap(self) -> list[tuple[int, int]]:
        """See Ring; where there are more than REAP_MAX, `event` stays readable. A signal handler's exception may cut this short after
        the kernel's completions were copied: then they are still in `_tokens`, which holds zeros otherwise, and come with the next
        call."""
        tokens = self._tokens
        if tokens[0]:
            taken = next((n for n in range(REAP_MAX) if not tokens[n]), REAP_MAX)
        else:
            taken = self._reap(self._ring, tokens, self._results, REAP_MAX)
        if taken == 1:  # by far the most frequent
            alone = [(tokens[0], self._results[0])]
            tokens[0] = 0
            return alone
        completions = list(zip(self._unpack(tokens, taken), self._unpack(self._results, taken), strict=True))
        self._raw[: 8 * taken] = bytes(8 * taken)
        return completions

    def wait(self) -> None:
        result = self._lib.walsvc_ring_wait(self._ring)
        if result < 0 and result != -errno.EINTR:
            raise OSError(-result, os.strerror(-result))

    def close(self) -> None:
        ring, self._ring = self._ring, None
        if ring is not None:
            self._lib.walsvc_ring_close(ring)


def extension_built() -> bool:
    """True if the C part is there."""
    return _uring is not None


def why_not() -> str | None:
    """Why io_uring cannot be used here, in words for a user; None when it can."""
    try:
        KernelRing(2).close()
    except OSError as error:
        return explain(error)
    return None


def explain(error: OSError) -> str:
    """The reason behind an error of `KernelRing`."""
    if _uring is None:
        return "the extension was not built (no C compiler or no liburing.h when walsvc was installed)"
    match error.errno:
        case errno.EPERM | errno.EACCES:
            return "io_uring_setup: EPERM (forbidden by a seccomp profile, as Docker's default, or by kernel.io_uring_disabled)"
        case errno.ENOSYS:
            return "io_uring_setup: ENOSYS (the kernel has no io_uring, or a sandbox hides it)"
        case errno.EAGAIN:
            return "io_uring gets no worker thread (EAGAIN: a limit on processes and threads, ulimit -u or pids.max)"
        case errno.ENOMEM:
            return "io_uring_setup: ENOMEM (the locked-memory limit, ulimit -l, is too small)"
        case _:
            return f"io_uring_setup: {errno.errorcode.get(error.errno or 0, error.errno)} ({error.strerror})"


def unavailable(error: OSError, path: str) -> BadOption:
    """For an opener who insists on disk="uring"."""
    hint = 'open with disk="auto" or disk="threads"'
    if _uring is None:
        hint = "install liburing-dev and a C compiler and reinstall walsvc, or " + hint
    elif error.errno == errno.EPERM:
        hint = "allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile, or " + hint
    return BadOption(f'disk="uring" is not available: {explain(error)}', path=path, hint=hint)
