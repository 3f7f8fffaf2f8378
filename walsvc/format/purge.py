"""Purge marks: which records are hidden because their key, or labels, were purged. Pure.

A mark says: records whose labels match, and whose LSN is below `before`, are hidden; later ones are visible. Purging a key
is therefore also its tombstone. In the metadata a mark is one entry of the map `purges`, from the mark's name to `before`:

    "<topic number>/<labels as JSON, keys sorted, no spaces>"      topic number 0: records of any topic and of none

Bytes as a label's value are written as {"base64": "..."}. All labels of a mark must be equal to the record's attributes of
those names; integers and floats are compared as numbers, true and false only with each other.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from walsvc.errors import BadOption
from walsvc.format.group import BadGroup
from walsvc.format.hidden import NOTHING_HIDDEN, Hidden
from walsvc.model import is_lsn

MARK_BYTES_MAX = 1024  # of a mark's name: every segment begins with a snapshot that holds all of them
MARKS_MAX = 65_536  # then 64 MiB of snapshot at the very most; compaction takes marks away
LSNS_MAX = 8192  # that one purge names: as many elements as an array in a frame of the service has
KEY_LABEL = "key"  # the label that `purge(key)` looks at
Label = str | bytes | int | float | bool
Test = tuple[tuple[str, ...], tuple[tuple[bool, Any], ...]]  # names of labels, sorted, and the values they must have


def check_way(
    key_or_labels: Any, before: int | None = None, lsns: Any = None, keep: int | None = None, *, topic: bool = True
) -> None:
    """BadOption unless a purge says in one way what it is to hide; `topic`: it is of one."""
    ways = [key_or_labels is not None, lsns is not None, keep is not None]
    if sum(ways) > 1 or (before is not None and (lsns is not None or keep is not None)):
        raise BadOption(
            "purge() takes a key or labels, or lsns, or keep", hint="one of them; before goes with a key or labels"
        )
    if not any(ways) and (before is None or not topic):
        other = "lsns, before or keep" if topic else "lsns; for everything there is truncate_before"
        raise BadOption("purge() needs to know what to hide", hint=f"name a key or labels, or {other}")


def lsns_of(lsns: Any) -> list[int]:
    """The LSNs that `purge` was asked for, ascending and each once. BadOption for anything but a collection of at most LSNS_MAX integers."""
    if not isinstance(lsns, Iterable) or isinstance(lsns, (str, bytes)) or not all(map(is_lsn, wanted := list(lsns))):
        raise BadOption(f"purge(lsns={lsns!r}) is no collection of LSNs"[:200], hint="for example lsns=[17, 20]")
    distinct = sorted(set(wanted))
    if len(distinct) > LSNS_MAX:
        raise BadOption(f"purge(lsns=...) names {len(distinct)} records", hint=f"at most {LSNS_MAX:,} in one call")
    return distinct


def labels_of(key_or_labels: Any) -> dict[str, Label]:
    """The labels that `purge` was asked for: a mapping as it is, anything else is the value of the label "key".

    Raises BadOption for a mapping that is empty or has a key that is not text, and for a value that is not text, bytes, a
    finite number, true or false.
    """
    labels = dict(key_or_labels) if isinstance(key_or_labels, Mapping) else {KEY_LABEL: key_or_labels}
    if not labels:
        raise BadOption(
            "purge() needs at least one label", hint="name a key or labels; for everything there is truncate_before"
        )
    for name, value in labels.items():
        if not isinstance(name, str):
            raise BadOption(f"the label {name!r} is not text", hint="labels are named by text")
        finite = not isinstance(value, float) or math.isfinite(value)
        if not isinstance(value, (str, bytes, int, float)) or not finite:
            raise BadOption(
                f"the value {value!r} of label {name!r} cannot be purged",
                hint="text, bytes, a finite number, True or False",
            )
    return labels


def mark_name(topic: int, labels: Mapping[str, Label]) -> str:
    """The name of the mark for a topic's number (0: all) and labels, as it stands in the metadata.

    Raises BadOption if it has over MARK_BYTES_MAX bytes, or is not valid Unicode.
    """
    cells = {
        name: {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value
        for name, value in labels.items()
    }
    name = f"{topic}/" + json.dumps(cells, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    try:
        size = len(name.encode())
    except UnicodeEncodeError as error:
        raise BadOption(f"the labels are not valid Unicode: {error}") from None
    if size > MARK_BYTES_MAX:
        raise BadOption(
            f"the labels take {size} bytes in a purge mark", hint=f"at most {MARK_BYTES_MAX}; purge by a shorter label"
        )
    return name


@lru_cache(maxsize=MARKS_MAX)  # `Marks` is made anew after every purge
def parse_mark(name: str) -> tuple[int, Test]:
    """Topic number and test of a mark's name. Raises BadGroup for what mark_name does not make."""
    number, _, text = name.partition("/")
    try:
        topic, cells = int(number), sorted(json.loads(text).items())
        values = [base64.b64decode(cell["base64"]) if isinstance(cell, dict) else cell for _, cell in cells]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadGroup(f"the purge mark {name!r} cannot be read") from None
    return topic, (tuple(label for label, _ in cells), tuple(map(_comparable, values)))


def _comparable(value: Any) -> tuple[bool, Any]:
    return value.__class__ is bool, value


class Marks:
    """The records that are hidden in a log at one moment, by purge marks and by ranges, arranged for asking. The marks are immutable.

    Attributes:
        highest: no record at or above this LSN is hidden by a mark; 0 when there are no marks.
        ranges: that hide records whatever they hold.
    """

    __slots__ = ("_everywhere", "_tests", "highest", "ranges")

    def __init__(self, purges: Mapping[str, int], ranges: Hidden = NOTHING_HIDDEN) -> None:
        self.highest: int = max(purges.values(), default=0)
        self.ranges: Hidden = ranges
        # topic -> names of labels -> their values -> before: asking costs one lookup for each set of names in use
        tests: dict[int, dict[tuple[str, ...], dict[tuple[tuple[bool, Any], ...], int]]] = {}
        for name, before in purges.items():
            topic, (labels, values) = parse_mark(name)
            tests.setdefault(topic, {}).setdefault(labels, {})[values] = before
        self._everywhere = list(tests.pop(0, {}).items())
        self._tests = {topic: [*found.items(), *self._everywhere] for topic, found in tests.items()}

    def before(self, topic: int, attributes: Mapping[str, Any]) -> int:
        """The LSN below which marks hide a record with these attributes, of topic number `topic` (0: none); 0: they do not."""
        highest = 0
        for labels, values in self._tests.get(topic, self._everywhere):
            try:
                found = values.get(tuple([_comparable(attributes[label]) for label in labels]), 0)
            except (KeyError, TypeError):  # it has no such label; or a list or a map in it, which no mark names
                continue
            highest = max(highest, found)
        return highest

    def hides(self, lsn: int, topic: int, attributes: Mapping[str, Any]) -> bool:
        """True if a record is hidden."""
        if self.ranges.covers(topic, lsn):
            return True
        return lsn < self.highest and bool(attributes) and lsn < self.before(topic, attributes)


NO_MARKS = Marks({})
