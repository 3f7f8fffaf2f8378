"""Compaction: sealed segments are written anew without what is hidden (LFS, Rosenblum and Ousterhout 1992, calls it cleaning;
Kafka compacts closed log segments in the same way).

LSNs stay dense: a dropped record keeps its row in the group's index, with no payload, no attributes, and a sign that it was
dropped. Groups keep everything that others rely on: LSNs, generation, times, durable_lsn, metadata, counts by topic.

Whoever reads beside it may meet another file under the segment's name. In this process the log's epoch tells; a reader
that meets other bytes than it expected looks again before it judges, in this process and in others.

A replica and an archive keep what they were given: the segments as they were before. So marks stay as long as there is such
a copy, and what the replica does not have whole yet is compacted later: it goes on in the very file where it stopped.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from walsvc.errors import BadOption, taking_space
from walsvc.format.content import Content, content_of, without
from walsvc.format.group import Columns, Flag, decode_columns, record_ends
from walsvc.format.hidden import KEY as HIDDEN
from walsvc.format.hidden import Hidden, forgetting_row
from walsvc.format.purge import Marks
from walsvc.format.segment import segment_name
from walsvc.format.topics import Topics
from walsvc.log.commit.patience import patiently
from walsvc.log.extent.rewrite import Rewriting, next_group, rewrite, rewrite_name
from walsvc.log.extent.steps import run_shielded
from walsvc.log.read.hiding import hidden_rows
from walsvc.log.read.pins import ARCHIVE_HOLD, REPLICA_HOLD
from walsvc.log.read.stream import GroupStream, RawGroup, load_header, open_stream

if TYPE_CHECKING:
    from walsvc.log.commit.core import Core

OnSegment = Callable[[int, int, int], None]
NOWHERE = 1 << 64  # above every LSN
LABELS = "labels"  # key of a group's metadata that holds values of its records' labels


async def compact(core: Core, on_segment: OnSegment | None = None) -> int:
    """Rewrite the sealed segments that hold purged records, or such of deleted topics, without those; returns the bytes that the log is smaller by.

    Args:
        core: of the log.
        on_segment: called after each segment as on_segment(segments done, segments to do, bytes freed so far).

    Raises:
        BadOption: the records are in no files (a log in JetStream).
        NoSpace, Corruption, PathError: nothing is lost; segments that were done before are done. What append raises.
    """
    core.health.check_call()
    if on_segment is not None and not callable(on_segment):
        raise BadOption(f"on_segment={on_segment!r} is no function", hint="on_segment(done, to_do, freed_bytes)")
    if not core.disk.rewrites:
        raise BadOption(
            "this log cannot be compacted: its records are stored as messages, which cannot be written anew",
            path=core.disk.path,
            hint="what was purged stays hidden; truncate_before gives space back",
        )
    purges, hidden = dict(core.metadata.purges), core.metadata.hidden.copy()
    marks = Marks(purges, hidden)
    topics = core.metadata.topics.copy()  # the same in both passes over a segment
    if not purges and not hidden and not topics.gone_last:
        return 0
    # a mark counts at once, but nothing may go before it is durable. A group of its own might come into a segment that is being cut
    await core.changes.join(dict)
    active = core.tail.segment.id
    end = min(active, max(marks.highest, hidden.highest + 1, topics.gone_last + 1))
    ids = [first for first in core.catalog.view.ids if first < end]
    freed, left = 0, active  # no segment below `left` holds anything that is hidden
    for done, first in enumerate(ids, 1):
        results: list[int | None] = []
        await run_shielded(core, "compaction", _compact_segment(core, first, marks, topics, results=results))
        if results == [None]:
            left = min(left, first)
        freed += sum(filter(None, results))
        if on_segment is not None:
            on_segment(done, len(ids), freed)
    await _drop_marks(core, purges, hidden, left)
    return freed


async def _compact_segment(core: Core, first: int, marks: Marks, topics: Topics, *, results: list[int | None]) -> None:
    """Rewrite one segment if anything in it is hidden. Puts the bytes that this frees into `results`, or None where the
    segment is not to be touched yet."""
    disk, name = core.disk, segment_name(first)
    async with core.extent.changing() as turn:
        await core.pipeline.rotation.ended()  # which seals the segment
        core.health.raise_failure()
        following = following_of(core.catalog.view.ids, first)
        if first not in core.catalog.view.sizes:
            results.append(0)  # dropped meanwhile
            return
        if following is None or following > core.catalog.durable_lsn + 1 or following >= replica_at(core):
            results.append(None)  # the next segment is on its way, or the replica is not past this one
            return
        before = core.catalog.view.sizes[first]

        async def source() -> GroupStream:
            return (await open_stream(disk, name, first, before, core.tail.keys))[1]

        def change(raw: RawGroup) -> Content:
            return without_hidden(raw, marks, topics)

        if not await holds_hidden(await source(), marks, topics, following):
            results.append(0)
            return
        header, _ = await load_header(disk, name, first)
        after = await rewrite(Rewriting(disk, header, source, change, core.tail.keys, until=following, sealed=True))
        turn.begin()
        hint = "free some space and compact again; nothing was changed, and what was written is removed then"
        with taking_space("no room to exchange a segment", path=disk.path, segment=first, hint=hint):
            await patiently(disk.rename, rewrite_name(first), name)
        await disk.sync_directory()
        core.catalog.resize(first, after.file_bytes)
        core.tail.summaries.forget()
        core.catalog.rewind()  # readers open the file anew
        results.append(before - after.file_bytes)


async def _drop_marks(core: Core, purges: dict[str, int], hidden: Hidden, left: int) -> None:
    """Take away the marks that hide nothing any more: all that they hid is below LSN `left`, and compacted now. So are ranges of
    records of no topic; those of a topic stay, since its records are counted by them.
    Not in the copies: there they hide it still, until it is truncated, which takes marks away by itself."""

    def change() -> dict[str, Any]:
        now, end = core.metadata, 0 if has_copies(core) else left
        marks = {name: None for name, before in purges.items() if before <= end and now.purges.get(name) == before}
        last = 0
        for known, each in zip(hidden.topics.get(0, ()), now.hidden.topics.get(0, ()), strict=False):
            if known != each or each.last >= end:
                break  # there is a range since, perhaps of what was not compacted
            last = each.last
        made: dict[str, Any] = {"purges": marks} if marks else {}
        return {**made, HIDDEN: forgetting_row(0, last)} if last else made

    if change():
        await core.changes.join(lambda: change() or {"purges": {}})


def has_copies(core: Core) -> bool:
    """True if a replica or an archive has segments of this log, as they were before they were compacted."""
    return core.replicated is not None or not {REPLICA_HOLD, ARCHIVE_HOLD}.isdisjoint(core.metadata.holds)


def replica_at(core: Core) -> int:
    """The replica has everything below this LSN, and may end with the last group before it."""
    replicated, hold = core.replicated, core.metadata.holds.get(REPLICA_HOLD)
    if replicated is None or replicated.lost is not None:
        return NOWHERE if hold is None else hold
    after = replicated.lsn + 1  # below the hold where it was not reached yet, or is another stream than before
    return after if hold is None else min(hold, after)


def following_of(ids: Sequence[int], first: int) -> int | None:
    """First LSN of the segment after `first`; None where that is the last one, or not there."""
    place = bisect_right(ids, first)
    return ids[place] if 0 < place < len(ids) and ids[place - 1] == first else None


async def holds_hidden(stream: GroupStream, marks: Marks, topics: Topics, until: int) -> bool:
    """True if anything is hidden in a segment that was not dropped before."""
    while (raw := await next_group(stream, until)) is not None:
        if hidden_rows(raw, decode_columns(*raw), marks, topics):
            return True
    return False


def without_hidden(raw: RawGroup, marks: Marks, topics: Topics) -> Content:
    """A group's content without the attributes and payloads of what is hidden."""
    whole = content_of(*raw)
    header, columns = whole.header, whole.columns
    gone = hidden_rows(raw, columns, marks, topics)
    if not gone:
        return whole
    data, ends = raw.data, record_ends(columns, raw.at)
    kept = [index not in gone for index in range(header.records)]
    records = [data[ends[index] : ends[index + 1]] for index, keep in enumerate(kept) if keep]
    attributes = None if columns.attributes is None else only(columns.attributes, kept)
    before = columns.dropped or bytes(header.records)
    dropped = array("B", [int(was or not keep) for was, keep in zip(before, kept, strict=True)])
    flags = header.flags | Flag.DROPPED
    if not any(attributes or ()):
        flags &= ~Flag.ATTRIBUTES
    return Content(
        header._replace(flags=flags),
        records,
        Columns(
            only(columns.lengths, kept),
            columns.types,
            columns.topics,
            attributes if flags & Flag.ATTRIBUTES else None,
            dropped,
        ),
        without(whole.meta, LABELS),
    )


def only(cells: array[int], kept: list[bool]) -> array[int]:
    """The column with 0 for what is not kept."""
    return array(cells.typecode, [cell if keep else 0 for cell, keep in zip(cells, kept, strict=True)])
