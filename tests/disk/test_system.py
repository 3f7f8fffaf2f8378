"""Other systems than Linux: the log works without the names that macOS lacks, and says what it can where there are no locks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.forked import ROOT

LIFE = """
import asyncio, sys
from tests.without_names import synced
import walsvc

async def main(path):
    options = {"segment_bytes": 65_536}
    async with walsvc.open(path, **options) as log:
        assert log.stats().disk == "threads", log.stats().disk
        before = len(synced)
        await log.append(b"first")
        assert len(synced) > before, "a durable append syncs with F_FULLFSYNC"
        await asyncio.gather(*(log.append(bytes(9_000)) for _ in range(40)))
        await log.append_batch([bytes(3_000)] * 30)
        await log.truncate_before(20)
        await log.truncate_after(60)
        assert [record.lsn async for record in log.read()] == list(range(20, 61))
    for reading in ("direct", "mapped"):
        try:
            async with walsvc.open(path, read_only=True, reading=reading) as log:
                assert [record.lsn async for record in log.read()] == list(range(20, 61))
        except walsvc.BadOption as error:
            assert reading == "mapped", error
    async with walsvc.open(path, layout="pack", double_write="buffered") as log:
        assert (log.next_lsn, log.report.clean) == (61, True)
        await log.append(b"last")

asyncio.run(main(sys.argv[1]))
"""
WINDOWS = """
import os, sys
for name in ("fcntl", "resource", "termios", "pwd", "grp", "walsvc.disk._uring"):
    sys.modules[name] = None
for name in ("O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "pwritev", "preadv", "fdatasync", "register_at_fork", "fork", "getuid"):
    if hasattr(os, name):
        delattr(os, name)
import asyncio, walsvc

async def main(path):
    try:
        walsvc.open(path)
    except walsvc.BadOption as error:
        assert "no POSIX locks" in str(error) and "wal://" in str(error), error
    else:
        raise AssertionError("it opened")
    async with walsvc.open(sys.argv[2]) as log:
        await log.append(b"from a client without POSIX")
        assert [record.payload async for record in log.read()] == [b"from a client without POSIX"]

asyncio.run(main(sys.argv[1]))
"""


def run(script: str, *arguments: object) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WALSVC_DISK": "auto"}
    command = [sys.executable, "-W", "error", "-c", script, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


def test_log_lives_without_the_names_that_macos_lacks(tmp_path: Path) -> None:
    run(LIFE, tmp_path / "log")


def test_the_contract_holds_without_the_names_that_macos_lacks(tmp_path: Path) -> None:
    chosen = "threads and asyncio and not pack and not nats"
    command = ["pytest", "-q", "-p", "tests.without_names", "-p", "no:cacheprovider", "--basetemp", tmp_path / "logs"]
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command), "tests/contract/test_log.py", "-k", chosen],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.rpartition(" passed")[0].split()[-1]) > 50, done.stdout


async def test_client_works_without_posix_and_a_directory_says_what_to_do(tmp_path: Path) -> None:
    import asyncio

    from tests.service.simulated import SMALL
    from walsvc.service.server.server import serve

    async with serve(tmp_path / "data", config=SMALL, host="127.0.0.1", port=0) as server:
        port = server.port
        await asyncio.to_thread(run, WINDOWS, tmp_path / "log", f"wal://127.0.0.1:{port}")


@pytest.mark.parametrize("name", ["sync", "sync_data"])
def test_full_sync_of_macos_is_the_one_that_is_used(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from walsvc.disk import system

    called: list[tuple[int, int]] = []
    monkeypatch.setattr(system, "FULL_SYNC", 51)
    monkeypatch.setattr(system.fcntl, "fcntl", lambda file, call: called.append((file, call)))
    monkeypatch.delattr(os, "fdatasync")
    getattr(system, name)(7)
    assert called == [(7, 51)]
