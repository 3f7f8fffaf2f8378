"""walsvc: a durable log for asyncio. Acknowledged means on disk; thousands of tasks share one sync.

async with walsvc.open("data/") as log:
    result = await log.append(b"payload")
"""

from walsvc.config import WalConfig
from walsvc.errors import (
    Backpressure,
    BadOption,
    BadPayload,
    Closed,
    Corruption,
    DurabilityLost,
    Locked,
    NoSpace,
    PathError,
    RecordTooLarge,
    Truncated,
    UnsupportedFormat,
    WalError,
    WalTimeout,
    WrongLoop,
)
from walsvc.log.log import Log, open
from walsvc.log.writer import WalWriter
from walsvc.model import AppendResult, Finding, Mode, Record, RecoveryReport, Relaxed, Stats, Strict

__version__ = "0.1.0"

__all__ = [
    "AppendResult", "Backpressure", "BadOption", "BadPayload", "Closed", "Corruption", "DurabilityLost", "Finding",
    "Locked", "Log", "Mode", "NoSpace", "PathError", "Record", "RecordTooLarge", "RecoveryReport", "Relaxed", "Stats",
    "Strict", "Truncated", "UnsupportedFormat", "WalConfig", "WalError", "WalTimeout", "WalWriter", "WrongLoop", "open",
]  # fmt: skip
