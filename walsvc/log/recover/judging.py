"""Judging where the valid groups end: observations for the table in verdict.py. Reads only.

The question at the first invalid group is always the same: had the LSN that is missing there been durable? It had, if
any later group says so by its durable_lsn, in the same segment or in a later one; then it is Corruption. The same holds for
metadata, which has no LSN: a later group in the segment says by its durable_end that this place had been durable. If nothing
says so, nobody was ever told that the record is safe, and it is a torn tail.

Another process may be writing the log meanwhile. So no two looks are taken for one: what proves that a record had been
durable is looked for first, and then the place where that record was missing is read once more. Before it could be said to
be durable it was on disk, so where nobody has damaged it, it is there now, and reading goes on behind it. That is done
once: what is claimed meanwhile is for the next look.
"""

from __future__ import annotations

from walsvc.disk.base import Disk
from walsvc.format.chain import UnfinishedBatch
from walsvc.format.group import GROUP_HEADER_BYTES, BadGroup, Flag, GroupHeader, decode_group_header
from walsvc.format.segment import RECYCLED, segment_name
from walsvc.log.read.stream import load_header
from walsvc.log.recover.examined import Examined
from walsvc.log.recover.findings import corruption, finding_of, lost_successor
from walsvc.log.recover.verdict import After, End, Last, Verdict, decide
from walsvc.model import Finding


async def judge(disk: Disk, tail: list[Examined]) -> tuple[Examined, list[Examined], Finding | None]:
    """Decide where the log ends among its newest segments, oldest first in `tail`.

    Returns the active segment, those after it that were never acknowledged, and what the report says of the end.
    Raises Corruption if anything proves that a missing record had been durable.
    """
    active, later = end_of(tail)
    looked: Examined | None = None
    evidence: GroupHeader | None = None
    while active is not looked:
        looked, evidence = active, await active.stream.evidence()
        if evidence is not None or later:
            for each in reversed(tail):  # the newest first: what it claims was there before, if it is true
                await each.read_on()
            active, later = end_of(tail)
    end, length = await observe_end(disk, active)
    missing = active.chain.next_lsn
    damaged = evidence is not None and active.chain.refuted_by(evidence)
    verdict = decide(end, last_of(active), what_follows(active, later), evidence=damaged)
    if verdict is Verdict.LOST_SUCCESSOR:
        if not await goes_on(disk, active):
            raise lost_successor(disk, active)
        active.unseal()
        verdict = Verdict.UNCLEAN
    if verdict is Verdict.CORRUPTION:
        witness = "a later group" if damaged else "a later segment"
        what = f"LSN {missing}"
        if evidence is not None and damaged and evidence.durable_lsn < missing:
            what = f"what stood here up to offset {evidence.durable_end}"
        raise corruption(disk, active, f"{active.end_reason}, and {witness} shows that {what} was durable")
    return active, later, finding_of(verdict, active, length)


async def goes_on(disk: Disk, sealed: Examined) -> bool:
    """True if the segment that a seal names is there: a living log has sealed the newest one of a listing since."""
    following = sealed.chain.next_lsn
    try:
        header, _ = await load_header(disk, segment_name(following), following)
    except FileNotFoundError:
        return False
    return (header.log_id, header.ordinal) == (sealed.header.log_id, sealed.header.ordinal + 1)


def end_of(tail: list[Examined]) -> tuple[Examined, list[Examined]]:
    """The segment in which an LSN is missing, or the last one, and those after it. No unfinished batch is left in front."""
    batch: UnfinishedBatch | None = None
    for position, segment in enumerate(tail):
        active, later = segment, tail[position + 1 :]
        batch = segment.unfinished_batch(batch)
        if batch is not None and not (later and active.chain.next_lsn >= later[0].header.first_lsn):
            active, later = before_batch(tail, batch)
        if what_follows(active, later) is not After.ADJOINING:
            return active, later
    raise AssertionError("nothing follows the last segment")


def before_batch(tail: list[Examined], batch: UnfinishedBatch) -> tuple[Examined, list[Examined]]:
    """The log ends inside a batch that was never finished: it ends where that begins, perhaps segments earlier."""
    place = max(index for index, each in enumerate(tail) if each.header.first_lsn <= batch.lsn)
    active = tail[place]
    active.rewind()
    return active, tail[place + 1 :]


def what_follows(active: Examined, later: list[Examined]) -> After:
    """Statement of the segments after `active` about the LSN that it ends with."""
    missing = active.chain.next_lsn
    if not later:
        return After.NONE
    if missing >= later[0].header.first_lsn:
        return After.ADJOINING
    return After.PROVEN if max(each.durable_lsn for each in later) >= missing else After.UNPROVEN


def last_of(active: Examined) -> Last:
    """Kind of the last valid group."""
    if active.last_flags & Flag.SEAL:
        return Last.SEAL
    return Last.CLOSE if active.last_flags & Flag.CLOSE else Last.ORDINARY


async def observe_end(disk: Disk, active: Examined) -> tuple[End, int]:
    """Content of the place behind the last valid group, and its length."""
    chain = active.chain
    data = b""
    if chain.offset < chain.file_bytes:
        data = await disk.read(active.name, chain.offset, max(GROUP_HEADER_BYTES, active.header.block_bytes))
    try:
        found = decode_group_header(data)
    except BadGroup:
        # In a recycled file anything may stand there, in a fresh one only zeros, unless a write was cut: now or, where the
        # log was closed in order since, in an earlier run.
        leftover = active.header.optional & RECYCLED or active.last_flags & Flag.CLOSE
        torn = bool(data.strip(b"\0")) and not leftover
        return (End.TORN, len(data)) if torn else (End.NOTHING, 0)
    stale = found.log_id != chain.log_id or found.segment != chain.segment or found.generation < chain.generation
    return (End.NOTHING, 0) if stale else (End.TORN, found.group_bytes)
