"""Waiting in tests: for something to become so, and for a line of a child process. Neither waits for ever, or for nothing."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import IO, AnyStr

PATIENCE_SECONDS = 60.0  # far beyond what a step of a test takes on a busy machine


async def until(condition: Callable[[], object], pause: float = 0.001, seconds: float = PATIENCE_SECONDS) -> None:
    """Let the loop run until something is so.

    Args:
        condition: asked again and again; may be a coroutine function.
        pause: seconds of the loop's clock between two turns; 0: each turn of the loop, so that what is so for a moment only is seen.
        seconds: of the machine's clock after which the test fails.
    """
    deadline = time.monotonic() + seconds
    while not (await answer if inspect.isawaitable(answer := condition()) else answer):
        assert time.monotonic() < deadline, f"{condition} was not so within {seconds:.0f} s"
        await asyncio.sleep(pause)


def line_with(text: AnyStr, output: IO[AnyStr] | None) -> AnyStr:
    """The next line with `text` in the output of a child process; a child that ends without it fails the test."""
    assert output is not None, "the child has no pipe there"
    said: list[AnyStr] = []
    while line := output.readline():
        said.append(line)
        if text in line:
            return line
    raise AssertionError(f"the child has ended without {text!r}: {said}")
