"""Dropping records at the log's beginning. It survives a kill at any point.

The new first LSN (walsvc.log.extent.reclaim decides it) is written into the log and, once that is durable, whole segments are
removed or recycled, oldest first, so that the segments that are left always follow one another.
"""

from __future__ import annotations

from walsvc.errors import BadOption, Corruption, UnsupportedFormat
from walsvc.format.segment import segment_name, spare_name
from walsvc.log.commit.core import Core
from walsvc.log.commit.patience import SHORTAGES, kept_back, patiently
from walsvc.log.extent.clearing import STAYS
from walsvc.log.read.stream import load_header
from walsvc.model import is_lsn

RECYCLED_NAME = 1 << 63  # keeps the names of recycled files apart from those of fresh spares
SPARES_KEPT = 2
AGAIN = "once the reason is gone, truncate again: its room is freed then"


def check_before(core: Core, lsn: int) -> None:
    """BadOption unless truncate_before(lsn) is possible."""
    if not is_lsn(lsn) or not 1 <= lsn <= core.next_lsn:
        raise BadOption(
            f"truncate_before({lsn!r}) is out of range",
            path=core.disk.path,
            hint=f"first_lsn to next_lsn: {core.metadata.truncated} to {core.next_lsn}",
        )


def droppable(core: Core) -> bool:
    """True if the oldest segment has no record that is not dropped."""
    ids = core.catalog.view.ids
    return len(ids) > 1 and ids[1] <= min(core.metadata.truncated, core.catalog.durable_lsn + 1)


async def drop_segments(core: Core) -> None:
    """Remove or recycle the segments whose records are all below the truncation point; safe to run at any time.

    Raises NoSpace and PathError where a file cannot be removed now, though no data is at stake; OSError and DurabilityLost.
    """
    disk = core.disk
    while True:
        await core.pipeline.rotation.ended()  # now the names of the segments that stay are durable
        core.health.raise_failure()
        if not droppable(core):
            return
        first = core.catalog.view.ids[0]
        length = core.catalog.view.sizes[first]
        fits = length == core.config.segment_bytes and core.tail.spares.count < SPARES_KEPT
        try:
            if fits and await patiently(may_recycle, core, first):
                name = spare_name(RECYCLED_NAME | first)
                await patiently(disk.rename, segment_name(first), name)
                core.tail.spares.recyclable[name] = length
            else:
                await patiently(disk.remove, segment_name(first))
        except FileNotFoundError:
            pass  # somebody has removed it already
        except OSError as error:
            if error.errno not in SHORTAGES:
                raise
            raise kept_back(error, STAYS, path=disk.path, segment=first, hint=AGAIN) from error
        core.catalog.drop(first)
        await disk.sync_directory()


async def may_recycle(core: Core, first_lsn: int) -> bool:
    """True if a segment's file may be used again: in an encrypted log only one that never held anything but ciphertext."""
    if core.tail.keys is None:
        return True
    try:
        header, _ = await load_header(core.disk, segment_name(first_lsn), first_lsn)
    except (Corruption, UnsupportedFormat):
        return False
    return header.cipher != 0
