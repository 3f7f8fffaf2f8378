"""Which segments must be there: they are numbered, so a missing, doubled or foreign one is noticed by a few headers."""

from __future__ import annotations

from walsvc.disk.base import Disk
from walsvc.errors import Corruption, UnsupportedFormat
from walsvc.format.segment import SegmentHeader, parse_name, segment_name
from walsvc.log.read.boundary import check_generations
from walsvc.log.read.stream import load_header
from walsvc.log.recover.findings import foreign


async def check_complete(disk: Disk, ids: list[int], newest: SegmentHeader) -> None:
    """Segments are numbered, so two headers tell whether one between them is missing."""
    oldest, _ = await load_header(disk, segment_name(ids[0]), ids[0])
    low, high = 0, len(ids) - 1
    if oldest.log_id != newest.log_id:
        raise foreign(disk, ids[0], oldest, newest)
    check_generations(disk.path, oldest, newest)
    if newest.ordinal - oldest.ordinal == high:
        return
    first = oldest.ordinal
    while high - low > 1:  # bisect: between low and high the numbers do not match the count
        middle = (low + high) // 2
        header, _ = await load_header(disk, segment_name(ids[middle]), ids[middle])
        if header.log_id != newest.log_id:
            raise foreign(disk, ids[middle], header, newest)
        if header.ordinal - first == middle:
            low = middle
        else:
            high = middle
    raise Corruption(
        "a segment in the middle of the log is missing, or one is there twice",
        path=disk.path,
        segment=ids[high],
        expected=f"segment number {first + high} after {segment_name(ids[low])}",
        actual=f"{segment_name(ids[high])}",
        hint="restore the missing file from a backup of this log, or move a foreign one elsewhere; `walsvc verify` tells whether "
        "a file belongs to this history of the log",
    )


async def refuse_lost_segments(disk: Disk, sizes: dict[str, int]) -> None:
    """No segment at all: fine for a new log, not where a spare shows that there had been several."""
    for name in sizes:
        if parse_name(name, ".spare") is None:
            continue
        try:
            header, _ = await load_header(disk, name, None)
        except (Corruption, UnsupportedFormat):
            continue
        if header.ordinal > 1:
            raise Corruption(
                "all segments of the log are missing",
                path=disk.path,
                segment=header.first_lsn,
                expected="at least one .wal file",
                actual=f"{name}, which belonged to segment number {header.ordinal}",
                hint="restore the segments from a backup",
            )
