"""What CALL can call: each method with the right that it needs, its arguments, and what it does. One table."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from walsvc.api import Log
from walsvc.errors import BadOption
from walsvc.service.server.auth import ADMIN, APPEND, READ
from walsvc.service.wire.wanted import moment_of
from walsvc.topics.names import ConsumerStatus

INT, TEXT, BOOL = (int,), (str,), (bool,)
NAME = (str, type(None))
NUMBER = (int, type(None))
POSITION = (int, str)
MISSING = object()
Spec = Mapping[str, tuple[tuple[type, ...], Any]]  # name -> types, and the default or MISSING


class Verb(NamedTuple):
    """A method: the right it needs, its arguments, what answers it, and whether the answer may be `large`."""

    right: str
    spec: Spec
    answer: Callable[[Log, dict[str, Any]], Awaitable[Any]]
    large: bool = False


def checked(method: str, spec: Spec, args: dict[str, Any]) -> dict[str, Any]:
    """The arguments with defaults. BadOption for one that is unknown, missing or of another type."""
    for name, value in args.items():
        if name not in spec:
            raise BadOption(f"{method} has no argument {name!r}", hint="known: " + (", ".join(spec) or "none"))
        if type(value) not in spec[name][0]:
            raise BadOption(f"{name} of {method} cannot be {type(value).__name__}")
    full = dict(args)
    for name, (_, default) in spec.items():
        if name not in full:
            if default is MISSING:
                raise BadOption(f"{method} needs an argument {name!r}")
            full[name] = default
    return full


def required(**types: tuple[type, ...]) -> Spec:
    """Arguments without defaults."""
    return {name: (kinds, MISSING) for name, kinds in types.items()}


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


async def hold(log: Log, args: dict[str, Any]) -> None:
    await log.hold(args["name"], args["lsn"])


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


async def consumers(log: Log, args: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[ConsumerStatus] = await of_topic(log, args).consumers()
    return [dataclasses.asdict(each) for each in found]


async def move_consumer(log: Log, args: dict[str, Any]) -> None:
    await of_topic(log, args).move_consumer(args["name"], args["to"])


async def delete_consumer(log: Log, args: dict[str, Any]) -> None:
    await of_topic(log, args).delete_consumer(args["name"])


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


async def compact(log: Log, args: dict[str, Any]) -> int:
    return await log.compact()


def of_topic(log: Log, args: dict[str, Any]) -> Any:
    """Whose consumers or records: the topic's, or without one the log's."""
    return log if args["topic"] is None else log.topic(args["topic"])


ANY_TOPIC: Spec = {"topic": (NAME, None)}
VERBS: dict[str, Verb] = {
    "flush": Verb(APPEND, {}, flush),
    "wait_durable": Verb(APPEND, required(lsn=INT), wait_durable),
    "wait_replicated": Verb(APPEND, required(lsn=INT), wait_replicated),
    "truncate_before": Verb(ADMIN, {**required(lsn=INT), "force": (BOOL, False)}, truncate_before),
    "truncate_after": Verb(ADMIN, required(lsn=INT), truncate_after),
    "seal": Verb(ADMIN, {}, seal),
    "reclaim": Verb(ADMIN, {}, reclaim),
    "hold": Verb(ADMIN, required(name=TEXT, lsn=INT), hold),
    "release": Verb(ADMIN, required(name=TEXT), release),
    "holds": Verb(READ, {}, holds, large=True),
    "retention": Verb(READ, {}, retention, large=True),
    "stats": Verb(READ, {}, stats, large=True),
    "topics": Verb(READ, {}, topics, large=True),
    "consumers": Verb(READ, ANY_TOPIC, consumers, large=True),
    "move_consumer": Verb(ADMIN, {**required(name=TEXT, to=POSITION), **ANY_TOPIC}, move_consumer),
    "delete_consumer": Verb(ADMIN, {**required(name=TEXT), **ANY_TOPIC}, delete_consumer),
    "seek_time": Verb(READ, required(moment=INT), seek_time),
    "purge": Verb(ADMIN, {**required(labels=(dict,)), "before": (NUMBER, None), **ANY_TOPIC}, purge),
    "compact": Verb(ADMIN, {}, compact),
    "topic.count": Verb(READ, required(topic=TEXT), topic_count),
    "topic.first_lsn": Verb(READ, required(topic=TEXT), topic_first_lsn),
    "topic.last_lsn": Verb(READ, required(topic=TEXT), topic_last_lsn),
}

# Streams: what OPEN opens, and what CALL does with an open consumer.
CHOSEN: Spec = {
    "start": (NUMBER, None),
    **ANY_TOPIC,
    "types": ((list, type(None)), None),
    "where": ((dict, type(None)), None),
    "since": (NUMBER, None),
}
STREAMS: dict[str, Spec] = {
    "read": {**CHOSEN, "stop": (NUMBER, None), "until": (NUMBER, None)},
    "follow": CHOSEN,
    "consumer": {**required(name=TEXT), **ANY_TOPIC, "persist_every": (INT, 1), "start": (POSITION, "first")},
}
CONSUMER_VERBS: dict[str, Spec] = {
    "consumer.ack": required(stream=INT, lsn=INT),
    "consumer.seek": required(stream=INT, to=POSITION),
    "consumer.lag": required(stream=INT),
}
