"""A replica stream: what it holds of a log, and where this log goes on in it, or why it does not.

The stream is one in which a log could live (jetstream/message.py): segments as the writes that made them. So the same checks
hold for it, its epochs fence a process that was thought dead, and it can be opened as a log where it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from walsvc.engines.history import KeptSegment, history
from walsvc.engines.jetstream.message import Message
from walsvc.engines.jetstream.segment_table import SegmentFile, SegmentTable
from walsvc.engines.jetstream.stream import Stream
from walsvc.engines.replication.source import read_header
from walsvc.errors import Corruption, ReplicaLost
from walsvc.format.chain import Chain
from walsvc.format.group import BadGroup, Flag, GroupHeader, decode_group_header
from walsvc.format.segment import SEGMENT_HEADER_BYTES, BadSegment, SegmentHeader, decode_segment_header, segment_name
from walsvc.log.extent.compaction import following_of
from walsvc.log.read.stream import GroupStream, load_header

if TYPE_CHECKING:
    from walsvc.api import Log


async def write_at(stream: Stream, sequence: int, *, last: bool) -> tuple[int, bytes]:
    """The write whose first (or last) message is at `sequence`: where it begins in the file, and its bytes."""
    found: list[Message] = [await stream.message(sequence)]
    while found[0].part > 0:
        found.insert(0, await stream.message(found[0].sequence - 1))
    while (
        not last
        and found[-1].part < found[-1].parts - 1
        and sum(len(each.body) for each in found) < SEGMENT_HEADER_BYTES
    ):
        found.append(await stream.message(found[-1].sequence + 1))
    length = sum(part.length for part in found)
    return found[0].offset, b"".join(part.body for part in found).ljust(length, b"\0")


async def head_of(stream: Stream, file: SegmentFile) -> SegmentHeader:
    """Read a segment's header."""
    _, data = await write_at(stream, file.first_sequence, last=False)
    try:
        return decode_segment_header(data[:SEGMENT_HEADER_BYTES].ljust(SEGMENT_HEADER_BYTES, b"\0"))
    except BadSegment as error:
        raise stream.corruption(file.first_sequence, error.reason) from None


async def tail_of(stream: Stream, file: SegmentFile) -> GroupHeader:
    """Read the header of a segment's last group."""
    offset, data = await write_at(stream, file.last_sequence, last=True)
    at, tail = 0, None
    try:
        if offset == 0:
            at = decode_segment_header(data[:SEGMENT_HEADER_BYTES]).data_start
        while at < len(data):
            tail = decode_group_header(data, at)
            at += tail.group_bytes
    except (BadGroup, BadSegment) as error:
        raise stream.corruption(file.last_sequence, error.reason) from None
    if tail is None:
        raise stream.corruption(file.last_sequence, "it holds no group")
    return tail


class ResumePlan(NamedTuple):
    """The place at which a log goes on in a stream.

    Attributes:
        last: the last group that both have; None: begin with segment `begin`.
        begin: first LSN of a segment.
        unsealed: the last group that the stream has of the segment before, where that is no seal.
        remove: first LSNs of the segments that the stream has and the log has not any more, newest first.
        missing: records that the log has dropped before they were replicated.
    """

    last: GroupHeader | None
    begin: int
    unsealed: GroupHeader | None = None
    remove: tuple[int, ...] = ()
    missing: int = 0


async def plan_for(log: Log, stream: Stream, directory: SegmentTable) -> ResumePlan:
    """Find the place at which `log` goes on in the stream. Reads only.

    Raises:
        ReplicaLost: it is another log's, or it holds records that this one does not have and has not truncated.
        Corruption: a message that this needs is damaged.
    """
    kept, gone = history(directory.by_age())
    removed = [file.first_lsn for file in gone]
    ids = log.writer.segments.ids()
    if not kept:
        return ResumePlan(None, ids[0], remove=tuple(removed))
    newest = kept[-1].segment
    head, ours = await head_of(stream, newest), log.writer.core.tail.segment.header.log_id
    if head.log_id != ours:
        raise ReplicaLost(
            "the stream is the replica of another log, or a log itself",
            path=stream.path,
            expected=f"log {ours:016x}",
            actual=f"log {head.log_id:016x}",
            hint="give each log a stream of its own; nothing was changed in this one",
        )
    tail = await tail_of(stream, newest)
    if await is_ours(log, tail):
        unsealed = None
        if len(kept) > 1 and kept[-2].segment.first_lsn in ids:
            before = await tail_of(stream, kept[-2].segment)
            unsealed = before if not before.flags & Flag.SEAL and await is_ours(log, before) else None
        return ResumePlan(tail, 0, unsealed, tuple(sorted(removed, reverse=True)))
    return await after_truncation(log, stream, kept, tail, removed)


