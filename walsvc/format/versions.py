"""Format versions: how each is read, and the step that makes the next one of it. Pure.

A version stays in this table for as long as logs of it may exist. When version n + 1 comes, what reads version n moves here
with an `upgrade` to n + 1, and everything else in walsvc knows n + 1 only: opening refuses older logs and points to
`walsvc migrate`, which takes all steps from a log's version to the present one at once (Django's and Alembic's migrations
are such chains, too). At present there is one version.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from walsvc.format.chain import Chain
from walsvc.format.content import Content, content_of
from walsvc.format.group import Bytes, GroupHeader
from walsvc.format.segment import VERSION, BadSegment, SegmentHeader, decode_segment_header, version_of


class Format(NamedTuple):
    """One version.

    Attributes:
        version: its number.
        decode_header: the segment header in the first 4096 bytes; raises BadSegment.
        begin: the chain before the first group, from header, header bytes and file length; its groups are in the form of
            the present GroupHeader and body, or `content` knows better.
        content: what a checked group holds, in this version's terms.
        upgrade_header, upgrade: the step to version + 1; None: this is the present one.
    """

    version: int
    decode_header: Callable[[bytes], SegmentHeader] = decode_segment_header
    begin: Callable[[SegmentHeader, bytes, int], Chain] = Chain.begin
    content: Callable[[GroupHeader, Bytes, int], Content] = content_of
    upgrade_header: Callable[[SegmentHeader], SegmentHeader] | None = None
    upgrade: Callable[[Content], Content] | None = None


FORMATS: dict[int, Format] = {VERSION: Format(VERSION)}


def format_of(data: bytes) -> Format:
    """The format of the segment that begins with `data`. Raises BadSegment, with `newer` where it is a later version's,
    with `older` where no reader for it is left."""
    version = version_of(data)
    if version not in FORMATS:
        newer = version > VERSION
        reason = f"format version {version}, this walsvc knows {', '.join(map(str, sorted(FORMATS)))}"
        raise BadSegment(reason, newer=newer, older=not newer)
    return FORMATS[version]


def present_header(form: Format, data: bytes) -> SegmentHeader:
    """A segment header of any version as one of the present."""
    header = form.decode_header(data)
    for version in range(form.version, VERSION):
        upgrade = FORMATS[version].upgrade_header
        header = header if upgrade is None else upgrade(header)
    return header


def present_content(form: Format, header: GroupHeader, data: Bytes, at: int) -> Content:
    """A group of any version as one of the present."""
    content = form.content(header, data, at)
    for version in range(form.version, VERSION):
        upgrade = FORMATS[version].upgrade
        content = content if upgrade is None else upgrade(content)
    return content
