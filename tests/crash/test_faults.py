"""Every operation fails once, with every errno that it may have, at every nth call."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from itertools import product

import pytest

from walsvc.config import WalConfig
from walsvc.disk.sim import SimDevice, SimDisk, run_sim
from walsvc.errors import Backpressure, DurabilityLost, NoSpace
from walsvc.opening import open_on

from .explorer import Explorer, recover
from .faults import FaultRun, Planted
from .model import Bounds, Observed
from .plan import SEGMENT_BYTES, Plan, reproducible
from .sampling import sampled
from .workload import observe

EIO, ENOSPC, EDQUOT, EROFS = errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS
ERRNOS = {
    "submit": (EIO, errno.EAGAIN),
    "submit.write": (EIO, ENOSPC, EDQUOT, EROFS),
    "submit.sync": (EIO, ENOSPC, errno.ECANCELED),
    "submit.complete": (EIO, errno.EINTR),
    "write": (EIO, ENOSPC, EROFS),
    "write.sync": (EIO, EDQUOT),
    "sync": (EIO, ENOSPC),
    "allocate": (EIO, ENOSPC, EDQUOT, EROFS, errno.EMFILE, errno.EACCES, errno.EAGAIN),
    "allocate.write": (EIO, ENOSPC, EDQUOT, errno.EFBIG),
    "allocate.sync": (EIO, ENOSPC),
    "allocate.sync_directory": (EIO, ENOSPC),
    "read": (EIO,),
    "rename": (EIO, ENOSPC, EROFS),
    "remove": (EIO, EROFS),
    "list": (EIO, errno.EACCES),
    "open_file": (EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    "close_file": (EIO,),
    "sync_directory": (EIO, ENOSPC),
}
COMBINATIONS_MIN = 500
# One call in so many of what is done most often; each of the others has its turn
SPREAD = {"submit": 3, "submit.write": 2, "submit.sync": 2, "submit.complete": 3, "read": 3}
OTHER_ERRNOS = 13


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
        config=WalConfig(
            segment_bytes=SEGMENT_BYTES, max_group_bytes=16 * 1024, max_pending_bytes=64 * 1024, relaxed_interval=0.002
        ),
    )


def usual_counts(plan: Plan) -> Counter[str]:
    """How often the scenario does each operation when nothing fails."""
    run = FaultRun(plan, None)
    run.run()
    assert not run.failures
    return run.counts


class Faults:
    """Runs the scenario with one fault after the other. Equal images, which many of them leave, are recovered once."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._explorer = Explorer()
        self._seen: dict[str, Observed] = {}

    def close(self) -> None:
        self._explorer.close()

    def run_with(self, planted: Planted) -> set[str]:
        """One fault; also cut the power right after the failure. Returns what the callers were told."""
        run = FaultRun(self._plan, planted)
        try:
            with reproducible(self._plan.seed):
                run.run()
                for device, bounds in run.at_failure:
                    for image in device.crash_states(2):
                        bounds.check(self._recovered(image, bounds))
        except BaseException as error:
            error.add_note(f"{planted}, told: {run.failures}, {self._plan}")
            raise
        return set(run.failures)

    def _recovered(self, image: SimDevice, bounds: Bounds) -> Observed:
        fingerprint = image.fingerprint()
        if fingerprint not in self._seen:
            explorer = self._explorer
            self._seen[fingerprint] = explorer.run(recover(self._plan, image, bounds, explorer.tally))
        return self._seen[fingerprint]


def faults(operation: str, count: int) -> Iterator[Planted]:
    """The first errno at each call, or at a sample of those that are many, each of the others at every 13th: what is done about a
    failure depends on the call, and hardly on the errno."""
    for index, number in enumerate(ERRNOS[operation]):
        for nth in sampled(range(1, count + 1), OTHER_ERRNOS if index else SPREAD.get(operation, 1)):
            yield Planted(operation, nth, number)


@pytest.mark.parametrize("operation", ERRNOS)
def test_nth_operation_fails_with_each_errno_and_nothing_acknowledged_is_lost(operation: str) -> None:
    plan = plan_of(1)
    count = usual_counts(plan)[operation]
    assert count > 0, "the scenario does not meet this operation"
    with closing(Faults(plan)) as faulty:
        told: Counter[str] = Counter()
        planted = list(faults(operation, count))
        for each in planted:
            told.update(faulty.run_with(each) or {"nobody"})
    print(f"{operation}: {len(planted)} faults, {count} calls; told: {dict(told)}")
    if operation.startswith("submit"):
        assert told["DurabilityLost"] > 0.8 * len(planted)
        assert set(told) <= {"DurabilityLost", "nobody"}


