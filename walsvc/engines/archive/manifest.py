"""The archive's manifest: what sealed segments were stored, as a chain of entries that are written once. Pure.

    <log id>/parts/<sha256>            a piece of a segment, named by its content
    <log id>/manifest/<sequence>.json  one entry for each stored segment, sequence as 16 hex digits from 1

Objects are only ever created, never replaced: an upload that was cut off leaves parts that the next attempt finds again, and
an entry that exists is a segment that is stored as a whole. An entry names the hash of the entry before it, so a missing or
exchanged one is found; `check` is the hash of the entry itself.

An entry whose first LSN is not the next LSN of the one before tells of a truncate_after, or of a log that was restored as it
was earlier (it is lower: what the archive holds from there on was dropped and written anew), or of a gap (it is higher: segments were dropped before they were archived).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from dataclasses import fields as fields_of
from hashlib import sha256
from typing import Any

from walsvc.engines.history import history
from walsvc.errors import Corruption, UnsupportedFormat

LOST_TOLD = 100  # entries that are missing in a row, of which each is told
VERSION = 2  # 1 had neither end_crc nor since_ns


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """A stored segment.

    Attributes:
        sequence: number of the entry, from 1.
        log_id: of the log, 16 hex digits.
        first_lsn, next_lsn: its records, next_lsn excluded.
        ordinal, generation: as in the segment's header.
        bytes: of the segment in use, from its header to its last group.
        file_bytes: length of the file that it was.
        first_ns, last_ns: wall clock of its first and last group, Unix nanoseconds.
        parts: length and SHA-256 of each piece, in order.
        end_crc: header CRC of its last group, which covers all before it; None: not known (version 1).
        since_ns: from then on the log was what the entry says: where it takes the place of another, when they part. 0: first_ns.
        previous: `check` of the entry before, empty for the first.
        check: SHA-256 over all other fields.
    """

    sequence: int
    log_id: str
    first_lsn: int
    next_lsn: int
    ordinal: int
    generation: int
    bytes: int
    file_bytes: int
    first_ns: int
    last_ns: int
    parts: tuple[tuple[int, str], ...]
    end_crc: int | None = None
    since_ns: int = 0
    previous: str = ""
    check: str = ""

    @property
    def name(self) -> str:
        """The object's name."""
        return entry_name(self.log_id, self.sequence)


def entry_name(log_id: str, sequence: int) -> str:
    """Name of the manifest entry with that number."""
    return f"{log_id}/manifest/{sequence:016x}.json"


def part_name(log_id: str, digest: str) -> str:
    """Name of the object that holds a piece with that SHA-256."""
    return f"{log_id}/parts/{digest}"


def encode_entry(entry: ManifestEntry) -> tuple[ManifestEntry, bytes]:
    """Encode an entry: the entry with its check, and its JSON."""
    checked = replace(entry, check=sha256(canonical(entry)).hexdigest())
    return checked, json.dumps({"version": VERSION, **asdict(checked)}, indent=1).encode() + b"\n"


def canonical(entry: ManifestEntry) -> bytes:
    """Bytes that `check` is taken of."""
    fields: dict[str, Any] = asdict(entry)
    del fields["check"]
    if entry.end_crc is None:
        del fields["end_crc"], fields["since_ns"]
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


def decode_entry(data: bytes, name: str) -> ManifestEntry:
    """Decode the entry in `data`, which came from the object `name`.

    Raises:
        Corruption: it is damaged or of another place. UnsupportedFormat: a newer walsvc wrote it.
    """
    try:
        fields = json.loads(data)
        if fields.pop("version") > VERSION:
            raise UnsupportedFormat(
                "the manifest entry was written by a newer walsvc", path=name, hint="upgrade walsvc"
            )
        fields["parts"] = tuple((length, digest) for length, digest in fields["parts"])
        entry = ManifestEntry(**fields)
        check_types(entry)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(name, f"it is no manifest entry: {error}") from None
    except RecursionError:
        raise damaged(name, "it is no manifest entry: it nests too deeply") from None
    if entry.name != name:
        raise damaged(name, f"it belongs at {entry.name}")
    if entry.check != sha256(canonical(entry)).hexdigest():
        raise damaged(name, "its check is wrong")
    if sum(length for length, _ in entry.parts) != entry.bytes or not entry.first_lsn <= entry.next_lsn:
        raise damaged(name, "its lengths contradict each other")
    return entry


