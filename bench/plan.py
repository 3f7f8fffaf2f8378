"""How much is measured: a full run takes some minutes, a quick one less than 90 seconds."""

from __future__ import annotations

from dataclasses import dataclass

from walsvc.config import GIB, MIB


@dataclass(frozen=True, slots=True)
class Plan:
    """Amounts of a run.

    Attributes:
        rounds: how often each pair is measured in turn.
        seconds: one measurement of throughput or latency.
        watch_seconds: one measurement of what happens seldom: loop lag, rotations.
        shared: the machine has other work: the quiet rounds of each side count, instead of the median of the ratios.
        replay_records, replay_bytes: the logs that are read back, of 128 B and of 16 KiB payloads.
        long_log_bytes, short_log_bytes: the logs that are opened.
        memory_appends: appends over which memory is watched.
        segments: of the log with many segments.
        topics: of the log with many topics.
    """

    rounds: int = 5
    seconds: float = 1.0
    watch_seconds: float = 2.0
    shared: bool = False
    replay_records: int = 2_000_000
    replay_bytes: int = 512 * MIB
    long_log_bytes: int = 10 * GIB
    short_log_bytes: int = 100 * MIB
    memory_appends: int = 10_000_000
    segments: int = 10_000
    topics: int = 100_000


FULL = Plan()
QUICK = Plan(
    rounds=3,
    seconds=0.25,
    watch_seconds=0.5,
    replay_records=400_000,
    replay_bytes=128 * MIB,
    long_log_bytes=4 * GIB,
    memory_appends=1_000_000,
    segments=1_000,
    topics=10_000,
)
SHARED = Plan(rounds=30, seconds=0.1, watch_seconds=1.0, replay_records=400_000, replay_bytes=128 * MIB, shared=True)
