"""An archive in a directory: what the log may drop, since it is archived, is on stable storage there."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

import walsvc
from tests.fuse.mount import mounted, needs_fuse
from walsvc import NoSpace, WalError
from walsvc.engines.archive.push import Archive

pytestmark = needs_fuse
pytest.importorskip("obstore", reason="the extra archive is not installed")


async def test_what_is_archived_in_a_directory_is_synced_with_its_name(tmp_path: Path) -> None:
    with mounted(tmp_path) as fuse:
        async with walsvc.open(tmp_path / "log", segment_bytes=1 << 16) as log:
            for _ in range(60):
                await log.append(bytes(3000))
            archive = Archive.at(fuse.path / "archive")
            entries = await archive.push(log)
            assert len(entries) > 2
            assert fuse.volatile() == []
            assert log.holds()["archive"] == entries[-1].next_lsn
            await archive.push(log)
            assert fuse.volatile() == []


@pytest.mark.parametrize("operation", ["create", "write", "fsync", "fsyncdir", "link"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
async def test_directory_of_an_archive_that_fails_gets_whole_objects_or_none(
    tmp_path: Path, operation: str, number: int
) -> None:
    with mounted(tmp_path) as fuse:
        async with walsvc.open(tmp_path / "log", segment_bytes=1 << 16) as log:
            for _ in range(60):
                await log.append(bytes(3000))
            fuse.fail(operation, errno=number, nth=2)
            with pytest.raises(WalError) as told:
                await Archive.at(fuse.path / "archive").push(log)
            assert isinstance(told.value, NoSpace) == (number == errno.ENOSPC)
            fuse.heal()
            archive = Archive.at(fuse.path / "archive")
            await archive.push(log)
            assert fuse.volatile() == []
            assert archive.archived_lsn == log.holds()["archive"]
            assert (await Archive.at(fuse.path / "archive").manifest()).wrong == []
