"""What a seed decides before a run begins: the disk, the log's options, and the payloads."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import os
import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest import mock

from walsvc.config import KIB, WalConfig
from walsvc.disk.sim import SimDevice, SimDisk
from walsvc.format.group import GROUP_MAGIC
from walsvc.keyring import KeyRing
from walsvc.log import opening
from walsvc.log.commit.tail import Tail
from walsvc.log.recover import sealing

from .model import Entry

SEGMENT_BYTES = 64 * KIB


@dataclass(frozen=True, slots=True)
class Plan:
    """A device and a log, drawn from a seed."""

    seed: int
    sector: int
    garbage: bool
    loose: bool
    sync_names: bool
    direct: bool
    sync_method: str
    block_bytes: int
    latency: float
    config: WalConfig
    garbage_each: bool = False

    @classmethod
    def draw(cls, seed: int) -> Plan:
        """The plan of a seed."""
        rng = random.Random(f"{seed} plan")
        sector = rng.choice((512, 4096))
        block_bytes = rng.choice((sector, 4096))  # a group never shares a sector with another one
        return cls(
            seed=seed,
            sector=sector,
            garbage=rng.random() < 0.5,
            loose=rng.random() < 0.4,
            sync_names=rng.random() < 0.2,
            direct=rng.random() < 0.6,
            sync_method=rng.choice(("dsync", "fdatasync")),
            block_bytes=block_bytes,
            latency=rng.choice((0.0, 100e-6, 100e-6, 3e-3)),
            config=WalConfig(
                segment_bytes=SEGMENT_BYTES,
                block_bytes=block_bytes,
                max_group_bytes=rng.choice((4 * KIB, 16 * KIB, 1024 * KIB)),
                max_group_records=rng.choice((1, 3, 65_536, 65_536)),
                max_pending_bytes=rng.choice((16 * KIB, 256 * KIB, 1024 * KIB)),
                relaxed_interval=rng.choice((None, 0.002, 0.2)),
                commit_delay=rng.choice((0.0, 0.0, 0.0005)),
            ),
        )

    @classmethod
    def draw_double_write(cls, seed: int) -> Plan:
        """The plan of a seed for a log with the double-write file, mostly packed, on a device that leaves noise in one sector
        of every write that a power cut meets."""
        plan = cls.draw(seed)
        rng = random.Random(f"{seed} double-write")
        config = dataclasses.replace(
            plan.config,
            layout=rng.choice(("pack", "pack", "pack", "pad")),
            double_write=rng.choice(("direct", "buffered")) if plan.direct else "buffered",
            max_group_bytes=rng.choice((4 * KIB, 4 * KIB, 16 * KIB, 64 * KIB)),
        )
        return dataclasses.replace(plan, config=config, garbage=False, garbage_each=True)

    @classmethod
    def draw_encrypted(cls, seed: int) -> Plan:
        """The plan of a seed for an encrypted log, one in three with the double-write file; the workload changes its key now
        and then."""
        plan = cls.draw(seed) if seed % 3 else cls.draw_double_write(seed)
        return plan.with_options(keys=ring(0))

    def with_options(self, **options: Any) -> Plan:
        """The same, but for some of the log's options."""
        return dataclasses.replace(self, config=dataclasses.replace(self.config, **options))

    def device(self) -> SimDevice:
        """A new, empty device."""
        return SimDevice(
            self.seed,
            sector=self.sector,
            garbage=self.garbage,
            garbage_each=self.garbage_each,
            loose=self.loose,
            sync_names=self.sync_names,
        )

    def disk(self, device: SimDevice, *, calm: bool = False) -> SimDisk:
        """A process' view of a device; `calm`: everything at once and in order."""
        return SimDisk(
            device,
            latency=0.0 if calm else self.latency,
            out_of_order=not calm,
            sync_method=self.sync_method,
            direct=self.direct,
            block_bytes=self.block_bytes,
        )


def ring(current: int) -> KeyRing:
    """Three keys, one of them the current one."""
    keys = [(f"key {number}", bytes([number]) * 32) for number in range(3)]
    return KeyRing(keys.pop(current), keys)


class Payloads:
    """Payloads that are never the same twice, unless they are too short for that."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(f"{seed} payloads")
        self._number = 0

    def entry(self, size: int | None = None) -> Entry:
        """The next record; `size` in bytes, or None for chance: mostly small, sometimes several blocks."""
        rng = self._random
        self._number += 1
        if size is None:
            kinds = ((0, 16), (16, 300), (16, 300), (300, 3000), (3900, 4200), (4000, 20_000))
            size = rng.randint(*rng.choice(kinds))
        pattern = struct.pack("<Q", self._number)
        if rng.random() < 0.1:
            pattern = GROUP_MAGIC + pattern[:4]  # what looks like a group at every block position
        payload = (pattern * (size // 8 + 1))[:size]
        if rng.random() < 0.1:
            return Entry(payload, rng.choice((0, 1, 0xFFFF)), (("n", self._number),))
        return Entry(payload)


@contextlib.contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """Replace what opening a log draws from the system: its random identity, nonces and the wall clock. It logs nothing: thousands of
    recoveries would be kept as lines."""
    rng, ticks = random.Random(f"{seed} identity"), itertools.count(1_700_000_000_000_000_000, 1_000)
    clock = SimpleNamespace(time_ns=lambda: next(ticks))
    logger = logging.getLogger("walsvc")
    level = logger.level
    with (
        mock.patch.object(os, "urandom", rng.randbytes),
        mock.patch.object(opening, "time", clock),
        mock.patch.object(sealing, "time", clock),
        mock.patch.dict(Tail.__init__.__kwdefaults__, clock=clock.time_ns),
    ):
        logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            logger.setLevel(level)
