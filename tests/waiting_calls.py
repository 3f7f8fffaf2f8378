"""Every call of a log that may wait, in one table, and the worlds in which they are tried: embedded, served and read-only.

A row says how the call is made; `again` makes a world for each try, where the call changes what the next try would see.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import inspect
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import walsvc
from tests.service.simulated import Devices, serving
from walsvc import AtLeastOnce, BadOption, KeyRing, Relaxed, WalConfig
from walsvc.disk.sim import SimDevice, SimDisk
from walsvc.opening import open_on

RECORDS = 24
SMALL = WalConfig(segment_bytes=65536, max_group_records=3)
LATER = datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC)
Call = Callable[["World"], Awaitable[Any]]


class World:
    """An open log with records of a topic and of none, and an open consumer.

    Attributes:
        log: what is tried.
        writer: the embedded log behind it.
        server: that serves it, if one does.
        consumer: of the whole log; None where the log is only read.
        delivered: LSNs that calls of the consumer gave.
    """

    def __init__(self, log: Any, writer: Any, server: Any = None) -> None:
        self.log = log
        self.writer = writer
        self.server = server
        self.consumer: Any = None
        self.delivered: list[int] = []
        self._begun: dict[str, tuple[Any, list[int]]] = {}

    async def fill(self) -> None:
        """Records by threes, so that reading them takes many steps."""
        topic = self.writer.topic("t")
        await asyncio.gather(*((self.writer, topic)[n % 2].append(b"%d" % n) for n in range(RECORDS)))
        await (await self.writer.consumer("idle")).close()
        await (await self.writer.topic("void").consumer("c")).close()
        await self.writer.hold("h", 5)

    async def deliver(self, call: Awaitable[Any]) -> None:
        """Note what a call of the consumer gave, in the step in which it did."""
        found = await call
        self.delivered += [record.lsn for record in (found if isinstance(found, list) else [found])]

    async def iterate(self, name: str, begin: Callable[[], Any]) -> None:
        """One item more of an iteration that goes on over all tries."""
        records, seen = self._begun.setdefault(name, (begin(), []))
        item = await anext(records)
        seen += [each.lsn for each in (item if isinstance(item, list) else [item])]

    async def check(self) -> None:
        """Nothing was lost: neither of the log, nor of an iteration, nor of what the consumer was to be given."""
        if self.writer.writer.core.health.closed is not None:
            return
        expected = list(range(self.writer.first_lsn, await self.writer.flush() + 1))
        assert [record.lsn async for record in self.writer.read()] == expected
        for name, (records, seen) in self._begun.items():
            wanted = [lsn for lsn in expected if "topic" not in name or (lsn % 2 == 0 and lsn <= RECORDS)]
            with contextlib.suppress(StopAsyncIteration):  # what was appended since a read began is not its own
                while seen != wanted:
                    await asyncio.wait_for(self.iterate(name, lambda: None), 60)
            assert seen == wanted[: len(seen)], name
            assert len(seen) >= len(wanted) if "follow" in name else seen[-1] >= RECORDS, name
            await records.aclose()
        if self.delivered and self.consumer is not None:
            while self.delivered[-1] < expected[-1]:
                await asyncio.wait_for(self.deliver(self.consumer.read_batch()), 60)
            assert sorted(set(self.delivered)) == list(range(self.delivered[0], expected[-1] + 1))

    def kept(self) -> dict[str, int]:
        """What is held for calls that are under way."""
        core = self.writer.writer.core
        held = {
            "tasks": len(asyncio.all_tasks()),
            "waits": len(core.waits),
            "queued": core.queue.length,
            "joins": core.changes.length,
            "consumers": len(core.changes.places),
            "background": len(core.background._kept),
        }
        if self.server is not None:
            session = self.log._session
            held |= {
                "requests": len(session.requests),
                "readers": len(self.log._readers) + len(self.log._followers),
                "open": len(self.log._common.consumers),
            }
            for connection in self.server.roster:
                held["calls"] = len(connection.sessions._tasks)
                held["streams"] = connection.sessions.streams
        return held


@contextlib.asynccontextmanager
async def embedded() -> AsyncIterator[World]:
    log = await open_on(SimDisk(SimDevice(7)), SMALL)
    world = World(log, log)
    await world.fill()
    world.consumer = await log.consumer("c", AtLeastOnce(3))
    yield world
    await log.close()


@contextlib.asynccontextmanager
async def served() -> AsyncIterator[World]:
    with tempfile.TemporaryDirectory(prefix="walsvc-") as place:
        async with serving(Path(place), Devices(), config=SMALL) as server:
            log = await walsvc.open(server.addresses[0])
            world = World(log, server.logs[""], server)
            await world.fill()
            world.consumer = await log.consumer("c", AtLeastOnce(3))
            yield world
            await log.close()


@contextlib.asynccontextmanager
async def read_only() -> AsyncIterator[World]:
    device = SimDevice(7)
    writer = await open_on(SimDisk(device), SMALL)
    world = World(None, writer)
    await world.fill()
    world.log = await open_on(SimDisk(device, lock=False), WalConfig(read_only=True))
    yield world
    await world.log.close()
    await writer.close()


WORLDS = {"embedded": embedded, "served": served, "read-only": read_only}


async def acknowledged(world: World) -> None:
    """Acknowledge what was delivered last, or the first record."""
    if not world.delivered:
        await world.deliver(world.consumer.next())
    await world.consumer.ack(world.delivered[-1])


async def opened(owner: Any, name: str) -> None:
    """Open a consumer and close it; a name that was left in use would be refused."""
    async with await owner.consumer(name):
        pass


async def refused(call: Awaitable[Any]) -> None:
    """A call that this log cannot answer says so."""
    with contextlib.suppress(BadOption):
        await call
        raise AssertionError("it was to be refused")


async def unless_refused(call: Awaitable[Any]) -> None:
    """A call that an earlier try has made already, or that this kind of log does not have."""
    with contextlib.suppress(BadOption):
        await call


async def moved_back(world: World) -> None:
    """Deliver everything again."""
    await world.consumer.seek("first")
    world.delivered.clear()


KEYS = KeyRing(current=("k", bytes(32)))
# Calls that may be tried again and again in one world.
ROWS: dict[str, Call] = {
    "log.append": lambda w: w.log.append(b"x", Relaxed),
    "log.append_nowait": lambda w: w.log.append_nowait(b"x"),
    "log.append_batch": lambda w: w.log.append_batch([b"x", b"y"]),
    "log.flush": lambda w: w.log.flush(),
    "log.wait_durable": lambda w: w.log.wait_durable(w.log.next_lsn - 1),
    "log.wait_replicated": lambda w: refused(w.log.wait_replicated(1)),
    "log.read": lambda w: w.iterate("read", w.log.read),
    "log.read_batches": lambda w: w.iterate("read_batches", w.log.read_batches),
    "log.read_lazy": lambda w: w.iterate("read_lazy", w.log.read_lazy),
    "log.follow": lambda w: w.iterate("follow", w.log.follow),
    "log.get": lambda w: w.log.get(w.log.next_lsn - 1),
    "log.seek_time": lambda w: w.log.seek_time(LATER),
    "log.has_topic": lambda w: w.log.has_topic("t"),
    "log.consumer": lambda w: opened(w.log, "other"),
    "log.consumers": lambda w: w.log.consumers(),
    "log.move_consumer": lambda w: w.log.move_consumer("idle", 3),
    "log.hold": lambda w: w.log.hold("h", 7),
    "log.release": lambda w: w.log.release("h"),
    "log.purge": lambda w: w.log.purge("key"),
    "log.refresh": lambda w: w.log.refresh(),
    "topic.append": lambda w: w.log.topic("other").append(b"x"),
    "topic.append_nowait": lambda w: w.log.topic("other").append_nowait(b"x"),
    "topic.append_batch": lambda w: w.log.topic("other").append_batch([b"x", b"y"]),
    "topic.read": lambda w: w.iterate("read of a topic", w.log.topic("t").read),
    "topic.read_batches": lambda w: w.iterate("read_batches of a topic", w.log.topic("t").read_batches),
    "topic.read_lazy": lambda w: w.iterate("read_lazy of a topic", w.log.topic("t").read_lazy),
    "topic.follow": lambda w: w.iterate("follow of a topic", w.log.topic("t").follow),
    "topic.count": lambda w: w.log.topic("t").count(),
    "topic.first_lsn": lambda w: w.log.topic("t").first_lsn(),
    "topic.last_lsn": lambda w: w.log.topic("t").last_lsn(),
    "topic.last": lambda w: w.log.topic("t").last(),
    "topic.purge": lambda w: w.log.topic("t").purge("key"),
    "topic.consumer": lambda w: opened(w.log.topic("t"), "of t"),
    "topic.consumers": lambda w: w.log.topic("t").consumers(),
    "topic.move_consumer": lambda w: refused(w.log.topic("t").move_consumer("none", 1)),
    "topic.delete_consumer": lambda w: refused(w.log.topic("t").delete_consumer("none")),
    "topic.redrive": lambda w: refused(w.log.topic("t").redrive("none")),
    "consumer.next": lambda w: w.deliver(w.consumer.next()),
    "consumer.peek": lambda w: w.consumer.peek(),
    "consumer.read_batch": lambda w: w.deliver(w.consumer.read_batch(max_records=7)),
    "consumer.__anext__": lambda w: w.deliver(anext(w.consumer)),
    "consumer.ack": acknowledged,
    "consumer.lag": lambda w: w.consumer.lag(),
    "consumer.seek": moved_back,
}
# Calls after which the next try would see something else.
ONCE: dict[str, Call] = {
    "log.delete_consumer": lambda w: unless_refused(w.log.delete_consumer("idle")),
    "log.delete_topic": lambda w: unless_refused(w.log.delete_topic("void")),
    "log.reclaim": lambda w: w.log.reclaim(),
    "log.compact": lambda w: w.log.compact(),
    "topic.limits": lambda w: w.log.topic("t").limits(),
    "topic.retain": lambda w: w.log.topic("t").retain(records=1000),
    "topic.truncate_before": lambda w: w.log.topic("t").truncate_before(1),
    "log.truncate_before": lambda w: w.log.truncate_before(4),
    "log.truncate_after": lambda w: w.log.truncate_after(20),
    "log.use_keys": lambda w: unless_refused(w.log.use_keys(KEYS)),
    "log.seal": lambda w: w.log.seal(),
    "log.close": lambda w: w.log.close(),
    "consumer.close": lambda w: w.consumer.close(),
}
# parts of the waiting of others
INTERNAL = {"consumer.opened"}


def waits(call: Any) -> bool:
    """Whether what a call gives is waited for."""
    answer = str(inspect.signature(call).return_annotation)
    return inspect.iscoroutinefunction(call) or "Future" in answer or "AsyncGenerator" in answer


def waiting_calls(world: World) -> set[str]:
    """Names of all public calls of a world's log, topic and consumer that may wait."""
    things = {"log": world.log, "topic": world.log.topic("t"), "consumer": world.consumer}
    names = set() if world.consumer is None else {"consumer.__anext__"}
    for kind, thing in things.items():
        for name in dir(type(thing)) if thing is not None else ():
            if not name.startswith("_") and callable(getattr(type(thing), name)) and waits(getattr(thing, name)):
                names.add(f"{kind}.{name}")
        for name in () if thing is None else vars(thing):
            if not name.startswith("_") and callable(getattr(thing, name)) and waits(getattr(thing, name)):
                names.add(f"{kind}.{name}")
    return names - INTERNAL
