"""A log that is appended to, consumed and reclaimed stays within its bound on disk: python -m tests.topics.bounded --seconds 600

Opens the log again every few seconds, prints the most that its directory ever held, and ends with 1 if that was too much.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time

import walsvc

SEGMENT_BYTES = 1 << 20
BOUND_BYTES = 10 * SEGMENT_BYTES  # two at work, those not yet passed by the slowest, and at most three spares
OPEN_SECONDS = 5.0


def held(path: str) -> int:
    """Bytes of all files of the log."""
    total = 0
    for entry in os.scandir(path):
        try:
            total += entry.stat().st_size
        except FileNotFoundError:
            continue
    return total


async def live(path: str, until: float) -> tuple[int, int]:
    """One opening; returns the most bytes held and the records written."""
    most = records = 0
    async with walsvc.open(path, segment_bytes=SEGMENT_BYTES, reclaim="consumed") as log:
        topics = [log.topic(f"t{number}") for number in range(3)]
        consumers = [await topic.consumer("c", delivery=walsvc.AtLeastOnce(persist_every=50)) for topic in topics]
        while time.monotonic() < until:
            for topic, consumer in zip(topics, consumers, strict=True):
                await asyncio.gather(*(topic.append(bytes(1000)) for _ in range(50)))
                records += 50
                await consumer.ack((await consumer.read_batch())[-1].lsn)
            most = max(most, held(path))
    return max(most, held(path)), records


def campaign(
    path: str, seconds: float, open_seconds: float = OPEN_SECONDS, records_min: int = 0
) -> tuple[int, int, int]:
    """Run for a while, and until there are so many records; returns the most bytes held, the records written, and how often
    the log was opened."""
    end, most, records, openings = time.monotonic() + seconds, 0, 0, 0
    while time.monotonic() < end or records < records_min:
        held_now, written = asyncio.run(live(path, time.monotonic() + open_seconds))
        most, records, openings = max(most, held_now), records + written, openings + 1
    return most, records, openings


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--dir", help="a directory on a real disk; default: the system's temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.dir) as path:
        most, records, openings = campaign(path, options.seconds)
    print(
        f"{options.seconds:.0f} s, {openings} openings, {records} records: at most {most} bytes held, bound {BOUND_BYTES}"
    )
    sys.exit(most > BOUND_BYTES)


if __name__ == "__main__":
    main()
