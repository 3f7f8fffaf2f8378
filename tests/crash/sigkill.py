"""SIGKILL at random on the real disks: what a child process was told to be durable must be there, byte for byte.

    python -m tests.crash.sigkill --rounds 200 --disk uring --disk threads

Each round lets a child open the log of the rounds before, append from many tasks, truncate now and then, and report every
acknowledgement through a pipe; kills it after a random time; and opens the log again.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import walsvc
from tests.crash.killing import main, reports_until_killed

REPORT = struct.Struct("<cQ16s")  # kind, LSN, digest
ACKED, TRUNCATED, REOPENED = b"a", b"t", b"o"


def digest(payload: bytes) -> bytes:
    """What the child reports of a payload."""
    return hashlib.blake2b(payload, digest_size=16).digest()


def options_of(layout: str) -> dict[str, Any]:
    """What the log is opened with: "pack-direct" and the like name layout and double-write, "pad" the default."""
    layout, _, double_write = layout.partition("-")
    return {"layout": layout, "double_write": double_write or "off"}


async def child(path: str, seed: int, layout: str) -> None:
    """Append until killed; report each acknowledgement only after it came."""
    rng = random.Random(seed)

    def report(kind: bytes, lsn: int, check: bytes = bytes(16)) -> None:
        os.write(1, REPORT.pack(kind, lsn, check))

    async with walsvc.open(path, segment_bytes=65536 * rng.choice((1, 4, 16)), **options_of(layout)) as log:
        report(REOPENED, log.next_lsn)

        async def append(number: int) -> None:
            while True:
                mode = walsvc.Relaxed if number % 5 == 0 else walsvc.Strict
                payload = rng.randbytes(rng.choice((0, 10, 200, 200, 5000, 20000)))
                if rng.random() < 0.1:
                    batch = [payload, b"second", payload[:7]]
                    for result, piece in zip(await log.append_batch(batch), batch, strict=True):
                        report(ACKED, result.lsn, digest(piece))
                    continue
                result = await log.append(payload, mode=mode)
                if result.durable:
                    report(ACKED, result.lsn, digest(payload))

        async def truncate() -> None:
            while True:
                await asyncio.sleep(rng.random() * 0.1)
                target = rng.randint(log.first_lsn, log.durable_lsn + 1)
                report(TRUNCATED, target)  # before: it may or may not have happened
                await log.truncate_before(target)

        await asyncio.gather(truncate(), *(append(number) for number in range(rng.choice((1, 8, 64)))))


@dataclass
class Round:
    """What the parent knows of a log over all rounds."""

    acked: dict[int, bytes] = field(default_factory=dict)
    truncated_at_most: int = 1
    lost: int = 0
    wrong: int = 0


async def check(path: Path, disk: str, known: Round, layout: str) -> int:
    """Open the log and compare; returns the number of acknowledged records that were found."""
    async with walsvc.open(path, disk=disk, **options_of(layout)) as log:
        assert log.first_lsn <= known.truncated_at_most, "more was truncated than anybody asked for"
        found = {record.lsn: digest(record.payload) async for record in log.read()}
        assert list(found) == list(range(log.first_lsn, log.next_lsn)), "LSNs are not dense"
        expected = {lsn: check for lsn, check in known.acked.items() if lsn >= log.first_lsn}
        known.lost += sum(lsn not in found for lsn in expected)
        known.wrong += sum(lsn in found and found[lsn] != check for lsn, check in expected.items())
        known.acked = found
        return len(expected)


def run_round(path: Path, disk: str, seed: int, known: Round, layout: str = "pad") -> int:
    """One child, one kill, one check."""
    reports = reports_until_killed("tests.crash.sigkill", REPORT, path, disk, seed, "--layout", layout)
    for kind, lsn, check_sum in reports:
        if kind == ACKED:
            known.acked[lsn] = check_sum
        elif kind == TRUNCATED:
            known.truncated_at_most = max(known.truncated_at_most, lsn)
    return asyncio.run(check(path, disk, known, layout))


def campaign(disk: str, rounds: int, seed: int, directory: Path, layout: str = "pad") -> int:
    """`rounds` kills on one log; prints what it saw, returns how many records were lost or wrong."""
    known, total = Round(), 0
    for number in range(rounds):
        total += run_round(directory / "log", disk, seed + number, known, layout)
    print(
        f"{disk}, {layout}: {rounds} kills from seed {seed}, {total} acknowledged records, {known.lost} lost, {known.wrong} wrong"
    )
    assert total, "no child had anything acknowledged, so nothing was checked"
    return known.lost + known.wrong


if __name__ == "__main__":
    main(__doc__, child, campaign, rounds=200, layouts=("pad", "pad-direct", "pack-direct", "pack-buffered"))
