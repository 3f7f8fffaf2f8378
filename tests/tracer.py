"""Changes system calls of a running process, as a kernel short of memory would answer them: ptrace(2), for x86-64."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
from collections.abc import Callable

SEIZE, INTERRUPT, SYSCALL, PEEKUSER, POKEUSER = 0x4206, 0x4207, 24, 3, 6
TRACESYSGOOD = 1
SYSCALL_STOP = signal.SIGTRAP | 0x80
NUMBER, RESULT, SECOND = 120, 80, 104  # orig_rax, rax and rsi in struct user
IO_URING_ENTER = 426
NOT_YET = -38  # what rax holds when a call begins

WHY_NOT = "" if platform.machine() == "x86_64" else "the tracer knows the registers of x86-64 only"


def ptrace(request: int, process: int, address: int = 0, data: int = 0) -> int:
    """ptrace(2); OSError where it fails."""
    call = ctypes.CDLL(None, use_errno=True).ptrace
    call.restype = ctypes.c_long
    call.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
    ctypes.set_errno(0)
    result: int = call(request, process, address, data)
    if ctypes.get_errno():
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def attach(process: int) -> None:
    """Begin to trace the first thread of a process. PermissionError where that is not allowed."""
    ptrace(SEIZE, process, 0, TRACESYSGOOD)
    ptrace(INTERRUPT, process)


def trace(process: int, submitting: Callable[[int], int]) -> None:
    """Go on to the end of the process, and let `submitting` say, for each io_uring_enter that submits, how many of its
    submissions the kernel is told of."""
    while True:
        _, status = os.waitpid(process, 0)
        if not os.WIFSTOPPED(status):
            return
        handed_on = 0
        stopped_by = os.WSTOPSIG(status)
        if stopped_by == SYSCALL_STOP:
            if ptrace(PEEKUSER, process, NUMBER) == IO_URING_ENTER and ptrace(PEEKUSER, process, RESULT) == NOT_YET:
                count = ptrace(PEEKUSER, process, SECOND) & 0xFFFF_FFFF
                if count and (told := submitting(count)) != count:
                    ptrace(POKEUSER, process, SECOND, told)
        elif not status >> 16:
            handed_on = stopped_by
        ptrace(SYSCALL, process, 0, handed_on)
