"""Ctrl-C ends the process at once while the command line is being imported, and in verbs that only read.

An exception from a signal handler can be lost in a callback or a destructor, and during an import it is a traceback. Imports
nothing that the interpreter has not imported already, but `signal`.
"""

from __future__ import annotations

import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # these would be imported here first, while Ctrl-C still is a traceback
    from collections.abc import Callable
    from typing import Any, NoReturn


def end(_number: int = 0, _frame: object = None) -> NoReturn:
    """Exit with 130. Only the cursor is tidied up, which a progress display may have hidden."""
    if sys.stderr is not None and sys.stderr.isatty():
        sys.stderr.write("\x1b[?25h")
        sys.stderr.flush()
    os._exit(130)  # walsvc.cli.exits.INTERRUPTED, which is not imported yet


def replace(handler: Callable[..., Any], other: Callable[..., Any]) -> bool:
    """Set the handler `other` in the place of `handler`; False where another one is set, such as SIG_IGN, which stays."""
    if signal.getsignal(signal.SIGINT) is not handler:
        return False
    signal.signal(signal.SIGINT, other)
    return True
