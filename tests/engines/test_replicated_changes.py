"""Changes without an LSN reach the replica before anybody is told so: what is restored then has all of them."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from typing import Any

import pytest

import walsvc
from tests.engines.replicas import SEGMENT, opening, replica_url
from tests.waiting import until
from walsvc import AtLeastOnce, Quorum
from walsvc.config import WalConfig
from walsvc.engines.replication.restore import restore_replica
from walsvc.engines.replication.source import GroupSource
from walsvc.service.server.server import serve

WORKER = """
import asyncio, json, random, sys
from pathlib import Path
from tests.engines.replicas import opening
from walsvc import AtLeastOnce

async def main():
    chance, state = random.Random(sys.argv[3]), {}
    async with opening(Path(sys.argv[1]), sys.argv[2]) as log:
        mailer = await log.consumer("mailer")
        lazy = await log.consumer("lazy", AtLeastOnce(persist_every=50))
        shared = await log.topic("jobs").consumer("workers", shared=True)
        while True:
            for _ in range(chance.randrange(1, 6)):
                await log.append(bytes(chance.randrange(2000)))
                job = await log.topic("jobs").append(b"job")
            for _ in range(chance.randrange(1, 6)):
                await mailer.ack((await mailer.next()).lsn)
                await lazy.ack((await lazy.next()).lsn)
            delivery = await shared.next()
            await delivery.ack()
            if chance.random() < 0.3:
                await log.truncate_before(min(mailer.position, lazy.position, delivery.record.lsn), force=True)
            if chance.random() < 0.3:
                await log.hold("auditor", log.first_lsn)
            state = {"mailer": mailer.position, "lazy": lazy.position, "workers": delivery.record.lsn,
                     "first": log.first_lsn, "auditor": log.holds().get("auditor", 0)}
            await log.wait_replicated()
            print(json.dumps(state), flush=True)

asyncio.run(main())
"""


@pytest.fixture
def url(cluster, stream):
    return replica_url(cluster, stream)


class Gate:
    """Holds back what is shipped while it is shut."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._opened = asyncio.Event()
        self._opened.set()
        following = GroupSource.next

        async def gated(source):
            await self._opened.wait()
            return await following(source)

        monkeypatch.setattr(GroupSource, "next", gated)

    def shut(self) -> None:
        self._opened.clear()

    def open(self) -> None:
        self._opened.set()


async def state_of(log: Any) -> dict[str, Any]:
    """What must be the same in a copy."""
    payloads = [(record.lsn, record.topic, record.payload) async for record in log.read()]
    consumers = [(each.topic, each.name, each.position, each.lag) for each in await log.consumers()]
    holds = {name: lsn for name, lsn in log.holds().items() if name != "replica"}
    return {"first": log.first_lsn, "next": log.next_lsn, "payloads": payloads, "consumers": consumers, "holds": holds}


async def changing(log: Any) -> list[tuple[str, Any]]:
    """Changes of every kind, to be made one after the other."""
    jobs = log.topic("jobs")
    for number in range(8):
        await log.append(b"%d" % number)
        await jobs.append(b"job %d" % number, attributes={"key": f"k{number}"})
    mailer, billing = await log.consumer("mailer"), await jobs.consumer("billing")
    lazy = await log.consumer("lazy", AtLeastOnce(persist_every=100))
    workers = await jobs.consumer("workers", shared=True, max_deliveries=1, dead_letter="jobs.dead")

    async def only() -> None:
        await billing.next()
        await billing.ack((await billing.next()).lsn, only=True)

    async def in_a_transaction() -> None:
        async with log.transaction(mode=Quorum) as transaction:
            transaction.ack(await workers.next())
            transaction.ack(mailer, (await mailer.next()).lsn)

    async def dead() -> None:
        await (await workers.next()).nak()
        await until(lambda: "jobs.dead" in log.topics())

    async def closed() -> None:
        await mailer.close()
        await log.move_consumer("mailer", 6)

    return [
        ("ack", lambda: acknowledged(mailer)),
        ("ack later", lambda: acknowledged(lazy)),
        ("only", only),
        ("shared", lambda: acknowledged(workers)),
        ("transaction", in_a_transaction),
        ("dead letter", dead),
        ("moved", closed),
        ("deleted", lambda: log.delete_consumer("mailer")),
        ("made", lambda: log.consumer("another", start="next")),
        ("hold", lambda: log.hold("auditor", 7)),
        ("release", lambda: log.release("auditor")),
        ("purge", lambda: jobs.purge("k7")),
        ("truncate_before", lambda: log.truncate_before(5, force=True)),
        ("truncate_after", lambda: log.truncate_after(12)),
        ("and again", lambda: log.truncate_after(11)),
    ]


