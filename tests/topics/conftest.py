"""A log on each kind of disk, opened again and again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

import walsvc
from tests.disks import ALL_DISKS
from walsvc import Log, WalConfig
from walsvc.api import open_on
from walsvc.disk.sim import SimDevice, SimDisk

Opener = Callable[..., AbstractAsyncContextManager[Log]]


@pytest.fixture(params=ALL_DISKS)
def open_log(request, tmp_path) -> Opener:
    """Opens the same log again and again, on one kind of disk, with segments of 64 KiB."""
    return opener_on(request.param, tmp_path)


@pytest.fixture
def open_sim(tmp_path) -> Opener:
    """The same on the simulated disk only, for what does not depend on the disk."""
    return opener_on("sim", tmp_path)


def opener_on(disk: str, tmp_path) -> Opener:
    device = SimDevice(7)

    @asynccontextmanager
    async def opener(**options: Any) -> AsyncIterator[Log]:
        options.setdefault("segment_bytes", 65536)
        if disk == "sim":
            log = await open_on(SimDisk(device), WalConfig.of(None, options))
        else:
            log = await walsvc.open(tmp_path / "log", disk=disk, **options)
        async with log:
            yield log

    return opener


async def lsns(records: Any) -> list[int]:
    """LSNs of what an asynchronous iterator of records gives."""
    return [record.lsn async for record in records]
