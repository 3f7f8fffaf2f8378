"""Every asynchronous test runs on asyncio and, where it is installed, on uvloop, but for those in one_loop.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

try:
    import uvloop
except ImportError:
    uvloop = None  # type: ignore[assignment]

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
if uvloop is not None:
    LOOPS["uvloop"] = uvloop.new_event_loop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return LOOPS
