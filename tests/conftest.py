"""Asynchronous tests run on asyncio or on uvloop, where that is installed; those of BOTH_LOOPS on either.

What talks to the loop's transports, and the contract of a log, is tested on both. Of the other tests each runs on one of
them, by its name: half on either, and the same in every run.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

try:
    import uvloop
except ImportError:
    uvloop = None  # type: ignore[assignment]

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
if uvloop is not None:
    LOOPS["uvloop"] = uvloop.new_event_loop
TESTS = Path(__file__).parent
BOTH_LOOPS = {TESTS / name for name in ("contract", "disk", "service")}


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if BOTH_LOOPS & set(item.path.parents):
        return LOOPS
    chosen = sorted(LOOPS)[zlib.crc32(f"{item.path.name}::{item.name}".encode()) % len(LOOPS)]
    return {chosen: LOOPS[chosen]}