def check_types(entry: ManifestEntry) -> None:
    """Raise TypeError where a field is not of its type: numbers from 0 to 2^64 - 1, and text."""
    for field in fields_of(entry):
        value = getattr(entry, field.name)
        if field.name == "parts":
            good = all(is_number(length) and type(digest) is str for length, digest in value)
        elif field.type == "str":
            good = type(value) is str
        else:
            good = is_number(value) or (value is None and field.name == "end_crc")
        if not good:
            raise TypeError(f"{field.name} cannot be what it is")


def is_number(value: object) -> bool:
    """True if it is an integer of 64 bits."""
    return type(value) is int and 0 <= value < 1 << 64


def damaged(name: str, reason: str) -> Corruption:
    """The error for an object that is not what was stored."""
    return Corruption(
        f"an object of the archive is damaged: {reason}",
        path=name,
        hint="restore the object from another copy of the archive, or archive the log anew elsewhere",
    )


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest as far as it can be read.

    Attributes:
        entries: those that are sound by themselves, ascending.
        wrong: what is wrong with the others, and where one is missing or does not follow the one before; in that order.
        whole: of the first so many entries everything before them is sound, too.
    """

    entries: list[ManifestEntry]
    wrong: list[Corruption]
    whole: int


def chain_of(found: list[ManifestEntry | Corruption]) -> Manifest:
    """The manifest of its objects in order of their names: entries, or what is wrong with one. They follow one another from
    number 1 on."""
    entries: list[ManifestEntry] = []
    wrong: list[Corruption] = []
    whole, number = 0, 1
    previous: str | None = ""  # of the next entry, where the one before can be read
    for each in found:
        if isinstance(each, Corruption):
            wrong.append(each)
            number, previous = number + 1, None
            continue
        for missing in range(number, min(each.sequence, number + LOST_TOLD)):
            wrong.append(lost(each.log_id, missing, each.sequence))
        if number < each.sequence:
            previous = None
        if previous is not None and each.previous != previous:
            wrong.append(damaged(each.name, "it does not follow the one before it"))
        entries.append(each)
        number, previous = each.sequence + 1, each.check
        whole = whole if wrong else len(entries)
    return Manifest(entries, wrong, whole)


def lost(log_id: str, number: int, found: int) -> Corruption:
    """The error for an entry that is missing, though a later one is there."""
    return Corruption(
        "a manifest entry is missing",
        path=entry_name(log_id, number),
        expected=f"number {number}",
        actual=f"number {found}",
        hint="restore the object from another copy of the archive",
    )


@dataclass(frozen=True, slots=True)
class KeptEntry:
    """A stored segment as part of the log's history: of `entry`, what lies below LSN `until`."""

    entry: ManifestEntry
    until: int


def kept_entries(entries: list[ManifestEntry]) -> list[KeptEntry]:
    """The segments of the log as it was archived last, ascending, without what truncate_after dropped."""
    kept, _ = history(entries)
    return [KeptEntry(entry, entry.next_lsn if until is None else min(until, entry.next_lsn)) for entry, until in kept]


def last_run(pieces: list[KeptEntry]) -> list[KeptEntry]:
    """The newest of `pieces` back to the last gap."""
    start = len(pieces)
    while start and (start == len(pieces) or pieces[start - 1].until == pieces[start].entry.first_lsn):
        start -= 1
    return pieces[start:]
