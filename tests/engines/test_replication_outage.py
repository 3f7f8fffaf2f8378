"""What a replica is for: nodes die, all of them for a while, the process is killed, the disk is lost."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engines.cluster import WHY_NO_SERVER, running
from tests.engines.replicas import (
    alone_url,
    assert_beginning,
    groups_sent,
    opening,
    records,
    records_in,
    replica_url,
    replicated,
)
from tests.waiting import until
from walsvc import Closed, DurabilityLost, Quorum
from walsvc.engines.replication import restore, shipping
from walsvc.engines.replication.restore import restore_replica

APPENDER = """
import asyncio, sys
from pathlib import Path
from tests.engines.replicas import opening
from walsvc import Quorum

async def main():
    async with opening(Path(sys.argv[1]), sys.argv[2]) as log:
        while True:
            answers = await asyncio.gather(*(log.append(bytes(700), mode=Quorum) for _ in range(20)))
            print(answers[-1].lsn, flush=True)

asyncio.run(main())
"""


@pytest.fixture
def url(cluster, stream):
    return replica_url(cluster, stream, timeout=2)


async def load(log, acknowledged, stop):
    """Quorum appends, a few at a time; what was acknowledged, by LSN."""
    rng = random.Random(len(acknowledged))
    while not stop.is_set():
        payloads = [rng.randbytes(300) for _ in range(8)]
        for payload, answer in zip(
            payloads, await asyncio.gather(*(log.append(each, mode=Quorum) for each in payloads)), strict=True
        ):
            acknowledged[answer.lsn] = payload


async def test_log_that_drops_segments_all_the_time_is_restored(tmp_path, url, monkeypatch):
    """Every second segment has gone when its copy is begun, so a restore that begins anew each time never ends."""
    write_segment, calls = restore.write_segment, itertools.count()
    async with opening(tmp_path / "log", url) as log:
        for _ in range(20):
            await asyncio.gather(*(log.append(bytes(9000)) for _ in range(6)))
        await log.wait_replicated()
        dropped = []

        async def write_when_dropped(path, *arguments):
            ids = log.writer.segments.ids()
            if next(calls) % 2 == 0 and len(dropped) < 7:
                dropped.append(min(each for each in ids if each > int(Path(path).stem, 16)))
                await log.truncate_before(dropped[-1])
                for _ in range(2):  # the first says so to the replica, which drops the messages behind it
                    await log.append(b"told", mode=Quorum)
            return await write_segment(path, *arguments)

        monkeypatch.setattr(restore, "write_segment", write_when_dropped)
        copied = await restore.restore_replica(url, str(tmp_path / "back"))
        assert len(dropped) == 7
        assert (copied.first_lsn, copied.next_lsn) == (dropped[-1], log.next_lsn)
        assert await records_in(tmp_path / "back") == await records(log)


async def reach_lsn(log, lsn):
    """Wait until a record of that LSN is replicated."""
    async for record in log.follow(lsn):
        await log.wait_replicated(record.lsn)
        return


async def test_what_quorum_acknowledged_survives_the_loss_of_the_disk(tmp_path, url):
    acknowledged, stop = {}, asyncio.Event()
    log = await opening(tmp_path / "log", url)
    loading = asyncio.ensure_future(load(log, acknowledged, stop))
    await reach_lsn(log, 400)
    while (tmp_path / "log").exists():  # the next spare may just be made there
        shutil.rmtree(tmp_path / "log", ignore_errors=True)
    known = dict(acknowledged)
    await restore_replica(url, str(tmp_path / "back"))
    found = {record.lsn: record.payload for record in await records_in(tmp_path / "back")}
    assert len(known) >= 300
    assert known.items() <= found.items()
    assert sorted(found) == list(range(1, len(found) + 1))
    loading.cancel()
    await asyncio.wait([loading])
    with contextlib.suppress(DurabilityLost):  # the next segment finds no directory
        await log.close(timeout=20)
    async with opening(tmp_path / "back", url) as back:
        assert (await back.append(b"on", mode=Quorum)).lsn == len(found) + 1


@pytest.mark.skipif(bool(WHY_NO_SERVER), reason=WHY_NO_SERVER or "it is there")
def test_one_node_dies_then_all_and_the_replica_catches_up(tmp_path):
    with running(True, True, True) as cluster:  # an election takes seconds, so on one loop only
        asyncio.run(lose_nodes(tmp_path, replica_url(cluster, "replica", timeout=2), cluster))


async def lose_nodes(tmp_path, url, cluster):
    acknowledged, stop = {}, asyncio.Event()
    async with opening(tmp_path / "log", url) as log:
        loading = asyncio.ensure_future(load(log, acknowledged, stop))
        await reach_lsn(log, 20)
        try:
            cluster.kill(1)
            await reach_lsn(log, log.next_lsn + 100)  # two of three are a majority
            stop.set()
            await loading
            reached = await replicated(log)
            cluster.kill(0)
            cluster.kill(2)
            waiting = [log.append(b"%d" % number, mode=Quorum) for number in range(20)]
            await asyncio.gather(*(log.append(bytes(700)) for _ in range(20)))  # Strict goes on
            while not log.stats().replica_state.startswith("down"):
                await asyncio.gather(*(log.append(bytes(700)) for _ in range(20)))
                await asyncio.sleep(0.05)
            assert not any(each.done() for each in waiting)
            assert log.stats().replica_records > 20
            assert log.replicated_lsn == reached
            held = log.holds()["replica"]
            assert held <= reached + 1
        finally:
            await revive(cluster)
        assert [answer.lsn for answer in await asyncio.gather(*waiting)] == list(range(reached + 1, reached + 21))
        await replicated(log)
        assert log.stats().replica_records == 0
        assert log.holds()["replica"] >= held
        expected = await records(log)
        await restore_replica(url, str(tmp_path / "back"))
        assert_beginning(tmp_path / "back", tmp_path / "log")
        assert await records_in(tmp_path / "back") == expected
        assert {record.lsn: record.payload for record in expected[:reached]} == acknowledged
        sent = await groups_sent(url)
        assert len(sent) == len(set(sent))


async def revive(cluster):
    """Start the nodes that do not run, from this thread: they end with the one that has started them."""
    for node, process in enumerate(cluster._processes):
        if process is None:
            cluster.launch(node)
    await asyncio.to_thread(cluster.wait_ready)


async def test_state_tells_of_an_outage_at_once_and_closing_does_not_wait_for_its_end(tmp_path, mortal, monkeypatch):
    monkeypatch.setattr(shipping, "CLOSE_SECONDS", 600.0)
    log = await opening(tmp_path / "log", alone_url(mortal))
    await log.append(b"x", mode=Quorum)
    assert log.stats().replica_state.startswith("current")
    mortal.kill(0)
    waiting = log.append(b"waits", mode=Quorum)
    await log.flush()
    assert not log.stats().replica_state.startswith("current")
    async with asyncio.timeout(20):  # not as long as a commit may take: 30 s
        await until(lambda: log.stats().replica_state.startswith("down: "), 0.01)
    async with asyncio.timeout(60):
        await log.close()
    with pytest.raises(Closed, match="durable here"):
        await waiting
    assert log.stats().replica_state == "stopped"


async def test_closing_beside_a_frozen_replica_keeps_time_for_the_log(tmp_path, mortal):
    log = await opening(tmp_path / "log", alone_url(mortal))
    await log.append(b"x", mode=Quorum)
    mortal.freeze(0)
    waiting = log.append(b"waits", mode=Quorum)
    await log.flush()
    assert log.stats().replica_state.startswith("catching up")
    await log.close(timeout=4)
    with pytest.raises(Closed, match="durable here"):
        await waiting
    async with opening(tmp_path / "log", None) as log:
        assert log.report.clean


async def test_closing_in_an_outage_is_bounded_and_the_rest_follows(tmp_path, cluster, stream):
    nowhere = replica_url(cluster, stream).replace("127.0.0.1", "127.0.0.9", 3)
    log = await opening(tmp_path / "log", nowhere.replace("monitor", "timeout=1&monitor"))
    waiting = log.append(b"waits", mode=Quorum)
    await log.flush()
    await log.close(timeout=3)
    with pytest.raises(Closed, match="durable here"):
        await waiting
    async with opening(tmp_path / "log", replica_url(cluster, stream)) as log:
        assert await replicated(log) == 1
        assert log.stats().replica_state == "current"


def test_killed_and_started_again_leaves_no_gap_and_nothing_twice(tmp_path, url):
    printed = 0
    for round in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", APPENDER, str(tmp_path / "log"), url], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for _ in range(5 + 3 * round):
            printed = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        process.wait()
        rest = process.stdout.read().split("\n")[:-1]
        process.stdout.close()
        printed = int(rest[-1]) if rest else printed
    asyncio.run(check_after_kill(tmp_path, url, printed))


async def check_after_kill(tmp_path: Path, url: str, printed: int) -> None:
    await restore_replica(url, str(tmp_path / "lost"))
    found = [record.lsn for record in await records_in(tmp_path / "lost")]
    assert found == list(range(1, len(found) + 1))
    assert len(found) >= printed > 200
    async with opening(tmp_path / "log", url) as log:
        await replicated(log)
        expected = await records(log)
    await restore_replica(url, str(tmp_path / "back"))
    assert_beginning(tmp_path / "back", tmp_path / "log")
    assert await records_in(tmp_path / "back") == expected
    sent = await groups_sent(url)
    assert len(sent) == len(set(sent))
