"""Which records a reader wants, on their way to the server and there: `types`, `where`, `since` and `until`. Pure.

Times travel as Unix microseconds, which is what a datetime holds; all the rest as it is. The client checks before it sends,
with the checks of the embedded log, so that what is wrong is said by the same words; the server's log checks again.
"""

from __future__ import annotations

import datetime
from typing import Any

from walsvc.errors import BadOption
from walsvc.format.purge import Marks, mark_name
from walsvc.log.read.filter import EPOCH, Wanted, timestamp_of
from walsvc.log.read.reading import chosen_of
from walsvc.model import Record
from walsvc.service.wire.frames import ITEMS_MAX, Purged

MICROSECOND_NS = 1000


def sent(wanted: Wanted, *, endless: bool = False) -> dict[str, Any]:
    """The arguments of OPEN for what a caller wants.

    Args:
        wanted: see Log.read.
        endless: the call waits for more, see chosen_of.

    Raises:
        BadOption: an argument is not as it must be, or has more elements than a frame takes.
    """
    chosen = chosen_of(wanted, endless=endless)
    args: dict[str, Any] = {"topic": wanted.get("topic")}
    if chosen.types is not None:
        args["types"] = sorted(map(int, chosen.types))
    if chosen.where:
        args["where"] = {label: list(values) for label, values in chosen.where}
    for name, moment in (("since", wanted.get("since")), ("until", wanted.get("until"))):
        if moment is not None:
            args[name] = microseconds_of(name, moment)
    most = max(map(len, [args.get("types", ()), args.get("where", ()), *args.get("where", {}).values()]))
    if most > ITEMS_MAX:
        raise BadOption(f"types or where has {most} elements", expected=f"at most {ITEMS_MAX} on a connection")
    return args


def microseconds_of(name: str, moment: datetime.datetime) -> int:
    """Unix microseconds of an aware datetime, 0 for one before 1970; BadOption for any other value."""
    return timestamp_of(name, moment) // MICROSECOND_NS


def moment_of(name: str, microseconds: int) -> datetime.datetime:
    """The datetime that Unix microseconds stand for; BadOption beyond year 9999."""
    try:
        return EPOCH + datetime.timedelta(microseconds=microseconds)
    except OverflowError:
        raise BadOption(f"{name} is no moment", expected="Unix microseconds before the year 10000") from None


def reading(args: dict[str, Any]) -> dict[str, Any]:
    """The arguments of Log.read or Log.follow for those of an OPEN.

    BadOption for what no client of ours sends, without showing it: a frame may hold much, and nest deeply.
    """
    if not all(type(each) is int for each in args.get("types") or ()):
        raise BadOption("types has something else than integers")
    if not all(type(label) is str and type(values) is list for label, values in (args.get("where") or {}).items()):
        raise BadOption("where is no map from text to arrays")
    moments = {name: moment_of(name, args[name]) for name in ("since", "until") if args.get(name) is not None}
    return {**args, **moments}


class Hidden:
    """Which of the records that were sent ahead of a PURGED frame are hidden by it. BadOption for a frame that cannot be."""

    def __init__(self, frame: Purged) -> None:
        self._topic = frame.topic
        self._lsns = None if frame.lsns is None else frozenset(frame.lsns)
        self._below = frame.before if self._lsns is None and not frame.labels else 0
        self._marks = Marks({mark_name(0, frame.labels): frame.before} if frame.labels else {})

    def below(self, topic: str | None) -> int:
        """LSN below which all records of a topic are hidden; 0: nowhere."""
        return self._below if topic is not None and topic == self._topic else 0

    def __call__(self, record: Record) -> bool:
        if self._topic is not None and record.topic != self._topic:
            return False
        if self._lsns is not None:
            return record.lsn in self._lsns
        return record.lsn < self._below or self._marks.hides(record.lsn, 0, record.attributes)