async def acknowledged(consumer: Any) -> None:
    delivered = await consumer.next()
    await (delivered.ack() if hasattr(delivered, "ack") else consumer.ack(delivered.lsn))


async def test_each_change_is_in_the_replica_when_it_is_said_so(tmp_path, url, monkeypatch):
    gate = Gate(monkeypatch)
    async with opening(tmp_path / "log", url) as log:
        for number, (what, change) in enumerate(await changing(log)):
            await log.wait_replicated()
            gate.shut()
            doing = asyncio.ensure_future(change())
            if what == "transaction":
                waiting: Any = doing
            else:
                await doing
                waiting = asyncio.ensure_future(
                    log.wait_replicated(0 if what not in ("ack later", "dead letter") else None)
                )
            for _ in range(20):
                await asyncio.sleep(0.002)
            assert not waiting.done(), what
            gate.open()
            await asyncio.wait_for(waiting, 60)
            gate.shut()  # a record behind it must not bring it along
            await restore_replica(url, str(tmp_path / f"back{number}"))
            async with opening(tmp_path / f"back{number}", None) as back:
                assert await state_of(back) == await state_of(log), what
            gate.open()


async def test_replica_behind_a_server_has_what_its_client_waited_for(tmp_path, url):
    config = WalConfig(segment_bytes=SEGMENT, disk="threads", replicate=url)
    async with (
        serve(tmp_path / "log", host="127.0.0.1", port=0, config=config) as server,
        walsvc.open(server.addresses[0]) as client,
    ):
        for number in range(4):
            await client.append(b"%d" % number)
        consumer = await client.consumer("mailer")
        await consumer.ack((await consumer.next()).lsn)
        await client.truncate_before(2, force=True)
        async with client.transaction(mode=Quorum) as transaction:
            transaction.ack(consumer, (await consumer.next()).lsn)
        assert await client.wait_replicated(0) == await client.wait_replicated() == 4
        await restore_replica(url, str(tmp_path / "back"))
        async with opening(tmp_path / "back", None) as back:
            assert await state_of(back) == await state_of(client)
            assert [each.position for each in await back.consumers()] == [3]


def test_killed_again_and_again_it_loses_no_change_that_was_replicated(tmp_path, url):
    """The machine is lost each time, and the copy of its replica goes on."""
    place, told = tmp_path / "log0", {}
    for round in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(place), url, f"seed {round}"], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for _ in range(4 + 5 * round):
            told = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        process.wait()
        rest = process.stdout.read().split("\n")[:-1]
        process.stdout.close()
        told = json.loads(rest[-1]) if rest else told
        place = tmp_path / f"log{round + 1}"
        asyncio.run(check_copy(url, place, told))
    assert told["first"] > 1


async def check_copy(url: str, place: Any, told: dict[str, int]) -> None:
    await restore_replica(url, str(place))
    async with opening(place, None) as copy:
        positions = {each.name: each.position for each in await copy.consumers()}
        found = {**positions, "first": copy.first_lsn, "auditor": copy.holds().get("auditor", 0)}
        assert all(found[name] >= least for name, least in told.items()), (found, told)
