"""Every operation of the simulated disk fails at every call with every error number: a campaign, run by hand.

`python -m tests.crash.every_errno [STEP [FIRST]]` tries every STEPth combination (1: all), from number FIRST on, and prints what
the callers were told for each operation and error number. docs/RELIABILITY.md has the figures of one run;
tests/crash/test_every_errno.py runs a sample.
"""

from __future__ import annotations

import errno

from .campaigning import campaign
from .faults import FaultRun, Planted
from .test_faults import plan_of, usual_counts

ERRNOS = (
    errno.EINTR,
    errno.EIO,
    errno.EAGAIN,
    errno.ENOMEM,
    errno.ENFILE,
    errno.EMFILE,
    errno.EFBIG,
    errno.ENOSPC,
    errno.EROFS,
    errno.EDQUOT,
)
SHORT = frozenset({errno.EINTR, errno.EAGAIN, errno.ENOMEM, errno.ENFILE, errno.EMFILE})
SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
HARMLESS = {
    "allocate": SHORT | SPACE,
    "allocate.write": SHORT | SPACE,
    "allocate.sync": SHORT | SPACE,
    "allocate.sync_directory": SHORT | SPACE,
    "open_file": SHORT,
    "close_file": SHORT,
    "read": SHORT,
    "list": SHORT,
    "rename": SHORT,
    "remove": SHORT,
}
"""What may be short, or interrupted, where no data is at stake: no log ends of it."""
SEED = 7


def combinations() -> list[Planted]:
    """All of them, in an order that depends on nothing."""
    counts = usual_counts(plan_of(SEED))
    return [
        Planted(operation, nth, number)
        for operation in sorted(counts)
        for number in ERRNOS
        for nth in range(1, counts[operation] + 1)
    ]


def told_of(planted: Planted) -> set[str]:
    """Run the scenario with one fault; the names of the errors that its callers met. What goes wrong has the fault as a note."""
    run = FaultRun(plan_of(SEED), planted)
    try:
        run.run()
        if planted.errno in HARMLESS.get(planted.operation, ()):
            assert "DurabilityLost" not in run.failures, "a shortage that endangered no data ended the log"
    except BaseException as broken:
        broken.add_note(f"{planted} ({errno.errorcode[planted.errno]}), told: {run.failures}")
        raise
    return set(run.failures)


if __name__ == "__main__":
    campaign(combinations(), lambda each: f"{each.operation} {errno.errorcode[each.errno]}", told_of)
