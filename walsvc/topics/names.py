"""Names of topics, consumers and holders, and what positions mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from walsvc.errors import BadOption, Truncated
from walsvc.format.meta import NAME_BYTES_MAX
from walsvc.model import is_lsn

if TYPE_CHECKING:
    from walsvc.format.queues import ConsumerWindow
    from walsvc.log.writer import WalWriter

Start = int | Literal["first", "next"]  # an LSN, or one end of the log
WHOLE_LOG = 0  # number of the "topic" that consumers of the whole log read


def check_name(what: str, name: object) -> str:
    """The name, if it is a str of 1 to 255 UTF-8 bytes; else BadOption."""
    if not isinstance(name, str):
        raise BadOption(f"a {what}'s name must be text, not {type(name).__name__}")
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        raise BadOption(f"the {what}'s name {name!r} cannot be encoded as UTF-8") from None
    if not 1 <= length <= NAME_BYTES_MAX:
        raise BadOption(f"the {what}'s name has {length} bytes in UTF-8", hint=f"allowed: 1 to {NAME_BYTES_MAX}")
    return name


def key_of(topic: int, consumer: str) -> str:
    """A consumer's key in the metadata's `positions`."""
    return f"{topic}/{consumer}"


def parse_key(key: str) -> tuple[int, str]:
    """Topic number and consumer of a key."""
    number, _, consumer = key.partition("/")
    return int(number), consumer


def check_start(writer: WalWriter, start: Start, number: int = WHOLE_LOG) -> int:
    """The LSN that `start` means now, of a topic by its number. BadOption unless it is "first", "next", or an LSN from first_lsn to
    next_lsn."""
    first, following = writer.core.metadata.truncated, writer.next_lsn
    floor = max(first, writer.core.metadata.floor_of(number))
    if start == "first":
        return floor
    if start == "next":
        return following
    if not is_lsn(start) or not first <= start <= following:
        raise BadOption(
            f"{start!r} is no position in this log",
            path=writer.core.disk.path,
            hint=f'"first", "next", or an LSN from {first} to {following}',
        )
    return max(start, floor)  # below that the topic was truncated by itself


def overtaken(consumer: str, position: int, first: int, path: str) -> Truncated:
    """The error of a consumer whose records from its position on to `first`, the first LSN of the log or the topic, are gone."""
    return Truncated(
        f"consumer {consumer!r} was overtaken: records from LSN {position} on were dropped",
        path=path,
        lsn=position,
        expected=f"at least LSN {first}",
        hint='seek("first") to go on with what is left',
    )


@dataclass(frozen=True, slots=True)
class ConsumerStatus:
    """A consumer as `consumers()` lists it.

    Attributes:
        name: its name.
        topic: name of its topic; None: it reads the whole log.
        position: LSN of the next record to deliver, or below that.
        lag: records not yet acknowledged; None where some of them were dropped.
        in_use: it is open in this process.
        shared: it is a work queue (`shared=True`).
        outstanding: records that are out with workers.
        waiting: calls of next() that wait since as many are out as may be.
        redeliveries, dead_letters: since it was opened.
        oldest_seconds: age of the oldest record that is not done; None: none is, or it is not known.
    """

    name: str
    topic: str | None
    position: int
    lag: int | None
    in_use: bool
    shared: bool = False
    outstanding: int = 0
    waiting: int = 0
    redeliveries: int = 0
    dead_letters: int = 0
    oldest_seconds: float | None = None


def status_of(
    name: str, topic: str | None, position: int, lag: int | None, window: ConsumerWindow | None, *, in_use: bool
) -> ConsumerStatus:
    """The status of a consumer that is not open as a shared one; `lag` is counted from its position."""
    if window is None:
        return ConsumerStatus(name, topic, position, lag, in_use)
    lag = None if lag is None else max(lag - sum(window.records), 0)
    return ConsumerStatus(name, topic, position, lag, in_use, bool(window.options), len(window.held))
