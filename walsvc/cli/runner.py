"""Runs a verb's coroutine and turns whatever comes out of it into one line and an exit code."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from walsvc.cli import exits, hints, interrupt, output
from walsvc.errors import WalError
from walsvc.extras import missing

if TYPE_CHECKING:
    import asyncio

LOOPS = ("auto", "asyncio", "uvloop")


def run(verb: Callable[[], Coroutine[Any, Any, int]], *, loop: str = "auto", only_reads: bool = False) -> NoReturn:
    """Run `verb()` on an event loop to its end and leave with the exit code that it returns.

    Errors become one line on standard error and the code of their class (walsvc.cli.exits). Ctrl-C ends with 130, SIGTERM
    with 143, a reader that went away with 141; all three say nothing.

    Args:
        verb: makes the coroutine.
        loop: name of the event loop, see loop_factory.
        only_reads: Ctrl-C and SIGTERM end the process at once, also inside a write to a pipe that nobody empties. Otherwise
            they cancel the verb, whose `async with` and `finally` then tidy up; a second one ends the process.
    """
    import asyncio

    from walsvc.cli import logs

    factory = loop_factory(loop)
    logs.install()
    tidies = not only_reads and interrupt.replace(interrupt.end, signal.default_int_handler)
    try:  # asyncio.Runner takes the default handler's place, and no other's
        with asyncio.Runner(loop_factory=factory) as runner:
            code = runner.run(until_interrupted(verb()) if only_reads else until_terminated(verb()))
        output.flush()
    except KeyboardInterrupt:
        output.abandon_stdout()
        code = exits.INTERRUPTED
    except BrokenPipeError:
        output.abandon_stdout()
        code = exits.BROKEN_PIPE
    except (WalError, OSError) as error:
        code = report(error)
    if tidies:
        interrupt.replace(signal.default_int_handler, interrupt.end)
    raise typer.Exit(code)


async def until_interrupted(verb: Coroutine[Any, Any, int]) -> int:
    """Run `verb`, which Ctrl-C ends at once, also while the loop waits.

    A handler of Python runs between two bytecodes of the main thread. A signal that comes just before the loop goes to sleep,
    or to another thread, would wait there until something else wakes the loop. A loop that knows the signal is woken.
    """
    import asyncio

    if signal.getsignal(signal.SIGINT) is not interrupt.end:
        return await verb
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, interrupt.end)
    signal.signal(signal.SIGINT, interrupt.end)  # as before: it must also end a write to a pipe that nobody empties
    try:
        return await verb
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, interrupt.end)


async def until_terminated(verb: Coroutine[Any, Any, int]) -> int:
    """Run `verb`, which SIGTERM cancels as Ctrl-C does, unless it has its own way to end; a second SIGTERM kills."""
    import asyncio

    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None, "a coroutine runs in a task"
    asked = False

    def end() -> None:
        nonlocal asked
        asked = True
        loop.remove_signal_handler(signal.SIGTERM)
        task.cancel()

    loop.add_signal_handler(signal.SIGTERM, end)
    try:
        return await verb
    except asyncio.CancelledError:
        if not asked:
            raise
        return exits.TERMINATED
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


def report(error: WalError | OSError) -> int:
    """Say `error` in one line on standard error, with what to do about it on the command line; returns its exit code."""
    if isinstance(error, WalError):
        error.hint = error.hint and hints.on_the_command_line(error.hint)
        output.complain(f"walsvc: {error}")
    else:
        where = f" [{error.filename}]" if error.filename else ""
        output.complain(f"walsvc: {error.strerror or error}{where}")
    try:
        sys.stdout.flush()
    except OSError:  # perhaps the very error
        output.abandon_stdout()
    return exits.OTHER if isinstance(error, output.OutputLost) else exits.code_of(error)


def report_unexpected(error: Exception) -> int:
    """Say in one line what no verb expects, and where it happened; returns the exit code."""
    import traceback

    if isinstance(error, RuntimeError) and "new thread" in str(error):
        output.complain(
            f"walsvc: {error}. Hint: more threads must be allowed (ulimit -u, or pids.max of the container)"
        )
        return exits.OTHER
    if isinstance(error, MemoryError):
        output.complain("walsvc: out of memory")
        return exits.OTHER
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "walsvc" in frame.filename] or frames
    place = f" [{own[-1].filename}:{own[-1].lineno}]" if own else ""
    output.complain(
        f"walsvc: unexpected {type(error).__name__}: {error}{place}. Hint: a defect of walsvc; report this line"
    )
    return exits.OTHER


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """The event loop called `name`: "auto" is uvloop where it is installed, else asyncio."""
    import asyncio

    if name == "asyncio":
        return asyncio.new_event_loop
    try:
        import uvloop
    except ImportError:
        if name == "uvloop":
            raise missing("uvloop", "--loop uvloop") from None
        return asyncio.new_event_loop
    made: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return made
