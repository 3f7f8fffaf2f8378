"""A power cut in words: what was not synced at that moment, and what became of it."""

from __future__ import annotations

from walsvc.disk.sim import SimDevice
from walsvc.disk.sim.file import SimFile
from walsvc.testing.machine import Disk


def fates(before: Disk, after: Disk) -> list[str]:
    """A line for each write and each change of a name that was not synced `before` the cut: is it there `after` it?"""
    lines: list[str] = []
    for namespace, device in before.devices.items():
        where = f" in namespace {namespace}" if namespace else ""
        lines += [line + where for line in (*writes(device, after.devices[namespace]), *names(device))]
    return lines


def writes(device: SimDevice, image: SimDevice) -> list[str]:
    """The fate of the unsynced writes."""
    known = {inode: name for name, inode in device.directory.names.items()}
    lines = []
    for inode, file in sorted(device.files.items()):
        for number, write in sorted(file.writes.items()):
            there, whole = kept(file, image.files.get(inode), number)
            fate = "is lost" if not there else "is there" if there == whole else f"is torn, {there} of {whole} sectors"
            lines.append(f"{write.end - write.offset} bytes at {write.offset} of {known.get(inode, 'a file')}: {fate}")
    return lines


def kept(file: SimFile, image: SimFile | None, number: int) -> tuple[int, int]:
    """How many sectors of a write the image has, of those that it changes. A new file's zeros are one piece, as its size is."""
    if file.writes[number].zeros:
        return int(image is not None and image.size >= file.writes[number].end), 1
    there = whole = 0
    for index, fragments in file.pending.items():
        for each, start, data in fragments:
            span = slice(start, start + len(data))
            if each == number and file.durable.get(index, file.zeros)[span] != data:
                whole += 1
                there += image is not None and image.durable.get(index, image.zeros)[span] == data
    return there, whole


def names(device: SimDevice) -> list[str]:
    """The changes of names that were not synced."""
    lines = []
    for changes in device.directory.journal:
        gone = [name for name, inode in changes.items() if inode is None]
        come = [name for name, inode in changes.items() if inode is not None]
        lines.append(f"unsynced name: {' and '.join([*(f'{n} removed' for n in gone), *(f'{n} made' for n in come)])}")
    return lines
