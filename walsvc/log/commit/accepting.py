"""Accepting: the step that puts an entry into a group. From the decision to the LSN nothing awaits.

Called by the Queue when an entry's turn has come. What the entry brings besides its records (a topic's name, a request, a key, a
change that joins) is in force from this step on, and durable with the group.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

from walsvc.config import WalConfig
from walsvc.format.dedupe import DEDUPE_BYTES
from walsvc.format.group import GROUP_HEADER_BYTES, INDEX_BYTES_MAX, LENGTH_BYTES
from walsvc.format.meta import Metadata, change_bytes_max, merge
from walsvc.format.producers import REQUEST_BYTES, ROW, Request, RequestRow
from walsvc.format.summary import SUMMARY_ROW_BYTES
from walsvc.log.commit.conditions import Conditions
from walsvc.log.commit.group import Group, Labels
from walsvc.log.commit.pipeline import Pipeline
from walsvc.log.commit.placement import Placement
from walsvc.log.commit.queued import Joining, QueuedAppend
from walsvc.log.commit.relaxed import RelaxedTimer
from walsvc.log.commit.results import BatchResult, Part
from walsvc.log.commit.tail import Tail
from walsvc.model import AppendResult, Strict

NO_LABELS = Labels()


class Accepting:
    """Puts entries into the filling group, or into a new one behind it. Loop thread only.

    Args:
        conditions: decide whether an entry may be accepted, and know the keys of earlier ones.
        relaxed: armed by records that are to become durable in time.
    """

    def __init__(
        self,
        config: WalConfig,
        placement: Placement,
        pipeline: Pipeline,
        *,
        metadata: Metadata,
        tail: Tail,
        conditions: Conditions,
        relaxed: RelaxedTimer,
    ) -> None:
        self._config = config
        self._placement = placement
        self._intake = placement.intake
        self._pipeline = pipeline
        self._metadata = metadata
        self._tail = tail
        self._conditions = conditions
        self._relaxed = relaxed

    def accept(self, entry: QueuedAppend, *, prepare: bool = True) -> bool:
        """Put an entry into the filling group, or a new one behind it; False if there is no room yet; True also where it is there
        already, under its key. Raises Conflict. `prepare`: where it needs the next segment, have that prepared."""
        if entry.dedupe is not None and (row := self._conditions.find(entry.topic, entry.dedupe)) is not None:
            self._conditions.repeat(entry.future, row, entry.mode, batch=entry.batch)
            return True
        self._conditions.check(entry.topic, entry.expected)
        for topic, lsn in entry.conditions:
            self._conditions.check(topic, lsn)
        intake, count, cost = self._intake, len(entry.payloads), LENGTH_BYTES
        if entry.labels is not None or entry.topic is not None or entry.rows is not None:
            cost = INDEX_BYTES_MAX
        need = entry.size + max(cost, intake.cost) * count
        relabel = (cost - intake.cost) * len(intake.group.payloads) if cost > intake.cost else 0
        if not self._fits(entry, need + relabel):
            if self.over_pending(entry):
                return False
            self._pipeline.cut_off()
            need, relabel = entry.size + cost * count, 0
            rows = SUMMARY_ROW_BYTES * len(entry.topics)
            if not self._placement.place(need + self._metadata_bytes(entry), rows=rows, prepare=prepare):
                return False
        self._put(entry, need + relabel, max(intake.cost, cost))
        self._placement.set_room()
        if entry.mode is not Strict:
            self._relaxed.arm()
        elif not intake.wanted:
            intake.want()
        return True

    def over_pending(self, entry: QueuedAppend) -> bool:
        """True if an entry must wait until some of the pending bytes are durable."""
        pending = self._placement.unwritten_bytes
        return pending > 0 and pending + entry.size > self._config.max_pending_bytes

    def accept_plain(
        self, payloads: list[bytes], lengths: array[int], size: int, *, answer: Any, request: Request | None
    ) -> bool:
        """Put records without labels into the filling group where the intake has room for them, which it has not while others wait;
        False: only `accept` can tell. `answer` gets a BatchResult.

        Args:
            payloads, lengths, size: of the records, and their sum.
            answer: an Ack.
            request: whose; None: nobody's.
        """
        intake, count = self._intake, len(payloads)
        group, need = intake.group, size + intake.cost * count
        most = intake.room if request is None else intake.room - REQUEST_BYTES
        if need > most or (group.payloads and len(group.payloads) + count > self._config.max_group_records):
            return False
        index, offset = intake.add(payloads, None, need=need, cost=intake.cost, labels=None)
        lsn, segment = group.first_lsn + index, group.segment.id
        if request is not None:
            note_request(self._metadata, group, request, RequestRow(lsn, segment, offset, count, 1))
            intake.allow(intake.limit - REQUEST_BYTES)  # no more than set_room would say, which is dear
        group.answers.batches.append((Part(lsn, segment, offset, lengths), answer))
        if not intake.wanted:
            intake.want()
        return True

    def _fits(self, entry: QueuedAppend, need: int) -> bool:
        """True if the entry can join the filling group as it is."""
        group = self._placement.group
        if self._tail.new_key:
            return False
        rows, more = self._topic_bytes(entry.topics)[1], self._metadata_bytes(entry)
        in_segment = group.segment.limit_with(rows) - group.offset - GROUP_HEADER_BYTES - group.metadata.reserved - more
        if self._intake.filled_bytes + need > min(in_segment, self._config.max_group_bytes):
            return False
        if self._placement.unwritten_bytes + entry.size > self._config.max_pending_bytes:
            return False
        return not group.payloads or len(group.payloads) + len(entry.payloads) <= self._config.max_group_records

    def _metadata_bytes(self, entry: QueuedAppend) -> int:
        """Bytes that an entry adds to its group's metadata, at most."""
        size = self._topic_bytes(entry.topics)[0]
        if entry.request is not None:
            size += REQUEST_BYTES
        if entry.dedupe is not None:
            size += DEDUPE_BYTES
        if entry.joining is not None:
            size += change_bytes_max(entry.joining.change(), {})
        return size

    def _topic_bytes(self, topics: Sequence[str]) -> tuple[int, int]:
        """Bytes that records add to their group's metadata, where their topics are new, and to their segment's summary."""
        names = rows = 0
        for topic in topics:
            number = self._metadata.topics.get(topic)
            if number is None:
                names += change_bytes_max({"topics": {topic: 0}}, {})
            if number is None or not (
                number in self._metadata.topics.tally or number in self._placement.group.metadata.new_topics
            ):
                rows += SUMMARY_ROW_BYTES
        return names, rows

    def _labels_of(self, labels: Labels | None, topic: str | None, group: Group) -> Labels | None:
        """A record's labels; a new topic gets its number here, and its name goes with the group."""
        if topic is None:
            return labels
        name_bytes, rows = self._topic_bytes((topic,))
        group.metadata.reserved += name_bytes
        group.segment.summary_bytes += rows
        number = self._metadata.topics.get(topic)
        if number is None:
            number = self._metadata.topics.given + 1
            change = {"topics": {topic: number}}
            self._metadata.apply(change)
            merge(group.metadata.joined, change)
        if number not in self._metadata.topics.tally:
            group.metadata.new_topics.add(number)
        return (labels or NO_LABELS)._replace(topic=number)

    def _put(self, entry: QueuedAppend, need: int, cost: int) -> None:
        group, strict = self._placement.group, entry.mode is Strict
        single = entry.future if strict and not entry.batch else None
        labels = self._labels_of(entry.labels, entry.topic, group)
        if entry.rows is None:
            index, offset = self._intake.add(entry.payloads, single, need=need, cost=cost, labels=labels)
        else:
            index, offset = self._intake.add([], None, need=need, cost=cost, labels=None)
            for payload, (topic, own) in zip(entry.payloads, entry.rows, strict=True):
                self._intake.add([payload], None, need=0, cost=cost, labels=self._labels_of(own, topic, group))
        lsn = group.first_lsn + index
        if entry.request is not None:
            note_request(
                self._metadata, group, entry.request, RequestRow(lsn, group.segment.id, offset, len(entry.payloads), 1)
            )
        if entry.dedupe is not None:
            number = 0 if labels is None else labels.topic
            self._conditions.note(group, number, entry.dedupe, (lsn, group.segment.id, offset, entry.size))
        if entry.joining is not None:
            self._join(group, entry.joining)
        if entry.batch:
            part = Part(lsn, group.segment.id, offset, entry.lengths or array("I", map(len, entry.payloads)))
            if strict:
                group.answers.batches.append((part, entry.future))
            else:
                entry.future.set_result(BatchResult([part], durable=False, sync_us=0))
        elif not strict:
            entry.future.set_result(AppendResult(lsn, group.segment.id, offset, entry.size, False, 0))

    def _join(self, group: Group, joining: Joining) -> None:
        """Let a change be in the group of the records that are just put there."""
        change = joining.change()
        group.metadata.reserved += change_bytes_max(change, group.metadata.joined)
        self._metadata.apply(change)
        merge(group.metadata.joined, change)
        joining.accepted()


def note_request(metadata: Metadata, group: Group, request: Request, row: RequestRow) -> None:
    """Remember an accepted request, in memory and with its group."""
    metadata.producers.note(request.producer, request.seq, request.done, row)
    rows = group.metadata.joined.setdefault("producers", bytearray())
    rows += ROW.pack(request.producer, request.seq, request.done, *row)
    group.metadata.reserved += REQUEST_BYTES