async def after_truncation(
    log: Log, stream: Stream, kept: list[KeptSegment[SegmentFile]], tail: GroupHeader, removed: list[int]
) -> ResumePlan:
    """The stream ends with a group that the log does not have. Right only where the log has dropped it itself."""
    ids = log.writer.segments.ids()
    common, count, compacted = None, len(kept) - 1, False
    while count and common is None:
        last = await tail_of(stream, kept[count - 1].segment)
        compacted = await was_ours(log, last)
        if compacted or await is_ours(log, last):
            common = last
        else:
            count -= 1
    following = next((each for each in ids if common is None or each > common.segment), None)
    newest = await head_of(stream, kept[-1].segment)
    # it holds metadata only, and no record is lost
    empty = tail.next_lsn == newest.first_lsn and count >= len(kept) - 1
    lost = tuple(sorted([*removed, *(each.segment.first_lsn for each in kept[count:])], reverse=True))
    if following is not None:
        header, _ = await load_header(log.writer.segments.disk, segment_name(following), following)
        cut = header.previous_end == 0 and header.generation > tail.generation and following <= tail.next_lsn
        replaced = empty and header.first_lsn == newest.first_lsn and header.ordinal == newest.ordinal
        if replaced or cut:  # of a compacted segment the stream has the whole, as it was
            return ResumePlan(None if compacted else common, following, remove=lost)
        later = header.ordinal > newest.ordinal or header.generation > tail.generation
        if common is None and later and following >= tail.next_lsn:
            return ResumePlan(None, following, remove=lost, missing=following - tail.next_lsn)
    raise ReplicaLost(
        "the replica holds records that this log does not have",
        path=stream.path,
        lsn=tail.next_lsn - 1,
        expected=f"the group of generation {tail.generation} that ends with LSN {tail.next_lsn - 1}",
        actual=f"a log that ends with LSN {log.next_lsn - 1}",
        hint=f"where this log is an older copy: `walsvc restore {stream.path} DIR` gives the newer one; otherwise give it a "
        "stream of its own, or delete this one. Nothing was changed in it",
    )


async def is_ours(log: Log, group: GroupHeader) -> bool:
    """True if the log has this very group. Its header names the group before it, and so on: the log has all groups before it, too."""
    active, end = log.writer.view.place
    if group.segment not in log.writer.segments.ids() or (group.segment == active and group.end > end):
        return False
    try:
        return decode_group_header(await read_header(log, group)) == group
    except (BadGroup, FileNotFoundError, Corruption):
        return False


async def was_ours(log: Log, group: GroupHeader) -> bool:
    """True if the group was in a segment that was compacted since, and ends it: where it stands, and its CRCs, are others
    now, but not its records' LSNs nor when it was written."""
    following = following_of(log.writer.segments.ids(), group.segment)
    if following is None or group.next_lsn < following:
        return False
    name = segment_name(group.segment)
    try:
        header, head = await load_header(log.writer.segments.disk, name, group.segment)
        if not header.seal_at or header.log_id != group.log_id:
            return False
        stream = GroupStream(log.writer.segments.disk, name, Chain.begin(header, head, header.file_bytes))
        while True:
            found = (await stream.next()).header
            if identity(found) == identity(group):
                return True
    except (BadGroup, FileNotFoundError, Corruption):
        return False


def identity(group: GroupHeader) -> tuple[int, ...]:
    """Fields of a group that compaction leaves as they are."""
    return group.generation, group.first_lsn, group.records, group.batch_lsn, group.durable_lsn, group.timestamp_ns
