"""Conditions: whether an append may be accepted, and whether its record is there already, decided in the step that gives it its LSN.

An append may say which LSN its topic, or the log, ends with (`expected`): optimistic concurrency, as EventStoreDB's expected
revision and JetStream's Nats-Expected-Last-Sequence have it. Whether that holds is asked when the append's turn has come, of what is
accepted and not of what is durable: so of several appends with one expectation exactly one is accepted. An append may have a key of
the caller's (`dedupe`), as JetStream's Nats-Msg-Id: while the key is remembered the first append with it counts, and the others get
its answer. The keys are asked first, so that an append that is repeated with its expectation is answered as the first time.

Owns nothing: the keys are metadata. Called by Queue and Batch while no other append can come between.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable
from functools import partial
from typing import Any

from walsvc.errors import BadOption, Conflict, Truncated
from walsvc.format.dedupe import DEDUPE_BYTES as ROW_BYTES
from walsvc.format.dedupe import KEY, KeyRow, digest_of
from walsvc.format.meta import Metadata, merge
from walsvc.log.commit.group import Group
from walsvc.log.commit.placement import Placement
from walsvc.log.commit.results import BatchResult, Part
from walsvc.log.commit.tail import Tail
from walsvc.log.commit.waits import Waits
from walsvc.model import Duplicate, Mode, Strict, is_lsn

DEDUPE_KEY_BYTES_MAX = 1024  # of a caller's key


class Conditions:
    """Decides for one log. Loop thread only.

    Keys are remembered by a time of their own: it begins with the wall clock, or with the newest key's time where that is later, and
    goes on with the monotonic clock. So a wall clock that is set while the log is open neither forgets keys nor keeps them, and
    one that had been ahead before does not keep them for ever.

    Args:
        steady: gives the seconds of a monotonic clock.
    """

    def __init__(
        self,
        metadata: Metadata,
        placement: Placement,
        tail: Tail,
        waits: Waits,
        path: str,
        *,
        steady: Callable[[], float],
    ) -> None:
        self._metadata = metadata
        self._placement = placement
        self._waits = waits
        self._path = path
        self._steady = steady
        self._begun_ns = max(tail.clock(), metadata.keys.newest_ns) - int(steady() * 1e9)

    # ---- what a topic ends with

    def last(self, topic: str | None) -> int:
        """LSN of the last record that was accepted, of a topic or (None) of the whole log; 0: none that was not dropped. What
        a purge hides counts, since it keeps its LSN."""
        metadata = self._metadata
        if topic is None:
            last, first = self._placement.next_lsn - 1, metadata.truncated
        elif (number := metadata.topics.get(topic)) is None:
            return 0
        else:
            last = self._placement.group.last_of(number) or metadata.topics.last_of(number)
            first = max(metadata.truncated, metadata.floor_of(number))
        return last if last >= first else 0

    def check(self, topic: str | None, expected: int | None) -> None:
        """Raise Conflict unless a topic, or the log, ends with the LSN that was expected; None: any will do."""
        if expected is not None and (actual := self.last(topic)) != expected:
            raise conflict(topic, expected, actual, self._path)

    # ---- keys of the caller's

    def find(self, topic: str | None, key: str) -> KeyRow | None:
        """The place of the topic's record that was accepted with this key; None: none is remembered."""
        number = 0 if topic is None else self._metadata.topics.get(topic)
        return None if number is None else self._metadata.keys.find(number, digest_of(key), self._now_ns())

    def remembers(self, number: int) -> bool:
        """True if any key of a topic is remembered."""
        return self._metadata.keys.remembers(number, self._now_ns())

    def _now_ns(self) -> int:
        """The time by which keys are remembered."""
        return self._begun_ns + int(self._steady() * 1e9)

    def note(self, group: Group, number: int, key: str, place: tuple[int, int, int, int]) -> None:
        """Remember a key with its record, in memory and in the record's group.

        Args:
            group: of the record.
            number: of its topic, 0: of none.
            key: the caller's.
            place: LSN, segment, offset and length, as AppendResult says.
        """
        digest = digest_of(key)
        merge(group.metadata.joined, {KEY: self._metadata.keys.note(number, digest, KeyRow(*place, 0, self._now_ns()))})
        group.metadata.reserved += ROW_BYTES
        group.answers.told.append(partial(self._metadata.keys.settle, number, digest))

    def repeat(self, future: Any, row: KeyRow, mode: Mode, *, batch: bool) -> None:
        """Answer an append with where the record of its key is, as soon as that is as durable as its mode asks.

        Args:
            future: of the append.
            row: of the key.
            mode: as of append.
            batch: whether a BatchResult is wanted.
        """
        wait = self._waits.durable(row.lsn)
        if wait.done() or mode is not Strict:
            answer(future, row, wait, self._path, batch=batch)
            wait.cancel()
            return
        if row.lsn >= self._placement.group.first_lsn:
            self._placement.intake.want()
        wait.add_done_callback(lambda done: answer(future, row, done, self._path, batch=batch))
        future.add_done_callback(lambda done: wait.cancel() if done.cancelled() else None)


def answer(future: Any, row: KeyRow, wait: asyncio.Future[int], path: str, *, batch: bool) -> None:
    """Give an append where the record of its key is; `wait`: until that is durable."""
    if future.done():
        return
    durable = wait.done() and not wait.cancelled()
    if durable and (error := wait.exception()) is not None:
        future.set_exception(error)
    elif durable and wait.result() < row.lsn:
        message = "truncate_after dropped the record of that key"
        future.set_exception(Truncated(message, path=path, lsn=row.lsn, hint="append it again"))
    elif batch:
        part = Part(row.lsn, row.segment, row.offset, array("I", [row.length]))
        future.set_result(BatchResult([part], durable=durable, sync_us=row.sync_us, duplicate=True))
    else:
        future.set_result(Duplicate(row.lsn, row.segment, row.offset, row.length, durable, row.sync_us))


def conflict(topic: str | None, expected: int, actual: int, path: str) -> Conflict:
    """The error of an append whose expectation does not hold."""
    where = "the log" if topic is None else f"topic {topic!r}"
    return Conflict(
        f"{where} does not end with the expected LSN; nothing was written",
        path=path,
        expected=expected,
        actual=actual,
        hint="read what was appended since, decide again, and append with expected= the LSN that was found",
    )


def check_expected(expected: object) -> None:
    """Raise BadOption unless `expected` is None or a number that may be an LSN, 0 included."""
    if expected is not None and not (is_lsn(expected) and 0 <= expected < 1 << 63):
        raise BadOption(
            f"expected={expected!r} is no LSN", hint="the last LSN of the topic or the log, 0 where there is no record"
        )


def check_key(key: object) -> None:
    """Raise BadOption unless `key` is None or text of 1 to 1,024 bytes in UTF-8."""
    if key is None:
        return
    try:
        right = isinstance(key, str) and 1 <= len(key.encode()) <= DEDUPE_KEY_BYTES_MAX
    except UnicodeEncodeError:
        right = False
    if not right:
        raise BadOption(
            f"dedupe={str(key)[:64]!r} is no key", hint=f"text of 1 to {DEDUPE_KEY_BYTES_MAX:,} bytes in UTF-8"
        )
