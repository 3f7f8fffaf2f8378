"""The decision at the end of a segment's valid groups: end, torn tail, or corruption. Pure; every combination is tested.

Four observations decide. Which of them is missing an LSN is the same in all cases: the one that the next valid group would
have begun with.

* `End`: what stands where the next group should.
* `last`: what the last valid group was.
* `After`: what the next segment, if there is one, says about the missing LSN.
* `evidence`: whether a later group of the same segment says that the missing LSN, or the place of the missing group, had been
  durable.

| rule | end      | last  | after     | evidence | verdict        | why                                                   |
|------|----------|-------|-----------|----------|----------------|-------------------------------------------------------|
| 1    | NEWER    | any   | any       | any      | UNSUPPORTED    | right CRC, unknown meaning: not for us to judge       |
| 2    | any      | any   | ADJOINING | any      | COMPLETE       | no LSN is missing; the next segment goes on           |
| 3    | any      | any   | any       | yes      | CORRUPTION     | it had been durable                                   |
| 4    | any      | any   | PROVEN    | no       | CORRUPTION     | it had been durable                                   |
| 5    | any      | SEAL  | NONE      | no       | LOST_SUCCESSOR | a seal is written after its successor is durable      |
| 6    | any      | SEAL  | UNPROVEN  | no       | CORRUPTION     | a sealed segment is complete; one after it is missing |
| 7    | any      | other | UNPROVEN  | no       | DROP_SUCCESSOR | begun, never acknowledged: the tail before it is torn |
| 8    | TORN     | other | NONE      | no       | TORN_TAIL      | written in part, never acknowledged                   |
| 9    | NOTHING  | CLOSE | NONE      | no       | CLEAN          |                                                       |
| 10   | NOTHING  | other | NONE      | no       | UNCLEAN        | killed while nothing was on its way                   |
"""

from __future__ import annotations

import enum


class End(enum.Enum):
    """Content of the place where the next group should be."""

    NOTHING = "no group: zeros, the end of the file, or what an earlier use of the file left"
    TORN = "a group of this log and place that is not whole, or bytes in a file that held only zeros"
    NEWER = "a group that a newer walsvc wrote"


class Last(enum.Enum):
    """Kind of the last valid group."""

    ORDINARY = "records, metadata or a snapshot"
    CLOSE = "the mark of a clean close"
    SEAL = "the segment's end, naming its successor"


class After(enum.Enum):
    """Statement of the next segment about the missing LSN."""

    NONE = "there is no next segment"
    ADJOINING = "it begins with that LSN, or before it (truncate_after): nothing is missing"
    UNPROVEN = "it begins later, and nothing in it shows that the missing LSN had been durable"
    PROVEN = "it begins later, and a group in it shows that the missing LSN had been durable"


class Verdict(enum.Enum):
    """Decision of the table."""

    COMPLETE = "read on in the next segment"
    CLEAN = "the log ends here, closed in order"
    UNCLEAN = "the log ends here; it was not closed in order, and nothing was cut off"
    TORN_TAIL = "the log ends here; what follows was never acknowledged"
    DROP_SUCCESSOR = "the log ends here; the next segment was begun but never acknowledged"
    CORRUPTION = "acknowledged data is damaged"
    LOST_SUCCESSOR = "the segment that the seal names is missing"
    UNSUPPORTED = "a newer walsvc is needed"


def decide(end: End, last: Last, after: After, *, evidence: bool) -> Verdict:
    """The table above, first rule that fits."""
    if end is End.NEWER:
        return Verdict.UNSUPPORTED
    if after is After.ADJOINING:
        return Verdict.COMPLETE
    if evidence or after is After.PROVEN:
        return Verdict.CORRUPTION
    if last is Last.SEAL:
        return Verdict.LOST_SUCCESSOR if after is After.NONE else Verdict.CORRUPTION
    if after is After.UNPROVEN:
        return Verdict.DROP_SUCCESSOR
    if end is End.TORN:
        return Verdict.TORN_TAIL
    return Verdict.CLEAN if last is Last.CLOSE else Verdict.UNCLEAN
