"""Methods that CALL can call and OPEN can open: one table, from which client and server both take what they need. Pure.

A new method is a row here and its answer in walsvc.service.server.verbs; nothing else on either side asks for its name. What the
server answers with stands in docs/PROTOCOL.md, a test compares it with this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any, NamedTuple

from walsvc.errors import BadOption
from walsvc.service.wire.frames import ITEMS_MAX

APPEND, READ, CONSUME, ADMIN = "append", "read", "consume", "admin"
RIGHTS = frozenset({APPEND, READ, CONSUME, ADMIN})

INT, TEXT, BOOL, MAP, ROWS = (int,), (str,), (bool,), (dict,), (list,)
SECONDS = (float, int)
NAME = (str, type(None))
NUMBER = (int, type(None))
POSITION = (int, str)
MISSING = object()
ROWS_MAX = 1 << 17  # of an argument: more than a transaction of 1 MiB may have
PARTS = "parts"  # the one key of a map that stands for rows, the value of which is arrays of them
Arguments = Mapping[str, tuple[tuple[type, ...], Any]]  # name -> types, and the default or MISSING


class Method(NamedTuple):
    """One row.

    Attributes:
        name: as CALL or OPEN says it.
        right: which a token needs for it.
        arguments: by name.
        repeatable: a client that lost its connection may send it again, since twice does the same as once. False: the caller
            gets OutcomeUnknown where the first one may have arrived.
        changes: it may change the log; a client that opened it with read_only=True is refused.
        large: its answer may be long, so it is made only once the client has taken the answers before it.
    """

    name: str
    right: str
    arguments: Arguments
    repeatable: bool = True
    changes: bool = True
    large: bool = False

    def checked(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments with defaults, rows in parts as one array. BadOption for one that is unknown, missing or of another type."""
        full = {}
        for name, value in args.items():
            if name not in self.arguments:
                hint = "known: " + (", ".join(self.arguments) or "none")
                raise BadOption(f"{self.name} has no argument {name!r}", hint=hint)
            kinds = self.arguments[name][0]
            full[name] = self._joined(name, value) if kinds is ROWS and in_parts(value) else value
            if type(full[name]) not in kinds:
                expected = " or ".join("nil" if each is type(None) else each.__name__ for each in kinds)
                raise BadOption(f"{name} of {self.name} cannot be {type(value).__name__}", expected=expected)
        for name, (_, default) in self.arguments.items():
            if name not in full:
                if default is MISSING:
                    raise BadOption(f"{self.name} needs an argument {name!r}")
                full[name] = default
        return full

    def _joined(self, name: str, value: dict[str, list[list[Any]]]) -> list[Any]:
        """Rows in parts as one array."""
        count = sum(map(len, value[PARTS]))
        if count > ROWS_MAX:
            raise BadOption(f"{name} of {self.name} has {count} rows", expected=f"at most {ROWS_MAX}")
        return list(chain(*value[PARTS]))

    def divided(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments as they are sent: rows of which there are more than an array may have elements are divided into parts."""
        return {
            name: {PARTS: [value[at : at + ITEMS_MAX] for at in range(0, len(value), ITEMS_MAX)]}
            if self.arguments[name][0] is ROWS and len(value) > ITEMS_MAX
            else value
            for name, value in args.items()
        }


def in_parts(value: Any) -> bool:
    """True if it is rows in parts, as `Method.divided` makes them."""
    return (
        type(value) is dict
        and value.keys() == {PARTS}
        and type(value[PARTS]) is list
        and all(type(each) is list for each in value[PARTS])
    )


def required(**types: tuple[type, ...]) -> Arguments:
    """Arguments without defaults."""
    return {name: (kinds, MISSING) for name, kinds in types.items()}


def table(*methods: Method) -> dict[str, Method]:
    """Methods by name."""
    return {method.name: method for method in methods}


ANY_TOPIC: Arguments = {"topic": (NAME, None)}
NAMED: Arguments = {**required(name=TEXT), **ANY_TOPIC}
STREAM = required(stream=INT)
DELIVERY: Arguments = {**STREAM, **required(lsn=INT, attempt=INT, token=TEXT)}

CHOSEN: Arguments = {
    "start": (NUMBER, None),
    **ANY_TOPIC,
    "types": ((list, type(None)), None),
    "where": ((dict, type(None)), None),
    "since": (NUMBER, None),
}
READ_BACK: Arguments = {
    **CHOSEN,
    "stop": (NUMBER, None),
    "until": (NUMBER, None),
    "cuts": (NUMBER, None),
    **required(max_bytes=INT),
}

METHODS = table(
    Method("flush", APPEND, {}),
    Method("wait_durable", APPEND, required(lsn=INT)),
    Method("wait_replicated", APPEND, {"lsn": (NUMBER, None)}),
    Method("truncate_before", ADMIN, {**required(lsn=INT), "force": (BOOL, False)}),
    Method("truncate_after", ADMIN, required(lsn=INT), repeatable=False),
    Method(
        "transact",
        APPEND,
        required(mode=INT, appends=ROWS, conditions=ROWS, deliveries=ROWS, positions=ROWS),
        repeatable=False,
    ),
    Method("seal", ADMIN, {}),
    Method("reclaim", ADMIN, {}, repeatable=False),
    Method("hold", ADMIN, required(name=TEXT, lsn=POSITION)),
    Method("release", ADMIN, required(name=TEXT)),
    Method("holds", READ, {}, changes=False, large=True),
    Method("retention", READ, {}, changes=False, large=True),
    Method("stats", READ, {}, changes=False, large=True),
    Method("topics", READ, {}, changes=False, large=True),
    Method("has_topic", READ, required(name=TEXT), changes=False),
    Method("consumers", READ, ANY_TOPIC, changes=False, large=True),
    Method("move_consumer", ADMIN, {**NAMED, **required(to=POSITION)}),
    Method("delete_consumer", ADMIN, NAMED, repeatable=False),
    Method("delete_topic", ADMIN, {**required(topic=TEXT), "number": (NUMBER, None)}),
    Method("redrive", ADMIN, required(name=TEXT, topic=TEXT)),
    Method("seek_time", READ, required(moment=INT), changes=False),
    Method("read_back", READ, READ_BACK, changes=False, large=True),
    Method("purge", ADMIN, {**required(labels=MAP), "before": (NUMBER, None), **ANY_TOPIC}, repeatable=False),
    Method("purge_lsns", ADMIN, {**required(lsns=ROWS), **ANY_TOPIC}),
    Method("compact", ADMIN, {}, repeatable=False),
    Method("topic.count", READ, required(topic=TEXT), changes=False),
    Method("topic.number", ADMIN, required(topic=TEXT), changes=False),
    Method("topic.first_lsn", READ, required(topic=TEXT), changes=False),
    Method("topic.last_lsn", READ, required(topic=TEXT), changes=False),
    Method(
        "topic.retain",
        ADMIN,
        {
            **required(topic=TEXT),
            "records": (NUMBER, None),
            "bytes": (NUMBER, None),
            "seconds": ((float, int, type(None)), None),
        },
    ),
    Method("topic.limits", READ, required(topic=TEXT), changes=False),
    Method("topic.truncate_before", ADMIN, {**required(topic=TEXT, lsn=INT), "force": (BOOL, False)}),
    Method(
        "topic.purge",
        ADMIN,
        {**required(topic=TEXT), "before": (NUMBER, None), "keep": (NUMBER, None)},
        repeatable=False,
    ),
    # of a consumer that is open on this connection, by the id of its stream
    Method("consumer.ack", CONSUME, {**STREAM, **required(lsn=INT), "only": (BOOL, False)}),
    Method("consumer.seek", CONSUME, {**STREAM, **required(to=POSITION)}),
    Method("consumer.lag", CONSUME, STREAM, changes=False),
    # of a shared consumer that is open on this connection
    Method(
        "shared.next",
        CONSUME,
        {**STREAM, **required(max_bytes=INT, max_records=INT), "each": (BOOL, False)},
        changes=False,
    ),
    Method(
        "shared.ack",
        CONSUME,
        {**STREAM, **required(deliveries=ROWS), "max_bytes": (INT, 1), "max_records": (INT, 0)},
    ),
    Method("shared.nak", CONSUME, {**DELIVERY, **required(delay=SECONDS)}),
    Method("shared.extend", CONSUME, {**DELIVERY, **required(seconds=SECONDS)}),
    Method("shared.unseen", CONSUME, {**STREAM, **required(deliveries=ROWS)}),
    Method("shared.status", CONSUME, STREAM, changes=False),
    Method("shared.seek", CONSUME, {**STREAM, **required(to=POSITION)}),
)

STREAMS = table(
    Method("read", READ, {**CHOSEN, "stop": (NUMBER, None), "until": (NUMBER, None)}, changes=False),
    Method("follow", READ, CHOSEN, changes=False),
    Method("consumer", CONSUME, {**NAMED, "persist_every": (INT, 1), "start": (POSITION, "first")}),
    Method("shared", CONSUME, {**NAMED, "start": (POSITION, "first"), "options": (MAP, {})}),
)
