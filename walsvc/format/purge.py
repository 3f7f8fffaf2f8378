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
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from walsvc.errors import BadOption
from walsvc.format.group import BadGroup

MARK_BYTES_MAX = 1024  # of a mark's name: every segment begins with a snapshot that holds all of them
MARKS_MAX = 65_536  # then 64 MiB of snapshot at the very most; compaction takes marks away
KEY_LABEL = "key"  # the label that `purge(key)` looks at
Label = str | bytes | int | float | bool
Test = tuple[tuple[str, ...], tuple[tuple[bool, Any], ...]]  # names of labels, sorted, and the values they must have


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
    """All purge marks of a log at one moment, arranged for asking. Immutable.

    Attributes:
        highest: no record at or above this LSN is hidden; 0 when there are no marks.
    """

    __slots__ = ("_everywhere", "_tests", "highest")

    def __init__(self, purges: Mapping[str, int]) -> None:
        self.highest: int = max(purges.values(), default=0)
        # topic -> names of labels -> their values -> before: asking costs one lookup for each set of names in use
        tests: dict[int, dict[tuple[str, ...], dict[tuple[tuple[bool, Any], ...], int]]] = {}
        for name, before in purges.items():
            topic, (labels, values) = parse_mark(name)
            tests.setdefault(topic, {}).setdefault(labels, {})[values] = before
        self._everywhere = list(tests.pop(0, {}).items())
        self._tests = {topic: [*found.items(), *self._everywhere] for topic, found in tests.items()}

    def before(self, topic: int, attributes: Mapping[str, Any]) -> int:
        """The LSN below which a record with these attributes, of topic number `topic` (0: none), is hidden; 0: none is."""
        highest = 0
        for labels, values in self._tests.get(topic, self._everywhere):
            try:
                found = values.get(tuple([_comparable(attributes[label]) for label in labels]), 0)
            except (KeyError, TypeError):  # it has no such label; or a list or a map in it, which no mark names
                continue
            highest = max(highest, found)
        return highest

    def hides(self, lsn: int, topic: int, attributes: Mapping[str, Any]) -> bool:
        """Whether a record is hidden."""
        return lsn < self.highest and bool(attributes) and lsn < self.before(topic, attributes)


NO_MARKS = Marks({})
