"""Crash tests for programs that use walsvc: on a disk that loses power at every operation, in simulated time.

    async def program(disk):
        async with walsvc.open(disk) as log:
            for n in range(3):
                await log.append(b"%d" % n)
                disk.witness.append(n)  # somebody outside was told

    async def check(disk):  # after the power cut
        async with walsvc.open(disk) as log:
            assert {int(record.payload) async for record in log.read()} >= set(disk.witness)

    def test_nothing_that_was_told_is_lost(power_cuts):  # a fixture for pytest, which finds it by itself
        power_cuts(program, check)

`program` runs once. Before each operation of its disk the power might go: `check` is run on what the disk might hold then, with
the witness as it was at that moment. docs/TESTING.md is the guide.
"""

from walsvc.disk.sim import SimDeadlock
from walsvc.testing.cuts import PowerCuts, run
from walsvc.testing.machine import Disk
from walsvc.testing.trial import Explored

__all__ = ["Disk", "Explored", "PowerCuts", "SimDeadlock", "run"]
