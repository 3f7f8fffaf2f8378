"""Every operation of the simulated disk fails at every call with every error number: a campaign, run by hand.

`python -m tests.crash.every_errno [STEP [FIRST]]` tries every STEPth combination (1: all), from number FIRST on, and prints what
the callers were told for each operation and error number. docs/RELIABILITY.md has the figures of one run;
tests/crash/test_every_errno.py runs a sample.
"""

from __future__ import annotations

import errno
import logging
import sys
from collections import Counter
from collections.abc import Iterable, Iterator

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


def campaign(chosen: Iterable[Planted]) -> Iterator[str]:
    """Try them; yields what ends badly, and at last what was told."""
    told: dict[tuple[str, str], Counter[str]] = {}
    count = bad = 0
    for planted in chosen:
        count += 1
        row = told.setdefault((planted.operation, errno.errorcode[planted.errno]), Counter())
        try:
            row.update(told_of(planted) or ["nobody"])
        except Exception as broken:
            bad += 1
            yield f"{type(broken).__name__}: {broken} {broken.__notes__}"
    for (operation, name), row in told.items():
        yield f"{operation} {name}: {dict(row)}"
    yield f"{count} combinations, {bad} ended badly"


def main() -> None:
    """See the head of this file."""
    logging.disable()  # each fault is told there as well
    step, first = [*map(int, sys.argv[1:]), *(1, 0)[len(sys.argv) - 1 :]]
    for line in campaign(combinations()[first::step]):
        print(line, flush=True)


if __name__ == "__main__":
    main()
