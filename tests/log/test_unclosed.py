"""A log that is dropped without close: a ResourceWarning names it, and what it held is given back."""

from __future__ import annotations

import asyncio
import gc
import os
import tempfile
import warnings
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import walsvc
from tests.disks import REAL_DISKS
from tests.engines.cluster import WHY_NO_SERVER, shared_cluster
from walsvc.log.writer import WalWriter
from walsvc.service.server.server import serve

HANGS_SECONDS = 60.0


def drop(held: list[Any]) -> list[str]:
    """Let go of the only reference; what was warned of."""
    alive = weakref.ref(held[0])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        held.clear()
        gc.collect()
    assert alive() is None or caught, "somebody holds the log"
    return [str(each.message) for each in caught if each.category is ResourceWarning]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(HANGS_SECONDS):
        while not condition():
            await asyncio.sleep(0)
            gc.collect()  # what the loop held a moment longer


def mine() -> set[str]:
    """What this process has open."""
    links = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            links.add(f"{number} {os.readlink(f'/proc/self/fd/{number}')}")
        except FileNotFoundError:
            continue
    return links


@pytest.mark.parametrize(
    "options", [{"relaxed_interval": 0.002}, {"retain_seconds": 3600.0, "relaxed_interval": None}, {"read_only": True}]
)
@pytest.mark.parametrize("disk", REAL_DISKS)
async def test_dropped_log_is_told_and_gives_everything_back(
    tmp_path: Path, disk: str, options: dict[str, Any]
) -> None:
    path = tmp_path / "log"
    async with walsvc.open(path, disk=disk, segment_bytes=1 << 16) as log:
        for _ in range(40):
            await log.append(b"x" * 3000)
    before = mine()
    held = [await walsvc.open(path, disk=disk, segment_bytes=1 << 16, **options)]
    if not options.get("read_only"):
        await held[0].append(b"last")
        await held[0].append(b"relaxed", mode=walsvc.Relaxed)
    assert drop(held) == [f"unclosed log {path}"]
    await until(lambda: mine() == before)
    async with walsvc.open(path, disk=disk) as log:
        assert log.durable_lsn >= (40 if options.get("read_only") else 41)


async def test_dropped_writer_is_told(tmp_path: Path) -> None:
    held = [await WalWriter.open(tmp_path)]
    await held[0].append(b"x")
    await asyncio.sleep(0)  # the append's answer woke this task from within the writer
    assert drop(held) == [f"unclosed log {tmp_path}"]


async def test_append_of_a_dropped_log_is_answered(tmp_path: Path) -> None:
    held = [await walsvc.open(tmp_path)]
    answer = held[0].append(b"x")
    assert drop(held) == [f"unclosed log {tmp_path}"]
    assert (await answer).durable


@pytest.mark.parametrize("way", ["close", "close in time", "async with", "never entered"])
async def test_closed_log_says_nothing(tmp_path: Path, way: str) -> None:
    held: list[Any] = []
    if way == "async with":
        async with walsvc.open(tmp_path) as log:
            held.append(log)
        del log
    elif way == "never entered":
        held.append(walsvc.open(tmp_path))
    else:
        held.append(await walsvc.open(tmp_path))
        await held[0].close(None if way == "close" else 60.0)
    assert drop(held) == []


def test_log_that_outlives_its_loop_is_told(tmp_path: Path) -> None:
    async def opened() -> Any:
        return await walsvc.open(tmp_path)

    assert drop([asyncio.run(opened())]) == [f"unclosed log {tmp_path}"]


async def given_back(held: list[Any], path: str, ended: Callable[[], Awaitable[object]]) -> None:
    alive = weakref.ref(held[0])
    answer = held[0].append(b"on its way")
    assert drop(held) == [f"unclosed log {path}"]
    assert (await answer).durable, "it was called before the log was dropped"
    async with asyncio.timeout(HANGS_SECONDS):
        while alive() is not None:
            await asyncio.sleep(0)
            gc.collect()
    await ended()


async def test_dropped_served_log_ends_its_connection(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="walsvc-") as place:
        async with serve(tmp_path / "log", unix=f"{place}/socket") as server:
            url = server.addresses[0]
            held = [await walsvc.open(url)]
            await held[0].append(b"x")

            async def ended() -> None:
                await until(lambda: not len(server.roster))

            await given_back(held, url, ended)


@pytest.mark.skipif(bool(WHY_NO_SERVER), reason=WHY_NO_SERVER or "it is there")
async def test_dropped_log_in_jetstream_ends_its_connection() -> None:
    cluster = shared_cluster()
    url = cluster.url(cluster.new_stream())
    held = [await walsvc.open(url, monitor=cluster.monitor, segment_bytes=65536)]
    path = held[0].path
    client = held[0].writer.core.disk._stream.client

    async def ended() -> None:
        await until(lambda: client.is_closed)

    await given_back(held, path, ended)
