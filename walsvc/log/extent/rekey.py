"""Changing a log's key while it runs, and the first encrypted segment of a log that was plain.

A segment has one key. A new key therefore means a new segment: it is begun as in any rotation, only earlier, and the old
segment gets nothing more but its seal. Appends go on meanwhile. What was written under an older key stays as it is, and can
be read as long as the ring holds that key.

Files are recycled, so a log that becomes encrypted first gives up every prepared file that may hold old records. On a file
system that keeps old blocks, and on the device itself, they stay until they are overwritten.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from contextlib import suppress
from typing import TYPE_CHECKING

from walsvc.errors import BadOption, NoSpace
from walsvc.format.cipher import cipher_of
from walsvc.format.segment import SEGMENT_HEADER_BYTES, BadSegment, decode_segment_header, parse_name, segment_name
from walsvc.keyring import KeyRing
from walsvc.log.commit.segment import JOIN_BLOCKS, META_BLOCKS
from walsvc.log.extent.steps import have_spare, run_shielded, segment_begun
from walsvc.log.read.stream import load_header

if TYPE_CHECKING:
    from walsvc.disk.base import Disk
    from walsvc.log.commit.core import Core
    from walsvc.log.recover.recovery import Recovered


def check_newest(keys: KeyRing | None, path: str, directory: int) -> None:
    """Raise MissingKey or WrongKey if the newest segment says so, before the directory is locked or anything in it changed.

    Blocks, and runs where opening may block. Whatever else may be wrong is left to recovery.
    """
    newest = max(
        (first for name in os.listdir(directory) if (first := parse_name(name, ".wal")) is not None), default=0
    )
    if not newest:
        return
    with suppress(OSError, BadSegment):
        file = os.open(
            segment_name(newest), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory
        )
        try:
            header = decode_segment_header(os.pread(file, SEGMENT_HEADER_BYTES, 0))
        finally:
            os.close(file)
        cipher_of(keys, header, path)


async def check_keys(disk: Disk, found: Recovered, keys: KeyRing | None) -> None:
    """Raise MissingKey or WrongKey before anything is changed, where opening goes on to an older segment: to finish a
    truncate_after."""
    if found.cut is None:
        return
    ids = sorted(found.names)
    older = ids[max(bisect_right(ids, found.cut) - 1, 0)]
    header, _ = await load_header(disk, found.names[older], older)
    cipher_of(keys, header, disk.path)


async def use_keys(core: Core, keys: KeyRing) -> None:
    """Go on with other keys; see Log.use_keys."""
    core.health.check_call()
    if not isinstance(keys, KeyRing):
        raise BadOption(
            f"keys must be a KeyRing, not {type(keys).__name__}",
            path=core.disk.path,
            hint="an encrypted log stays encrypted; copy its records to a new log to have them plain",
        )
    await run_shielded(core, "use_keys", _use_keys(core, keys))


async def _use_keys(core: Core, keys: KeyRing) -> None:
    async with core.extent.changing() as change:
        for first in list(core.catalog.view.ids):
            header, _ = await load_header(core.disk, segment_name(first), first)
            cipher_of(keys, header, core.disk.path)
        was_plain = core.tail.segment.cipher is None
        change.begin()
        if changes_key(core, keys):
            await begin_under(core, keys)
        if was_plain and core.counters.double_write is not None:
            await core.counters.double_write.wipe()  # its slots hold the last plain groups
        core.tail.use_keys(keys)


def changes_key(core: Core, keys: KeyRing | None) -> bool:
    """True if the next segment's key is another one than the active segment's."""
    cipher = core.tail.segment.cipher
    return keys is not None and (cipher is None or cipher.key_id != keys.current_id)


async def after_opening(core: Core, *, was_plain: bool) -> None:
    """Begin a segment under the key that the log was opened with; `was_plain`: its last segment was not encrypted.

    On a full device that waits for the next append: a log must open, so that it can be truncated.
    """
    if core.tail.keys is None:
        return
    try:
        if changes_key(core, core.tail.keys):
            await begin_under(core, core.tail.keys)
    except NoSpace:
        core.tail.begin_anew()
        core.placement.set_room()
    if was_plain and core.counters.double_write is not None:
        await core.counters.double_write.wipe()  # its slots hold the last plain groups


async def begin_under(core: Core, keys: KeyRing) -> None:
    """Begin a segment under the current one of `keys`; what was appended before goes to the old one.

    Raises NoSpace, with nothing changed, and DurabilityLost. Nobody else changes the log's extent meanwhile.
    """
    if core.tail.segment.cipher is None:
        await core.tail.spares.drop_recycled()
    need = core.tail.prefix_bytes() + (4 + META_BLOCKS + JOIN_BLOCKS) * core.tail.segment.block_bytes
    while True:
        await have_spare(core, need, metadata=False)
        if not core.pipeline.rotation.busy:
            break
        await segment_begun(core)
    core.pipeline.cut_off()
    core.tail.use_keys(keys)
    core.placement.begin_segment()
    durable = core.changes.try_write({})
    assert durable is not None, "the new segment has room, and no batch is under way"
    await durable
    await core.pipeline.rotation.ended()
