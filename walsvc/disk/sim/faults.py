"""The operations of a simulated device: counted, shown to a hook, and failing by plan."""

from __future__ import annotations

import errno as errnos
import os
from collections.abc import Callable
from dataclasses import dataclass

from walsvc.options import unknown_option

OPERATIONS = (
    *("submit", "submit.write", "submit.sync", "submit.complete", "write", "write.sync", "sync", "read", "list", "rename", "remove"),
    *("allocate", "allocate.write", "allocate.sync", "allocate.sync_directory", "open_file", "close_file", "sync_directory"),
    "free_bytes",
)  # fmt: skip


def check_operation(operation: str) -> None:
    """BadOption unless there are such operations: a fault of others would never come, and a test of it would pass."""
    known = {*OPERATIONS, *(name.rpartition(".")[2] for name in OPERATIONS)}
    if operation not in known:
        raise unknown_option(operation, known, what="operation of the disk")


class SimCrash(BaseException):  # not an Exception: no handler in the log may take a power cut for an error
    """The simulated power goes off. A device's hook raises it to cause that, and `run_sim` passes it on."""


class SimPowerOff(SimCrash):
    """An operation was tried by a process that is dead already: after a power cut or SIGKILL."""


@dataclass(slots=True)
class Fault:
    """One line of the plan, see SimDevice.fail. `nth` and `times` count down."""

    operation: str
    nth: int
    errno: int
    short: int | None
    times: int

    def matches(self, name: str) -> bool:
        """True if it concerns the operation `name`: given as that name, or as its last part."""
        return self.operation in {name, name.rpartition(".")[2]}

    def error(self) -> OSError:
        """The error that the operation reports."""
        return system_error(self.errno)


def system_error(errno: int, name: str | None = None) -> OSError:
    """The OSError (of the right subclass) that the kernel's `errno` becomes."""
    return OSError(errno, os.strerror(errno)) if name is None else OSError(errno, os.strerror(errno), name)


class Operations:
    """Base of SimDevice: every operation passes `step` here before it takes effect.

    Attributes:
        operations: operations so far, of all processes.
        on_operation: called as on_operation(n, name) before the nth operation takes effect. It may take `fork()` or
            `crash_states()`, or raise SimCrash, which kills the device there and then.
        failed: operations that failed by plan.
        dead: the power is off.
    """

    def __init__(self) -> None:
        self.operations: int = 0
        self.failed: int = 0
        self.on_operation: Callable[[int, str], None] | None = None
        self.dead: bool = False
        self._faults: list[Fault] = []
        self._hooked = False

    def fail(
        self, operation: str, *, nth: int = 1, errno: int = errnos.EIO, short: int | None = None, times: int = 1
    ) -> None:
        """Let an operation fail, counted from now.

        Args:
            operation: one of OPERATIONS, or the last part of some: "sync" is every sync of file contents, "write" every write of
                data. "submit.complete" fails a write that is durable.
            nth: which of the matching operations is the first to fail, from 1.
            errno: what it fails with.
            short: for writes of data: write only so many bytes, then report EIO.
            times: how many matching operations fail in a row.

        Raises:
            BadOption: there is no such operation.
        """
        check_operation(operation)
        self._faults.append(Fault(operation, nth, errno, short, times))

    def step(self, name: str) -> Fault | None:
        """Count one operation, let the hook see it, and find the fault that it must fail with."""
        self.alive()
        self.operations += 1
        if self.on_operation is not None:
            self._hooked = True
            try:
                self.on_operation(self.operations, name)
            except SimCrash:
                self.dead = True
                raise
            finally:
                self._hooked = False
            self.alive()
        chosen: Fault | None = None
        for fault in self._faults:
            if fault.matches(name):
                fault.nth -= 1
                if fault.nth <= 0 and fault.times > 0 and chosen is None:
                    fault.times -= 1
                    self.failed += 1
                    chosen = fault
        return chosen

    def check(self, name: str) -> None:
        """`step`, raising the fault's OSError."""
        fault = self.step(name)
        if fault is not None:
            raise fault.error()

    def alive(self) -> None:
        """Raise SimCrash after the power cut."""
        if self.dead:
            raise SimPowerOff("the simulated device has crashed")
