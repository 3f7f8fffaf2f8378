"""docs/FORMAT.md and the module heads against the structs: a diagram that drifts is worse than none."""

from __future__ import annotations

import itertools
import re
import struct
from pathlib import Path

import pytest

from walsvc.format import double_write, group, segment
from walsvc.format.group import Flag
from walsvc.format.meta import KNOWN, Metadata
from walsvc.log.commit.framing import segment_prefix

DOCUMENT = (Path(__file__).parents[2] / "docs" / "FORMAT.md").read_text()
SIZES = {"H": 2, "I": 4, "Q": 8}


def struct_fields(layout: struct.Struct) -> list[tuple[int, int]]:
    """(offset, size) of every field of a struct without padding."""
    fields, offset = [], 0
    for count, code in re.findall(r"(\d*)([sHIQ])", layout.format):
        sizes = [int(count)] if code == "s" else [SIZES[code]] * int(count or 1)
        for size in sizes:
            fields.append((offset, size))
            offset += size
    assert offset == layout.size
    return fields


def table_rows(title: str) -> list[tuple[int, int, str]]:
    """(offset, size, name) of the byte table under a heading of the document."""
    section = DOCUMENT.split(f"### {title}\n")[1].split("\n#")[0]
    rows = re.findall(r"^\| (\d+) \| (\d+) \| (\w+) \|", section, re.MULTILINE)
    return [(int(offset), int(size), name) for offset, size, name in rows]


def docstring_rows(text: str | None) -> list[tuple[int, int, str]]:
    """The same table in a module's head."""
    assert text is not None
    return [(int(o), int(s), n) for o, s, n in re.findall(r"^ +(\d+) +(\d+)  (\w+)", text, re.MULTILINE)]


@pytest.mark.parametrize(
    ("title", "module", "layout", "crc_offset", "total"),
    [
        ("Segment header", segment, segment.SEGMENT_FIELDS, segment.CRC_OFFSET, segment.SEGMENT_HEADER_BYTES),
        ("Group header", group, group.GROUP_FIELDS, group.HEADER_CRC_OFFSET, group.GROUP_HEADER_BYTES),
        (
            "Slot header",
            double_write,
            double_write.SLOT_FIELDS,
            double_write.SLOT_CRC_OFFSET,
            double_write.SLOT_HEADER_BYTES,
        ),
    ],
)
def test_byte_tables_match_structs_and_module_heads(title, module, layout, crc_offset, total):
    rows = table_rows(title)
    assert rows == docstring_rows(module.__doc__)
    assert [(offset, size) for offset, size, _ in rows[: len(struct_fields(layout))]] == struct_fields(layout)
    assert rows[-1][:2] == (crc_offset, 4)
    for (offset, size, _), (following, _, _) in itertools.pairwise(rows):
        assert offset + size == following
    assert rows[-1][0] + rows[-1][1] == total


def test_flag_table_matches_flags():
    rows = dict(re.findall(r"^\| ([A-Z_]+) \| (\d+) \|", DOCUMENT, re.MULTILINE))
    assert {name: int(bit) for name, bit in rows.items()} == {flag.name: flag.value for flag in Flag}


def test_metadata_table_matches_known_keys():
    section = DOCUMENT.split("### Metadata\n")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| (!?\w+) \| (?:int|bool|map|bin|array) \|", section, re.MULTILINE)) == KNOWN


def test_example_dump_is_what_the_code_writes():
    header = segment.SegmentHeader(4096, 65536, 0x0123456789ABCDEF, 1, 1, 1, 0, 0, 4096)
    prefix = segment_prefix(header, Metadata(), durable_lsn=0).data
    lines = re.findall(r"^([0-9a-f]{8})  ((?:[0-9a-f]{2} +){15}[0-9a-f]{2})$", DOCUMENT, re.MULTILINE)
    assert len(lines) == 3
    for address, text in lines:
        start = 4096 + int(address, 16)
        assert prefix[start : start + 16] == bytes.fromhex(text)
