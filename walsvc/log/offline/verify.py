"""Checking a whole log: every CRC, the chain of groups, the sequence of segments, the end. Changes nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from walsvc.disk.base import Disk
from walsvc.errors import Corruption, UnsupportedFormat, WalError
from walsvc.format.segment import SegmentHeader, parse_name
from walsvc.keyring import BLIND, Keys
from walsvc.log.offline.inspect import SegmentWalk, reading, walk
from walsvc.log.read.boundary import check_boundary
from walsvc.log.recover.looking import find, settled
from walsvc.log.recover.recovery import Recovered
from walsvc.model import Finding

OnSegment = Callable[[SegmentWalk], None]


@dataclass(slots=True)
class Verified:
    """Result of reading everything.

    Attributes:
        clean: closed in order, nothing dropped, nothing damaged.
        findings: in order of place; `fatal` ones hit acknowledged data or cannot be read.
        errors: the errors that belong to the fatal findings, in the same order.
        first_lsn, next_lsn: the range of visible records as far as it could be told.
        segments, groups, records, bytes_read: what was read and found valid.
        unopened: encrypted segments that were checked from outside only, for want of keys.
        unbound: segments that do not say what stands before them, as an older walsvc wrote or rewrote them: one of another
            history of the log would not be noticed there.
        writer: process that had the log open for writing; what it was just writing is no finding.
    """

    clean: bool = False
    findings: list[Finding] = field(default_factory=list)
    errors: list[WalError] = field(default_factory=list)
    first_lsn: int = 0
    next_lsn: int = 0
    segments: int = 0
    groups: int = 0
    records: int = 0
    bytes_read: int = 0
    unopened: int = 0
    unbound: int = 0
    writer: int | None = None

    def add(self, error: WalError) -> None:
        """Add a fatal finding, unless its place is known already."""
        places = {(each.segment, each.offset) for each in self.findings if each.fatal}
        if (error.segment, error.offset) in places:
            return
        kind = {Corruption: "corruption", UnsupportedFormat: "unsupported"}.get(type(error), "unreadable")
        self.errors.append(error)
        self.findings.append(Finding(kind, error.message, error.segment, error.offset, error.lsn, fatal=True))


async def verify(
    path: str | os.PathLike[str],
    on_segment: OnSegment | None = None,
    keys: Keys = BLIND,
    holder: Callable[[], int | None] = lambda: None,
) -> Verified:
    """Read everything and check it: all CRCs, the chain of groups, the sequence of segments, the end.

    Damage is looked at twice: what a living log moved under our eyes looks otherwise the second time, damage does not.

    Args:
        path: the log's directory.
        on_segment: called after each segment.
        keys: of an encrypted log. Without them it is checked from outside: damage is found, forgery is not.
        holder: tells which process has the log open for writing, if one has.

    Raises:
        MissingKey, WrongKey: keys were given that do not fit.
        PathError: there is no log, or it cannot be read. Damage is a finding.
        WalTimeout: whatever looked damaged looked otherwise each time.
    """
    async with reading(path) as disk:
        return await settled(
            disk,
            lambda seen: read_through(seen, on_segment, keys, holder),
            lambda verdict: [str(each) for each in verdict.errors],
        )


async def read_through(
    disk: Disk, on_segment: OnSegment | None, keys: Keys, holder: Callable[[], int | None]
) -> Verified:
    """One look at everything."""
    before = holder()
    verdict = Verified()
    found: Recovered | None = None
    try:
        found = await find(disk, keys)
    except (Corruption, UnsupportedFormat) as error:
        verdict.add(error)
    sizes = await disk.list() if found is None else found.sizes
    names = (
        {first: name for name in sizes if (first := parse_name(name, ".wal")) is not None}
        if found is None
        else found.names
    )
    walks: list[SegmentWalk] = []
    for _, name in sorted(names.items()):
        seen = disk if found is None else found.through(disk)
        walked = await walk(seen, name, parse_name(name, ".wal"), sizes[name], keys=keys)
        if walked is None:
            continue
        walks.append(walked)
        if on_segment is not None:
            on_segment(walked)
        if found is None or found.cut is None:
            await check_behind(seen, walks, verdict)
    if len(walks) < len(names):  # files went meanwhile, perhaps more of them than were missed
        sizes = await disk.list()
        walks = [each for each in walks if each.name in sizes]
    after = holder()
    verdict.writer = before if after is None else after
    judge_walks(
        disk.path,
        walks,
        verdict,
        end_is_judged=found is not None,
        numbered=found is None or found.cut is None,
        closed=found is not None and found.clean,
    )
    count(walks, found, verdict)
    if keys is BLIND:
        verdict.unopened = sum(each.header is not None and each.header.cipher != 0 for each in walks)
        if verdict.unopened and not verdict.first_lsn:  # it stands inside
            verdict.first_lsn = next(each.header.first_lsn for each in walks if each.header is not None)
    return verdict


async def check_behind(disk: Disk, walks: list[SegmentWalk], verdict: Verified) -> None:
    """Check that the last segment so far belongs behind the one before it, where no record between them is missing."""
    before, after = walks[-2:] if len(walks) > 1 else (None, None)
    if before is None or before.header is None or after is None or after.header is None:
        return
    if before.next_lsn < after.header.first_lsn or before.header.log_id != after.header.log_id:
        return  # that is told anyway
    try:
        boundary = await check_boundary(disk, before.name, before.header.first_lsn, after.header)
        verdict.unbound += not boundary.bound
    except (Corruption, UnsupportedFormat) as error:
        verdict.add(error)
    except FileNotFoundError:
        pass  # the log's writer has dropped it meanwhile


def judge_walks(
    path: str, walks: list[SegmentWalk], verdict: Verified, *, end_is_judged: bool, numbered: bool, closed: bool
) -> None:
    """Add a finding for everything wrong in and between segments, which must be given in LSN order.

    Args:
        path: the directory, for messages.
        walks: the segments.
        verdict: where findings go.
        end_is_judged: recovery has accepted the end of the last segment.
        numbered: segments must be numbered without a gap; not so while a truncate_after waits to be finished.
        closed: the log was closed in order, so that even its last segment but one must be sealed.
    """
    for position, each in enumerate(walks):
        following = walks[position + 1] if position + 1 < len(walks) else None
        for error in (each.error, each.forged):
            if error is not None:
                verdict.add(error)
        if each.header is None:
            continue
        if following is not None and following.header is not None:
            missing = each.next_lsn < following.header.first_lsn
            if missing:
                proof = f"the next segment begins with LSN {following.header.first_lsn}"
                verdict.add(_missing(path, each, each.header, proof))
            if numbered and (error := _out_of_sequence(path, each.header, following.header)) is not None:
                verdict.add(error)
            sealed_by_now = closed or position + 2 < len(walks)
            if not missing and following.header.previous_end and not each.sealed and sealed_by_now:
                message = f"its seal is missing or damaged, no record is: {each.reason}"
                place = (each.header.first_lsn, each.end, each.next_lsn)
                verdict.findings.append(Finding("seal_missing", message, *place))
        elif following is None and not end_is_judged and each.proof is not None:
            verdict.add(_missing(path, each, each.header, each.proof))


def _missing(path: str, walked: SegmentWalk, header: SegmentHeader, proof: str) -> Corruption:
    return Corruption(
        f"{walked.reason}, and {proof}",
        path=path,
        segment=header.first_lsn,
        offset=walked.end,
        lsn=walked.next_lsn,
        hint="acknowledged data is damaged; restore it from a backup",
    )


def _out_of_sequence(path: str, before: SegmentHeader, after: SegmentHeader) -> Corruption | None:
    if before.log_id != after.log_id:
        return Corruption(
            f"{after.file_name} belongs to another log than {before.file_name}",
            path=path,
            segment=after.first_lsn,
            offset=0,
            expected=f"log id {before.log_id:016x}",
            actual=f"{after.log_id:016x}",
            hint="move the foreign file elsewhere",
        )
    if after.ordinal != before.ordinal + 1:
        return Corruption(
            f"a segment before {after.file_name} is missing, or one is there twice",
            path=path,
            segment=after.first_lsn,
            offset=0,
            expected=f"segment number {before.ordinal + 1}",
            actual=f"{after.ordinal}",
            hint="restore the missing file from a backup",
        )
    return None


def count(walks: list[SegmentWalk], found: Recovered | None, verdict: Verified) -> None:
    """Fill in the range, the sums and what recovery had to say, in order of place."""
    whole = [each for each in walks if each.header is not None]
    if whole:
        verdict.first_lsn = whole[-1].truncated
        verdict.next_lsn = whole[-1].next_lsn
    verdict.segments = len(whole)
    verdict.groups = sum(each.groups for each in whole)
    verdict.records = sum(each.records for each in whole)
    verdict.bytes_read = sum(each.bytes_read for each in whole)
    if found is not None and verdict.writer is None:
        verdict.findings += found.findings
    verdict.findings.sort(key=lambda each: (each.segment or 0, each.offset or 0))
    verdict.clean = found is not None and found.clean and not verdict.findings
