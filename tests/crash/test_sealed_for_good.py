"""A log that was sealed for good stays as it is, however full its last segment was."""

from __future__ import annotations

from dataclasses import replace

import pytest

from walsvc.config import WalConfig
from walsvc.disk.sim import SimDevice
from walsvc.format.group import Flag

from .damage import groups
from .scenes import USUAL, opened, run, segments


def contents(device: SimDevice) -> dict[str, bytes]:
    return {name: device.file(name).digest() for name in segments(device)}


@pytest.mark.parametrize("config", [USUAL, replace(USUAL, double_write="direct", layout="pack")], ids=["pad", "pack"])
def test_closing_and_opening_a_sealed_log_adds_nothing_but_the_mark_of_its_end(config: WalConfig) -> None:
    async def scenario(seed: int) -> None:
        for count in range(24):  # over more than a segment: somewhere on the way the last one is full
            device = SimDevice(seed)
            log = await opened(device, config)
            for _ in range(count):
                await log.append(bytes(3000))
            await log.seal()
            await log.close()
            (*_, mark) = groups(device, segments(device)[-1])
            assert mark.flags & Flag.CLOSE
            assert not mark.flags & Flag.SEAL
            before = contents(device)
            for _ in range(3):
                log = await opened(device, config)
                assert log.report.clean
                assert log.next_lsn == count + 1
                await log.close()
                assert contents(device) == before

    run(scenario)


def test_sealed_log_whose_process_was_killed_gets_the_mark_once() -> None:
    async def scenario(seed: int) -> None:
        for count in range(24):
            device = SimDevice(seed)
            log = await opened(device)
            for _ in range(count):
                await log.append(bytes(3000))
            await log.seal()
            number = len(log.writer.segments.ids())
            image = device.fork().crash()
            await log.close()
            cleans = []
            for _ in range(3):
                again = await opened(image)
                cleans.append(again.report.clean)
                assert len(again.writer.segments.ids()) == number
                await again.close()
            assert cleans == [False, True, True]

    run(scenario)
