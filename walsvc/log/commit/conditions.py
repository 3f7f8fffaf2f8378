"""Conditions: whether an append may be accepted, decided in the step that gives it its LSN.

An append may say which LSN its topic, or the log, ends with (`expected`): optimistic concurrency, as EventStoreDB's expected
revision and JetStream's Nats-Expected-Last-Sequence have it. Whether that holds is asked when the append's turn has come, of what is
accepted and not of what is durable: so of several appends with one expectation exactly one is accepted. Owns nothing; called by
Queue and Batch while no other append can come between.
"""

from __future__ import annotations

from walsvc.errors import BadOption, Conflict
from walsvc.format.meta import Metadata
from walsvc.log.commit.placement import Placement
from walsvc.model import is_lsn


class Conditions:
    """Decides for one log. Loop thread only."""

    def __init__(self, metadata: Metadata, placement: Placement, path: str) -> None:
        self._metadata = metadata
        self._placement = placement
        self._path = path

    def last(self, topic: str | None) -> int:
        """LSN of the last record that was accepted, of a topic or (None) of the whole log; 0: none that is visible. What a purge
        hides counts, since it keeps its LSN."""
        if topic is None:
            last = self._placement.next_lsn - 1
        elif (number := self._metadata.topics.get(topic)) is None:
            return 0
        else:
            last = self._placement.group.last_of(number) or self._metadata.last_of(number)
        return last if last >= self._metadata.truncated else 0

    def check(self, topic: str | None, expected: int | None) -> None:
        """Raise Conflict unless a topic, or the log, ends with the LSN that was expected; None: any will do."""
        if expected is not None and (actual := self.last(topic)) != expected:
            raise conflict(topic, expected, actual, self._path)


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
