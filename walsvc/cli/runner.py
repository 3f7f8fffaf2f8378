"""Runs a verb's coroutine and turns whatever comes out of it into one line and an exit code."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from walsvc.cli import exits, output
from walsvc.errors import WalError

if TYPE_CHECKING:
    import asyncio

LOOPS = ("auto", "asyncio", "uvloop")


def run(verb: Callable[[], Coroutine[Any, Any, int]], *, loop: str = "auto", only_reads: bool = False) -> NoReturn:
    """Run `verb()` on an event loop to its end and leave with the exit code that it returns.

    Errors become one line on standard error and the code of their class (walsvc.cli.exits). Ctrl-C ends with 130, a
    reader that went away with 141; both say nothing.

    Args:
        verb: makes the coroutine.
        loop: name of the event loop, see loop_factory.
        only_reads: Ctrl-C ends the process at once, also inside a write to a pipe that nobody empties. Otherwise it
            cancels the verb, whose `async with` and `finally` then tidy up.
    """
    import asyncio

    if only_reads:
        signal.signal(signal.SIGINT, _interrupt)  # asyncio.Runner leaves alone what is not the default handler
    try:
        with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
            code = runner.run(verb())
        sys.stdout.flush()
    except KeyboardInterrupt:
        output.abandon_stdout()
        code = exits.INTERRUPTED
    except BrokenPipeError:
        output.abandon_stdout()
        code = exits.BROKEN_PIPE
    except (WalError, OSError) as error:
        code = report(error)
    raise typer.Exit(code)


def _interrupt(_number: int, _frame: object) -> NoReturn:
    """Leave at once. An exception from a signal handler can be lost in a callback or a destructor; there is nothing to tidy
    but the cursor, which a progress display may have hidden."""
    if sys.stderr is not None and sys.stderr.isatty():
        sys.stderr.write("\x1b[?25h")
        sys.stderr.flush()
    os._exit(exits.INTERRUPTED)


def report(error: WalError | OSError) -> int:
    """Say `error` in one line on standard error; returns its exit code."""
    if isinstance(error, WalError):
        output.complain(f"walsvc: {error}")
    else:
        where = f" [{error.filename}]" if error.filename else ""
        output.complain(f"walsvc: {error.strerror or error}{where}")
    try:
        sys.stdout.flush()
    except OSError:  # perhaps the very error
        output.abandon_stdout()
    return exits.code_of(error)


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """The event loop called `name`: "auto" is uvloop where it is installed, else asyncio."""
    import asyncio

    if name == "asyncio":
        return asyncio.new_event_loop
    try:
        import uvloop
    except ImportError:
        if name == "uvloop":
            raise typer.BadParameter("uvloop is not installed; install walsvc[uvloop] or use --loop asyncio") from None
        return asyncio.new_event_loop
    made: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return made
