"""Asynchronous tests run on asyncio or on uvloop, where that is installed; those of BOTH_LOOPS on either.

What talks to the loop's transports, and the contract of a log, is tested on both: the variants of a test with parameters take
turns, so that each test meets both loops and each variant one. Of the other tests each runs on one loop, by its name: half on
either, and the same in every run.

The slowest tests begin first, spread over the test processes, so that none of them is the last that a run waits for; and they
may take longer than others until they count as hanging.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import re
import signal
import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import hypothesis
import pytest

from tests.engines.cluster import shared_cluster

try:
    import uvloop
except ImportError:
    uvloop = None  # type: ignore[assignment]

gc.disable()  # until everything is collected
# How long an example takes says more of the machine than of the test
hypothesis.settings.register_profile("busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("busy")

# A shell ignores SIGINT for what it starts in the background, and every child would inherit that
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
if uvloop is not None:
    LOOPS["uvloop"] = uvloop.new_event_loop
TESTS = Path(__file__).parent
BOTH_LOOPS = {TESTS / name for name in ("contract", "disk", "service")}
SLOWEST = (
    "test_power_cut_at_every_operation_keeps_what_was_acknowledged",
    "test_killers_pass_in_the_copy_without_a_mutant",
    "test_nth_operation_fails_with_each_errno_and_nothing_acknowledged_is_lost",
    "test_the_package_is_completely_typed",
    "test_noise_in_every_write_of_a_power_cut_takes_no_acknowledged_record",
    "test_power_cut_keeps_what_was_acknowledged_in_encrypted_logs_that_change_keys",
    "test_mypy_passes_what_is_right_and_names_each_mistake",
    "test_power_cuts_and_kills_during_compaction_lose_nothing_and_bring_nothing_back",
    "test_killed_or_cut_at_every_step_a_migration_goes_on_where_it_was",
    "test_pyright_passes_what_is_right_and_names_each_mistake",
)
SLOWEST_SECONDS = 500  # below faulthandler_timeout in pyproject.toml
NUMBERS = itertools.count()


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pytest's, without its symbolic link to the newest directory, which costs more than the directory."""
    name = re.sub(r"\W", "_", request.node.name)[:30]
    path = tmp_path_factory.getbasetemp() / f"{name}{next(NUMBERS)}"
    path.mkdir(mode=0o700)
    return path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = in_turns(items)
    spread_the_slowest(items)


def pytest_collection_finish() -> None:
    """Keep the collected tests from the garbage collector: they live as long as the process."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    if shared_cluster.cache_info().currsize:
        shared_cluster().drop_streams()


@cache
def on_both_loops(file: Path) -> bool:
    """Whether the tests of a file run on either loop."""
    return not BOTH_LOOPS.isdisjoint(file.parents)


def in_turns(items: list[pytest.Item]) -> list[pytest.Item]:
    """Leave out the second of two items that differ by their loop alone, where their test has other parameters as well."""

    def place(item: pytest.Item) -> tuple[str, frozenset[tuple[str, int]], int]:
        indices = dict(item.callspec.indices) if hasattr(item, "callspec") else {}
        loop = indices.pop("_asyncio_loop_factory", -1)
        return f"{item.path}::{getattr(item, 'originalname', item.name)}", frozenset(indices.items()), loop

    variants: dict[str, dict[frozenset[tuple[str, int]], int]] = defaultdict(dict)
    for test, variant, _ in map(place, items):
        variants[test].setdefault(variant, len(variants[test]) + zlib.crc32(test.rpartition("::")[2].encode()))

    def has_its_turn(item: pytest.Item) -> bool:
        test, variant, loop = place(item)
        alone = loop < 0 or len(variants[test]) == 1 or not on_both_loops(item.path)
        return alone or variants[test][variant] % len(LOOPS) == loop

    return list(filter(has_its_turn, items))


def spread_the_slowest(items: list[pytest.Item]) -> None:
    """Each test process begins with a part of its own of all tests (xdist's worksteal): put some of the slowest first in each."""
    slow = [item for name in SLOWEST for item in items if getattr(item, "originalname", None) == name]
    for item in slow:
        item.add_marker(pytest.mark.timeout(SLOWEST_SECONDS))
    rest = [item for item in items if getattr(item, "originalname", None) not in SLOWEST]
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    size = -(-len(items) // processes)
    items.clear()
    for number in range(processes):
        first = slow[number::processes]
        room = max(0, size - len(first)) if number < processes - 1 else len(rest)
        items += first + rest[:room]
        rest = rest[room:]


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if on_both_loops(item.path):
        return LOOPS
    chosen = sorted(LOOPS)[zlib.crc32(f"{item.path.name}::{item.name}".encode()) % len(LOOPS)]
    return {chosen: LOOPS[chosen]}
