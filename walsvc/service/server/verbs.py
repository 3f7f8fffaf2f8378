"""Answers of a server to CALL: one for each method of walsvc.service.wire.methods."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from walsvc.api import Log
from walsvc.config import between
from walsvc.service.server.consuming import ConsumerStream, SharedStream
from walsvc.service.server.pages import read_back
from walsvc.service.server.transacting import Held, transact
from walsvc.service.wire.wanted import moment_of
from walsvc.topics.deleting import delete_topic, number_of
from walsvc.topics.leases import Lease
from walsvc.topics.names import ConsumerStatus
from walsvc.topics.sharing import check_delay, check_lease


async def flush(log: Log, args: dict[str, Any]) -> int:
    return await log.flush()


async def wait_durable(log: Log, args: dict[str, Any]) -> int:
    return await log.wait_durable(args["lsn"])


async def wait_replicated(log: Log, args: dict[str, Any]) -> int:
    return await log.wait_replicated(args["lsn"])


async def truncate_before(log: Log, args: dict[str, Any]) -> None:
    await log.truncate_before(args["lsn"], force=args["force"])


async def truncate_after(log: Log, args: dict[str, Any]) -> None:
    await log.truncate_after(args["lsn"])


async def seal(log: Log, args: dict[str, Any]) -> None:
    await log.seal()


async def reclaim(log: Log, args: dict[str, Any]) -> int:
    return await log.reclaim()


async def hold(log: Log, args: dict[str, Any]) -> int:
    await log.hold(args["name"], args["lsn"])
    return log.holds().get(args["name"], 0)


async def release(log: Log, args: dict[str, Any]) -> None:
    await log.release(args["name"])


async def holds(log: Log, args: dict[str, Any]) -> dict[str, int]:
    return log.holds()


async def retention(log: Log, args: dict[str, Any]) -> dict[str, Any]:
    return dataclasses.asdict(log.retention())


async def stats(log: Log, args: dict[str, Any]) -> dict[str, Any]:
    return dataclasses.asdict(log.stats())


async def topics(log: Log, args: dict[str, Any]) -> list[str]:
    return log.topics()


async def has_topic(log: Log, args: dict[str, Any]) -> bool:
    return await log.has_topic(args["name"])


async def consumers(log: Log, args: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[ConsumerStatus] = await of_topic(log, args).consumers()
    return [dataclasses.asdict(each) for each in found]


async def move_consumer(log: Log, args: dict[str, Any]) -> None:
    await of_topic(log, args).move_consumer(args["name"], args["to"])


async def delete_consumer(log: Log, args: dict[str, Any]) -> None:
    await of_topic(log, args).delete_consumer(args["name"])


async def delete_topic_named(log: Log, args: dict[str, Any]) -> int:
    return await delete_topic(log.writer.core, args["topic"], args["number"])


async def topic_number(log: Log, args: dict[str, Any]) -> int:
    return number_of(log.writer.core, args["topic"])


async def redrive(log: Log, args: dict[str, Any]) -> int:
    return await log.topic(args["topic"]).redrive(args["name"])


async def topic_count(log: Log, args: dict[str, Any]) -> int:
    return await log.topic(args["topic"]).count()


async def topic_first_lsn(log: Log, args: dict[str, Any]) -> int | None:
    return await log.topic(args["topic"]).first_lsn()


async def topic_last_lsn(log: Log, args: dict[str, Any]) -> int | None:
    return await log.topic(args["topic"]).last_lsn()


async def seek_time(log: Log, args: dict[str, Any]) -> int:
    return await log.seek_time(moment_of("moment", args["moment"]))


async def purge(log: Log, args: dict[str, Any]) -> int:
    before: int = log.next_lsn if args["before"] is None else args["before"]
    await of_topic(log, args).purge(args["labels"], before=before)
    return before


async def purge_lsns(log: Log, args: dict[str, Any]) -> int:
    count: int = await of_topic(log, args).purge(lsns=args["lsns"])
    return count


async def topic_truncate_before(log: Log, args: dict[str, Any]) -> None:
    await log.topic(args["topic"]).truncate_before(args["lsn"], force=args["force"])


async def topic_retain(log: Log, args: dict[str, Any]) -> None:
    await log.topic(args["topic"]).retain(records=args["records"], bytes=args["bytes"], seconds=args["seconds"])


async def topic_limits(log: Log, args: dict[str, Any]) -> list[float | None]:
    return list(await log.topic(args["topic"]).limits())


async def topic_purge(log: Log, args: dict[str, Any]) -> int | None:
    before = log.next_lsn if args["before"] is None and args["keep"] is None else args["before"]
    return await log.topic(args["topic"]).purge(before=before, keep=args["keep"])


async def compact(log: Log, args: dict[str, Any]) -> int:
    return await log.compact()


def of_topic(log: Log, args: dict[str, Any]) -> Any:
    """Whose consumers or records: the topic's, or without one the log's."""
    return log if args["topic"] is None else log.topic(args["topic"])


async def consumer_ack(stream: ConsumerStream, args: dict[str, Any]) -> int:
    await stream.consumer.ack(args["lsn"], only=args["only"])
    return stream.consumer.position


async def consumer_seek(stream: ConsumerStream, args: dict[str, Any]) -> int:
    return await stream.seek(args["to"])


async def consumer_lag(stream: ConsumerStream, args: dict[str, Any]) -> int:
    return await stream.consumer.lag()


def shared_next(stream: SharedStream, args: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    return stream.answers(args["max_bytes"], args["max_records"], each=args["each"])


async def shared_ack(stream: SharedStream, args: dict[str, Any]) -> dict[str, Any] | None:
    between("max_bytes", args["max_bytes"], 1, 1 << 62)
    between("max_records", args["max_records"], 0, 1 << 62)
    await stream.consumer.open_hub().ack(await stream.leases(args["deliveries"]))
    return await stream.ahead(args["max_bytes"], args["max_records"])


async def shared_nak(stream: SharedStream, args: dict[str, Any]) -> None:
    check_delay("delay", args["delay"])
    await stream.consumer.open_hub().give_back(await delivery_of(stream, args), args["delay"])


async def shared_extend(stream: SharedStream, args: dict[str, Any]) -> float | None:
    check_lease("seconds", args["seconds"])
    return stream.consumer.open_hub().extend(await delivery_of(stream, args), args["seconds"])


async def shared_unseen(stream: SharedStream, args: dict[str, Any]) -> None:
    for lease in await stream.leases(args["deliveries"]):
        stream.consumer.open_hub().unseen(lease)


async def shared_status(stream: SharedStream, args: dict[str, Any]) -> dict[str, Any]:
    return dataclasses.asdict(await stream.consumer.status())


async def shared_seek(stream: SharedStream, args: dict[str, Any]) -> None:
    await stream.consumer.seek(args["to"])


async def delivery_of(stream: SharedStream, args: dict[str, Any]) -> Lease:
    consumer = stream.consumer
    return await consumer.open_hub().find(args["lsn"], args["attempt"], args["token"], consumer.worker)


OF_THE_LOG: dict[str, Callable[[Log, dict[str, Any]], Awaitable[Any]]] = {
    "flush": flush,
    "wait_durable": wait_durable,
    "wait_replicated": wait_replicated,
    "truncate_before": truncate_before,
    "truncate_after": truncate_after,
    "read_back": read_back,
    "seal": seal,
    "reclaim": reclaim,
    "hold": hold,
    "release": release,
    "holds": holds,
    "retention": retention,
    "stats": stats,
    "topics": topics,
    "has_topic": has_topic,
    "consumers": consumers,
    "move_consumer": move_consumer,
    "delete_consumer": delete_consumer,
    "delete_topic": delete_topic_named,
    "redrive": redrive,
    "seek_time": seek_time,
    "purge": purge,
    "purge_lsns": purge_lsns,
    "compact": compact,
    "topic.count": topic_count,
    "topic.number": topic_number,
    "topic.first_lsn": topic_first_lsn,
    "topic.last_lsn": topic_last_lsn,
    "topic.retain": topic_retain,
    "topic.limits": topic_limits,
    "topic.truncate_before": topic_truncate_before,
    "topic.purge": topic_purge,
}
OF_SEVERAL: dict[str, Callable[[Log, Held, dict[str, Any]], Awaitable[Any]]] = {"transact": transact}
OF_A_CONSUMER: dict[str, Callable[[ConsumerStream, dict[str, Any]], Awaitable[Any]]] = {
    "consumer.ack": consumer_ack,
    "consumer.seek": consumer_seek,
    "consumer.lag": consumer_lag,
}
IN_PARTS: dict[str, Callable[[SharedStream, dict[str, Any]], AsyncIterator[Any]]] = {"shared.next": shared_next}
OF_A_WORKER: dict[str, Callable[[SharedStream, dict[str, Any]], Awaitable[Any]]] = {
    "shared.ack": shared_ack,
    "shared.nak": shared_nak,
    "shared.extend": shared_extend,
    "shared.unseen": shared_unseen,
    "shared.status": shared_status,
    "shared.seek": shared_seek,
}
