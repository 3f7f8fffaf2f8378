"""Run a command where io_uring_setup is refused, as in a container: python -m tests.without_uring EPERM -- COMMAND ...

    python -m tests.without_uring ENOSYS -- python -m pytest

The suite must be green there, too. The filter is a seccomp program of four instructions; children inherit it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

NUMBERS = {"x86_64": 425, "aarch64": 425}  # io_uring_setup
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
SECCOMP_RET_ERRNO, SECCOMP_RET_ALLOW = 0x0005_0000, 0x7FFF_0000


class Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def forbid_uring(number: int) -> None:
    """Let io_uring_setup fail with errno `number` in this process and all that it starts."""
    instructions = [
        (0x20, 0, 0, 0),  # load the system call's number
        (0x15, 0, 1, NUMBERS[platform.machine()]),  # if it is io_uring_setup:
        (0x06, 0, 0, SECCOMP_RET_ERRNO | number),  # fail
        (0x06, 0, 0, SECCOMP_RET_ALLOW),  # else go on
    ]
    code = b"".join(struct.pack("=HBBI", *each) for each in instructions)
    program = Program(len(instructions), code)
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in (
        (PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0),
    ):
        if libc.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), "prctl failed: this system has no seccomp filters")


def main() -> None:
    """The command line."""
    if len(sys.argv) < 4 or sys.argv[2] != "--":
        sys.exit(__doc__)
    forbid_uring(getattr(errno, sys.argv[1]))
    os.execvp(sys.argv[3], sys.argv[3:])


if __name__ == "__main__":
    main()
