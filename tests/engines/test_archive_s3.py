"""The archive on a real S3 server: uploads cut fifty times, and the command line."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import subprocess
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import walsvc
from tests.engines.command import run_archive
from tests.engines.s3 import BUCKET, WHY_NO_S3, S3Server, shared_s3
from walsvc import PathError
from walsvc.engines.archive import Archive
from walsvc.engines.archive.restore import restore, verify
from walsvc.log.read.pins import ARCHIVE_HOLD

pytest.importorskip("obstore", reason="the archive needs obstore (walsvc[archive])")

SEGMENT = 65536
CUTS = 50
NUMBERS = itertools.count(1)


@pytest.fixture
def s3() -> S3Server:
    if WHY_NO_S3:
        pytest.skip(WHY_NO_S3)
    return shared_s3()


@pytest.fixture
def url() -> str:
    return f"s3://{BUCKET}/logs-{os.getpid()}-{next(NUMBERS)}"


class Lost(Archive):
    """Its connection ends at a random object: before it is sent, after it is stored but not answered, or by cancelling."""

    rng: random.Random
    left: int
    task: asyncio.Task[Any]

    async def _create(self, name: str, data: bytes) -> bool:
        self.left -= 1
        if self.left < 0:
            how = self.rng.randrange(3)
            if how == 0:
                self.task.cancel()
            elif how == 1:
                await super()._create(name, data)
            raise PathError("the connection is lost", path=name)
        return await super()._create(name, data)


async def test_upload_cut_fifty_times_on_s3_is_restored_as_the_log(s3, url, tmp_path, monkeypatch):
    monkeypatch.setattr("walsvc.engines.archive.push.PART_BYTES", 16384)
    rng = random.Random(11)
    cut = 0
    async with walsvc.open(tmp_path / "log", segment_bytes=SEGMENT, disk="threads") as log:
        while cut < CUTS:
            await asyncio.gather(*(log.append(rng.randbytes(rng.randrange(3000))) for _ in range(40)))
            archive = Lost.at(url, **s3.options)
            archive.rng, archive.left = rng, rng.randrange(6)
            archive.task = asyncio.create_task(archive.push(log))
            try:
                await archive.task
            except (PathError, asyncio.CancelledError):
                cut += 1
        await Archive.at(url, **s3.options).push(log)
        expected = [record async for record in log.read(stop=log.holds()[ARCHIVE_HOLD])]
    assert len(expected) > 1000
    assert await verify(Archive.at(url, **s3.options)) == []
    await restore(Archive.at(url, **s3.options), str(tmp_path / "back"))
    async with walsvc.open(tmp_path / "back", disk="threads") as back:
        assert [record async for record in back.read()] == expected


async def test_store_that_is_not_there_is_a_path_error_that_says_where(tmp_path):
    options = {"endpoint": "http://127.0.0.1:1", "access_key_id": "k", "secret_access_key": "s", "region": "r"}
    options |= {"client_options": {"allow_http": True}, "retry_config": {"max_retries": 0}}
    with pytest.raises(PathError, match=r"cannot be reached.*s3://bucket/logs"):
        await Archive.at("s3://bucket/logs", **options).entries()


@pytest.fixture
def walsvc_archive(s3) -> Callable[..., subprocess.CompletedProcess[str]]:
    return partial(run_archive, environment=s3.environment)


def test_command_line_pushes_lists_verifies_and_restores(walsvc_archive, url, tmp_path):
    async def fill() -> None:
        async with walsvc.open(tmp_path / "log", segment_bytes=SEGMENT, disk="threads") as log:
            await asyncio.gather(*(log.append(bytes(2000)) for _ in range(100)))

    asyncio.run(fill())
    pushed = walsvc_archive("push", tmp_path / "log", url)
    assert pushed.returncode == 0, pushed.stderr
    assert pushed.stdout.startswith("LSN 1 to ")
    assert walsvc_archive("push", tmp_path / "log", url).stdout.startswith("nothing new")
    listed = [json.loads(line) for line in walsvc_archive("ls", url, "--json").stdout.splitlines()]
    assert [entry["sequence"] for entry in listed] == list(range(1, len(listed) + 1))
    checked = walsvc_archive("verify", url)
    assert (checked.returncode, checked.stdout.split(",")[0]) == (0, f"{len(listed)} segments")
    back = walsvc_archive("restore", url, tmp_path / "back", "--lsn", 30, "--json")
    assert back.returncode == 0, back.stderr
    assert json.loads(back.stdout)["next_lsn"] >= 31
    again = walsvc_archive("restore", url, tmp_path / "back")
    assert again.returncode == 5
    assert "not an empty directory" in again.stderr
    assert walsvc_archive("restore", url, tmp_path / "x", "--lsn", 10**6).returncode == 2
    assert walsvc_archive("restore", url, tmp_path / "x", "--until", "yesterday").returncode == 2
