"""The contract of a log, once more for an encrypted one: nothing of it may change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import walsvc
from tests.contract import test_log as contract
from walsvc import KeyRing, Log, WalConfig
from walsvc.api import open_on
from walsvc.disk.sim import SimDevice, SimDisk
from walsvc.log.stream import open_stream

KEYS = KeyRing(current=("new", bytes(range(32))), older=[("old", bytes(32))])

IN_PLAIN_SIGHT = "test_result_says_where_the_bytes_stand"  # below is what holds of ciphertext
globals().update(
    {name: test for name, test in vars(contract).items() if name.startswith("test_") and name != IN_PLAIN_SIGHT}
)


@pytest.fixture(params=["threads", "sim"])
def open_log(request, tmp_path) -> contract.Opener:
    """Opens the same encrypted log again and again, on one kind of disk."""
    device = SimDevice(7)

    @asynccontextmanager
    async def opener(**options: Any) -> AsyncIterator[Log]:
        options = {"segment_bytes": 65536, "keys": KEYS, **options}
        if request.param == "sim":
            log = await open_on(SimDisk(device), WalConfig.of(None, options))
        else:
            log = await walsvc.open(tmp_path / "log", disk=request.param, **options)
        async with log:
            yield log

    return opener


async def test_result_says_where_the_ciphertext_stands(open_log):
    async with open_log() as log:
        single = await asyncio.gather(*(log.append(b"payload number %d" % i) for i in range(300)))
        batch = await log.append_batch([b"batch number %d" % i for i in range(300)])
        records = await contract.read_all(log)
        for result, record in zip([*single, *batch], records, strict=True):
            assert result.encoded_len == len(record.payload)
            name, length = log.segment_file(result.segment_id)
            _, stream = await open_stream(log._disk, name, result.segment_id, length, KEYS)
            while stream.chain.offset <= result.offset:
                group = await stream.next()
            at = result.offset - group.header.offset
            assert bytes(group.data[at : at + result.encoded_len]) == record.payload
            stored = await log._disk.read(name, result.offset // 4096 * 4096, 8192)
            assert stored[result.offset % 4096 :][: result.encoded_len] != record.payload
