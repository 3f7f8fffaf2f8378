"""The content of a group, apart from its place: for writing it again elsewhere, with other records or in another version. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from walsvc.format.columns import encode_column
from walsvc.format.group import (
    GROUP_HEADER_BYTES,
    Bytes,
    Columns,
    Flag,
    GroupHeader,
    align_up,
    decode_columns,
    decode_meta,
)
from walsvc.format.meta import decode_map, encode_map

PLACES = "index"  # key of a seal's metadata that tells where groups stand: no longer true elsewhere


class Content(NamedTuple):
    """A group's content.

    Attributes:
        header: of the group; place, lengths, previous_crc, nonce and CRCs are those of where it was read.
        records: the pieces of the payload area, in order.
        columns: the index.
        meta: the metadata.
    """

    header: GroupHeader
    records: Sequence[Bytes]
    columns: Columns
    meta: bytes


def content_of(header: GroupHeader, data: Bytes, at: int = 0) -> Content:
    """The content of a checked and opened group of the present version; `records` lies in `data`."""
    start = at + GROUP_HEADER_BYTES
    meta = decode_meta(header, data, at)
    if header.flags & Flag.SEAL:
        meta = without(meta, PLACES)
    records = [data[start : start + header.payload_bytes]]
    return Content(header, records, decode_columns(header, data, at), meta)


def without(meta: bytes, key: str) -> bytes:
    """Metadata without a key; the same bytes where it is not there."""
    change = decode_map(meta)
    return meta if change.pop(key, None) is None else encode_map(change)


def encoded_bytes(content: Content, align: int, tag_bytes: int) -> int:
    """Length of the group that this content makes."""
    cells = sum(each.itemsize for each in content.columns if each is not None)
    body = sum(map(len, content.records)) + content.header.records * cells + len(content.meta)
    return align_up(GROUP_HEADER_BYTES + body + tag_bytes, align)


def encoded_index(columns: Columns) -> bytes:
    """The index, column by column."""
    return b"".join(encode_column(cells) for cells in columns if cells is not None)
