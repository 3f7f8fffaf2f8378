"""`walsvc top`: what two looks at a log tell, as lines and as a screen."""

from __future__ import annotations

import asyncio
import io
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

import walsvc as library
from tests.forked import ROOT
from walsvc.cli.viewing import Look, duration, facts, line_of, lines_of, look, picture, quantile, rates
from walsvc.model import SYNC_US_BOUNDS
from walsvc.service.server import serve

from .conftest import Cli


def test_quantiles_are_within_their_bucket() -> None:
    assert quantile((10, 20, 40), (0, 0, 0, 0), 0.5) is None
    assert quantile((10, 20, 40), (4, 0, 0, 0), 0.5) == pytest.approx(5)
    assert quantile((10, 20, 40), (0, 0, 10, 0), 0.9) == pytest.approx(38)
    assert quantile((10, 20, 40), (0, 0, 0, 1), 0.99) == 40, "more than the last bound is said as that"
    assert [duration(us) for us in (80, 1500, 2_500_000)] == ["80 us", "1.5 ms", "2.5 s"]
    assert line_of([0, 1, 4, 8]) == " ▁▄█"
    assert line_of([0, 0]) == "  "


async def test_two_looks_tell_rates_syncs_and_consumers(tmp_path: Path) -> None:
    async with library.open(tmp_path / "log") as log:
        jobs = log.topic("jobs")
        workers = await jobs.consumer("workers", shared=True)
        before = await look(log)
        await jobs.append_batch([b"x" * 100] * 50)
        await workers.next()
        now = await look(log)
        looks = [before._replace(at=10.0), now._replace(at=12.0)]
        assert rates(looks) == [25.0]
        told = dict(facts(looks))
        assert told["records"] == "25/s, top 25/s"
        assert told["payload"] == "2.4 KiB/s"
        groups = sum(now.stats.sync_us_counts) - sum(before.stats.sync_us_counts)
        assert told["syncs"] == f"{groups / 2:,.0f}/s, {50 / groups:.1f} records in each"
        assert told["kept"].startswith("LSN 1 to 50, 1 segment, ")
        assert told["sync time"].startswith("50 % ")
        head, row = lines_of("data", looks)[-2:]
        assert head.split() == ["consumer", "topic", "kind", "position", "lag", "out", "oldest", "s", "again", "dead"]
        assert row.split()[:6] == ["workers", "jobs", "shared", "1", "50", "1"]
        console = Console(file=io.StringIO(), width=100, force_terminal=True)
        console.print(picture("da\x1b[31mta", looks))
        shown = console.file.getvalue()  # type: ignore[attr-defined]
        assert "25/s" in shown
        assert "workers" in shown
        assert "\x1b[31mta" not in shown
        await workers.close()


async def test_narrow_screen_shows_whole_numbers_and_no_column_without_one(tmp_path: Path) -> None:
    async with library.open(tmp_path / "log") as log:
        orders = log.topic("orders-of-the-northern-region")
        async with await orders.consumer("billing-and-shipping", delivery=library.StrictlyOnce()):
            await orders.append_batch([b"x"] * 1234)
            now = await look(log)
    console = Console(file=io.StringIO(), width=50)
    console.print(picture("data", [now]))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "│        1 │ 1234 │" in shown, shown
    assert "position" in shown
    assert "dead" not in shown


async def test_log_that_has_failed_says_so(tmp_path: Path) -> None:
    async with library.open(tmp_path / "log") as log:
        now = await look(log)
    import dataclasses

    failed = Look(now.at, dataclasses.replace(now.stats, failed="a write failed"), now.size, ())
    assert ("FAILED", "a write failed") in facts([failed])
    assert len(now.stats.sync_us_counts) == len(SYNC_US_BOUNDS) + 1


def test_beside_a_writer_it_says_what_it_cannot_know(walsvc: Cli, tmp_path: Path) -> None:
    async def fill() -> None:
        async with library.open(tmp_path / "log") as log:
            await log.append_batch([b"x"] * 3)

    asyncio.run(fill())
    told = walsvc.good("top", tmp_path / "log", "--interval", "0.1").decode()
    assert "records    0/s" in told
    assert "ask its server by its URL" in told
    assert "disk" not in told, "that of the reader, which writes nothing"
    assert "LSN 1 to 3" in told
    walsvc.bad(5, "top", tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


async def test_on_a_terminal_it_goes_on_until_ctrl_c(tmp_path: Path) -> None:
    async with serve(tmp_path / "log", unix=tmp_path / "s"):
        outer, inner = pty.openpty()
        command = [sys.executable, "-m", "walsvc", "top", f"unix://{tmp_path / 's'}", "--interval", "0.1"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"}
        process = subprocess.Popen(command, stdout=inner, stderr=subprocess.PIPE, env=environment)
        os.close(inner)
        seen = b""
        while seen.count(b"top 0/s") < 2:
            seen += await asyncio.to_thread(os.read, outer, 65536)
        process.send_signal(signal.SIGINT)
        draining = asyncio.ensure_future(asyncio.to_thread(drain, outer))
        assert await asyncio.to_thread(process.wait, 120) == 130
        await draining
        assert process.stderr is not None
        assert process.stderr.read() == b""
        process.stderr.close()
        os.close(outer)


def drain(descriptor: int) -> None:
    """Read until the other end is closed."""
    try:
        while os.read(descriptor, 65536):
            pass
    except OSError:  # EIO: a terminal without a program
        pass