def test_faults_are_five_hundred_combinations_at_least() -> None:
    counts = usual_counts(plan_of(1))
    combinations = sum(len(list(faults(operation, counts[operation]))) for operation in ERRNOS)
    print(f"{combinations} combinations of operation, errno and nth")
    assert combinations >= COMBINATIONS_MIN


@pytest.mark.parametrize("sync_method", ["dsync", "fdatasync"])
def test_short_write_is_a_failure_whatever_its_length(sync_method: str) -> None:
    plan = plan_of(2, sync_method=sync_method)
    count = usual_counts(plan)["submit.write"]
    with closing(Faults(plan)) as faulty:
        for nth, short in sampled(product(range(1, count + 1), (0, 512, 4096)), 38):  # no multiple of 3: every length
            assert faulty.run_with(Planted("submit.write", nth, EIO, short)) == {"DurabilityLost"}


@pytest.mark.parametrize("sync_method", ["dsync", "fdatasync"])
def test_failed_write_or_sync_in_the_page_cache_is_terminal(sync_method: str) -> None:
    plan = plan_of(3, direct=False, sync_method=sync_method)
    counts = usual_counts(plan)
    with closing(Faults(plan)) as faulty:
        for operation in ("submit.write", "submit.sync"):
            for nth in sampled(range(1, counts[operation] + 1), 20):
                faulty.run_with(Planted(operation, nth, EIO))


def test_error_of_a_directory_sync_is_never_dropped() -> None:
    plan = plan_of(4)
    count = usual_counts(plan)["sync_directory"]
    with closing(Faults(plan)) as faulty:
        for nth in sampled(range(1, count + 1), 3):
            assert faulty.run_with(Planted("sync_directory", nth, EIO)), f"nobody was told of the {nth}th"


def test_disk_full_is_no_space_and_goes_on_after_it_was_freed() -> None:
    """A real capacity instead of a planted errno: no LSN is burnt, and everything is there at the end."""

    async def main(seed: int) -> None:
        device = SimDevice(seed, capacity=3 * SEGMENT_BYTES + 1000)
        config = WalConfig(segment_bytes=SEGMENT_BYTES)
        log = await open_on(SimDisk(device), config)
        lsns: list[int] = []
        with pytest.raises(NoSpace) as caught:
            for _ in range(40):
                lsns.append((await log.append(bytes(9000))).lsn)
        assert caught.value.errno == ENOSPC
        for _ in range(3):
            with pytest.raises((NoSpace, Backpressure)):
                await log.append_nowait(bytes(9000))
            with pytest.raises(NoSpace):
                await log.append(bytes(9000))
        assert log.next_lsn == lsns[-1] + 1
        device.capacity = 6 * SEGMENT_BYTES
        for _ in range(5):
            lsns.append((await log.append(bytes(9000))).lsn)
        assert lsns == list(range(1, len(lsns) + 1))
        await log.close()
        log = await open_on(SimDisk(device), config)
        assert len((await observe(log)).entries) == len(lsns)
        await log.close()

    run_sim(main, 1)


def test_stalled_sync_bounds_the_queue_and_acknowledges_nothing() -> None:
    """30 s of simulated stall: pending bytes stay under their cap, and no append is answered meanwhile."""

    async def main(seed: int) -> None:
        import asyncio

        device = SimDevice(seed)
        config = WalConfig(segment_bytes=1 << 20, max_pending_bytes=64 * 1024)
        log = await open_on(SimDisk(device), config)
        loop = asyncio.get_running_loop()
        device.stall_sync(30.0)
        begin = loop.time()
        futures = [log.append(bytes(4000)) for _ in range(100)]
        with pytest.raises(Backpressure):
            log.append_nowait(bytes(4000))
        for _ in range(29):
            await asyncio.sleep(1.0)
            assert not any(future.done() for future in futures)
            assert log.stats().pending_bytes <= config.max_pending_bytes + 4000
        await asyncio.gather(*futures)
        assert 30.0 <= loop.time() - begin < 31.0
        await log.close()

    run_sim(main, 5)


def test_first_failure_counts_and_a_later_success_never_clears_it() -> None:
    async def main(seed: int) -> None:
        device = SimDevice(seed)
        log = await open_on(SimDisk(device), WalConfig(segment_bytes=SEGMENT_BYTES, max_group_records=1))
        device.fail("submit.sync", errno=EIO)
        first, second = log.append(b"first"), log.append(b"second")
        for future in (first, second, log.append(b"third")):
            with pytest.raises(DurabilityLost) as caught:
                await future
            assert caught.value.errno == EIO
        assert log.durable_lsn == 0
        with pytest.raises(DurabilityLost):
            await log.append(b"fourth")
        await log.close()

    run_sim(main, 6)
