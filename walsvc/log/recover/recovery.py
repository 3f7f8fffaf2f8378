"""Finding the end of a log: torn tail or corruption, decided exactly.

Opening reads the newest segment, and older ones only as far as nothing proves that they are complete. Nothing here
writes; `opening.py` does what the findings demand. Where the valid groups end, `judging.py` says what that means.

A new segment's first write holds header, snapshot and first group. The file gets its name only after that write, so
under a `.wal` name the header and snapshot are always durable, and damage to them is Corruption. If a crash came before
the name was durable, the file is found under the spare's name and adopted.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

from walsvc.disk.base import Disk
from walsvc.errors import Corruption
from walsvc.format.segment import parse_name, segment_name, spare_name
from walsvc.keyring import Keys
from walsvc.log.read.boundary import check_boundary
from walsvc.log.read.stream import load_header, open_stream
from walsvc.log.recover.census import check_complete, refuse_lost_segments
from walsvc.log.recover.examined import Examined
from walsvc.log.recover.findings import corruption, successor_dropped
from walsvc.log.recover.foreign import refuse_strangers
from walsvc.log.recover.judging import judge
from walsvc.log.recover.overlay import Image, find_images, laid_over
from walsvc.model import Finding


@dataclass(slots=True, eq=False, repr=False)
class Recovered:
    """The log that a directory holds.

    `names` maps each segment's first LSN to its file, oldest first, without what was dropped. `active` is the last one.
    """

    active: Examined
    names: dict[int, str]
    sizes: dict[str, int]
    clean: bool
    findings: list[Finding]
    bytes_read: int
    dropped: list[str] = field(default_factory=list)  # successors that were never acknowledged
    adopted: str | None = None  # spare's name of the active segment when its rename was lost
    unsynced: list[str] = field(default_factory=list)  # files whose content a crash may not have kept yet
    cut: int | None = None  # a truncate_after to finish
    images: list[Image] = field(default_factory=list)  # from the double-write file, in the order in which they fit
    sequence: int = 0  # of the newest slot in it

    def through(self, disk: Disk) -> Disk:
        """The disk as recovery saw it."""
        return laid_over(disk, self.images)


async def recover(disk: Disk, keys: Keys = None) -> Recovered | None:
    """Find the log's segments and its end, with what the double-write file can restore. None: there is no log yet.

    Raises:
        Corruption, UnsupportedFormat: nothing was changed on disk. MissingKey, WrongKey: nor here.
        PathError: something that is no file of the log has the name of one.
        OSError: from listing or reading; a read error is never taken for the end.
    """
    sizes = await disk.list()
    await refuse_strangers(disk, sizes)
    images, sequence = await find_images(disk, sizes)
    found = await find_end(laid_over(disk, images), sizes, keys)
    if found is not None:
        found.images, found.sequence = images, sequence
        found.findings[:0] = [image.finding for image in images]
    return found


async def find_end(disk: Disk, sizes: dict[str, int], keys: Keys) -> Recovered | None:
    """See recover."""
    ids = sorted(first for name in sizes if (first := parse_name(name, ".wal")) is not None)
    if not ids:
        await refuse_lost_segments(disk, sizes)
        return None
    tail = [await examine(disk, segment_name(ids[-1]), ids[-1], sizes, keys)]
    metadata = tail[0].metadata
    findings: list[Finding] = []
    if metadata.cut is not None and metadata.cut + 1 < ids[-1]:
        # truncate_after had begun: its mark in the newest segment counts, whatever is left of the others
        return finish_cut(tail[0], metadata.cut, ids, sizes)
    await check_complete(disk, ids, tail[0].header)
    adopted = await find_successor(disk, tail[0], sizes, keys)
    position = len(ids) - 1
    while position > 0 and not tail[0].proves_predecessor:
        position -= 1
        tail.insert(0, await examine(disk, segment_name(ids[position]), ids[position], sizes, keys))
    if adopted is not None:
        tail.append(adopted)
    active, dropped, end = await judge(disk, tail)
    findings += [successor_dropped(each, active) for each in dropped]
    findings += [end] if end is not None else []
    names = {first: segment_name(first) for first in ids if first <= active.header.first_lsn}
    names[active.header.first_lsn] = active.name
    ids = sorted(names)
    for each in tail:
        if 0 < (place := bisect_left(ids, each.header.first_lsn)) < len(ids):
            await check_boundary(disk, names[ids[place - 1]], ids[place - 1], each.header)
    if active.metadata.truncated < ids[0] and active.stream.readable:
        raise Corruption(
            "the log's first segments are missing",
            path=disk.path,
            segment=ids[0],
            lsn=active.metadata.truncated,
            expected=f"a segment that holds LSN {active.metadata.truncated}",
            actual=f"{segment_name(ids[0])} as the first",
            hint="restore the missing files from a backup",
        )
    return Recovered(
        active=active,
        names=names,
        sizes=sizes,
        clean=end is None,
        findings=findings,
        bytes_read=sum(each.stream.bytes_read for each in tail),
        dropped=[each.name for each in dropped],
        adopted=active.name if parse_name(active.name, ".wal") is None else None,
        # a process that was killed while it sealed the segment before has perhaps left its last block to the page cache
        unsynced=[names[first] for first in ids[max(bisect_left(ids, tail[0].header.first_lsn) - 1, 0) :]],
        cut=active.metadata.cut,
    )


async def examine(
    disk: Disk, name: str, first_lsn: int, sizes: dict[str, int], keys: Keys = None, *, up_to_forgery: bool = False
) -> Examined:
    """Read one segment to the end of its valid groups; synced first, so that nothing is seen that a crash could take.

    A group that does not authenticate raises Corruption, unless `up_to_forgery` (for repair): then the segment ends there.
    """
    await disk.sync(name)
    header, stream = await open_stream(disk, name, first_lsn, sizes[name], keys)
    found = Examined(name, header, stream)
    await found.read_on(up_to_forgery=up_to_forgery)
    if found.groups == 0 and parse_name(name, ".wal") is not None:
        raise corruption(disk, found, "the segment's first group is damaged, and it was durable before the file's name")
    return found


async def find_successor(disk: Disk, newest: Examined, sizes: dict[str, int], keys: Keys) -> Examined | None:
    """The segment after `newest` whose rename was lost in a crash, if there is one: it waits under its spare's name."""
    name = spare_name(newest.header.ordinal + 1)
    if name not in sizes:
        return None
    try:
        await disk.sync(name)
        header, _ = await load_header(disk, name, None)
    except (Corruption, FileNotFoundError):
        return None  # an ordinary spare: nothing was written to it yet. Or a living log has taken it into use meanwhile
    same_log = header.log_id == newest.header.log_id and header.ordinal == newest.header.ordinal + 1
    if not same_log or header.generation < newest.chain.generation or header.first_lsn < newest.chain.next_lsn:
        return None
    successor = await examine(disk, name, header.first_lsn, sizes, keys)
    return successor if successor.groups else None


def finish_cut(newest: Examined, cut: int, ids: list[int], sizes: dict[str, int]) -> Recovered:
    """The view of a log whose truncate_after was interrupted."""
    names = {first: segment_name(first) for first in ids}
    finding = Finding("truncation_resumed", f"truncate_after({cut}) had been interrupted", newest.header.first_lsn)
    return Recovered(
        newest,
        names,
        sizes,
        False,
        [finding],
        newest.stream.bytes_read,
        unsynced=[names[first] for first in ids[-2:]],
        cut=cut,
    )
