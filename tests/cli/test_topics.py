"""topics, consumers, backup and restore, as a user has them."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import walsvc as library
from walsvc.cli import exits

from .conftest import Cli


@pytest.fixture
def topical(tmp_path: Path) -> Path:
    """A log with the topics orders (LSN 1, 3, ... 199) and noise, a consumer of each kind and a hold."""
    path = tmp_path / "topical"

    async def fill() -> None:
        async with library.open(path, segment_bytes=65536) as log:
            for number in range(1, 201):
                await log.topic("orders" if number % 2 else "noise").append(b"%d " % number + b"x" * 400)
            consumer = await log.topic("orders").consumer("billing")
            batch = await consumer.read_batch(max_records=40)
            await consumer.ack(batch[-1].lsn)
            await consumer.close()
            await (await log.consumer("all", start=150)).close()
            await log.hold("archive", 30)

    asyncio.run(fill())
    return path


def test_topics(walsvc: Cli, topical: Path) -> None:
    told = json.loads(walsvc.good("topics", topical, "--json"))["topics"]
    assert told == [
        {"topic": "orders", "records": 100, "first_lsn": 1, "last_lsn": 199},
        {"topic": "noise", "records": 100, "first_lsn": 2, "last_lsn": 200},
    ]
    assert b"orders" in walsvc.good("topics", topical)


def test_topics_with_limits(walsvc: Cli, topical: Path) -> None:
    async def limit() -> None:
        async with library.open(topical) as log:
            await log.topic("orders").retain(records=90, seconds=1e9)

    asyncio.run(limit())
    told = json.loads(walsvc.good("topics", topical, "--json"))["topics"]
    assert [each.get("limits") for each in told] == [{"records": 90, "seconds": 1e9}, None]
    assert b"90 records, 1000000000.0 seconds" in walsvc.good("topics", topical)


def test_cat_of_a_topic(walsvc: Cli, topical: Path) -> None:
    lines = walsvc.good("cat", topical, "--topic", "noise", "--format", "json").splitlines()
    assert [json.loads(line)["lsn"] for line in lines] == list(range(2, 201, 2))
    assert {json.loads(line)["topic"] for line in lines} == {"noise"}
    assert walsvc.good("cat", topical, "--topic", "nothing") == b""


def test_consumers(walsvc: Cli, topical: Path) -> None:
    told = json.loads(walsvc.good("consumers", "ls", topical, "--json"))
    assert told["consumers"] == [
        {"name": "all", "topic": None, "position": 150, "lag": 51},
        {"name": "billing", "topic": "orders", "position": 80, "lag": 60},
    ]
    assert (told["holds"], told["next_lsn"]) == ({"archive": 30}, 201)
    assert b"archive" in walsvc.good("consumers", "ls", topical)
    told = json.loads(walsvc.good("consumers", "seek", topical, "billing", "first", "--topic", "orders", "--json"))
    assert told == {"name": "billing", "topic": "orders", "position": 1}
    assert b"LSN 170, lag 31" in walsvc.good("consumers", "seek", topical, "all", "170")
    assert walsvc.good("consumers", "rm", topical, "all") == b"consumer all deleted\n"
    walsvc.bad(2, "consumers", "rm", topical, "all")
    walsvc.bad(2, "consumers", "seek", topical, "billing", "500", "--topic", "orders")
    assert walsvc("consumers", "seek", topical, "billing", "last").returncode == 2
    left = json.loads(walsvc.good("consumers", "ls", topical, "--json"))["consumers"]
    assert [(each["name"], each["lag"]) for each in left] == [("billing", 100)]


def test_work_queue_is_listed_and_its_dead_letters_sent_back(walsvc: Cli, topical: Path) -> None:
    async def work() -> None:
        async with library.open(topical) as log:
            consumer = await log.topic("orders").consumer("workers", shared=True, max_deliveries=1)
            for delivery in await consumer.read_batch(max_records=3):
                await delivery.nak()
            await (await consumer.next()).ack()

    asyncio.run(work())
    listed = json.loads(walsvc.good("consumers", "ls", topical, "--json"))["consumers"]
    [told] = [each for each in listed if each["name"] == "workers"]
    assert told == {
        "name": "workers", "topic": "orders", "position": 8, "lag": 96, "shared": True, "outstanding": 0, "waiting": 0,
        "redeliveries": 0, "dead_letters": 0, "oldest_seconds": None,
    }  # fmt: skip
    head, *rows = walsvc.good("consumers", "ls", topical).decode().splitlines()
    assert head.split() == ["kind", "name", "topic", "position", "lag", "out", "oldest", "s", "again", "dead"]
    assert [row.split()[5:] for row in rows if row.startswith("shared")] == [["0", "-", "0", "0"]]
    assert {tuple(row.split()[5:]) for row in rows if not row.startswith("shared")} == {("-",) * 4}
    redrive = ("consumers", "redrive", topical, "workers", "--topic", "orders")
    assert json.loads(walsvc.good(*redrive, "--json")) == {"name": "workers", "topic": "orders", "redriven": 3}
    assert walsvc.good(*redrive) == b"0 dead letters of consumer workers went back to topic orders\n"
    assert "no shared consumer" in walsvc.bad(2, "consumers", "redrive", topical, "billing", "--topic", "orders")


def test_no_log_stays_no_log(walsvc: Cli, tmp_path: Path) -> None:
    for arguments in (["topics"], ["consumers", "ls"], ["consumers", "rm", "c"], ["consumers", "seek", "c", "1"]):
        verb = arguments[: 2 if arguments[0] == "consumers" else 1]
        walsvc.bad(5, *verb, tmp_path / "log", *arguments[len(verb) :])
    walsvc.bad(5, "backup", tmp_path / "log", tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []


def test_backup_and_restore_give_the_same_log(
    walsvc: Cli, topical: Path, tmp_path: Path, contents: Callable[[Path], dict[str, bytes]]
) -> None:
    before = contents(topical)
    told = json.loads(walsvc.good("backup", topical, tmp_path / "copy", "--json"))
    assert (told["first_lsn"], told["next_lsn"]) == (1, 201)
    assert contents(topical) == before
    assert b"LSN 1 to 200" in walsvc.good("restore", tmp_path / "copy", tmp_path / "restored")
    for path in (tmp_path / "copy", tmp_path / "restored"):
        assert walsvc.good("cat", path) == walsvc.good("cat", topical)
        assert json.loads(walsvc.good("verify", path, "--json"))["ok"]
        for verb in (("topics",), ("consumers", "ls")):
            assert walsvc.good(*verb, path) == walsvc.good(*verb, topical)
    assert walsvc.good("append", tmp_path / "restored", stdin=b"on\n") == b"201\n"
    used = sum(each.stat().st_blocks * 512 for each in (tmp_path / "copy").iterdir())
    assert used < sum(each.stat().st_blocks * 512 for each in topical.iterdir())
    assert not list(tmp_path.glob("*.partial*"))


def test_backup_refuses_a_taken_place_and_a_damaged_log(walsvc: Cli, topical: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_bytes(b"x")
    walsvc.bad(5, "backup", topical, tmp_path / "taken")
    walsvc.bad(5, "restore", topical, tmp_path / "taken")
    (tmp_path / "empty").mkdir()
    walsvc.good("backup", topical, tmp_path / "empty")
    damaged = Path(shutil.copytree(topical, tmp_path / "damaged"))
    first = damaged / f"{1:016x}.wal"
    data = bytearray(first.read_bytes())
    data[20_000] ^= 1
    first.write_bytes(data)
    walsvc.bad(3, "backup", damaged, tmp_path / "bad")
    assert not (tmp_path / "bad").exists()
    assert not list(tmp_path.glob("*.partial*"))


async def test_backup_beside_a_writer_holds_what_was_durable_at_the_start(tmp_path: Path) -> None:
    from walsvc.log.offline.backup import copy_log

    async with library.open(tmp_path / "log", segment_bytes=1 << 19, reclaim="consumed") as log:
        topic = log.topic("t")
        consumer = await topic.consumer("c")
        stop = asyncio.Event()

        async def write() -> None:
            number = 0
            while not stop.is_set():
                await asyncio.gather(*(topic.append(b"%d " % (number + each) + bytes(900)) for each in range(20)))
                number += 20
                await consumer.ack((await consumer.read_batch())[-1].lsn)
                await asyncio.sleep(0.002)

        writing = asyncio.create_task(write())
        for number in range(5):
            durable, first = log.durable_lsn, log.first_lsn
            copied = await copy_log(tmp_path / "log", str(tmp_path / f"copy{number}"), sparse=True)
            assert copied.next_lsn > durable
            assert copied.first_lsn >= first
            async with library.open(tmp_path / f"copy{number}", read_only=True) as copy:
                payloads = [record.payload async for record in copy.read()]
                expected = range(copied.first_lsn - 1, copied.next_lsn - 1)
                assert [int(payload.split()[0]) for payload in payloads] == list(expected)
        stop.set()
        await writing


def test_deleting_a_topic(walsvc: Cli, topical: Path) -> None:
    error = walsvc.bad(exits.USAGE, "topics", topical, "--delete", "nothing")
    assert "no topic 'nothing'" in error
    assert "walsvc topics" in error
    assert walsvc.good("topics", topical, "--delete", "orders") == b"topic orders deleted\n"
    told = json.loads(walsvc.good("topics", topical, "--json"))["topics"]
    assert [row["topic"] for row in told] == ["noise"]
    lines = walsvc.good("cat", topical, "--format", "json").splitlines()
    assert {json.loads(line)["topic"] for line in lines} == {"noise"}
    assert "billing" not in walsvc.good("consumers", "ls", topical).decode()
    told = json.loads(walsvc.good("topics", topical, "--delete", "noise", "--json"))
    assert told == {"topic": "noise", "deleted": True}
    assert json.loads(walsvc.good("compact", topical, "--json"))["freed_bytes"] > 0
    assert walsvc.good("verify", topical)
