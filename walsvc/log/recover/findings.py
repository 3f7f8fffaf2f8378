"""Reports of recovery: findings for the report, errors with their place and what to do next."""

from __future__ import annotations

import logging
from functools import partial

from walsvc.disk.base import Disk
from walsvc.errors import Corruption
from walsvc.format.segment import SegmentHeader, segment_name
from walsvc.log.recover.examined import Examined
from walsvc.log.recover.verdict import Verdict
from walsvc.model import Finding, RecoveryReport

logger: logging.Logger = logging.getLogger("walsvc.recovery")
ORDINARY = frozenset({"torn_tail", "unclean_close", "truncation_resumed"})  # what any crash leaves behind


def finding_of(verdict: Verdict, active: Examined, length: int) -> Finding | None:
    """The report's line for a log's end."""
    if verdict is Verdict.CLEAN:
        return None
    place = partial(Finding, segment=active.header.first_lsn, offset=active.chain.offset, lsn=active.chain.next_lsn)
    if verdict is Verdict.TORN_TAIL:
        message = f"the log ends before a group that was never acknowledged: {active.end_reason}"
        return place("torn_tail", message, length=length)
    return place("unclean_close", "the log was not closed in order; nothing that was acknowledged is lost")


def lost_successor(disk: Disk, active: Examined) -> Corruption:
    """The newest segment is sealed, and the one that it names is not there."""
    successor = active.metadata.successor or active.chain.next_lsn  # the same; the first cannot be read without keys
    return Corruption(
        "the log's last segment is missing",
        path=disk.path,
        segment=successor,
        lsn=successor,
        expected=segment_name(successor),
        actual=f"{active.name} is sealed and names it, but there is no such file",
        hint="restore it from a backup; nothing was changed",
    )


def successor_dropped(each: Examined, active: Examined) -> Finding:
    """Finding for a segment that was begun but never acknowledged."""
    return Finding(
        "successor_dropped",
        f"{each.name} was begun, but a record before it had not become durable",
        segment=each.header.first_lsn,
        lsn=active.chain.next_lsn,
        length=each.chain.offset,
    )


def corruption(disk: Disk, found: Examined, message: str) -> Corruption:
    """Corruption at the end of `found`'s valid groups."""
    hint = "acknowledged data is damaged; nothing was changed. See `walsvc verify`, and restore from a backup"
    return found.chain.damage(disk.path, message, hint)


def foreign(disk: Disk, first_lsn: int, found: SegmentHeader, newest: SegmentHeader) -> Corruption:
    """A segment of another log in the directory."""
    return Corruption(
        f"{segment_name(first_lsn)} belongs to another log",
        path=disk.path,
        segment=first_lsn,
        expected=f"log id {newest.log_id:016x}",
        actual=f"{found.log_id:016x}",
        hint="move the foreign file elsewhere",
    )


def tell(path: str, report: RecoveryReport) -> None:
    """Say what opening the log has found: on level INFO what a crash leaves behind, as a warning what should not be."""
    for each in report.findings:
        level = logging.INFO if each.kind in ORDINARY and not each.fatal else logging.WARNING
        places = (("segment", each.segment), ("offset", each.offset), ("LSN", each.lsn), ("bytes", each.length or None))
        where = ", ".join(f"{name} {value}" for name, value in places if value is not None)
        logger.log(level, "%s: %s: %s%s", path, each.kind, each.message, f" [{where}]" if where else "")
