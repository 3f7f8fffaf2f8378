"""Unsynced state after a power cut: a `Cut` is one outcome, drawn at random or from the extremes."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from walsvc.disk.sim.directory import SimDirectory
from walsvc.disk.sim.file import SimFile

EACH_CUTS = 4  # extreme outcomes with noise in every unsynced write
FRUITLESS_MAX = 32  # random outcomes in a row without a new one, after which all are taken to have been seen


class DeviceImage(Protocol):
    """A device after a crash."""

    def fingerprint(self) -> str:
        """Equal for equal images."""


ImageT = TypeVar("ImageT", bound=DeviceImage)


class Crashing(Protocol):
    """The part of a device that an outcome is drawn from."""

    sector: int
    garbage: bool
    garbage_each: bool
    loose: bool
    files: dict[int, SimFile]
    directory: SimDirectory


@dataclass(slots=True)
class Cut:
    """One outcome.

    Attributes:
        keep: keep(number of a write, sector index): whether that sector reached the disk.
        size: the size in bytes that a file has afterwards.
        names: indices of the directory operations that reached the disk.
        garbage: inode to sector index to bytes, of the sectors that became noise.
    """

    keep: Callable[[int, int], bool]
    size: Callable[[SimFile], int]
    names: Collection[int]
    garbage: dict[int, dict[int, bytes]] = field(default_factory=dict)


def random_cut(device: Crashing, rng: random.Random) -> Cut:
    """Any outcome. Each write is kept, lost or torn at a rate of its own, so that plain and ragged ones both occur."""
    rates: dict[int, float] = {}

    def keep(number: int, index: int) -> bool:
        if number not in rates:
            rates[number] = rng.choice((0.0, 1.0, rng.random()))
        return rng.random() < rates[number]

    def size(file: SimFile) -> int:
        # Size and contents are separate: a file may come back long and empty, or short of sectors that were kept.
        return rng.choice(sorted({file.size, *(max(file.size, write.end) for write in file.writes.values())}))

    operations = len(device.directory.journal)
    names: Collection[int] = range(rng.randint(0, operations))
    if device.loose:
        names = {index for index in range(operations) if rng.random() < 0.5}
    cut = Cut(keep, size, names)
    if device.garbage and rng.random() < 0.5:
        targets = unsynced_sectors(device)
        if targets:
            inode, index = rng.choice(targets)
            cut.garbage[inode] = {index: rng.randbytes(device.sector)}
    if device.garbage_each:
        cut.garbage = one_of_each(device, rng, rng.random())
    return cut


def one_of_each(device: Crashing, rng: random.Random, rate: float) -> dict[int, dict[int, bytes]]:
    """Noise in one sector of every unsynced write, of each at `rate`."""
    noise: dict[int, dict[int, bytes]] = {}
    for inode, file in sorted(device.files.items()):
        for number in sorted(file.writes):
            touched = [
                index for index in sorted(file.pending) if any(each[0] == number for each in file.pending[index])
            ]
            if touched and rng.random() < rate:
                noise.setdefault(inode, {})[rng.choice(touched)] = rng.randbytes(device.sector)
    return noise


def distinct(
    device: Crashing, limit: int, rng: random.Random, image: Callable[[Cut, random.Random], ImageT]
) -> Iterator[ImageT]:
    """Up to `limit` different images: the two plainest, then by turns chance and the other extremes."""
    if not device.directory.journal and not any(file.writes for file in device.files.values()):
        limit = min(limit, 1)
    extremes = extreme_cuts(device, rng)
    seen: set[str] = set()
    fruitless = turn = 0
    while len(seen) < limit and fruitless < FRUITLESS_MAX:
        extreme = next(extremes, None) if turn < 2 or turn % 2 == 0 else None
        turn += 1
        found = image(extreme or random_cut(device, rng), rng)
        fingerprint = found.fingerprint()
        if fingerprint not in seen:
            seen.add(fingerprint)
            fruitless = 0
            yield found
        elif extreme is None:
            fruitless += 1


def extreme_cuts(device: Crashing, rng: random.Random) -> Iterator[Cut]:
    """The outcomes that are worth trying first; the order of all but the first two is drawn by `rng`."""
    journal = device.directory.journal
    everything = range(len(journal))
    yield _selected(lambda _: False, ())
    yield _selected(lambda _: True, everything)
    rest: list[Cut] = []
    for number in sorted({number for file in device.files.values() for number in file.writes}):
        rest.append(_selected(lambda each, lost=number: each != lost, everything))  # type: ignore[misc]
        rest.append(_selected(lambda each, kept=number: each == kept, everything))  # type: ignore[misc]
    for index in everything:
        names = [each for each in everything if each != index] if device.loose else everything[:index]
        rest.append(_selected(lambda _: True, names))
    if device.garbage:
        for inode, index in unsynced_sectors(device):
            cut = _selected(lambda _: True, everything)
            cut.garbage[inode] = {index: rng.randbytes(device.sector)}
            rest.append(cut)
    if device.garbage_each:
        for _ in range(EACH_CUTS):
            cut = _selected(lambda _: True, everything)
            cut.garbage = one_of_each(device, rng, 1.0)
            rest.append(cut)
    rng.shuffle(rest)
    yield from rest


def unsynced_sectors(device: Crashing) -> list[tuple[int, int]]:
    """(inode, sector index) of every sector that an unsynced write touches, in order."""
    return [(inode, index) for inode, file in sorted(device.files.items()) for index in sorted(file.pending)]


def _selected(chosen: Callable[[int], bool], names: Collection[int]) -> Cut:
    """Whole writes, and the size that goes with them."""

    def size(file: SimFile) -> int:
        return max([file.size, *(write.end for number, write in file.writes.items() if chosen(number))])

    return Cut(lambda number, _: chosen(number), size, names)
