"""Writes a golden log of the present format version; run by hand once for each version: python -m tests.golden.make DIR

The files are committed and never made again: what version 1 wrote must decode for ever.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from walsvc.api import open_on
from walsvc.config import WalConfig
from walsvc.disk.sim import SimDevice, SimDisk
from walsvc.model import Relaxed

CONFIG = WalConfig(segment_bytes=65536)


def payload_of(lsn: int) -> bytes:
    """Deterministic content of 0 to about 900 bytes."""
    return f"record {lsn} ".encode() * (lsn * 7 % 91)


async def write(device: SimDevice) -> SimDevice:
    """Everything that version 1 knows: rotation, batches, types and attributes, truncation, crash, clean close."""
    log = await open_on(SimDisk(device), CONFIG)
    for lsn in range(1, 61, 6):
        await asyncio.gather(*(log.append(payload_of(each)) for each in range(lsn, lsn + 5)))
        await log.append(payload_of(lsn + 5), mode=Relaxed)
    await log.append_batch([payload_of(lsn) for lsn in range(61, 101)])
    await log.append(payload_of(101), type=7, attributes={"tenant": 7, "shard": "a"})
    await asyncio.gather(*(log.append(payload_of(lsn)) for lsn in range(102, 301)))
    await log.truncate_before(40)
    device = device.crash()
    log = await open_on(SimDisk(device), CONFIG)
    await log.append(payload_of(301), attributes={"after": "crash"})
    await log.truncate_after(290)
    await log.append_batch([payload_of(lsn) for lsn in range(291, 311)])
    await log.close()
    return device


def main() -> None:
    """Write the files and what they must decode to."""
    target = Path(sys.argv[1])
    device = asyncio.run(write(SimDevice(1)))
    target.mkdir(parents=True)
    device.dump(target)
    for spare in target.glob("*.spare"):
        spare.unlink()
    expected = {
        "first_lsn": 40,
        "next_lsn": 311,
        "labelled": {"101": [7, {"tenant": 7, "shard": "a"}]},
        "files": sorted(file.name for file in target.glob("*.wal")),
    }
    (target / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
