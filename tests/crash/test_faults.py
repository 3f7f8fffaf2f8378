"""Every operation fails once, with every errno that it may have, at every nth call."""

from __future__ import annotations

import errno
from collections import Counter

import pytest

from walsvc.config import WalConfig

from .explorer import Explorer, recover
from .faults import FaultRun, Planted
from .plan import SEGMENT_BYTES, Plan

EIO, ENOSPC, EDQUOT, EROFS = errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS
ERRNOS = {
    "submit": (EIO, errno.EAGAIN),
    "submit.write": (EIO, ENOSPC, EDQUOT, EROFS, errno.ECANCELED),
    "submit.sync": (EIO, ENOSPC, errno.ECANCELED),
    "submit.complete": (EIO, errno.EINTR),
    "write": (EIO, ENOSPC, EROFS),
    "write.sync": (EIO,),
    "sync": (EIO,),
    "allocate": (EIO, ENOSPC, EDQUOT, EROFS, errno.EMFILE, errno.EACCES),
    "allocate.write": (EIO, ENOSPC, EDQUOT),
    "allocate.sync": (EIO, ENOSPC),
    "allocate.sync_directory": (EIO, ENOSPC),
    "read": (EIO,),
    "rename": (EIO, ENOSPC, EROFS),
    "remove": (EIO, EROFS),
    "list": (EIO, errno.EACCES),
    "open_file": (EIO, errno.EMFILE),
    "close_file": (EIO,),
    "sync_directory": (EIO, ENOSPC),
}
NTH_MAX = 40


def plan_of(seed: int, *, direct: bool = True, sync_method: str = "dsync") -> Plan:
    return Plan(
        seed=seed,
        sector=512,
        garbage=False,
        loose=False,
        sync_names=False,
        direct=direct,
        sync_method=sync_method,
        block_bytes=4096,
        latency=100e-6,
        config=WalConfig(segment_bytes=SEGMENT_BYTES, max_pending_bytes=64 * 1024, relaxed_interval=0.002),
    )


def usual_counts(plan: Plan) -> Counter[str]:
    """How often the scenario does each operation when nothing fails."""
    run = FaultRun(plan, None)
    run.run()
    return run.counts


@pytest.mark.parametrize("operation", ERRNOS)
def test_nth_operation_fails_with_each_errno_and_nothing_acknowledged_is_lost(operation: str) -> None:
    plan = plan_of(1)
    count = usual_counts(plan)[operation]
    assert count > 0, "the scenario does not meet this operation"
    explorer = Explorer()
    told: Counter[str] = Counter()
    for number in ERRNOS[operation]:
        for nth in range(1, min(count, NTH_MAX) + 1):
            planted = Planted(operation, nth, number)
            try:
                run = FaultRun(plan, planted)
                run.run()
                for device, bounds in run.at_failure:
                    for image in device.crash_states(2):
                        bounds.check(explorer.run(recover(plan, image, bounds, explorer.tally)))
            except BaseException as error:
                error.add_note(str(planted))
                raise
            told.update(set(run.failures) or {"nobody"})
    explorer.close()
    print(f"{operation}: {len(ERRNOS[operation])} errnos x {min(count, NTH_MAX)}; told: {dict(told)}")
