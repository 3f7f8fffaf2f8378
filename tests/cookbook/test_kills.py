"""The programs of docs/COOKBOOK.md under SIGKILL: nothing that somebody was told is lost, and nothing is there twice or by halves."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import walsvc
from tests.cookbook.lives import lives_of

KILLS = 3


async def payloads(target: Any, topic: str | None = None) -> list[bytes]:
    async with walsvc.open(target, read_only=True) as log:
        return [record.payload async for record in log.read(topic=topic)]


async def test_orders_with_snapshots_have_every_order_that_was_told(tmp_path: Path) -> None:
    from orders import Orders

    told = lives_of("orders", tmp_path / "log", kills=KILLS, seed=1)
    shop = await Orders.open(tmp_path / "log")
    assert set(told) <= set(shop.books)
    assert [*shop.books] == [str(number) for number in range(len(shop.books))]
    assert shop.log.first_lsn > 1  # snapshots have let events go
    await shop.log.close()
    assert len(told) >= KILLS


async def test_readings_of_the_edge_arrive_once(tmp_path: Path) -> None:
    from forward import forward

    told = lives_of("edge", tmp_path, kills=KILLS, seed=2)
    async with walsvc.open(tmp_path / "local") as local, walsvc.open(tmp_path / "central") as central:
        stored = local.next_lsn - 1
        forwarding = asyncio.create_task(forward("edge-7", local, central))
        async for _ in central.follow():
            if central.next_lsn > stored:
                break
        forwarding.cancel()
        await asyncio.wait([forwarding])
        assert central.next_lsn - 1 == stored >= max(map(int, told))
    assert [*map(int, told)] == sorted({*map(int, told)})


async def test_an_order_and_its_message_are_there_together_and_the_message_arrives_once(tmp_path: Path) -> None:
    from outbox import Shop

    told = lives_of("outbox", tmp_path, kills=KILLS, seed=3)
    orders, messages = [await payloads(tmp_path / "shop", topic) for topic in ("orders", "outbox")]
    assert messages == [b"ordered: " + order for order in orders]
    assert len(orders) >= len(told)
    async with walsvc.open(tmp_path / "shop") as log, walsvc.open(tmp_path / "receiver") as receiver:
        everything = asyncio.Event()

        async def send(key: str, message: bytes) -> None:
            await receiver.append(message, dedupe=key)
            if key == f"message-{await log.topic('outbox').last_lsn()}":
                everything.set()

        sending = asyncio.create_task(Shop(log).send_all(send))
        await Shop(log).place("the last one", {})
        await everything.wait()
        sending.cancel()
        await asyncio.wait([sending])
    arrived = await payloads(tmp_path / "receiver")
    assert len(arrived) == len(orders) + 1
    assert json.loads(arrived[-1].removeprefix(b"ordered: "))["id"] == "the last one"


async def test_an_agent_goes_on_from_the_step_that_was_told(tmp_path: Path) -> None:
    pytest.importorskip("langgraph.checkpoint.base", reason="langgraph-checkpoint is not installed (walsvc[dev])")
    from langgraph_saver import LogSaver

    told = [*map(int, lives_of("agent", tmp_path / "log", kills=KILLS, seed=4))]
    async with walsvc.open(tmp_path / "log") as log:
        saver = await LogSaver.on(log)
        config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
        kept = {each.metadata["step"]: each async for each in saver.alist(config)}
    assert {*told} <= {*kept}
    assert [*sorted(kept)] == [*range(len(kept))]
    for step in told:
        assert kept[step].checkpoint["channel_values"] == {"state": step}
        assert [write[1:] for write in kept[step].pending_writes or []] == [("answer", f"of step {step}")]


def test_the_recorder_has_every_event_that_was_told_and_no_half_of_a_save(tmp_path: Path) -> None:
    pytest.importorskip("eventsourcing", reason="eventsourcing is not installed (walsvc[dev])")
    from eventsourcing_recorder import LogRecorder

    told = [*map(int, lives_of("recorder", tmp_path / "log", kills=KILLS, seed=5))]
    events = LogRecorder(tmp_path / "log")
    versions = Counter(event.originator_version for name in ("one", "other") for event in events.select_events(name))
    events.close()
    assert {*told} <= {*versions}
    assert {*versions.values()} == {2}
