"""What the file of the next segment is made of: written zeros, or behind large groups reserved room."""

from __future__ import annotations

from walsvc.config import WalConfig
from walsvc.disk.sim import SimDevice, SimDisk, run_sim
from walsvc.opening import open_on

SEGMENT_BYTES = 4 << 20
CONFIG = WalConfig(segment_bytes=SEGMENT_BYTES)


class Noting(SimDisk):
    """A disk that notes how each file was made."""

    def __init__(self, device: SimDevice) -> None:
        super().__init__(device)
        self.made: list[bool] = []

    async def allocate(self, name: str, length: int, *, reserved: bool = False) -> None:
        if length == SEGMENT_BYTES:
            self.made.append(reserved)
        await super().allocate(name, length, reserved=reserved)


def made_by(payload_bytes: int, then_bytes: int = 0) -> list[bool]:
    """How the segments of a log were made that was filled with appends of one size, and then of another; read back, too."""

    async def main(seed: int) -> None:
        disk = Noting(SimDevice(seed))
        made.append(disk.made)
        async with await open_on(disk, CONFIG) as log:
            for size in (payload_bytes, then_bytes):
                for _ in range(3 * SEGMENT_BYTES // size if size else 0):
                    await log.append(bytes(size))
            sizes = [len(record.payload) async for record in log.read()]
        assert sizes == [size for size in (payload_bytes, then_bytes) if size for _ in range(3 * SEGMENT_BYTES // size)]

    made: list[list[bool]] = []
    run_sim(main, 1)
    return made[0]


def test_small_groups_get_written_zeros() -> None:
    assert set(made_by(60_000)) == {False}


def test_behind_large_groups_room_is_only_reserved_until_they_are_small_again() -> None:
    made = made_by(900_000, then_bytes=60_000)
    assert made[1:3] == [True, True]
    assert made[-1] is False
