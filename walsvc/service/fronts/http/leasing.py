"""Work queues over HTTP: lease, ack, nak and extend.

HTTP has no connection that a delivery could belong to. So the front has each shared consumer open that somebody uses, and keeps the
deliveries by tokens that nobody can guess, until they are acknowledged, given back, or others have the record. A queue that nobody has used
for a while, with nothing out, is closed.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from walsvc.errors import BadOption, Closed, DurabilityLost, LeaseLost, WalError
from walsvc.interface import Log
from walsvc.plain import record_row
from walsvc.service.fronts.access import Access, kept_options, log_of
from walsvc.service.fronts.http.problems import HttpError, json_line
from walsvc.service.fronts.http.request import object_of
from walsvc.service.server.auth import Grant
from walsvc.service.server.keyed import KeyedLocks
from walsvc.topics.shared import Delivery, LocalConsumer

LEASE_FIELDS: dict[str, tuple[type, ...]] = {
    "max_records": (int,),
    "wait": (int, float),
    "start": (int, str),
    "lease": (int, float),
    "max_deliveries": (int, type(None)),
    "dead_letter": (str, type(None)),
    "ordered_by": (str, type(None)),
    "max_outstanding": (int,),
}
SHARED = frozenset({"lease", "max_deliveries", "dead_letter", "ordered_by", "max_outstanding"})
ACK_FIELDS: dict[str, tuple[type, ...]] = {"deliveries": (list,)}
NAK_FIELDS: dict[str, tuple[type, ...]] = {**ACK_FIELDS, "delay": (int, float)}
EXTEND_FIELDS: dict[str, tuple[type, ...]] = {**ACK_FIELDS, "seconds": (int, float)}
SEEK_FIELDS: dict[str, tuple[type, ...]] = {"to": (int, str)}
RECORDS_MAX = 1000
BYTES_MAX = 4 << 20  # of the payloads in one answer
WAIT_SECONDS_MAX = 60.0
READING_SECONDS = 1.0  # for records that are there, whatever `wait` says; those that are delayed take as long
UNUSED_SECONDS = 60.0  # until a queue with nothing out is closed

Key = tuple[str, str | None, str]  # namespace, topic, consumer


@dataclass(slots=True, eq=False)
class Queue:
    """A shared consumer that is open for the clients of this front.

    Attributes:
        consumer: the consumer.
        out: deliveries by token.
        users: requests that use it.
        used_at: when the last one ended.
        open: lets its log go.
    """

    consumer: LocalConsumer
    open: AsyncExitStack
    out: dict[str, Delivery] = field(default_factory=dict)
    users: int = 0
    used_at: float = 0.0


class Queues:
    """The shared consumers that clients of the HTTP front use. Loop thread only."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._queues: dict[Key, Queue] = {}
        self._opening = KeyedLocks[Key]()

    # ---- what clients ask

    async def lease(self, grant: Grant, key: Key, body: bytes) -> web.Response:
        """Lease the next records that are free: 200 with deliveries, 204 where none came in time."""
        wanted = object_of(body, LEASE_FIELDS)
        records = bounded("max_records", wanted.get("max_records", 1), 1, RECORDS_MAX)
        wait = bounded("wait", wanted.get("wait", 0), 0, WAIT_SECONDS_MAX)
        queue = await self._open(grant, key, wanted)
        try:
            deliveries = await self._next(queue, int(records), wait)
            rows = []
            for each in deliveries:
                token = f"{each.record.lsn}-{each.attempt}-{secrets.token_urlsafe(16)}"
                queue.out[token] = each
                rows.append(row_of(token, each))
        except (Closed, DurabilityLost):  # a log that has failed is opened anew once nobody has it any more
            await self._close(key, queue)
            raise
        finally:
            self._leave(queue)
        if not rows:
            return web.Response(status=204)
        return web.json_response({"deliveries": rows}, dumps=json_line)

    async def _next(self, queue: Queue, records: int, wait: float) -> list[Delivery]:
        """Take the records that are free now, or the first ones that come within `wait` seconds."""
        ready = await queue.consumer.stocked()  # what is there takes a moment to be read
        taking = asyncio.ensure_future(queue.consumer.read_batch(BYTES_MAX, records))
        try:
            done, _ = await asyncio.wait([taking], timeout=max(wait, READING_SECONDS if ready else 0.0))
        except asyncio.CancelledError:  # the client is gone
            await self._take_back(taking)
            raise
        if done:
            return list(taking.result())
        return await self._take_back(taking, keep=True)

    async def _take_back(self, taking: asyncio.Future[Any], *, keep: bool = False) -> list[Delivery]:
        """End the wait for records. Some may have come in the same moment: they are kept, or go back."""
        taking.cancel()
        with suppress(asyncio.CancelledError, WalError):
            found = list(await taking)
            if keep:
                return found
            for each in found:
                await each.nak()
        return []

    async def ack(self, key: Key, body: bytes) -> web.Response:
        """Acknowledge deliveries, all or none; 204 when that is durable."""
        tokens = tokens_of(object_of(body, ACK_FIELDS))
        queue = self._known(key, tokens)
        await queue.consumer.ack([queue.out[each] for each in tokens])
        self._forget(queue, tokens)
        return web.Response(status=204)

    async def nak(self, key: Key, body: bytes) -> web.Response:
        """Give deliveries back."""
        wanted = object_of(body, NAK_FIELDS)
        tokens = tokens_of(wanted)
        queue = self._known(key, tokens)
        for each in tokens:
            await queue.out[each].nak(delay=wanted.get("delay", 0.0))
        self._forget(queue, tokens)
        return web.Response(status=204)

    async def extend(self, key: Key, body: bytes) -> web.Response:
        """Extend the leases of deliveries."""
        wanted = object_of(body, EXTEND_FIELDS)
        tokens = tokens_of(wanted)
        if "seconds" not in wanted:
            raise HttpError(400, "seconds is missing", '{"deliveries": [...], "seconds": 30}')
        queue = self._known(key, tokens)
        for each in tokens:
            await queue.out[each].extend(wanted["seconds"])
        return web.Response(status=204)

    async def seek(self, grant: Grant, key: Key, body: bytes) -> web.Response:
        """Move the queue to another record; 204 when that is durable."""
        wanted = object_of(body, SEEK_FIELDS)
        if "to" not in wanted:
            raise HttpError(400, "to is missing", '{"to": "first"}, "next", or an LSN')
        queue = await self._open(grant, key, {})
        try:
            await queue.consumer.seek(wanted["to"])
            self._forget(queue, list(queue.out))
        finally:
            self._leave(queue)
        return web.Response(status=204)

    def _known(self, key: Key, tokens: list[str]) -> Queue:
        """The queue of these deliveries. Raises LeaseLost where one is not out."""
        queue = self._queues.get(key)
        for token in tokens:
            if queue is None or token not in queue.out:
                raise LeaseLost(
                    f"delivery {token[:80]!r} is not known: it was acknowledged or given back, its time is over, or the server has been started anew",
                    hint="lease again; a longer lease, or extend in time, keeps a record",
                )
        assert queue is not None, "there is at least one token"
        return queue

    def _forget(self, queue: Queue, tokens: list[str]) -> None:
        for each in tokens:
            queue.out.pop(each, None)
        queue.used_at = asyncio.get_running_loop().time()

    # ---- opening and closing

    async def _open(self, grant: Grant, key: Key, wanted: dict[str, Any]) -> Queue:
        """Take a queue, and open it if need be; `_leave` must follow."""
        options = {each: value for each, value in wanted.items() if each in SHARED}
        if wanted.get("lease", 1) is None:
            raise BadOption(
                "lease=null needs workers with names, which HTTP has not", hint="leave it out, or give seconds"
            )
        async with self._opening.turn(key):
            queue = self._queues.get(key)
            if queue is None:
                queue = self._queues[key] = await self._opened(grant, key, wanted.get("start", "first"), options)
                return queue
            queue.users += 1  # so that nobody closes it meanwhile
            try:
                if options:  # it is opened to see whether the options are the same
                    again = await self._opened(grant, key, wanted.get("start", "first"), options)
                    await again.open.aclose()
            except BaseException:
                self._leave(queue)
                raise
            return queue

    async def _opened(self, grant: Grant, key: Key, start: Any, options: dict[str, Any]) -> Queue:
        """Open a queue; it has one user then."""
        namespace, topic, name = key
        async with AsyncExitStack() as stack:
            log: Log = await stack.enter_async_context(log_of(self._access, grant, namespace))
            of: Any = log if topic is None else log.topic(topic)
            if "lease" not in options and kept_options(log, topic, name).get("lease", UNUSED_SECONDS) is None:
                raise HttpError(
                    409,
                    f"{name!r} has no lease, as groups of Redis's clients: each worker has a name there",
                    "take another queue",
                )
            with self._access.making_consumer(log, topic, name):
                consumer = await of.consumer(name, start=start, shared=True, **options)
            stack.push_async_callback(consumer.close)
            return Queue(consumer, stack.pop_all(), users=1)

    def _leave(self, queue: Queue) -> None:
        queue.users -= 1
        queue.used_at = asyncio.get_running_loop().time()

    async def tidy(self, *, everything: bool = False) -> None:
        """Forget deliveries whose time is long over, and close queues without users."""
        now = asyncio.get_running_loop().time()
        for key, queue in list(self._queues.items()):
            for token, each in list(queue.out.items()):
                if each.deadline is not None and each.deadline + UNUSED_SECONDS < now:
                    del queue.out[token]
            if everything or (not queue.users and not queue.out and queue.used_at + UNUSED_SECONDS < now):
                await self._close(key, queue)

    async def let_go(self, namespace: str, topic: str) -> None:
        """Close the queues of a topic that have no user and nothing out."""
        now = asyncio.get_running_loop().time()
        for key, queue in list(self._queues.items()):
            out = any(each.deadline is None or each.deadline > now for each in queue.out.values())
            if key[:2] == (namespace, topic) and not queue.users and not out:
                await self._close(key, queue)

    async def _close(self, key: Key, queue: Queue) -> None:
        """Let a queue and its log go, once."""
        if self._queues.get(key) is queue:
            del self._queues[key]
            with suppress(WalError):
                await queue.open.aclose()


def bounded(name: str, value: float, low: float, high: float) -> float:
    """A number of the body, checked against its bounds."""
    if isinstance(value, bool) or not low <= value <= high:
        raise BadOption(f"{name}={value} is out of bounds", hint=f"allowed: {low} to {high:g}")
    return value


def tokens_of(wanted: dict[str, Any]) -> list[str]:
    """The deliveries that a body names."""
    tokens = wanted.get("deliveries")
    if not tokens or not all(isinstance(each, str) for each in tokens) or len(tokens) > RECORDS_MAX:
        raise HttpError(
            400,
            f"deliveries is no list of 1 to {RECORDS_MAX} tokens",
            '{"deliveries": ["..."]}, as lease has given them',
        )
    return list(dict.fromkeys(tokens))


def row_of(token: str, delivery: Delivery) -> dict[str, Any]:
    """A delivery for its client."""
    deadline, now = delivery.deadline, asyncio.get_running_loop().time()
    seconds = None if deadline is None else max(deadline - now, 0.0)
    return {"delivery": token, "attempt": delivery.attempt, "seconds": seconds, "record": record_row(delivery.record)}
