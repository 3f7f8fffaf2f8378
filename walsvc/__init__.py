"""walsvc: a durable log for asyncio. Acknowledged means on disk; thousands of tasks share one sync.

    async with walsvc.open("data/") as log:
        result = await log.append(b"payload")

Names are imported when they are first used, so that a command line that only prints its help stays quick.
"""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers take it for true; `typing` is half of the time that this module would take
if TYPE_CHECKING:
    from walsvc import blocking as blocking
    from walsvc.config import WalConfig as WalConfig
    from walsvc.errors import Backpressure as Backpressure
    from walsvc.errors import BadOption as BadOption
    from walsvc.errors import BadPayload as BadPayload
    from walsvc.errors import Closed as Closed
    from walsvc.errors import Conflict as Conflict
    from walsvc.errors import Corruption as Corruption
    from walsvc.errors import Denied as Denied
    from walsvc.errors import DurabilityLost as DurabilityLost
    from walsvc.errors import Fenced as Fenced
    from walsvc.errors import InUse as InUse
    from walsvc.errors import LeaseLost as LeaseLost
    from walsvc.errors import Locked as Locked
    from walsvc.errors import MissingKey as MissingKey
    from walsvc.errors import NoSpace as NoSpace
    from walsvc.errors import OutcomeUnknown as OutcomeUnknown
    from walsvc.errors import PathError as PathError
    from walsvc.errors import ProtocolError as ProtocolError
    from walsvc.errors import RecordTooLarge as RecordTooLarge
    from walsvc.errors import ReplicaLost as ReplicaLost
    from walsvc.errors import Truncated as Truncated
    from walsvc.errors import Unreachable as Unreachable
    from walsvc.errors import UnsupportedFormat as UnsupportedFormat
    from walsvc.errors import WalError as WalError
    from walsvc.errors import WalTimeout as WalTimeout
    from walsvc.errors import WrongKey as WrongKey
    from walsvc.errors import WrongLoop as WrongLoop
    from walsvc.format.limits import TopicLimits as TopicLimits
    from walsvc.interface import Consumer as Consumer
    from walsvc.interface import Log as Log
    from walsvc.interface import Topic as Topic
    from walsvc.keyring import KeyRing as KeyRing
    from walsvc.log.commit.ack import Ack as Ack
    from walsvc.log.offline.migration import Migration as Migration
    from walsvc.log.offline.migration import migrate as migrate
    from walsvc.log.read.lazy import LazyRecord as LazyRecord
    from walsvc.log.read.readonly import ReadOnlyLog as ReadOnlyLog
    from walsvc.log.writer import WalWriter as WalWriter
    from walsvc.model import AppendResult as AppendResult
    from walsvc.model import Entry as Entry
    from walsvc.model import Finding as Finding
    from walsvc.model import Mode as Mode
    from walsvc.model import Pin as Pin
    from walsvc.model import Quorum as Quorum
    from walsvc.model import ReadStats as ReadStats
    from walsvc.model import Record as Record
    from walsvc.model import RecoveryReport as RecoveryReport
    from walsvc.model import Relaxed as Relaxed
    from walsvc.model import Retention as Retention
    from walsvc.model import Stats as Stats
    from walsvc.model import Strict as Strict
    from walsvc.opening import open as open
    from walsvc.service.client.config import ClientConfig as ClientConfig
    from walsvc.topics.delivery import AtLeastOnce as AtLeastOnce
    from walsvc.topics.delivery import StrictlyOnce as StrictlyOnce
    from walsvc.topics.names import ConsumerStatus as ConsumerStatus
    from walsvc.topics.shared import Delivery as Delivery
    from walsvc.topics.shared import SharedConsumer as SharedConsumer
    from walsvc.topics.transaction import Transaction as Transaction

__version__ = "0.1.0"

ERRORS = (
    "Backpressure BadOption BadPayload Closed Conflict Corruption Denied DurabilityLost Fenced InUse LeaseLost Locked MissingKey "
    "NoSpace OutcomeUnknown PathError ProtocolError RecordTooLarge ReplicaLost Truncated Unreachable UnsupportedFormat "
    "WalError WalTimeout WrongKey WrongLoop"
)
VALUES = "AppendResult Entry Finding Mode Pin Quorum ReadStats Record RecoveryReport Relaxed Retention Stats Strict"
HOMES = {
    "walsvc.config": "WalConfig",
    "walsvc.errors": ERRORS,
    "walsvc.keyring": "KeyRing",
    "walsvc.model": VALUES,
    "walsvc.format.limits": "TopicLimits",
    "walsvc.interface": "Consumer Log Topic",
    "walsvc.opening": "open",
    "walsvc.log.commit.ack": "Ack",
    "walsvc.log.offline.migration": "Migration migrate",
    "walsvc.log.read.lazy": "LazyRecord",
    "walsvc.log.read.readonly": "ReadOnlyLog",
    "walsvc.log.writer": "WalWriter",
    "walsvc.service.client.config": "ClientConfig",
    "walsvc.topics.delivery": "AtLeastOnce StrictlyOnce",
    "walsvc.topics.names": "ConsumerStatus",
    "walsvc.topics.shared": "Delivery SharedConsumer",
    "walsvc.topics.transaction": "Transaction",
}
HOME = {name: module for module, names in HOMES.items() for name in names.split()}

__all__ = sorted(HOME)  # noqa: PLE0605  a list, as `from walsvc import *` needs it


def __getattr__(name: str) -> object:
    """Import a public name from its home (PEP 562)."""
    from importlib import import_module

    if name == "blocking":
        return import_module("walsvc.blocking")
    if name not in HOME:
        raise AttributeError(f"module 'walsvc' has no attribute {name!r}")
    value = getattr(import_module(HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *HOME, "blocking"])
