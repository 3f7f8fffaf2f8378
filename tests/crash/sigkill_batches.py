"""SIGKILL at random on the real disks during atomic batches of 1 to 50,000 records that span segments: all or none.

    python -m tests.crash.sigkill_batches --rounds 500 --disk uring --disk threads

Each round lets a child open the log of the rounds before and append batches, some of them streamed from asynchronous
iterables, beside single records, and report each acknowledged batch through a pipe; kills it; and opens the log again.
Every record carries the number of its batch, how many the batch has, and its own place in it.
"""

from __future__ import annotations

import asyncio
import os
import random
import struct
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import walsvc
from tests.crash.killing import main, reports_until_killed

MARK = struct.Struct("<QII")  # batch, records in it, index
REPORT = struct.Struct("<QIQ")  # batch, records in it, first LSN; batch 0: the log is open
SINGLE = 0  # batch number of a record of its own


async def child(path: str, seed: int) -> None:
    """Append batches until killed."""
    rng = random.Random(seed)
    group_bytes = rng.choice((4096, 65536, 1 << 20))
    async with walsvc.open(path, segment_bytes=65536 * rng.choice((1, 4, 16)), max_group_bytes=group_bytes) as log:
        os.write(1, REPORT.pack(0, 0, log.next_lsn))

        def payloads(batch: int, count: int) -> list[bytes]:
            filler = bytes(rng.choice((0, 20, 200, 3000 if count < 2000 else 20)))
            return [MARK.pack(batch, count, index) + filler for index in range(count)]

        async def streamed(pieces: list[bytes]) -> AsyncIterator[bytes]:
            for index, piece in enumerate(pieces):
                if index % 100 == 0:
                    await asyncio.sleep(0)
                yield piece

        async def batches() -> None:
            while True:
                batch, count = rng.getrandbits(63) | 1, int(10 ** rng.uniform(0, 4.7))
                pieces = payloads(batch, count)
                appending = log.append_batch(streamed(pieces) if rng.random() < 0.3 else pieces)
                if rng.random() < 0.1:
                    await asyncio.sleep(rng.random() * 0.01)
                    appending.cancel()
                try:
                    results = await appending
                except asyncio.CancelledError:
                    continue
                os.write(1, REPORT.pack(batch, count, results[0].lsn))

        async def singles() -> None:
            while True:
                await log.append(MARK.pack(SINGLE, 1, 0))

        async def forget() -> None:
            while True:
                await asyncio.sleep(0.05)
                await log.truncate_before(max(log.first_lsn, log.durable_lsn - 200_000))

        await asyncio.gather(batches(), batches(), singles(), forget())


async def check(path: Path, disk: str, acked: dict[int, tuple[int, int]]) -> tuple[int, int, int]:
    """Open the log; returns (whole batches found, acknowledged ones missing, batches of which only a part is there)."""
    async with walsvc.open(path, disk=disk) as log:
        first_lsn, expected = log.first_lsn, log.first_lsn
        found: Counter[int] = Counter()
        counts: dict[int, int] = {}
        begins: dict[int, int] = {}
        async for records in log.read_batches():
            for record in records:
                assert record.lsn == expected, "LSNs are not dense"
                expected += 1
                batch, count, index = MARK.unpack_from(record.payload)
                if batch == SINGLE:
                    continue
                begin = begins.setdefault(batch, record.lsn - index)
                assert record.lsn == begin + index, "a batch out of order"
                found[batch] += 1
                counts[batch] = count
        lost = sum(batch not in found for batch, (_, lsn) in acked.items() if lsn >= first_lsn)
        whole = {batch for batch, number in found.items() if number == counts[batch]}
        parts = sum(begins[batch] >= first_lsn for batch in found if batch not in whole)  # else truncation cut it
        acked.clear()
        acked.update({batch: (counts[batch], begins[batch]) for batch in whole})
        return len(whole), lost, parts


def run_round(path: Path, disk: str, seed: int, acked: dict[int, tuple[int, int]]) -> tuple[int, int, int]:
    """One child, one kill, one check."""
    reports = reports_until_killed("tests.crash.sigkill_batches", REPORT, path, disk, seed)
    for batch, count, lsn in reports:
        if batch:
            acked[batch] = (count, lsn)
    return asyncio.run(check(path, disk, acked))


def campaign(disk: str, rounds: int, seed: int, directory: Path) -> int:
    """`rounds` kills on one log; prints what it saw, returns how many batches were lost or there in part."""
    acked: dict[int, tuple[int, int]] = {}
    lost = parts = seen = 0
    for number in range(rounds):
        whole, missing, partial = run_round(directory / "log", disk, seed + number, acked)
        seen, lost, parts = seen + whole, lost + missing, parts + partial
    print(
        f"{disk}: {rounds} kills from seed {seed}, {seen} whole batches seen, {lost} acknowledged lost, {parts} in part"
    )
    return lost + parts


if __name__ == "__main__":
    main(__doc__, child, campaign, rounds=500)
